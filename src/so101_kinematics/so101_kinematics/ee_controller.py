# SPDX-License-Identifier: Apache-2.0
"""The end-effector controller: displacements of the TCP and joint readings in, joint goals out.

It decides when to move and when to hold; how to move is the profile's business. It never raises for what
comes from outside: a displacement or a reading that is missing, old, not finite or in another frame makes it
hold, and is counted. Holding repeats the last goal, so that the arm neither sinks nor drifts, and moving
again starts over from the measured pose.

When control changes hands while the arm moves, the goal does not jump (bumpless transfer, Astrom and Hagglund,
"Advanced PID Control", 2006): see `Transfer`.
"""

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from so101_contract.joints import ARM_JOINTS, GRIPPER, gripper_opening_to_rad, JOINT_LIMITS_RAD
from so101_contract.messages import action_record, ExecutedAction
from so101_contract.session import Source
from so101_kinematics.config import KinematicsConfig
from so101_kinematics.errors import KinematicsError
from so101_kinematics.fk import Array, ForwardKinematics, NUM_ARM_JOINTS, NUM_JOINTS
from so101_kinematics.ik import IkOptions, InverseKinematics
from so101_kinematics.profiles import Clip, Pick101Profile, Profile, SetpointProfile

__all__ = ['Clip', 'Command', 'EeController', 'Hold', 'Transfer', 'read_action']

REST_SPEED_RAD_S = 0.1
"""Joint speed below which the arm counts as standing still [rad/s]."""

MAX_PERIODS = 5
"""A pause between two updates counts as at most so many control periods."""

STEP_RAD = math.radians(0.4)
"""Largest part of the difference that is taken out of a joint in one control period."""

STEP_M = 0.001
"""The same for the TCP."""

LARGEST_RAD = 0.2
"""A larger difference is no lag: the arm is blocked or has been carried away, and is let go at once."""


class Hold(StrEnum):
    """Why the arm holds."""

    NO_COMMAND = 'no displacement yet'
    STALE_COMMAND = 'no recent displacement'
    BAD_COMMAND = 'displacement is not finite or of an unknown source'
    WRONG_FRAME = 'displacement is in another frame'
    NO_JOINTS = 'no joint reading'
    STALE_JOINTS = 'no recent joint reading'
    BAD_JOINTS = 'joint reading is not finite or has the wrong shape'


def read_action(message: Any, frame_id: str, stamp_ns: int) -> ExecutedAction | Hold:
    """Return what an `EeDelta` says, or why it is not executed.

    Args:
        message: as it came.
        frame_id: frame that displacements are said in.
        stamp_ns: when it was decided, on the clock of `EeController.update` [ns].
    """
    try:
        action = replace(action_record(message), stamp_ns=stamp_ns)
    except (TypeError, ValueError):
        return Hold.BAD_COMMAND
    return action if message.header.frame_id == frame_id else Hold.WRONG_FRAME


@dataclass(frozen=True)
class Command:
    """What to tell the servos for one control period.

    Attributes:
        q_goal: (6,) joint goals within limits [rad]; None as long as there has been nothing to command.
        setpoint: (3,) where the TCP is sent, in the base frame [m]; None as long as there is no goal.
        reason: why the arm holds, with the goal of an earlier period; None when it moves.
        clipped: why less was done than was asked for.
    """

    q_goal: Array | None
    setpoint: Array | None
    reason: Hold | None
    clipped: frozenset[Clip]

    @property
    def held(self) -> bool:
        """Whether the goal is that of an earlier period."""
        return self.reason is not None


class Transfer:
    """Bumpless transfer: the difference between the old goal and the new one, and what is left of it.

    An arm in motion lags behind its goal by some millimetres. Control that changes hands starts over from the
    measured pose, and without more ado the goal would step back by that lag. Instead the difference is added to
    the new goal and taken out little by little, while the new goal moves as it is told to.
    """

    def __init__(self, fk: ForwardKinematics) -> None:
        self._fk = fk
        self._old: Array | None = None
        self._part = np.zeros(NUM_ARM_JOINTS)
        self._left = 0

    def begin(self, old_goal: Array | None) -> None:
        """Go on from an old goal (6,) [rad]; None: there was none, and nothing to go on from."""
        self._old = None if old_goal is None else old_goal[:NUM_ARM_JOINTS].copy()
        self._left = 0

    def next(self, new_goal: Array) -> Array:
        """Return what to command (5,) [rad] in this control period, for the goal that control wants."""
        if self._old is not None:
            difference = self._old - new_goal
            distance = float(np.linalg.norm(self._fk.position(self._old) - self._fk.position(new_goal)))
            largest = float(np.abs(difference).max())
            parts = max(largest / STEP_RAD, distance / STEP_M) if largest <= LARGEST_RAD else 0.0
            self._left = math.ceil(parts)
            self._part = difference / max(self._left, 1)
            self._old = None
        if self._left == 0:
            return new_goal
        self._left -= 1
        return new_goal + self._left * self._part


