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
    """Run a command with its output in a log; on a terminal, show how many of `total` lines match `count`.

    Raises:
        CommandError: the command ended with another exit code than 0.
    """
    tail: list[str] = []
    done = 0
    with log.open('a') as output:
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
                    done += 1
                    if sys.stderr.isatty():
                        say(f'\r{title} {done} of {total}', end='')
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
