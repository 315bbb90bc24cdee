# SPDX-License-Identifier: Apache-2.0
"""Experts that know where everything is and act through the same actions as a policy, and the human who takes over.

An expert says where the hand should go; in the Cartesian variants that is the action, in the joint variant damped least
squares on the Jacobian of the six driven joints make increments of it (Wampler 1986), which also keep the hand down.
What it does follows from where things are, so it goes on from any state in which a policy leaves the arm.
"""

from dataclasses import dataclass
import math

import numpy as np

from so101_contract.action import ActionSpec, EeDeltaValue
from so101_fetch.arm import FetchArm, FetchTruth
from so101_fetch.tasks import FetchTask, FloatArray
from so101_sim.human.expert import Skill
from so101_sim.human.operator import Decision, Reason

DAMPING, TURN_WEIGHT, CARRY_TURN_WEIGHT = 0.05, 0.3, 0.05
"""Of the least squares: damping [m/rad], what a radian of tilt counts beside a metre [m/rad], and that while it
carries: a cube that is held may tilt, and some goals are out of reach of a hand that points down."""

STEP_M = 0.15
"""How far ahead of the hand a step of the joint variant, or a push, is aimed at most [m]: motors lag behind."""

HOVER_M = 0.06
"""Height of the hand above the object's middle on its way there [m]."""

ALIGNED_M, LOW_M = 0.012, 0.012
"""Distances, horizontal and vertical, at which the hand is around the object [m]."""

CLOSING_STEPS = 3
"""Steps in which the fingers close before the object is carried."""

HOLDING = 0.62
"""Opening above which the fingers are not closed yet, 0..1: a cube between them holds them at half."""

LOST_M = 0.04
"""An object this far from the hand is not held [m]."""

BEHIND_M, PUSH_HOVER_M, PUSH_LOW_M = 0.055, 0.09, 0.03
"""How far behind the object's middle the hand comes down, its height above it on its way, and the height below which it
would touch it [m]."""

TOUCHING_M, CLEAR_M, THERE_M = 0.01, 0.035, 0.015
"""How far behind the object's middle the hand pushes, at least, and moves freely beside it; and what counts as being
where it was sent [m]."""

STRAIGHT_M, CROOKED_M, SIDEWAYS_GAIN = 0.012, 0.04, 2.0
"""How far beside the line the hand may be when it begins to push and while it does [m], and how much of that it makes
good in a step."""


