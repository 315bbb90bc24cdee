# SPDX-License-Identifier: Apache-2.0
"""Leads the joint goals towards a target within every limit, in front of the metal arm and of the simulated one."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from so101_driver.gate.config import GateConfig, GRIPPER_INDEX
from so101_driver.gate.types import NUM_JOINTS, Vector

Flags = npt.NDArray[np.bool_]

SETTLE_S = 0.5
"""How long a parked arm may take to come to the last goal before it is released anyway [s]."""

ARRIVED_RAD = 0.1
"""Distance from the rest pose at which a joint has arrived [rad]; sag and backlash stay below it."""


class Grip(NamedTuple):
    """What the servo of the gripper says of the force it puts on things.

    Attributes:
        velocity_rad_s: its speed [rad/s].
        load: its output as a signed fraction of full output.
        overloaded: whether it reports overload.
        fresh: whether it answered in this cycle.
    """

    velocity_rad_s: float
    load: float
    overloaded: bool = False
    fresh: bool = True


class GoalFollower:
    """Six goals that never go too fast, too far ahead of their joints, out of their limits, or squeeze too hard.

    Attributes:
        goal: the goals (6,) [rad].
        ramp_limited: in the last step the speed limit cut that of a joint.
        lead_limited: in the last step a goal waited for its joint.
    """

    def __init__(self, config: GateConfig) -> None:
        self.lower = np.array(config.joint_lower_rad)
        self.upper = np.array(config.joint_upper_rad)
        self.goal = np.zeros(NUM_JOINTS)
        self.ramp_limited = self.lead_limited = False
        self._speed_limit = np.array(config.max_speed_rad_s)
        self._recovery_speed = np.minimum(config.recovery_speed_rad_s, self._speed_limit)
        self._acceleration = config.max_acceleration_rad_s2
        self._lead = config.max_lead_rad
        self._speed = np.zeros(NUM_JOINTS)
        self._guard = GripperGuard(config)

    def clamp(self, target: Vector) -> Vector:
        """Return the target within the joint limits (6,) [rad]."""
        clamped: Vector = np.minimum(np.maximum(target, self.lower), self.upper)
        return clamped

    def seed(self, position: Vector) -> None:
        """Set the goals to where the joints are (6,) [rad], even outside the limits: nothing moves."""
        self.goal = position.copy()
        self.stop()

    def stop(self) -> None:
        """Forget the speed; the goals stay."""
        self._speed = np.zeros(NUM_JOINTS)

    def let_go(self) -> None:
        """Forget that the gripper is in contact: it holds nothing any more."""
        self._guard.reset()

    def lead(self, target: Vector, measured: Vector, dt: float, grip: Grip | None = None) -> Vector:
        """Move the goals towards a target for one tick; return a copy of them.

        This is the one place where a target is clamped into the joint limits. A goal that started outside of
        them moves inwards only, at recovery speed. When a joint is pushed farther than the lead from its goal,
        the goal follows it at ramp speed. In contact the gripper's goal stays within a squeeze of the gripper.

        Args:
            target: wanted goals (6,) [rad], finite.
            measured: joint positions (6,) [rad].
            dt: time since the last step [s], already bounded by the caller.
            grip: of the gripper; None leaves it unguarded.
        """
        goal = self.goal
        self.ramp_limited = self.lead_limited = False
        if grip is not None:
            target = self._held(target, float(measured[GRIPPER_INDEX]), dt, grip)
        wanted = self.clamp(target)
        clamped = bool((wanted != target).any())
        if dt <= 0.0:
            return goal.copy()
        inside = (goal >= self.lower) & (goal <= self.upper)
        if not clamped and self._in_reach(wanted, measured, inside, dt):
            self.goal = wanted
            return wanted.copy()
        return self._ramp(wanted, measured, inside, dt)

    def _held(self, target: Vector, gripper: float, dt: float, grip: Grip) -> Vector:
        """The target with the gripper's goal close to the gripper [rad] while that squeezes something."""
        self._guard.update(grip, float(self.goal[GRIPPER_INDEX]) - gripper, dt)
        held = self._guard.limit(float(target[GRIPPER_INDEX]), gripper)
        if held == target[GRIPPER_INDEX]:
            return target
        target = target.copy()
        target[GRIPPER_INDEX] = held
        return target

    def _in_reach(self, wanted: Vector, measured: Vector, inside: Flags, dt: float) -> bool:
        """Whether no limit holds the goals back: then the ramp, spared here, would end at the target."""
        near = np.abs(wanted - self.goal) <= self._speed_limit * dt
        followed = np.abs(wanted - measured) <= self._lead
        return self._acceleration == 0.0 and bool((near & followed & inside).all())

    def _ramp(self, wanted: Vector, measured: Vector, inside: Flags, dt: float) -> Vector:
        goal = self.goal
        low, high = np.minimum(self.lower, goal), np.maximum(self.upper, goal)
        behind, ahead = measured - self._lead, measured + self._lead
        allowed = np.clip(np.clip(wanted, behind, ahead), low, high)
        limit = np.where(inside, self._speed_limit, self._recovery_speed)
        moved = goal + self._speed_towards(allowed - goal, limit, dt) * dt
        # With bounded acceleration a goal can overshoot; still it may not lead farther nor leave the limits.
        moved = np.clip(moved, np.minimum(goal, behind), np.maximum(goal, ahead))
        self.goal = np.clip(moved, low, high)
        self._speed = (self.goal - goal) / dt
        too_fast = np.abs(allowed - goal) > limit * dt + 1e-9
        waits = ~too_fast & (np.abs(allowed - wanted) > 1e-9)
        self.ramp_limited, self.lead_limited = bool(np.any(too_fast)), bool(np.any(waits))
        return self.goal.copy()

    def _speed_towards(self, error: Vector, limit: Vector, dt: float) -> Vector:
        wanted = np.clip(error, -limit * dt, limit * dt) / dt
        if self._acceleration == 0.0:
            return wanted
        # The speed from which a goal that slows down once per tick can still stop at the target.
        half = 0.5 * self._acceleration * dt
        stoppable = np.sqrt(half**2 + 2.0 * self._acceleration * np.abs(error)) - half
        wanted = np.clip(wanted, -stoppable, stoppable)
        change = self._acceleration * dt
        eased = np.clip(np.clip(wanted, self._speed - change, self._speed + change), -limit, limit)
        return np.where(error == 0.0, 0.0, eased)  # a goal that has arrived does not coast on


