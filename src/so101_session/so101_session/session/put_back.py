# SPDX-License-Identifier: Apache-2.0
"""Reset without a hand: after an episode the arm puts the object back to a random place, and lets go of it.

Nothing but the arm's own feeling is used: whether the fingers are held apart by something, and where that was so last.
So it does what can be done blindly. An object in the hand is put down. One that was let go of in a success, as into a
tray, is picked up from there. One that was never touched stays where it is. Anything else is a human's: what was
dropped, or lost on the way, is looked for by nobody's fingers.

| after an episode | then |
|---|---|
| something is in the hand | `PUT_DOWN` |
| success, and something was let go of | `PICK_UP` |
| no failure, and nothing was ever held | `LEAVE` |
| else, and where the way back is cut short by a stop, a fault, or a human's hand | `ASK` |

Resetting by the robot itself: Eysenbach et al., "Leave no Trace", ICLR 2018; Gupta et al., "Reset-Free Reinforcement
Learning via Multi-Task Learning", ICRA 2021.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, StrEnum
import math

import numpy as np
import numpy.typing as npt

from so101_contract.joints import gripper_opening_to_rad
from so101_contract.session import Outcome
from so101_contract.task.spec import PutBack, TaskSpec
from so101_kinematics.fk import ForwardKinematics, NUM_ARM_JOINTS
from so101_kinematics.ik import InverseKinematics
from so101_session.session.config import ResetConfig, SessionConfig
from so101_session.session.episode import SessionError
from so101_session.session.reset import opening_of, Way

FloatArray = npt.NDArray[np.float64]

APART, STILL, STILL_STEPS = 0.05, 0.015, 3
"""Fingers that are told to close, are this far from where they were told to be, and from closed, and have moved less
than that for so many steps, hold something (0 closed .. 1 open)."""

JAW_M = 0.16
"""Distance of the fingers at an opening of 1, were it linear, around that of what they can hold [m]."""

CARRY_M, TOLERANCE_M, NEARLY_M = 0.085, 0.005, 0.015
"""Height at which it is carried; how close the tip has to come; and what is near enough where it comes no closer."""

WIDER, BESIDE_M = 0.08, 0.006
"""How much wider than the object the hand opens, and how far beside it the fixed finger comes down [m]."""

GRIP_S, LOST_S, DRAWS = 0.6, 0.3, 20
"""Time for the fingers to close or open; after how long with nothing between them it is lost [s]; places to try."""

STEEP_DEG, STEEP_M, FLAT_DEG, FLAT_M = 80.0, 0.03, 62.0, 0.14
"""Approach below the horizontal by height: what the arm reaches everywhere on the table."""


LOST = 'the object was lost while the arm put it back'


class Todo(StrEnum):
    """What is to be done with the object before the next episode."""

    FRESH = 'arranged'
    """Somebody else sees to it: before the first episode, and after a human was asked."""
    PUT_DOWN = 'put down'
    PICK_UP = 'pick up'
    LEAVE = 'leave'
    ASK = 'ask'


class Grip:
    """Feels, step by step, whether something is held, and remembers where it was held last; `reset` at each start."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin an episode, with nothing in the hand."""
        self._openings: deque[float] = deque(maxlen=STILL_STEPS)
        self.held = False
        self.last: FloatArray | None = None
        """Joint positions (6,) [rad] at which something was held last; None for never."""
        self.first: FloatArray | None = None
        """The same of when it was held first since it was not."""

    def feel(self, q: FloatArray, told: float) -> None:
        """Take a step: measured joints (6,) [rad], and the opening that was commanded, 0 closed .. 1 open."""
        opening = opening_of(q)
        self._openings.append(opening)
        still = len(self._openings) == STILL_STEPS and np.ptp(self._openings) < STILL
        held = still and opening > APART and opening - told > APART
        if held and not self.held:
            self.first = q.copy()
        if held:
            self.last = q.copy()
        self.held = bool(held)


