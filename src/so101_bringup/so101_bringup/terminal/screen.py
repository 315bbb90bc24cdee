# SPDX-License-Identifier: Apache-2.0
"""The terminal of `./so101 up`: the status below, what is worth a line above it, everything else in a file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
import os
from pathlib import Path
import re
import sys
import time
from types import TracebackType
from typing import cast, Self, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from so101_bringup.terminal.board import Board

KEPT_LOGS = 20
PER_SECOND = 4
_EPOCH = re.compile(r'\[\d{9,}\.\d+\] ')


class Unfailing:
    """Standard output that may go: a terminal that is closed must not keep an arm from being parked."""

    encoding = 'utf-8'

    def write(self, text: str) -> int:
        """Write, or forget."""
        try:
            return sys.stdout.write(text)
        except OSError:
            self._forget()
            return len(text)

    def flush(self) -> None:
        """Flush, or forget."""
        try:
            sys.stdout.flush()
        except OSError:
            self._forget()

    def isatty(self) -> bool:
        """Whether somebody looks."""
        return sys.stdout.isatty()

    def fileno(self) -> int:
        """For the size of the window."""
        return sys.stdout.fileno()

    @staticmethod
    def _forget() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Screen:
    """Shows a stack that runs; a context manager that ends with the last status left standing.

    Args:
        title: what runs.
        folder: where logs are kept.
        console: where to draw; the terminal by default.
    """

    def __init__(self, title: str, folder: Path, console: Console | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob('up_*.log'))[: 1 - KEPT_LOGS]:
            old.unlink(missing_ok=True)
        self.log = folder / f'up_{datetime.now():%Y%m%d_%H%M%S}.log'
        self._file: TextIO = self.log.open('a', encoding='utf-8')
        self._title = title
        self._began = time.monotonic()
        self._console = console or Console(file=cast(TextIO, Unfailing()))
        self._live = Live(
            self,
            console=self._console,
            refresh_per_second=PER_SECOND,
            redirect_stdout=False,  # what is written to it would come back to it
            redirect_stderr=False,
        )
        self.board = Board(str(self.log))

    def write(self, label: str, line: str) -> None:
        """Take a line of a process."""
        plain = _EPOCH.sub('', line, count=1)
        self._file.write(f'{datetime.now():%H:%M:%S.%f} {label} | {plain}\n')
        self._file.flush()
        self.board.hear(label, plain)

    def tell(self, label: str, sentence: str) -> None:
        """Take a sentence about a process: it stays above the status, after the last words of the process."""
        last = self.board.last_words(label)
        self.write(label, sentence)
        for line in last:
            self._console.print(Text(f'{label} | {line}', style='dim'), soft_wrap=True)
        self._console.print(Text(f'{label} {sentence}'), soft_wrap=True)

    def show(self, lines: Sequence[str]) -> None:
        """Show a picture of characters, dark on light, above the status."""
        for line in lines:
            self._console.print(Text(line, style='black on bright_white'), soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._file.close()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the status."""
        ran = int(time.monotonic() - self._began)
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(style='bold', no_wrap=True, min_width=8)
        table.add_column(overflow='ellipsis', no_wrap=True, ratio=1)
        clock = f'{ran // 3600}:{ran // 60 % 60:02}:{ran % 60:02}'
        table.add_row(Text('so101 up', style='bold'), Text(f'{self._title}, for {clock}'))
        for row in self.board.rows():
            table.add_row(Text(row.name), Text(row.words, style='yellow' if row.alarming else ''))
        yield table
