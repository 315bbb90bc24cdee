# SPDX-License-Identifier: Apache-2.0
"""Keeps the best state of a run, and notices when the policy has collapsed."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from so101_sim.evaluate import wilson

ENOUGH_EPISODES = 20
"""Fewer episodes say too little to call a policy the best one."""


class Verdict(Enum):
    """What an evaluation says about the present policy."""

    TOO_FEW = 'too few episodes'
    BEST = 'best so far'
    FINE = 'no better than the best, and not certainly worse'
    COLLAPSED = 'certainly worse than the best'


@dataclass(frozen=True)
class Mark:
    """An evaluation to compare with.

    Attributes:
        successes: episodes that succeeded.
        episodes: how many there were.
        mean_steps: mean length of those that succeeded; decides between equal rates.
        step: environment steps at the time.
    """

    successes: int
    episodes: int
    mean_steps: float
    step: int

    @property
    def rate(self) -> float:
        """Share of successes, 0..1."""
        return self.successes / max(self.episodes, 1)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate."""
        return wilson(self.successes, self.episodes)

    def better_than(self, other: 'Mark | None') -> bool:
        """Whether it is the one to keep: more successes, or as many in fewer steps."""
        return other is None or (self.rate, -self.mean_steps) > (other.rate, -other.mean_steps)


class BestKeeper:
    """Holds the state of the best evaluation so far.

    Attributes:
        best: the evaluation; None before the first one.
    """

    def __init__(self, enough: int = ENOUGH_EPISODES) -> None:
        self.best: Mark | None = None
        self._state: dict[str, Tensor] = {}
        self._enough = enough

    def judge(self, mark: Mark) -> Verdict:
        """Say what an evaluation means; nothing is kept yet."""
        if mark.episodes < self._enough:
            return Verdict.TOO_FEW
        if mark.better_than(self.best):
            return Verdict.BEST
        assert self.best is not None
        return Verdict.COLLAPSED if mark.interval[1] < self.best.interval[0] else Verdict.FINE

    def keep(self, mark: Mark, state: Mapping[str, Tensor]) -> None:
        """Keep a state as the best one; the tensors are taken over, so pass copies."""
        self.best, self._state = mark, dict(state)

    @property
    def state(self) -> dict[str, Tensor]:
        """The state of the best evaluation; empty before the first one."""
        return self._state
