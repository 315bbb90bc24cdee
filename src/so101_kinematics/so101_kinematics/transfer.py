# SPDX-License-Identifier: Apache-2.0
"""Bumpless transfer: when control starts over, the goal does not jump from what was commanded to what is measured.

An arm in motion lags behind its goal by some millimetres. Control that changes hands starts over from the measured
pose, and without more ado the goal would step back by that lag. Instead the difference is added to the new goal and
taken out little by little, while the new goal moves as it is told to.
"""

import math

import numpy as np

from so101_kinematics.fk import Array, ForwardKinematics, NUM_ARM_JOINTS

STEP_RAD = math.radians(0.4)
"""Largest part of the difference that is taken out of a joint in one control period."""

STEP_M = 0.001
"""The same for the TCP."""

LARGEST_RAD = 0.2
"""A larger difference is no lag: the arm is blocked or has been carried away, and is let go at once."""


class Transfer:
    """The difference between the old goal and the new one, and what is left of it."""

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
