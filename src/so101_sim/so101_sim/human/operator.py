# SPDX-License-Identifier: Apache-2.0
"""The operator, simulated: watches, takes over when it goes wrong, hands back when it is right again.

It takes over for the reasons that humans take over for: nothing has come closer to the goal for a while, the arm
moves away from it, the cube was dropped, or time runs out. It needs a moment to react, helps until the arm is over the
cube, holds it, or is done, and acts with the skill of an `Expert`. Each time that it has to help again within an
episode, it helps for longer. What is human about its timing, `traits`, comes on top. Nothing depends on how many
episodes there were: it acts less only as the policy improves.
"""

from dataclasses import dataclass, field
from enum import StrEnum
import math

import numpy as np

from so101_contract.action import ActionSpec, EeDeltaValue
from so101_contract.config import LONG_INTERVENTION_STEPS
from so101_sim.errors import PresetError
from so101_sim.human.expert import Expert, Phase, Skill
from so101_sim.human.traits import Reflexes, Traits
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.tasks import Lift, Push, Task, to_mark


class Reason(StrEnum):
    """Why the operator took over."""

    STUCK = 'stuck'
    AWAY = 'moving away'
    DROPPED = 'dropped'
    SLOW = 'too slow'


class HandBack(StrEnum):
    """When the operator hands back."""

    ALIGNED = 'over the cube'
    HELD = 'cube held'
    DONE = 'task done'


@dataclass(frozen=True, kw_only=True)
class Habits:
    """When the operator acts.

    Attributes:
        attention: probability of watching an episode at all.
        patience_steps: steps without coming closer after which the arm counts as stuck.
        closer_m: what counts as coming closer [m].
        away_m: how much farther than the best so far counts as moving away [m].
        reaction_steps: fewest and most steps between seeing and acting, of who has no reaction time of its own.
        shortest_steps: no intervention is shorter.
        longest_steps: after this many it hands back, unless it holds the cube, or time runs out.
        hand_back: probabilities of handing back over the cube, with the cube held, and when done. That is for the first
            intervention of an episode: the second lasts at least until the cube is held, later ones until it is done.
        finish_steps: it takes over and finishes when no more steps than these are left of the episode; 0: never.
    """

    attention: float = 1.0
    patience_steps: int = 15
    closer_m: float = 0.006
    away_m: float = 0.05
    reaction_steps: tuple[int, int] = (1, 4)
    shortest_steps: int = 8
    longest_steps: int = LONG_INTERVENTION_STEPS
    hand_back: tuple[float, float, float] = (0.3, 0.3, 0.4)
    finish_steps: int = 35

    def __post_init__(self) -> None:
        """Check the numbers."""
        low, high = self.reaction_steps
        if not (0.0 <= self.attention <= 1.0 and self.patience_steps >= 1 and 0 <= low <= high):
            raise PresetError(
                f'expected attention in 0..1, patience >= 1 and reaction steps in order, got {self}'
            )
        if not (1 <= self.shortest_steps <= self.longest_steps and self.finish_steps >= 0):
            raise PresetError(
                f'expected interventions of at least 1 step, the shortest not above the longest, got {self}'
            )
        if min(self.hand_back) < 0.0 or not math.isclose(sum(self.hand_back), 1.0):
            raise PresetError(
                f'expected three probabilities that add up to 1, got {self.hand_back}; correct them'
            )


@dataclass(frozen=True)
class Decision:
    """What the operator does in one step.

    Attributes:
        action: what it tells the arm, or None while it only watches.
        reason: why it took over; None while it only watches.
        started: it takes over with this step.
        ended: it hands back after this step.
    """

    action: EeDeltaValue | None = None
    reason: Reason | None = None
    started: bool = False
    ended: bool = False

    @property
    def intervening(self) -> bool:
        """Whether the operator acts."""
        return self.action is not None


@dataclass
class Tally:
    """What the operator has done since it was made.

    Attributes:
        steps: steps watched or acted in.
        intervened: steps acted in.
        takeovers: how often it took over, by reason.
        lengths: of the interventions that have ended [steps].
    """

    steps: int = 0
    intervened: int = 0
    lengths: list[int] = field(default_factory=list)
    takeovers: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))


