# SPDX-License-Identifier: Apache-2.0
"""From what a human does to actions: when to speak, and what to say. No ROS.

An action is said once for each step, as soon as the step is known or the human begins to act; without steps, at
their rate. Who ceases to act says so once, or else the session would repeat the last word for a while; then nobody
says anything, and neither does a device that is dead: the arm holds.
"""

from dataclasses import dataclass
import math

import numpy as np

from so101_contract.action import ActionSpec, ClipCounter, EeDeltaValue
from so101_session.teleop.devices.base import Device, DeviceState, Event, Feedback

STEP_LOST = 1.5
"""Without a new step for so many periods, actions are said without one."""

EARLY = 0.95


class Hand:
    """Turns a device's state into an action. The opening goes on from what the gripper was told last."""

    def __init__(self, spec: ActionSpec, gripper_step: float) -> None:
        """Prepare.

        Args:
            spec: the largest action.
            gripper_step: largest change of the opening in one step.
        """
        self.clips = ClipCounter()
        self._spec = spec
        self._scale = np.array(spec.translation_scale_m)
        self._gripper_step = gripper_step
        self._opening: float | None = None
        self._told = False
        self._acts = False

    @property
    def opening(self) -> float | None:
        """The opening that the next action begins from; None as long as nothing is known of the gripper."""
        return self._opening

    def commanded(self, opening: float) -> None:
        """Take what the gripper was told, by whoever drives."""
        if math.isfinite(opening):
            self._told = True
            self._follow(opening)

    def measured(self, opening: float) -> None:
        """Take where the gripper is; that counts until it is told something."""
        if not self._told and math.isfinite(opening):
            self._follow(opening)

    def rest(self) -> EeDeltaValue | None:
        """Return the action of nothing that ends a motion, once; None where the human did not act."""
        acted, self._acts = self._acts, False
        if not acted or self._opening is None:
            return None
        return self._spec.limit(EeDeltaValue(np.zeros(3), self._opening))

    def move(self, state: DeviceState) -> EeDeltaValue | None:
        """Return the action of the next step; None while nothing is known of the gripper."""
        if self._opening is None:
            return None
        self._acts = True
        if state.opening is not None:
            self._opening = state.opening
        self._opening = min(max(self._opening + state.gripper * self._gripper_step, 0.0), 1.0)
        way = (
            np.array(state.axes) * self._scale if state.displacement is None else np.array(state.displacement)
        )
        value = self._spec.limit(EeDeltaValue(way, self._opening))
        self.clips.add(value)
        return value

    def _follow(self, opening: float) -> None:
        if not self._acts:
            self._opening = min(max(opening, 0.0), 1.0)


@dataclass(frozen=True, eq=False)
class Say:
    """An action for a step.

    Attributes:
        episode: of the newest step.
        index: of the newest step.
        value: the action.
        answers: the step is a fresh one; else no episode runs, or nobody says its steps.
    """

    episode: int
    index: int
    value: EeDeltaValue
    answers: bool


@dataclass(frozen=True, eq=False)
class Rest:
    """The human acts no more.

    Attributes:
        value: the action of nothing.
        gone: since the device is dead: the arm stops at once, not with the end of the step.
    """

    value: EeDeltaValue
    gone: bool


@dataclass(frozen=True, eq=False)
class Turn:
    """What is to be done now.

    Attributes:
        events: what the human asks for.
        say: what to publish, or nothing.
        quit: the human wants to end.
    """

    events: tuple[Event, ...] = ()
    say: Say | None = None
    quit: bool = False
    rest: Rest | None = None


class Pilot:
    """Polls a device. Times are monotonic [s]."""

    def __init__(self, device: Device, hand: Hand, period_s: float) -> None:
        self.device = device
        self.hand = hand
        self.state = DeviceState()
        self._period_s = period_s
        self._step = (0, 0)
        self._step_s = self._said_s = -math.inf
        self._answered = True

    def step(self, episode: int, index: int, over: bool, feedback: Feedback, now: float) -> Turn:
        """Take a step of the session, and answer it if the human acts.

        Args:
            episode: number of the episode.
            index: of the step.
            over: it is the last one, so no action follows.
            feedback: what the arm does.
            now: time [s].
        """
        self._step, self._answered = (episode, index), over
        self._step_s = -math.inf if over else now
        return self.tick(feedback, now)

    def tick(self, feedback: Feedback, now: float) -> Turn:
        """Poll the device."""
        self.device.feel(feedback, now)
        self.state = state = self.device.poll(now)
        if not (state.alive and state.active):
            value = self.hand.rest()
            rest = None if value is None else Rest(value, not state.alive)
            return Turn(state.events, None, state.quit, rest)
        return Turn(state.events, self._say(state, now), state.quit)

    def _say(self, state: DeviceState, now: float) -> Say | None:
        lost = now - self._step_s > STEP_LOST * self._period_s
        due = now - self._said_s >= EARLY * self._period_s if lost else not self._answered
        if not due:
            return None
        value = self.hand.move(state)
        if value is None:
            return None
        self._answered, self._said_s = True, now
        return Say(*self._step, value, not lost)
