# SPDX-License-Identifier: Apache-2.0
"""What is tried where, in which order, and what came of it: the plan of a trial, and its record on disk."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from hilserl_learner.errors import LearnerError
from hilserl_learner.trial.verdict import better, Tally, verdict
from so101_contract.interval import wilson
from so101_interfaces_py.files import read_file

PLAN, RECORD = 'plan.json', 'trials.jsonl'
MOST_TRIALS, MOST_BYTES = 10_000, 1 << 22
EDGE_M = 0.5
"""Longest edge of the area: the arm reaches no further."""


@dataclass(frozen=True)
class Place:
    """Where the object lies: (x, y) in the base frame [m], and how far it is turned [rad]."""

    x: float
    y: float
    yaw: float


@dataclass(frozen=True)
class Plan:
    """A trial of one policy or of two.

    Attributes:
        policies: folders, of A and, if there are two, of B.
        area: lowest x, highest x, lowest y, highest y of the places [m].
        places: where the object is put, one after the other.
        order: for each place who is tried there, in that order: `A`, `AB` or `BA`.
        seed: of places and order.
    """

    policies: tuple[str, ...]
    area: tuple[float, float, float, float]
    places: tuple[Place, ...]
    order: tuple[str, ...]
    seed: int

    @property
    def trials(self) -> list[tuple[int, str]]:
        """Place and policy of every trial, in order."""
        return [(place, who) for place, both in enumerate(self.order) for who in both]

    def write(self, folder: Path) -> None:
        """Write the plan into a folder of its own.

        Raises:
            LearnerError: there is one already.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / PLAN).exists():
            raise LearnerError(
                f'expected a folder without a trial, got {folder}; go on with it by `--resume`, or name another one'
            )
        (folder / PLAN).write_text(json.dumps(asdict(self), indent=1) + '\n')

    @classmethod
    def read(cls, folder: Path) -> 'Plan':
        """Read the plan of a folder.

        Raises:
            LearnerError: there is none, or it is not one.
        """
        path = folder / PLAN
        try:
            found = json.loads(read_file(path, MOST_BYTES))
            plan = cls(
                policies=tuple(map(str, found['policies'])),
                area=_area(found['area']),
                places=tuple(Place(**{k: float(v) for k, v in place.items()}) for place in found['places']),
                order=tuple(map(str, found['order'])),
                seed=int(found['seed']),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LearnerError(f'expected the plan of a trial, got {path}: {error}; plan it again') from error
        known = {'A'} if len(plan.policies) == 1 else {'AB', 'BA'}
        if len(plan.order) != len(plan.places) or not known.issuperset(plan.order):
            raise LearnerError(f'expected a policy for every place in {path}, got others; plan it again')
        return plan


def make_plan(
    policies: Iterable[str], trials: int, area: tuple[float, float, float, float], seed: int
) -> Plan:
    """Plan a trial: every policy at every place, in an order that is drawn.

    Places are spread evenly and yet at random: cells of equal size, one place in each (stratified sampling), visited
    in a drawn order.

    Args:
        policies: folders of one or two.
        trials: of each policy.
        area: lowest x, highest x, lowest y, highest y [m].
        seed: the same gives the same plan.

    Raises:
        LearnerError: too many trials or policies, or an area that no arm reaches.
    """
    names = tuple(policies)
    if len(names) not in (1, 2) or not 1 <= trials <= MOST_TRIALS:
        raise LearnerError(
            f'expected one or two policies and 1 to {MOST_TRIALS} trials of each, got {len(names)} and {trials}'
        )
    rng = np.random.default_rng(seed)
    x0, x1, y0, y1 = _area(area)
    columns = math.ceil(math.sqrt(trials))
    rows = math.ceil(trials / columns)
    cells = rng.permutation(columns * rows)[:trials]
    places = []
    for cell in cells.tolist():
        u, v = rng.random(2)
        x = x0 + (x1 - x0) * (cell // columns + u) / rows
        y = y0 + (y1 - y0) * (cell % columns + v) / columns
        yaw = rng.uniform(-math.pi / 4.0, math.pi / 4.0)
        places.append(Place(round(x, 4), round(y, 4), round(yaw, 3)))
    order = ['A'] * trials if len(names) == 1 else [('AB', 'BA')[flip] for flip in rng.integers(0, 2, trials)]
    return Plan(names, (x0, x1, y0, y1), tuple(places), tuple(order), seed)


def _area(values: Iterable[Any]) -> tuple[float, float, float, float]:
    x0, x1, y0, y1 = (float(value) for value in values)
    if not (0.0 < x1 - x0 <= EDGE_M and 0.0 < y1 - y0 <= EDGE_M and max(map(abs, (x0, x1, y0, y1))) <= 1.0):
        raise LearnerError(
            f'expected an area of at most {EDGE_M} m by {EDGE_M} m in reach, lowest before highest, got x {x0} to {x1} '
            f'and y {y0} to {y1}'
        )
    return x0, x1, y0, y1


@dataclass(frozen=True)
class Trial:
    """What came of one trial.

    Attributes:
        number: from 0, in the order of the plan.
        episode: the session's number of it.
        success: whether it succeeded, alone.
        reason: what ended it, for people.
    """

    number: int
    episode: int
    success: bool
    reason: str


class Record:
    """The trials so far, each on disk as soon as it is over; a later line about the same trial wins."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._path = plan, folder / RECORD
        text = read_file(self._path, MOST_BYTES).decode(errors='replace') if self._path.exists() else ''
        self.trials = {
            trial.number: trial for trial in map(self._read, text.splitlines()) if trial is not None
        }
        self._unfinished = bool(text) and not text.endswith('\n')

    def _read(self, line: str) -> Trial | None:
        """Return what a line says; None for one that a power cut left unfinished, or that is of no trial."""
        try:
            trial = Trial(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            return None
        known = trial.number in range(len(self._plan.trials)) and isinstance(trial.success, bool)
        return trial if known else None

    def next(self) -> int | None:
        """Return the number of the first trial that has not been made; None where all were."""
        return next((n for n in range(len(self._plan.trials)) if n not in self.trials), None)

    @property
    def is_over(self) -> bool:
        """Whether all was tried, or it is known which is better."""
        return self.next() is None or bool(better(self.tally))

    def add(self, trial: Trial) -> None:
        """Write down a trial, or what is known better of one by now."""
        self.trials[trial.number] = trial
        with self._path.open('a') as file:
            file.write('\n' * self._unfinished + json.dumps(asdict(trial)) + '\n')
        self._unfinished = False

    def relabel(self, number: int, success: bool, reason: str) -> bool:
        """Correct a trial; return whether it said otherwise before."""
        before = self.trials[number]
        if before.success != success:
            self.add(replace(before, success=success, reason=reason))
        return before.success != success

    def of(self, who: str) -> list[bool]:
        """Return what came of one policy's trials, in order."""
        order = self._plan.trials
        return [self.trials[n].success for n in sorted(self.trials) if order[n][1] == who]

    @property
    def tally(self) -> Tally:
        """The places at which both were tried."""
        at: dict[int, dict[str, bool]] = {}
        for number, trial in self.trials.items():
            place, who = self._plan.trials[number]
            at.setdefault(place, {})[who] = trial.success
        tally = Tally()
        for both in at.values():
            if len(both) > 1:
                tally = tally.add(both['A'], both['B'])
        return tally

    def report(self) -> list[str]:
        """Return the result in sentences: each policy's success with its interval, and which is better."""
        lines = []
        for who, policy in zip('AB', self._plan.policies, strict=False):
            ends = self.of(who)
            low, high = wilson(sum(ends), len(ends))
            lines.append(f'{who} ({policy}): {sum(ends)} of {len(ends)} ({low:.0%} to {high:.0%})')
        return [*lines, verdict(self.tally)] if len(self._plan.policies) > 1 else lines
