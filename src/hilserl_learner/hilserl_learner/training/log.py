# SPDX-License-Identifier: Apache-2.0
"""The log of a run: one CSV file per kind of line, and the same numbers for TensorBoard. No account, no network."""

from collections import deque
from collections.abc import Iterable, Mapping
import csv
from dataclasses import dataclass
import math
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from hilserl_learner.data.collect import EpisodeResult

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


WINDOW = 20
"""Episodes over which rates are taken, as in the HIL-SERL paper."""


class Meter:
    """Means of what updates report since the last `take`; an entry that only some updates report counts there only."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Take in one update; nothing is read, so a GPU need not be waited for."""
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Return the means and start over."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


class EpisodeMeter:
    """Rates over the last episodes."""

    def __init__(self, window: int = WINDOW) -> None:
        self._last: deque[EpisodeResult] = deque(maxlen=window)
        self.episodes = 0

    def add(self, result: EpisodeResult) -> None:
        """Take in one episode."""
        self._last.append(result)
        self.episodes += 1

    @property
    def full(self) -> bool:
        """Whether the rates are over a whole window."""
        return len(self._last) == self._last.maxlen

    def rates(self) -> dict[str, float]:
        """Return the rates; NaN before the first episode.

        `success`: episodes in which the task was done, with or without help. `unaided`: without any help.
        `intervention`: steps in which a person acted, as a share of all. `run_length`: mean length of an
        intervention [steps]. `episode_steps`: mean length of an episode. `return`: mean sum of rewards.
        """
        last = list(self._last)
        takeovers = sum(result.takeovers for result in last)
        intervened = sum(result.intervened for result in last)
        return {
            'success': _mean(result.success for result in last),
            'unaided': _mean(result.unaided for result in last),
            'intervention': intervened / max(sum(result.steps for result in last), 1) if last else math.nan,
            'run_length': intervened / takeovers if takeovers else 0.0,
            'episode_steps': _mean(result.steps for result in last),
            'return': _mean(result.reward for result in last),
        }


@dataclass
class ValueAlarm:
    """Says when the critics promise more than the task can give (Q above its bound: they have diverged).

    Attributes:
        bound: largest return there is; with a reward of 1 at success it is 1.
        margin: how far above it the mean may lie, as a share of the bound.
        patience: log lines in a row before the alarm; a single one is noise.
    """

    bound: float = 1.0
    margin: float = 0.05
    patience: int = 3
    over: int = 0

    def update(self, q_mean: float) -> str:
        """Return a sentence while the alarm is on, else an empty string."""
        over = not q_mean <= self.bound * (1.0 + self.margin)  # NaN counts as over
        self.over = self.over + 1 if over else 0
        if self.over < self.patience:
            return ''
        return (
            f'mean Q {q_mean:.3g} is above {self.bound:.3g}, the largest return there is: the critics diverge; '
            f'roll back to the best policy, and lower utd or raise the number of critics'
        )


@dataclass(frozen=True)
class InterventionAdvice:
    """Looks at how a person helps; long rare interventions that end in success inflate values (HIL-SERL, appendix).

    Attributes:
        longest_steps: mean length of an intervention above which it warns.
        share: intervened share of all steps above which it warns once the policy has had its time.
        after_episodes: how long it has.
    """

    longest_steps: float = 40.0
    share: float = 0.5
    after_episodes: int = 60

    def update(self, rates: Mapping[str, float], episodes: int) -> str:
        """Return a sentence where there is something to say, else an empty string."""
        if rates['run_length'] > self.longest_steps:
            return (
                f'interventions last {rates["run_length"]:.0f} steps on average, expected at most '
                f'{self.longest_steps:.0f}; correct shortly and hand back, or values are overestimated'
            )
        if episodes >= self.after_episodes and rates['intervention'] > self.share:
            return (
                f'a person acts in {rates["intervention"]:.0%} of the steps after {episodes} episodes, expected '
                f'at most {self.share:.0%}; let the policy try for 20 to 30 steps before correcting it'
            )
        return ''


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan
