# SPDX-License-Identifier: Apache-2.0
"""How good a policy is: episodes without exploration and without help, always the same ones for the same seed.

An evaluation gives a score; the best checkpoint is the agent with the best score so far. A score whose Wilson interval
(Wilson, 1927) lies wholly below that of the best one is called a collapse.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from drqv2_policy_node.on_base import OnBase
from hilserl_learner.data.collect import Actor, Collector, Environment, Human
from so101_contract.interval import wilson

ENOUGH_EPISODES = 20
"""Fewer episodes say too little to call a policy the best one."""

EVALUATION_SEED = 1_000_003
"""Seed of the episodes that policies are compared on; no training uses it."""


@dataclass(frozen=True)
class ImageStatistics:
    """Brightness and colour of what a camera sees, to notice that the light has changed.

    Attributes:
        mean: mean of red, green and blue, 0..255.
        std: their standard deviations.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8]) -> 'ImageStatistics':
        """Return those of images (..., 3, S, S)."""
        pixels = images.reshape(-1, 3, images.shape[-2] * images.shape[-1]).astype(np.float64)
        return cls(tuple(pixels.mean(axis=(0, 2)).tolist()), tuple(pixels.std(axis=(0, 2)).tolist()))

    def row(self) -> dict[str, float]:
        """Return it as columns of the table of evaluations."""
        columns: dict[str, float] = {}
        for name, mean, std in zip('rgb', self.mean, self.std, strict=True):
            columns |= {f'image_mean_{name}': mean, f'image_std_{name}': std}
        return columns

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> 'ImageStatistics | None':
        """Return those of a line of that table; None where it has none."""
        if not row.get('image_mean_r'):
            return None
        mean, std = (tuple(float(row[f'image_{kind}_{name}']) for name in 'rgb') for kind in ('mean', 'std'))
        return cls(mean, std)

    def drift(self, other: 'ImageStatistics') -> float:
        """Return the largest difference of a channel's mean, in standard deviations of this one."""
        return max(abs(a - b) / max(s, 1.0) for a, b, s in zip(self.mean, other.mean, self.std, strict=True))

    def alarm(self, other: 'ImageStatistics', limit: float = 0.5) -> str:
        """Return a sentence where the other images differ by more than the limit, else an empty string."""
        drift = self.drift(other)
        if drift <= limit:
            return ''
        seen, now = ([round(value) for value in values] for values in (self.mean, other.mean))
        return (
            f'the pictures are {drift:.1f} standard deviations from those in training: mean RGB {seen} then, '
            f'{now} now; restore the light or the camera, or make up for it with `so101 adapt`'
        )


class EvaluatedEnv(Environment, Protocol):
    """An environment that says where the cube lies, so that failures can be drawn on a map."""

    def truth(self) -> Any:
        """Return where everything is; it says at least `cube_position`."""


@dataclass(frozen=True)
class EpisodeOutcome:
    """One evaluated episode.

    Attributes:
        success: the task was done.
        steps: how many it took.
        cube: where the cube lay in the beginning, x and y [m].
        reward: sum of the rewards.
    """

    success: bool
    steps: int
    cube: tuple[float, float]
    reward: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """What came of some episodes.

    Attributes:
        outcomes: one per episode.
        images: what the camera saw over all of them; None without one.
    """

    outcomes: tuple[EpisodeOutcome, ...]
    images: ImageStatistics | None

    @property
    def episodes(self) -> int:
        """How many there were."""
        return len(self.outcomes)

    @property
    def successes(self) -> int:
        """How many succeeded."""
        return sum(outcome.success for outcome in self.outcomes)

    @property
    def rate(self) -> float:
        """Share of successes, 0..1."""
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate."""
        return wilson(self.successes, self.episodes)

    @property
    def mean_steps(self) -> float:
        """Mean length of the successful ones [steps]; NaN without any."""
        steps = [outcome.steps for outcome in self.outcomes if outcome.success]
        return float(np.mean(steps)) if steps else math.nan

    def score(self, step: int) -> 'EvalScore':
        """Return what it counts for.

        Args:
            step: environment steps of the training so far.
        """
        return EvalScore(self.successes, self.episodes, self.mean_steps, step)

    def report(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        low, high = self.interval
        return {
            'success': round(self.rate, 4),
            'interval': [round(low, 4), round(high, 4)],
            'episodes': self.episodes,
            'mean_steps': None if math.isnan(self.mean_steps) else round(self.mean_steps, 2),
            'failed_at': [
                [round(x, 4) for x in outcome.cube] for outcome in self.outcomes if not outcome.success
            ],
            'image_mean': None if self.images is None else [round(value, 2) for value in self.images.mean],
            'image_std': None if self.images is None else [round(value, 2) for value in self.images.std],
        }


def evaluate(
    env: EvaluatedEnv,
    act: Actor | OnBase,
    episodes: int,
    *,
    seed: int = EVALUATION_SEED,
    human: Human | None = None,
    after_episode: Callable[[EpisodeOutcome], None] = lambda _: None,
) -> Evaluation:
    """Run episodes in which the policy is alone.

    Args:
        env: where; nothing else may run in it meanwhile.
        act: the policy; its mean action, for what is measured is not exploration.
        episodes: how many.
        seed: which episodes.
        human: who acts instead, for a comparison with the expert; None for the policy alone.
        after_episode: called after each, for a progress bar.
    """
    collector = Collector(env, human=human, seed=seed)
    outcomes: list[EpisodeOutcome] = []
    pictures: list[npt.NDArray[np.uint8]] = []
    while len(outcomes) < episodes:
        collected = collector.step(act)
        if collected.transition.index == 0:
            place = env.truth().cube_position
            images = collected.transition.frames[-1].images
            pictures += list(images.values())[:1]
        if collected.result is not None:
            result = collected.result
            outcomes.append(EpisodeOutcome(result.success, result.steps, (place[0], place[1]), result.reward))
            after_episode(outcomes[-1])
    return Evaluation(tuple(outcomes), ImageStatistics.of(np.stack(pictures)) if pictures else None)


class EvalVerdict(Enum):
    """What an evaluation says about the present policy."""

    TOO_FEW = 'too few episodes'
    BEST = 'best so far'
    FINE = 'no better than the best, and not certainly worse'
    COLLAPSED = 'certainly worse than the best'


@dataclass(frozen=True)
class EvalScore:
    """What an evaluation, or a window of live episodes, counts for when policies are compared.

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

    def better_than(self, other: 'EvalScore | None') -> bool:
        """Whether it is the one to keep: more successes, or as many in fewer steps."""
        return other is None or (self.rate, -self.mean_steps) > (other.rate, -other.mean_steps)


class BestCheckpoint:
    """The best score of a run so far, and the agent of then.

    Attributes:
        score: None before the first one.
        state: of the agent; empty where only the score is kept.
    """

    def __init__(self, enough: int = ENOUGH_EPISODES) -> None:
        self.score: EvalScore | None = None
        self.state: dict[str, Tensor] = {}
        self._enough = enough

    def judge(self, score: EvalScore) -> EvalVerdict:
        """Say what a score means; nothing is kept yet."""
        if score.episodes < self._enough:
            return EvalVerdict.TOO_FEW
        if score.better_than(self.score):
            return EvalVerdict.BEST
        assert self.score is not None
        return EvalVerdict.COLLAPSED if score.interval[1] < self.score.interval[0] else EvalVerdict.FINE

    def keep(self, score: EvalScore, state: Mapping[str, Tensor]) -> None:
        """Keep a score, and a state, as the best one; the tensors are taken over, so pass copies."""
        self.score, self.state = score, dict(state)
