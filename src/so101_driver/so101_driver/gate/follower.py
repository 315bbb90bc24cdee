# SPDX-License-Identifier: Apache-2.0
"""Leads joint goals towards a target, within every limit."""

from typing import NamedTuple

import numpy as np

from so101_driver.gate.config import GateConfig
from so101_driver.gate.types import NUM_JOINTS, Vector


class Step(NamedTuple):
    """One step of the ramp.

    Attributes:
        goal_rad: the new goals (6,) [rad].
        ramp_limited: the speed limit cut the step of a joint.
        lead_limited: a goal waited for its joint.
    """

    goal_rad: Vector
    ramp_limited: bool
    lead_limited: bool


class JointRamp:
    """Six goals that never go too fast, too far ahead of their joints, or out of their limits."""

    def __init__(self, config: GateConfig) -> None:
        self.lower = np.array(config.joint_lower_rad)
        self.upper = np.array(config.joint_upper_rad)
        self._speed_limit = np.array(config.max_speed_rad_s)
        self._recovery_speed = np.minimum(config.recovery_speed_rad_s, self._speed_limit)
        self._acceleration = config.max_acceleration_rad_s2
        self._lead = config.max_lead_rad
        self._speed = np.zeros(NUM_JOINTS)
        self.goal = np.zeros(NUM_JOINTS)

    def clamp(self, target: Vector) -> Vector:
        """Return the target clipped into the limits (6,) [rad]."""
        return np.clip(target, self.lower, self.upper)

    def seed(self, position: Vector) -> None:
        """Set the goals to where the joints are (6,) [rad], even outside the limits: nothing moves."""
        self.goal = position.copy()
        self.stop()

    def stop(self) -> None:
        """Forget the speed; the goals stay."""
        self._speed = np.zeros(NUM_JOINTS)

    def step(self, target: Vector, measured: Vector, dt: float) -> Step:
        """Move the goals towards a target for one tick.

        A goal that started outside the limits moves inwards only, at recovery speed. When a joint is pushed
        farther than the lead from its goal, the goal follows it at ramp speed.

        Args:
            target: wanted goals (6,) [rad]; clipped into the limits here.
            measured: joint positions (6,) [rad].
            dt: time since the last step [s], already bounded by the caller.
        """
        if dt <= 0.0:
            return Step(self.goal.copy(), False, False)
        goal = self.goal
        inside = (goal >= self.lower) & (goal <= self.upper)
        low, high = np.minimum(self.lower, goal), np.maximum(self.upper, goal)
        behind, ahead = measured - self._lead, measured + self._lead
        wanted = self.clamp(target)
        allowed = np.clip(np.clip(wanted, behind, ahead), low, high)
        limit = np.where(inside, self._speed_limit, self._recovery_speed)
        moved = goal + self._speed_towards(allowed - goal, limit, dt) * dt
        # With bounded acceleration a goal can overshoot; still it may not lead farther nor leave the limits.
        moved = np.clip(moved, np.minimum(goal, behind), np.maximum(goal, ahead))
        self.goal = np.clip(moved, low, high)
        self._speed = (self.goal - goal) / dt
        too_fast = np.abs(allowed - goal) > limit * dt + 1e-9
        waits = ~too_fast & (np.abs(allowed - wanted) > 1e-9)
        return Step(self.goal.copy(), ramp_limited=bool(np.any(too_fast)), lead_limited=bool(np.any(waits)))

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
