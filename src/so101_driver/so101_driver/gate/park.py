# SPDX-License-Identifier: Apache-2.0
"""The way to the rest pose: every joint starts and arrives together, slowly."""

import numpy as np

from so101_driver.gate.config import GateConfig, GRIPPER_INDEX
from so101_driver.gate.types import Vector

SETTLE_S = 0.5
"""How long a parked arm may take to come to the last goal before it is released anyway [s]."""

ARRIVED_RAD = 0.1
"""Distance from the rest pose at which a joint has arrived [rad]; sag and backlash stay below it."""


class ParkPath:
    """A straight line in joint space with a smooth start and end.

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