class _Part(Enum):
    """A part of the way."""

    ABOVE = 'goes above the object'
    DOWN = 'goes down to it'
    CLOSE = 'closes'
    LIFT = 'lifts it'
    CARRY = 'carries it back'
    LOWER = 'puts it down'
    OPEN = 'lets go of it'
    RISE = 'rises'


HOLDING = frozenset({_Part.LIFT, _Part.CARRY, _Part.LOWER})
AT_REST = frozenset({_Part.CLOSE, _Part.OPEN})
FROM_HAND = (_Part.LIFT, _Part.CARRY, _Part.LOWER, _Part.OPEN, _Part.RISE)


class PutBackRun:
    """Leads the arm through one way; `lost` says why a human is needed, `done` that it is not."""

    def __init__(
        self, where: PutBack, config: ResetConfig, rng: np.random.Generator, grip: Grip, todo: Todo
    ) -> None:
        """Prepare.

        Args:
            where: the task's places.
            config: how fast the arm may move.
            rng: draws the place.
            grip: what was felt.
            todo: `PUT_DOWN` or `PICK_UP`.
        """
        self.done, self.lost = False, ''
        self._where, self._rng = where, rng
        self._config = replace(config, reset_tolerance_m=TOLERANCE_M)
        self._fk = ForwardKinematics('so101')  # its TCP is the tip of the fixed finger, whatever actions move
        self._ik = InverseKinematics(self._fk)
        self._parts = list(FROM_HAND)
        self._picks: FloatArray | None = None
        if todo is Todo.PICK_UP:
            self._parts[:0] = [_Part.ABOVE, _Part.DOWN, _Part.CLOSE]
            self._picks = grip.last
        assert grip.last is not None
        self._wide = min(1.0, opening_of(grip.last) + WIDER)
        held = grip.first
        self._low_m = where.height_m
        if held is not None and todo is Todo.PUT_DOWN:  # as high in the hand as when it was taken
            tip = float(self._fk.position(held[:NUM_ARM_JOINTS])[2])
            self._low_m = min(max(tip, where.height_m), CARRY_M)
        self._way: Way | None = None
        self._since_s = -math.inf
        self._empty_s = math.inf
        self._place: FloatArray | None = None
        self.told: FloatArray | None = None
        """Joint goals (6,) [rad] that were sent last."""

    @property
    def sentence(self) -> str:
        """What goes on, for people."""
        return f'the arm puts the object back: it {self._parts[0].value}' if self._parts else 'rises'

    def update(self, now_s: float, q: FloatArray) -> FloatArray:
        """Advance by one control period and return the joint goals (6,) [rad]."""
        if self._way is None:
            self._since_s = now_s
            self._way = self._begin(q)
            if self._way is None:
                return q.copy()
        step = self._way.update(now_s, q)
        self.told = step.goal
        part = self._parts[0]
        if part in HOLDING and self._dropped(now_s, q):
            self.lost = LOST
        elif part in AT_REST:
            if now_s - self._since_s >= GRIP_S:
                self._next(now_s, q)
        elif step.arrived or (step.stuck and self._near(q)):
            self._next(now_s, q)
        elif step.stuck:
            self.lost = f'the arm is stuck while it puts the object back: {step.stuck}'
        return step.goal

    def _dropped(self, now_s: float, q: FloatArray) -> bool:
        if opening_of(q) > APART:
            self._empty_s = math.inf
            return False
        self._empty_s = min(self._empty_s, now_s)
        return now_s - self._empty_s >= LOST_S

    def _near(self, q: FloatArray) -> bool:
        tips = [self._fk.position(one[:NUM_ARM_JOINTS]) for one in (q, self._target)]
        return float(np.linalg.norm(tips[0] - tips[1])) < NEARLY_M

    def _begin(self, q: FloatArray) -> Way | None:
        ways = self._ways(q)
        if ways is None:
            self.lost = 'the object lies, or shall lie, where the arm cannot put it back'
            return None
        self._target = ways[-1]
        return Way(self._config, self._fk, ways, holds=self._parts[0] in HOLDING)

    def _next(self, now_s: float, q: FloatArray) -> None:
        """Go on with the next part, from the goals as they are: a hand that is told to hold goes on holding."""
        done = self._parts.pop(0)
        if done is _Part.CLOSE and opening_of(q) < APART:
            self.lost = 'there was nothing where the arm had let go of the object'
            return
        if done is _Part.LOWER and opening_of(q) < APART:
            self.lost = LOST
            return
        if not self._parts:
            self.done = True
            return
        self._since_s = now_s
        ways = self._ways(q)
        if ways is None:
            self.lost = 'the place for the object cannot be reached'
            return
        self._target = ways[-1]
        assert self._way is not None
        # Fingers close and open where the arm is: one that stands on something would push on until it is overloaded.
        self._way.go_on(ways, q if self._parts[0] in AT_REST else None)

    def _ways(self, q: FloatArray) -> list[FloatArray] | None:
        """Return via points and goal (6,) [rad] of the part that begins; None where they cannot be reached."""
        part = self._parts[0]
        here = self._fk.position(q[:NUM_ARM_JOINTS])
        if part in AT_REST:
            opening = 0.0 if part is _Part.CLOSE else self._wide
            return [np.append(q[:NUM_ARM_JOINTS], gripper_opening_to_rad(opening))]
        if part in (_Part.ABOVE, _Part.DOWN):
            assert self._picks is not None
            return self._picking(part, q, self._picks)
        if part is _Part.LIFT:
            return self._line(q, here[:2], (here[2], max(CARRY_M, here[2])), 0.0)
        if part is _Part.CARRY:
            place = self._draw(q)
            return None if place is None else self._line(q, place, (CARRY_M,), 0.0)
        assert self._place is not None
        if part is _Part.LOWER:
            return self._line(q, self._place, (0.6 * CARRY_M, 0.3 * CARRY_M, self._low_m), 0.0)
        return self._line(q, self._place, (0.3 * CARRY_M, 0.6 * CARRY_M, CARRY_M), self._wide)

    def _picking(self, part: _Part, q: FloatArray, picks: FloatArray) -> list[FloatArray] | None:
        """Return the way to where the object was let go of, with the fixed finger a little beside it."""
        pose = self._fk.pose(picks)
        jaw = -pose.rotation[:2, 0]
        beside = pose.position[:2] - BESIDE_M * jaw / max(float(np.linalg.norm(jaw)), 1e-6)
        if part is _Part.ABOVE:
            here = self._fk.position(q[:NUM_ARM_JOINTS])
            up = self._line(q, here[:2], (max(CARRY_M, here[2]),), self._wide)
            over = self._line(picks, beside, (CARRY_M,), self._wide)
            return None if up is None or over is None else up + over
        heights = (0.6 * CARRY_M, 0.3 * CARRY_M, self._where.height_m)
        return self._line(picks, beside, heights, self._wide)

    def _draw(self, q: FloatArray) -> FloatArray | None:
        """Draw a place for the object, and return where the tip lets go of it (2,) [m]."""
        where = self._where
        behind = 0.5 * JAW_M * opening_of(q)
        for _ in range(DRAWS):
            place = np.array(where.xy) + self._rng.uniform(-1.0, 1.0, 2) * where.spread_m
            distance = float(np.linalg.norm(place))
            tip = place * max(0.0, distance - behind) / max(distance, 1e-6)
            if self._line(q, tip, (CARRY_M, self._low_m), 0.0) is not None:
                self._place = tip
                return tip
        return None

    def _line(
        self, seed: FloatArray, xy: Sequence[float] | FloatArray, heights: Sequence[float], opening: float
    ) -> list[FloatArray] | None:
        """Return a pose (6,) [rad] for each height [m] of the tip above a point; None where one is out of reach."""
        ways, last = [], seed
        for height in heights:
            share = np.clip((height - STEEP_M) / (FLAT_M - STEEP_M), 0.0, 1.0)
            pitch = math.radians(STEEP_DEG + share * (FLAT_DEG - STEEP_DEG))
            found = self._ik.solve((float(xy[0]), float(xy[1]), height), last, pitch=pitch)
            if not found.success:
                found = self._ik.solve((float(xy[0]), float(xy[1]), height), last)
            if not found.success:
                return None
            last = np.append(found.q[:NUM_ARM_JOINTS], gripper_opening_to_rad(opening))
            ways.append(last)
        return ways


class Restorer:
    """Decides after each episode what is to be done with the object, and by whom."""

    def __init__(self, where: PutBack, config: ResetConfig, human: str = '') -> None:
        """Prepare; the first episode's scene is arranged by somebody else.

        Args:
            where: the task's places.
            config: how fast the arm may move.
            human: what a human does where one is needed.
        """
        self._human = human or 'Put the object where it shall lie, and take your hand away.'
        self.todo = Todo.FRESH
        self.why = ''
        """Why a human is needed, as a clause."""
        self.grip = Grip()
        self._where, self._config = where, config
        self._rng = np.random.default_rng([config.seed, 1])

    @property
    def asks(self) -> bool:
        """Whether a human is to arrange the scene."""
        return self.todo is Todo.ASK

    @property
    def keeps(self) -> bool:
        """Whether the scene stays as the arm has left it."""
        return self.todo in (Todo.PUT_DOWN, Todo.PICK_UP, Todo.LEAVE)

    def told(self, arranged: bool) -> str:
        """Return what a human is to do before Start; empty for nothing, as where others have `arranged` the scene."""
        return self._human if self.asks or (self.todo is Todo.FRESH and not arranged) else ''

    def begin(self) -> None:
        """Note that an episode begins."""
        self.grip.reset()
        self.todo = Todo.FRESH

    def end(self, outcome: Outcome) -> None:
        """Note how the episode has ended."""
        grip = self.grip
        if grip.held:
            self.todo = Todo.PUT_DOWN
        elif outcome is Outcome.SUCCESS and grip.last is not None:
            self.todo = Todo.PICK_UP
        elif outcome is not Outcome.FAILURE and grip.last is None:
            self.todo = Todo.LEAVE
        else:
            self.ask('the arm cannot know where the object lies')

    def ask(self, why: str) -> None:
        """Note that a human is needed, and why, as a clause."""
        self.todo, self.why = Todo.ASK, why

    def helped(self) -> None:
        """Note that a human says that all lies where it shall."""
        if self.asks:
            self.todo, self.why = Todo.FRESH, ''

    def run(self) -> PutBackRun | None:
        """Return the way that puts the object back, where there is something to put back."""
        if self.todo not in (Todo.PUT_DOWN, Todo.PICK_UP):
            return None
        return PutBackRun(self._where, self._config, self._rng, self.grip, self.todo)


def restorer_of(config: SessionConfig, reset: ResetConfig, task: TaskSpec | None) -> Restorer | None:
    """Return what puts the object back, where that is wanted.

    Raises:
        SessionError: the task does not say where.
    """
    if not config.put_back:
        return None
    if task is None or task.put_back is None:
        raise SessionError(
            f'expected a task with put_back, which says where the arm puts the object, got '
            f'{"none" if task is None else task.name}; add put_back to its file, or let a human reset'
        )
    return Restorer(task.put_back, reset, task.human)


def in_the_way(*, claimed: bool, paused: bool) -> str:
    """Return why the arm does not put the object back any further, as a clause; empty where it does.

    Args:
        claimed: a human has taken over.
        paused: somebody asked for a pause.
    """
    if claimed:
        return 'a human took over while the arm put the object back'
    return 'the session was paused while the arm put the object back' if paused else ''
