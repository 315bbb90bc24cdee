# SPDX-License-Identifier: Apache-2.0
"""Two hosts with one cable between them: network namespaces of Linux, for what has to cross a network."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
import os
import shutil
import subprocess
import sys
from typing import Any

CABLE = 'veth0'
MULTICAST = '224.0.0.0/4'


class HostsError(RuntimeError):
    """This machine has no network namespaces for us."""


@dataclass(frozen=True)
class Host:
    """One of the two.

    Attributes:
        name: of its namespace.
        address: on the cable.
    """

    name: str
    address: str

    def start(self, *words: object, env: Mapping[str, str], **options: Any) -> 'subprocess.Popen[Any]':
        """Start a program of this Python there, with our modules to be found."""
        found = {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        command = ['ip', 'netns', 'exec', self.name, sys.executable, *map(str, words)]
        return subprocess.Popen(command, env={**env, **found}, **options)

    def ip(self, *words: str) -> None:
        """Change its network by `ip`."""
        _ip('-n', self.name, *words)

    def slow_down(self, *netem: str) -> None:
        """Give what leaves it a delay or a rate, in the words of tc-netem(8); no effect where the kernel has none."""
        command = ['tc', '-n', self.name, 'qdisc', 'add', 'dev', CABLE, 'root', 'netem', *netem]
        subprocess.run(command, capture_output=True, check=False)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Make two hosts; they, and the cable, are gone at the end.

    Raises:
        HostsError: that takes root, iproute2, and a kernel or container that permits it.
    """
    if os.geteuid() != 0 or shutil.which('ip') is None:
        raise HostsError('two hosts are emulated by network namespaces, which needs root and iproute2')
    # Another run of the tests on this machine has hosts of its own.
    near, far = (Host(f'so101-{os.getpid()}-{n}', f'10.77.0.{n}') for n in (1, 2))
    try:
        if any(_ip('netns', 'add', host.name).returncode for host in (near, far)):
            raise HostsError('this kernel, or this container, makes no network namespaces')
        _ip(
            'link', 'add', CABLE, 'netns', near.name, 'type', 'veth', 'peer', 'name', CABLE, 'netns', far.name
        )
        for host in (near, far):
            host.ip('addr', 'add', f'{host.address}/24', 'dev', CABLE)
            for device in ('lo', CABLE):
                host.ip('link', 'set', device, 'up')
        yield near, far
    finally:
        for host in (near, far):
            _ip('netns', 'del', host.name)


def _ip(*words: str) -> 'subprocess.CompletedProcess[str]':
    return subprocess.run(['ip', *words], capture_output=True, text=True, check=False)