class EeController:
    """The controller; one instance drives one arm. Time comes in as an argument, from any one clock."""

    def __init__(self, config: KinematicsConfig, fk: ForwardKinematics | None = None) -> None:
        """Prepare; nothing is commanded before the first displacement."""
        self.config = config
        self.fk = ForwardKinematics(config.tcp) if fk is None else fk
        self.counts: Counter[Hold | Clip] = Counter()
        """How often each reason to hold or to do less came up, in control periods."""
        self._locks = config.locks()
        self._lock_positions: dict[str, float] = {}
        self._profile = self._make_profile()
        self._transfer = Transfer(self.fk)
        self._goal: Array | None = None
        self._setpoint: Array | None = None
        self._seeded = False
        self._source: Source | None = None
        self._gripper_wish: float | None = None
        self._command_s = -math.inf
        self._update_s: float | None = None
        self._reading_s = -math.inf
        self._reading: Array | None = None
        self._at_rest = True

    def reseed(self, q_measured: npt.ArrayLike, q_goal: npt.ArrayLike | None = None) -> None:
        """Start over from a measured pose, because something else has moved the arm.

        Args:
            q_measured: (6,) joint positions [rad].
            q_goal: (6,) what the servos are told to hold now [rad], where that is known: the arm then does
                not sag when control starts. Without it, holding commands nothing before the next motion.

        Raises:
            KinematicsError: a value is not finite or has the wrong shape.
        """
        q = _six('q_measured', q_measured)
        goal = None if q_goal is None else _six('q_goal', q_goal)
        self._at_rest = True
        self._start_over(q, goal)
        self._goal = goal
        self._setpoint = None if goal is None else self.fk.pose(q).position
        self._gripper_wish = None
        self._command_s = -math.inf  # a displacement from before is over, however short a time ago it came

    def release(self) -> None:
        """Let go of the arm: command nothing before the next displacement, which starts from the measured pose."""
        self._goal = self._setpoint = self._gripper_wish = None
        self._seeded = False
        self._command_s = -math.inf

    def stop(self) -> None:
        """Stay where the arm is commanded now: what is left of the last displacement is given up."""
        self._gripper_wish = None
        if self._seeded and self._goal is not None:
            self._profile.stop(self._goal[:NUM_ARM_JOINTS])

    def update(
        self,
        now_s: float,
        q_measured: npt.ArrayLike | None,
        q_stamp_s: float,
        action: ExecutedAction | Hold | None = None,
    ) -> Command:
        """Advance by one control period.

        Args:
            now_s: the time [s].
            q_measured: (6,) the newest joint reading [rad] in `JOINT_NAMES` order, or None without one.
            q_stamp_s: when it was read [s].
            action: one that has not been given to `update` before, or why the one that came is not executed
                (`read_action`), or None. A change of its source is a takeover, from which control starts over.
        """
        dt = self._elapsed(now_s)
        q, reason = self._read(now_s, q_measured, q_stamp_s)
        if isinstance(action, ExecutedAction):
            reason = reason or self._accept(now_s, action)
        elif action is not None:
            reason, action = reason or action, None
        if reason is None and now_s - self._command_s > self.config.command_timeout_s:
            reason = Hold.NO_COMMAND if self._command_s == -math.inf else Hold.STALE_COMMAND
        if reason is not None or q is None:
            return self._hold(reason or Hold.NO_JOINTS)
        # Nobody takes nothing over: the arm holds where it is commanded, and whoever acts next starts over.
        if action is not None and action.source not in (Source.NONE, self._source):
            if self._seeded and self._source is not None:
                self._transfer.begin(self._goal)
                # Who takes over gets the posture that was wanted: one that is measured while the arm is far out is
                # tilted, and would stay so.
                self._start_over(q, self._goal, keep_posture=True)
            self._source = action.source
        if not self._seeded:
            self._transfer.begin(self._goal)
            self._start_over(q, self._goal)
        return self._move(dt, q, action)

    def _move(self, dt: float, q: Array, action: ExecutedAction | None) -> Command:
        """Return the goal that the profile wants, within what a joint and the gripper may do."""
        clipped: set[Clip] = set()
        xyz = None if action is None else action.translation
        if xyz is not None:
            length = float(np.linalg.norm(xyz))
            if length > self.config.max_delta_m:
                xyz = xyz * (self.config.max_delta_m / length)
                clipped.add(Clip.DELTA)
        lead = self._profile.step(dt, q[:NUM_ARM_JOINTS], xyz, clipped) - q[:NUM_ARM_JOINTS]
        limit = self.config.max_joint_lead_rad
        if float(np.abs(lead).max()) > limit:
            clipped.add(Clip.JOINT_LEAD)
        goal = np.empty(NUM_JOINTS)
        wanted = q[:NUM_ARM_JOINTS] + np.clip(lead, -limit, limit)
        goal[:NUM_ARM_JOINTS] = np.clip(self._transfer.next(wanted), self.fk.lower, self.fk.upper)
        for name, position in self._lock_positions.items():
            goal[ARM_JOINTS.index(name)] = position
        goal[-1] = self._grip(dt, float(q[-1]), action, clipped)
        self._goal, self._setpoint = goal, self._profile.setpoint
        self.counts.update(clipped)
        return Command(goal.copy(), self._setpoint, None, frozenset(clipped))

    def _grip(self, dt: float, measured: float, action: ExecutedAction | None, clipped: set[Clip]) -> float:
        """Return the gripper's goal [rad]: towards the opening asked for last, not faster than allowed."""
        low, high = JOINT_LIMITS_RAD[GRIPPER]
        goal = min(max(measured, low), high) if self._goal is None else float(self._goal[-1])
        if action is not None:
            opening = min(max(action.opening, 0.0), 1.0)
            if opening != action.opening:
                clipped.add(Clip.GRIPPER)
            self._gripper_wish = gripper_opening_to_rad(opening)
        if self._gripper_wish is None:
            return goal
        reach = self.config.max_gripper_speed * (high - low) * dt
        return goal + min(max(self._gripper_wish - goal, -reach), reach)

    def _hold(self, reason: Hold) -> Command:
        """Return the last goal again, and start over when motion resumes."""
        self.counts[reason] += 1
        self._seeded = False
        goal = None if self._goal is None else self._goal.copy()
        return Command(goal, self._setpoint, reason, frozenset())

    def _start_over(self, q: Array, goal: Array | None, *, keep_posture: bool = False) -> None:
        """Seed the profile from the measured joints, and fix the joints that are locked where they are."""
        arm = q[:NUM_ARM_JOINTS]
        arm_goal = None if goal is None else goal[:NUM_ARM_JOINTS]
        self._profile.reseed(arm, arm_goal, self._at_rest, keep_posture=keep_posture)
        for name, position in self._locks.items():
            if name not in self._lock_positions:
                i = ARM_JOINTS.index(name)
                here = float(arm[i] if arm_goal is None else arm_goal[i])
                low, high = JOINT_LIMITS_RAD[name]
                self._lock_positions[name] = min(max(here, low), high) if position is None else position
        self._seeded = True

    def _elapsed(self, now_s: float) -> float:
        """Return the time since the last update [s], between nothing and a few periods."""
        last, self._update_s = self._update_s, now_s
        if last is None:
            return 1.0 / self.config.rate_hz
        if now_s < last:  # the clock was set back, as simulated time is at a restart: all stamps are void
            self._command_s = self._reading_s = -math.inf
            self._seeded = False
        return min(max(now_s - last, 0.0), MAX_PERIODS / self.config.rate_hz)

    def _read(
        self, now_s: float, q_measured: npt.ArrayLike | None, stamp_s: float
    ) -> tuple[Array | None, Hold | None]:
        """Return the reading, or why there is none that can be used."""
        if q_measured is None:
            return None, Hold.NO_JOINTS
        q = _finite(q_measured, NUM_JOINTS)
        if q is None or not math.isfinite(stamp_s):
            return None, Hold.BAD_JOINTS
        if abs(now_s - stamp_s) > self.config.joint_timeout_s:
            return None, Hold.STALE_JOINTS
        if self._reading is not None and stamp_s > self._reading_s > -math.inf:
            speed = float(np.abs(q - self._reading)[:NUM_ARM_JOINTS].max()) / (stamp_s - self._reading_s)
            self._at_rest = speed < REST_SPEED_RAD_S
        self._reading, self._reading_s = q, stamp_s
        return q, None

    def _accept(self, now_s: float, action: ExecutedAction) -> Hold | None:
        """Return why the action is not executed, if it is not."""
        if abs(now_s - action.stamp_ns / 1e9) > self.config.command_timeout_s:
            return Hold.STALE_COMMAND
        self._command_s = now_s
        return None

    def _make_profile(self) -> Profile:
        config, locked = self.config, tuple(self._locks)
        if config.profile == 'pick101':
            return Pick101Profile(self.fk, workspace=config.workspace, locked=locked)
        return SetpointProfile(
            InverseKinematics(self.fk, IkOptions(restarts=0)),
            workspace=config.workspace,
            leash=config.leash_m,
            interpolation=config.interpolation_s,
            droop_gain=config.droop_gain,
            droop_limit=config.droop_limit_rad,
            locked=locked,
        )


def _finite(values: npt.ArrayLike, size: int) -> Array | None:
    """Return `size` finite numbers as a new array, or None if that is not what came."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.shape == (size,) and np.isfinite(array).all() else None


def _six(name: str, values: npt.ArrayLike) -> Array:
    array = _finite(values, NUM_JOINTS)
    if array is None:
        raise KinematicsError(f'expected {name} as {NUM_JOINTS} finite joint positions [rad], got {values!r}')
    return array
