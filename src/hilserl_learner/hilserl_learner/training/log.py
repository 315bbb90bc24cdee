# SPDX-License-Identifier: Apache-2.0
"""What a run tells about itself: means, rates, alarms, tables and checkpoints.

Every run, in the simulation, from buffers alone or live, is kept track of by the same `RunTracker`. Its log is one CSV
file per kind of line, and the same numbers for TensorBoard: no account, no network.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
import csv
from dataclasses import dataclass, replace
import io
import logging
import math
from pathlib import Path
import time
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from drqv2_policy_node.policy import Policy
from hilserl_learner.data.collect import EpisodeResult
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.checkpoint import Checkpoints, Metadata, to_json
from hilserl_learner.training.evaluate import BestCheckpoint, ENOUGH_EPISODES
from hilserl_learner.training.trainer import Trainer
from so101_contract.config import BY_HAND_SHARE, LONG_INTERVENTION_STEPS, Q_MARGIN
from so101_interfaces_py.files import read_text

TRAIN, EPISODES, EVALUATION = 'train', 'episodes', 'evaluation'
"""Kinds of lines: means since the last line, single episodes, evaluations."""

WINDOW = 20
"""Episodes over which rates are taken, as in the HIL-SERL paper."""

_UTD_WINDOW_S = 60.0
_ALARMS = 100
MOST_TABLE = 256 * 2**20
"""Of a table [B]; a day of training has less than a hundredth."""
_log = logging.getLogger(__name__)


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
    """Return the lines of a log's table; empty where there is none.

    Raises:
        LearnerError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        return list(csv.DictReader(io.StringIO(read_text(path, MOST_TABLE), newline='')))
    except (OSError, csv.Error) as error:
        raise LearnerError(
            f'expected the table of a run in {path}, got "{error}"; restore the file'
        ) from error


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

    def correct(self, episode: int, *, success: bool) -> None:
        """Give one of the last episodes the outcome that a late label has given it."""
        for place, result in enumerate(self._last):
            if result.episode == episode:
                self._last[place] = replace(result, success=success)

    @property
    def full(self) -> bool:
        """Whether the rates are over a whole window."""
        return len(self._last) == self._last.maxlen

    def rates(self) -> dict[str, float]:
        """Return the rates; NaN before the first episode.

        `success`: episodes in which the task was done, with or without help. `unaided`: without any help.
        `intervention`: steps in which the human acted, as a share of all. `run_length`: mean length of an
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
    margin: float = Q_MARGIN
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
    """Looks at how the human helps; long rare interventions that end in success inflate values (HIL-SERL, appendix).

    Attributes:
        longest_steps: mean length of an intervention above which it warns.
        share: intervened share of all steps above which it warns once the policy has had its time.
        after_episodes: how long it has.
    """

    longest_steps: float = LONG_INTERVENTION_STEPS
    share: float = BY_HAND_SHARE
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
                f'the human acts in {rates["intervention"]:.0%} of the steps after {episodes} episodes, expected '
                f'at most {self.share:.0%}; let the policy try for 20 to 30 steps before correcting it'
            )
        return ''


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan


class RunTracker:
    """One place for a run's log, status and checkpoints, be it in the simulation, from buffers alone, or live.

    Attributes:
        log: the tables; None for a process that writes none.
        checkpoints: what the run goes on from.
        episodes: rates over the last episodes.
        best: the best score so far.
        alarms: sentences that were raised, each once.
        alarm: the one that is on since the last line; empty for none.
        trouble: why something could not be written; empty while all is well.
    """

    def __init__(
        self,
        trainer: Trainer,
        log: RunLog | None,
        checkpoints: Checkpoints,
        *,
        config: Mapping[str, Any],
        q_bound: float,
        enough: int = ENOUGH_EPISODES,
        tolerant: bool = False,
        by_updates: bool = False,
    ) -> None:
        """Prepare; nothing is written yet.

        Args:
            trainer: whose run it is.
            log: takes the lines.
            checkpoints: take the states.
            config: every setting of the run, for the metadata of its checkpoints.
            q_bound: see `ValueAlarm`.
            enough: see `BestCheckpoint`.
            tolerant: a full disk is told as `trouble` and must not end the run.
            by_updates: lines count updates, for a run without environment steps.
        """
        self.log, self.checkpoints = log, checkpoints
        self.episodes, self.best = EpisodeMeter(), BestCheckpoint(enough)
        self.alarms: dict[str, None] = {}
        self.alarm = self.trouble = ''
        self._trainer, self._config, self._q_bound = trainer, dict(config), q_bound
        self._tolerant, self._by_updates = tolerant, by_updates
        self._meter, self._values, self._advice = Meter(), ValueAlarm(q_bound), InterventionAdvice()
        self._means: dict[str, float] = {}
        self._history: deque[tuple[float, int, int]] = deque()

    @property
    def step(self) -> int:
        """Where the run is: the first column of its lines."""
        return self._trainer.agent.updates if self._by_updates else self._trainer.steps

    # ---- log ---------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Let the trainer make one update, and count it."""
        self._meter.add(self._trainer.step())

    def note_episode(self, result: EpisodeResult, **more: float | str) -> None:
        """Append the line of an episode that `episodes` has counted."""
        line = {
            'episode': result.episode,
            **more,
            'success': int(result.success),
            'episode_steps': result.steps,
            'return': result.reward,
            'intervened': result.intervened,
            'takeovers': result.takeovers,
        }
        self.write(EPISODES, line)

    def note_progress(self, values: Mapping[str, float | str]) -> None:
        """Append a line with the means since the last one, and look for reasons for an alarm."""
        means = self._meter.take()
        self._means |= means
        self.write(TRAIN, {**values, **means})
        self.alarm = ''
        self.warn(self._values.update(means['q_mean']) if 'q_mean' in means else '')
        self.warn(self._advice.update(self.episodes.rates(), self.episodes.episodes))

    def write(self, kind: str, values: Mapping[str, float | str]) -> None:
        """Append a line of any kind."""
        if self.log is not None:
            self._try(self.log.write, kind, self.step, values)

    def warn(self, sentence: str) -> None:
        """Raise an alarm, where there is a sentence."""
        if not sentence:
            return
        self.alarm = sentence
        if sentence in self.alarms:
            return
        if len(self.alarms) == _ALARMS:  # they quote numbers, so there can be any number of them
            del self.alarms[next(iter(self.alarms))]
        self.alarms[sentence] = None
        _log.warning('%s', sentence)
        if self.log is not None:
            self._try(self.log.text, 'alarm', f'step {self.step}: {sentence}')

    def _try(self, write: Callable[..., None], *what: Any) -> None:
        assert self.log is not None
        try:
            write(*what)
        except OSError as error:
            if not self._tolerant:
                raise
            self.trouble = (
                f'expected to write the log in {self.log.directory}, got "{error.strerror}"; free space there'
            )

    # ---- status ------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return how it goes, as plain numbers; the names are those of `so101_interfaces/msg/LearnerStatus`."""
        trainer, rates = self._trainer, self.episodes.rates()
        now, updates, steps = time.monotonic(), trainer.agent.updates, trainer.steps
        self._history.append((now, updates, steps))
        while now - self._history[0][0] > _UTD_WINDOW_S:
            self._history.popleft()
        then, updates_then, steps_then = self._history[0]
        return {
            'updates': updates,
            'env_steps': steps,
            'episodes': self.episodes.episodes,
            'updates_per_second': (updates - updates_then) / (now - then) if now > then else math.nan,
            'utd': (updates - updates_then) / (steps - steps_then) if steps > steps_then else math.nan,
            'success_rate': rates['success'],
            'intervention_rate': rates['intervention'],
            'intervention_length': rates['run_length'] or math.nan,  # without an intervention there is none
            'q_mean': self._means.get('q_mean', math.nan),
            'q_bound': self._q_bound,
            'critic_loss': self._means.get('critic_loss', math.nan),
            'actor_loss': self._means.get('actor_loss', math.nan),
            'online_size': len(trainer.online),
            'demo_size': len(trainer.demo),
            'buffer_bytes': trainer.online.nbytes + trainer.demo.nbytes,
        }

    # ---- checkpoints -------------------------------------------------------------------------------------

    def save(self, policy: Policy | None = None, *, best: bool = False, **metadata: Any) -> Path:
        """Write a checkpoint, or the best one; return where it is.

        Args:
            policy: what acts, to be kept in it.
            best: write it in the place of the best one.
            metadata: fields of `Metadata` that only this kind of run knows.

        Raises:
            CheckpointError: the disk is full or gone.
        """
        trainer = self._trainer
        known: dict[str, Any] = {
            'updates': trainer.agent.updates,
            'env_steps': trainer.steps,
            'episodes': self.episodes.episodes,
            'std': trainer.std,
            'observation_hash': trainer.online.observation.hash,
            'config': to_json(self._config),
        }
        said = Metadata(**(known | metadata))
        return self.checkpoints.save(trainer.state_dict(), said, policy, trainer.agent.critics, best=best)

    def close(self) -> None:
        """Write out what is buffered."""
        if self.log is not None:
            self.log.close()