class FetchExpert:
    """Solves a task; `reset` at the start of each episode, `act` once per step."""

    def __init__(self, arm: FetchArm, spec: ActionSpec, skill: Skill | None = None) -> None:
        """Prepare.

        Args:
            arm: whose Jacobian turns ways into increments; it is looked at, never moved.
            spec: how large an action may be.
            skill: how well it acts.
        """
        self.arm, self.spec = arm, spec
        self.task: FetchTask = arm.task
        self.skill = Skill() if skill is None else skill
        self.reset(np.random.default_rng(0))

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; all that is left to chance comes from `rng`."""
        self._rng = rng
        self._aim = rng.normal(0.0, 1.0, 2) * self.skill.aim_error_m
        self._closing, self._pushing = 0, False

    def observe(self, truth: FetchTruth) -> None:
        """Watch a step in which another one acts."""
        self._closing = self._closing + 1 if self._around(truth) and truth.opening < HOLDING else 0

    def act(self, truth: FetchTruth) -> EeDeltaValue:
        """Return the next action, as it goes onto the wire."""
        way, opening = self._decide(truth)
        move = self._increments(way) if self.arm.variant.is_joint else way
        scale = self.spec.scale
        share = move / scale
        share *= self.skill.speed / max(self.skill.speed, float(np.max(np.abs(share))))
        pause, shake = self._rng.random(), self._rng.normal(0.0, 1.0, len(scale))
        if pause < self.skill.hesitation:
            share = np.zeros(len(scale))
        return self.spec.limit(EeDeltaValue((share + self.skill.noise * shake) * scale, opening))

    # ---- where to ------------------------------------------------------------------------------------------

    def _decide(self, truth: FetchTruth) -> tuple[FloatArray, float]:
        """Return the way that the hand should go (3,) [m], and the opening."""
        if not self.task.has_object:
            return truth.goal - truth.hand, 0.0
        return (self._push(truth), 0.0) if self.task.keeps_closed else self._carry(truth)

    def _around(self, truth: FetchTruth) -> bool:
        off = truth.mover - truth.hand
        return bool(np.linalg.norm(off[:2]) < LOST_M and abs(off[2]) < LOST_M)

    def _carry(self, truth: FetchTruth) -> tuple[FloatArray, float]:
        """Go above the cube with open fingers, down, close, and carry it to the goal."""
        off = truth.mover - truth.hand
        off[:2] += self._aim
        aside = float(np.linalg.norm(off[:2]))
        if not self._around(truth):
            self._closing = 0
        if self._closing or (aside < ALIGNED_M and abs(off[2]) < LOW_M and truth.opening > HOLDING):
            self._closing += 1
            if self._closing <= CLOSING_STEPS:
                return np.zeros(3), 0.0
            return truth.goal - truth.mover, 0.0
        if aside < ALIGNED_M:
            return off, 1.0
        return np.add(off, (0.0, 0.0, HOVER_M)), 1.0

    def _push(self, truth: FetchTruth) -> FloatArray:
        """Go round the object to behind it, come down, and push it along the line to the goal."""
        left = (truth.goal - truth.mover)[:2]
        line = left / max(float(np.linalg.norm(left)), 1e-6)
        seen = (truth.hand - truth.mover)[:2]
        along = float(seen @ line)
        beside = seen - along * line
        height = float(truth.hand[2] - truth.mover[2])
        aside = float(np.linalg.norm(beside))
        low = height < PUSH_LOW_M
        # Once it pushes it corrects as it goes; only far off does it go round again.
        self._pushing = low and along < -TOUCHING_M and aside < (CROOKED_M if self._pushing else STRAIGHT_M)
        if self._pushing:
            ahead = min(float(np.linalg.norm(left)) + TOUCHING_M, STEP_M)
            return np.array([*(line * ahead - SIDEWAYS_GAIN * beside), -height])
        behind = -line * BEHIND_M - seen
        if float(np.linalg.norm(behind)) < THERE_M or (low and along < -CLEAR_M):
            return np.array([*behind, -height])
        if low:
            return np.array([0.0, 0.0, PUSH_HOVER_M - height])
        return np.array([*behind, PUSH_HOVER_M - height])

    # ---- how -----------------------------------------------------------------------------------------------

    def _increments(self, way: FloatArray) -> FloatArray:
        """Return the increments of the driven joints (6,) [rad] that bring the hand there, pointing down."""
        largest = float(np.max(np.abs(way)))
        way = way * min(1.0, STEP_M / max(largest, 1e-9))
        carrying = self._closing > CLOSING_STEPS
        weights = np.repeat([1.0, CARRY_TURN_WEIGHT if carrying else TURN_WEIGHT], 3)
        jacobian = self.arm.jacobian() * weights[:, None]
        wished = np.concatenate([way, self.arm.tilt()]) * weights
        damped = jacobian @ jacobian.T + DAMPING**2 * np.eye(6)
        # What the joints have been told and have not done yet is on its way.
        return np.asarray(jacobian.T @ np.linalg.solve(damped, wished)) - self.arm.ahead


@dataclass(frozen=True, kw_only=True)
class FetchHabits:
    """When the human takes over.

    Attributes:
        patience_steps: steps without coming closer after which they do.
        closer_m: what counts as coming closer [m].
        helping_steps: fewest and most steps after which they hand back, for the first time in an episode; the second
            time they stay until it is done.
    """

    patience_steps: int = 7
    closer_m: float = 0.01
    helping_steps: tuple[int, int] = (5, 20)


class FetchOperator:
    """The human who takes over when nothing comes closer to the goal, and hands back when something does again."""

    looking = True
    """It sees what happens in every step."""

    def __init__(self, expert: FetchExpert, habits: FetchHabits | None = None) -> None:
        """Prepare; `reset` at the start of each episode, `update` once per step."""
        self.expert = expert
        self.habits = FetchHabits() if habits is None else habits
        self.reset(np.random.default_rng(0))

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self.expert.reset(rng)
        self._best, self._since, self._acted, self._takeovers = math.inf, 0, 0, 0
        low, high = self.habits.helping_steps
        self._until = int(rng.integers(low, high + 1))

    def update(self, truth: FetchTruth) -> Decision:
        """Look at the scene and decide; a policy's action counts where the decision has none."""
        left = remaining(truth)
        self._since = 0 if left < self._best - self.habits.closer_m else self._since + 1
        self._best = min(self._best, left)
        if not self._acted and self._since <= self.habits.patience_steps:
            self.expert.observe(truth)
            return Decision()
        started = not self._acted
        self._acted += 1
        self._takeovers += started
        ended = self._takeovers == 1 and self._acted >= self._until and self._since == 0
        decision = Decision(self.expert.act(truth), Reason.STUCK, started=started, ended=ended)
        if ended:
            self._acted = 0
        return decision


def remaining(truth: FetchTruth) -> float:
    """Return how far hand and object still have to go [m]: what humans see."""
    return truth.distance + float(np.linalg.norm(truth.mover - truth.hand))