class Operator:
    """The intervening human; `reset` at the start of each episode, `update` once per step."""

    _best: float
    _since_best: int

    def __init__(
        self,
        task: Task,
        spec: ActionSpec | None = None,
        skill: Skill | None = None,
        habits: Habits | None = None,
        max_steps: int = 0,
        *,
        traits: Traits | None = None,
        rate_hz: float = 10.0,
    ) -> None:
        """Prepare.

        Args:
            task: what is to be done.
            spec: how large an action may be.
            skill: how well the operator acts.
            habits: when it acts.
            max_steps: steps after which an episode is cut off; 0: never.
            traits: what is human about its timing; nothing by default.
            rate_hz: steps per second [Hz].
        """
        self.max_steps = max_steps
        self._reflexes = Reflexes(Traits() if traits is None else traits, rate_hz)
        self.task = task
        self.habits = Habits() if habits is None else habits
        self.expert = Expert(task, spec, skill)
        self.tally = Tally()
        self._reason: Reason | None = None
        self._acted = 0
        self.reset(np.random.default_rng(0))

    @property
    def intervening(self) -> bool:
        """Whether the operator is acting now."""
        return self._reason is not None

    @property
    def looking(self) -> bool:
        """Whether its eyes are on the arm: it drives, or its mind does not wander."""
        return self.intervening or not self._reflexes.looks_away

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; all that is left to chance comes from `rng`."""
        self.end_episode()
        self._rng = rng
        # Of a generator of its own, so that who has no such traits draws what it would draw without them.
        self._reflexes.reset(rng.spawn(1)[0])
        self.expert.reset(rng)
        self._watching = bool(rng.random() < self.habits.attention)
        self._noticed: Reason | None = None
        self._delay = self._acted = self._helped = self._step = 0
        self._overrun: int | None = None
        self._was_held = False
        self._forget_progress()

    def end_episode(self) -> None:
        """Stop acting, since the episode is over."""
        if self._reason is not None:
            self._reason = None
            self.tally.lengths.append(self._acted)

    def update(self, truth: GroundTruth) -> Decision:
        """Look at the scene and decide; a policy's action counts where the decision has none."""
        self.tally.steps += 1
        self._step += 1
        if self._reason is None:
            if self._reflexes.watch() or self._noticed is not None:
                self._notice(truth)
            if self._noticed is None or self._delay > 0:
                self._delay -= self._noticed is not None
                self.expert.observe(truth)
                return Decision()
            self._take_over(self._noticed)
            return self._act(truth, started=True)
        if self._acted >= self.habits.shortest_steps and self._lets_go(truth):
            decision = self._act(truth, ended=True)
            self.end_episode()
            self._forget_progress()
            return decision
        return self._act(truth)

    def _lets_go(self, truth: GroundTruth) -> bool:
        """Whether it gives back now: it is right again, and a hand that is too slow has let go too."""
        if self._overrun is None:
            if not self._is_right_again(truth):
                return False
            self._overrun = self._reflexes.overrun()
        self._overrun -= 1
        return self._overrun < 0

    def _act(self, truth: GroundTruth, *, started: bool = False, ended: bool = False) -> Decision:
        self._acted += 1
        self.tally.intervened += 1
        return Decision(self.expert.act(truth), self._reason, started=started, ended=ended)

    def _take_over(self, reason: Reason) -> None:
        self._reason, self._noticed, self._acted, self._overrun = reason, None, 0, None
        drawn = int(self._rng.choice(len(HandBack), p=self.habits.hand_back))
        last = len(HandBack) - 1
        self._until = list(HandBack)[last if reason is Reason.SLOW else min(max(drawn, self._helped), last)]
        self._helped += 1
        self.tally.takeovers[reason] += 1

    def _notice(self, truth: GroundTruth) -> None:
        """See whether something is going wrong, and start the reaction time if so."""
        left = remaining(truth, self.task)
        dropped = self._was_held and not truth.held
        self._was_held = truth.held and not truth.on_table
        if left < self._best - self.habits.closer_m:
            self._best = left
            self._since_best = 0
        else:
            self._since_best += 1
        if self._noticed is not None or not self._watching:
            return
        if self._running_out and not (truth.held and self._since_best == 0):
            self._noticed = Reason.SLOW
        elif dropped:
            self._noticed = Reason.DROPPED
        elif left > self._best + self.habits.away_m:
            self._noticed = Reason.AWAY
        elif self._since_best >= self.habits.patience_steps:
            self._noticed = Reason.STUCK
        else:
            return
        low, high = self.habits.reaction_steps
        self._delay = self._reflexes.reaction(int(self._rng.integers(low, high + 1)))

    @property
    def _running_out(self) -> bool:
        return 0 < self.max_steps <= self._step + self.habits.finish_steps

    def _is_right_again(self, truth: GroundTruth) -> bool:
        if self._running_out:
            return False
        if self._acted >= self.habits.longest_steps and not truth.held:
            return True
        if self._until is HandBack.DONE:
            return False
        if (truth.held and not truth.on_table) or self.expert.phase is Phase.PUSH:
            return True
        over_it = self.expert.phase in (Phase.DESCEND, Phase.CLOSE)
        return self._until is HandBack.ALIGNED and self._reason is not Reason.DROPPED and over_it

    def _forget_progress(self) -> None:
        self._best = math.inf
        self._since_best = 0


def remaining(truth: GroundTruth, task: Task) -> float:
    """Return how far it still is to the goal, in metres that grip and cube have to travel: what humans see."""
    to_cube = 0.0 if truth.held else math.dist(truth.grip_position, truth.cube_position)
    if isinstance(task, Push):
        return to_cube + 2.0 * to_mark(truth)
    if isinstance(task, Lift):
        return to_cube + max(0.0, task.height_m - truth.cube_position[2])
    if truth.tray_position is None:
        return to_cube
    return 0.0 if truth.in_tray else to_cube + math.dist(truth.cube_position[:2], truth.tray_position[:2])
