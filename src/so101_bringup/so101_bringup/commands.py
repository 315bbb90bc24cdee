# SPDX-License-Identifier: Apache-2.0
"""Runs the commands that make the workspace, and says in a sentence why one failed, where that is known.

What pip and compilers print of a lost network or a full disk is a page; what to do about it is a line.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
import shlex
import subprocess
import sys
import threading
import time

_REASONS = (
    (
        r'ProxyError|Cannot connect to proxy|Tunnel connection failed|407 Proxy',
        'the proxy does not let pip through; correct HTTPS_PROXY (with name and password where it asks for them), '
        'or unset it.',
    ),
    (
        r'CERTIFICATE_VERIFY_FAILED|SSLError',
        'the certificate of the package index is not trusted here; name that of your network in PIP_CERT, and set the '
        'clock of this machine.',
    ),
    (
        r'NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|Read timed out|[Nn]ame resolution'
        r'|Network is unreachable|Connection refused|Connection reset|RemoteDisconnected|IncompleteRead',
        'the package index cannot be reached; connect this machine, or name a mirror in PIP_INDEX_URL. What is here '
        'already is kept.',
    ),
    (
        r'No space left on device|Disk quota exceeded',
        'the disk is full; the workspace needs about 4 GB, and pip as much again in TMPDIR for a moment.',
    ),
    (
        r'No matching distribution found for (?P<what>\S+)',
        'the package index has no {what} for Python {python} on this machine; name a Python from 3.11 to 3.13 in '
        'SO101_PYTHON, or an index that has it in PIP_INDEX_URL.',
    ),
    (
        r'THESE PACKAGES DO NOT MATCH THE HASHES',
        'a package is not the one that was locked; try again, and if it stays so, do not trust that index.',
    ),
    (
        r'cc1plus.*[Kk]illed|[Kk]illed signal terminated program',
        'the compiler ran out of memory; end other programs, or build with CMAKE_BUILD_PARALLEL_LEVEL=1.',
    ),
    (
        r'CMAKE_CXX_COMPILER|g\+\+: (?:command )?not found',
        'there is no C++ compiler that works; install one: sudo apt install g++.',
    ),
    (
        r'Permission denied',
        'something in this checkout belongs to another user, perhaps since it was once made as root; take it back: '
        'sudo chown -R $USER on the checkout.',
    ),
)
"""What the end of an output says, and the sentence for it; the first that fits, since one follows from another."""


def reason(output: str) -> str:
    """Return why a command failed and what to do, in a sentence; empty where that is not known."""
    for pattern, sentence in _REASONS:
        found = re.search(pattern, output)
        if found:
            version = f'{sys.version_info.major}.{sys.version_info.minor}'
            return sentence.format(**found.groupdict(), python=version)
    return ''


TAIL_LINES = 30


class CommandError(Exception):
    """A command of the set-up failed; the message says why in a sentence, or holds the end of its output."""


def say(text: str, end: str = '\n') -> None:
    """Say it at the terminal; stdout stays free for what the command prints."""
    sys.stderr.write(text + end)
    sys.stderr.flush()


INSTALLS = r'^Installing collected packages'
"""What pip says before the longest part, in which it says nothing."""
TICK_S = 1.0


class _Shown:
    """The line of a step that goes on: rewritten once a second on a terminal, since a silent one looks dead."""

    def __init__(self, title: str, total: int) -> None:
        self.done, self.phase = 0, ''
        self._title, self._total = title, total
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> '_Shown':
        if sys.stderr.isatty():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def text(self) -> str:
        """Return what it says now."""
        counted = (
            f'{min(self.done, self._total)} of {self._total}, ' if self._total and not self.phase else ''
        )
        return f'{self._title} {self.phase or counted}{time.monotonic() - self._began:.0f} s'

    def _tick(self) -> None:
        while not self._over.wait(TICK_S):
            say(f'\r{self.text()}\033[K', end='')


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    cwd: Path,
    title: str,
    environment: Mapping[str, str] | None = None,
    count: str = '',
    total: int = 0,
) -> None:
    """Run a command with its output in a log; on a terminal, show how many of `total` match `count`, and the time.

    Raises:
        CommandError: the command ended with another exit code than 0.
    """
    tail: list[str] = []
    shown = _Shown(title, total)
    with log.open('a') as output, shown:
        output.write(f'\n$ {shlex.join(command)}\n')
        process = subprocess.Popen(
            command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output.write(line)
                tail = [*tail[1 - TAIL_LINES :], line]
                if count and re.match(count, line):
                    shown.done += 1
                elif re.match(INSTALLS, line):
                    shown.phase = 'installing, '
            process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        why = reason(''.join(tail))
        said = f'{why}\n' if why else ''.join(tail)
        raise CommandError(
            f'{said}This command failed with exit code {process.returncode}: {shlex.join(command)}\n'
            f'The whole output is in {log}.'
        )
