# SPDX-License-Identifier: Apache-2.0
"""The log of a run: one CSV file per kind of line, and the same numbers for TensorBoard. No account, no network."""

from collections.abc import Mapping
import csv
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard.writer import SummaryWriter

TRAIN, EPISODES, EVALUATION = 'train', 'episodes', 'evaluation'
"""Kinds of lines: means since the last line, single episodes, evaluations."""


class RunLog:
    """Appends to `<directory>/<kind>.csv` and to TensorBoard event files next to them.

    A run that goes on appends to its files. A column that is new in it widens the file: the lines before get an empty
    entry, so that a file always reads as one table.
    """

    def __init__(self, directory: Path, *, tensorboard: bool = True) -> None:
        """Open the log of a run.

        Args:
            directory: of the run; made where it is missing.
            tensorboard: whether to write event files too.
        """
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._columns: dict[str, list[str]] = {}
        self._board = SummaryWriter(str(directory / 'tensorboard')) if tensorboard else None

    def write(self, kind: str, step: int, values: Mapping[str, float | str]) -> None:
        """Append one line.

        Args:
            kind: which table.
            step: environment steps so far, the first column.
            values: the other columns; numbers also go to TensorBoard.
        """
        row = {'steps': step, **values}
        path = self.directory / f'{kind}.csv'
        columns = self._columns.setdefault(kind, _header(path))
        fresh = [name for name in row if name not in columns]
        if fresh:
            columns += fresh
            _rewrite(path, columns)
        with path.open('a', newline='') as file:
            csv.writer(file).writerow([_text(row.get(name, '')) for name in columns])
        if self._board is not None:
            for name, value in values.items():
                if not isinstance(value, str):
                    self._board.add_scalar(f'{kind}/{name}', value, step)

    def text(self, name: str, text: str) -> None:
        """Keep a text with the run: its configuration, an alarm."""
        if self._board is not None:
            self._board.add_text(name, text)

    def close(self) -> None:
        """Write out what is buffered."""
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the lines of a log's table; empty where there is none."""
    if not path.exists():
        return []
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def _header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(newline='') as file:
        return next(csv.reader(file), [])


def _rewrite(path: Path, columns: list[str]) -> None:
    """Bring the file to these columns; a half-written one never takes the place of a whole one."""
    rows = read_table(path)
    aside = path.with_suffix('.csv.partial')
    with aside.open('w', newline='') as file:
        writer = csv.DictWriter(file, columns, restval='')
        writer.writeheader()
        writer.writerows(rows)
    aside.replace(path)


def _text(value: float | str) -> str:
    return f'{value:.6g}' if isinstance(value, float) else str(value)
