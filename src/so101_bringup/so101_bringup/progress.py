# SPDX-License-Identifier: Apache-2.0
"""Runs the long commands of the set-up: progress for the person, the whole output in a log."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
import shlex
import subprocess
import sys

TAIL_LINES = 30


class CommandError(Exception):
    """A command of the set-up failed; the message holds the end of its output."""


def say(text: str, end: str = '\n') -> None:
    """Tell the person at the terminal; stdout stays free for what the command prints."""
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
        raise CommandError(
            f'this command failed with exit code {process.returncode}: {shlex.join(command)}\n'
            f'{"".join(tail)}The whole output is in {log}.'
        )