class GripperGuard:
    """Keeps the gripper from squeezing beyond contact, which overloads and burns its servo.

    Contact is load without motion. It ends when the target turns back to the other side of the jaw, or when the
    jaw moves on because the object is gone.
    """

    def __init__(self, config: GateConfig) -> None:
        self._config = config
        self._direction = 0.0  # of the contact, 0 without one
        self._pressed_s = 0.0
        self._squeeze = config.gripper_squeeze_rad

    def reset(self) -> None:
        """Forget the contact."""
        self._direction = self._pressed_s = 0.0

    def update(self, grip: Grip, push: float, dt: float) -> None:
        """Look for contact.

        Args:
            grip: of the gripper now.
            push: how far its goal is ahead of it [rad].
            dt: time since the last call [s].
        """
        if not grip.fresh:
            return
        config = self._config
        loaded = abs(grip.load) >= config.gripper_contact_load
        pressing = loaded and abs(grip.velocity_rad_s) <= config.gripper_contact_speed_rad_s and push != 0.0
        self._pressed_s = self._pressed_s + dt if pressing else 0.0
        touched = self._direction == 0.0 and pressing and self._pressed_s >= config.gripper_contact_s
        if touched or (grip.overloaded and push != 0.0):
            self._direction = 1.0 if push > 0.0 else -1.0
        elif self._direction * grip.velocity_rad_s > 2.0 * config.gripper_contact_speed_rad_s:
            self.reset()
        self._squeeze = 0.0 if grip.overloaded else config.gripper_squeeze_rad

    def limit(self, target: float, position: float) -> float:
        """Return the target [rad], kept within a squeeze of the position [rad] while in contact."""
        if self._direction == 0.0:
            return target
        if self._direction * (target - position) <= 0.0:
            self.reset()
            return target
        if self._direction > 0.0:
            return min(target, position + self._squeeze)
        return max(target, position - self._squeeze)


class ParkPath:
    """The way to the rest pose: a straight line in joint space with a smooth start and end, slowly.

    All joints move together, since that line stays off the table: moving one joint after the other does not,
    whatever the order. The gripper stays as it is: an object held is neither dropped nor crushed.
    """

    def __init__(self, start: Vector, config: GateConfig) -> None:
        self._start = start.copy()
        self._end = np.array(config.rest_rad)
        self._end[GRIPPER_INDEX] = start[GRIPPER_INDEX]
        self._timeout_s = config.park_timeout_s
        # The smooth step below peaks at 1.5 times its mean speed.
        self.duration_s = 1.5 * float(np.max(np.abs(self._end - self._start))) / config.park_speed_rad_s
        self.elapsed_s = 0.0

    def advance(self, dt: float) -> None:
        """Let time pass [s]."""
        self.elapsed_s += dt

    def goal(self) -> Vector:
        """Return the goal (6,) [rad] for this moment."""
        s = min(self.elapsed_s / self.duration_s, 1.0) if self.duration_s > 0.0 else 1.0
        return self._start + (self._end - self._start) * (s * s * (3.0 - 2.0 * s))

    def finished(self, measured: Vector) -> bool:
        """Return whether the arm is to be released: it has arrived, or waiting longer makes no sense.

        Args:
            measured: joint positions (6,) [rad].
        """
        if self.elapsed_s >= min(self.duration_s + SETTLE_S, self._timeout_s):
            return True
        error = np.abs(measured - self._end)
        error[GRIPPER_INDEX] = 0.0
        return self.elapsed_s >= self.duration_s and bool(np.max(error) <= ARRIVED_RAD)
