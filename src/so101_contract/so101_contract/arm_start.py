# SPDX-License-Identifier: Apache-2.0
"""How the arm is placed when an episode begins: around a pose, around a point, or near the cube.

The twin says it for its task, the session leads the arm there, and the simulated environment begins with it: one
description for all three, and one way to draw joint positions from it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
import math
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.joints import gripper_opening_to_rad, JOINT_NAMES, limits_arrays, NUM_JOINTS

FloatArray: TypeAlias = npt.NDArray[np.float64]
Range = tuple[float, float]

GRIP_PITCH_RAD = math.radians(75.0)
"""Approach below the horizontal with which cubes are gripped best. The flatter, the more the moving jaw presses on the
cube's far top edge: at 65 degrees a third of the cubes slip out. A vertical gripper does not rise above 9 cm."""

HOME_TCP = (0.22, 0.0, 0.105)
"""Where the TCP waits between episodes, in the base frame [m]."""


class Solution(Protocol):
    """What a solver finds."""

    @property
    def success(self) -> bool:
        """Whether the target is reached."""

    @property
    def q(self) -> FloatArray:
        """Joint positions (6,) [rad]."""


class Solver(Protocol):
    """Inverse kinematics of the TCP."""

    def solve(
        self,
        position: npt.ArrayLike,
        seed: npt.ArrayLike,
        *,
        pitch: float | None = None,
        locked: Iterable[str] = (),
    ) -> Solution:
        """Find joint positions that reach a position (3,) [m], from a seed (6,) [rad]."""


@dataclass(frozen=True, kw_only=True)
class AtPose:
    """The arm starts in one pose.

    Attributes:
        q: (6,) joint positions [rad].
        spread: largest change of each joint, either way [rad].
    """

    q: tuple[float, ...] = (0.0,) * NUM_JOINTS
    spread: float = 0.0

    def sample(self, rng: np.random.Generator, ik: Solver, cube: FloatArray) -> FloatArray | None:
        """Return the pose."""
        del ik, cube
        return np.clip(
            np.array(self.q) + rng.uniform(-self.spread, self.spread, NUM_JOINTS), *limits_arrays()
        )


@dataclass(frozen=True, kw_only=True)
class AtPoint:
    """The TCP starts around a point.

    Attributes:
        centre: x, y, z [m].
        spread: largest distance from it along each axis [m].
        pitch: approach below the horizontal [rad].
        pitch_spread: largest change of it, either way [rad].
        roll: wrist_roll [rad]; 0 closes the jaws along the arm's own direction.
        opening: range of the gripper's opening, 0 closed .. 1 open.
    """

    centre: tuple[float, float, float] = HOME_TCP
    spread: tuple[float, float, float] = (0.02, 0.02, 0.01)
    pitch: float = GRIP_PITCH_RAD
    pitch_spread: float = 0.0
    roll: float = 0.0
    opening: Range = (0.4, 0.7)

    def sample(self, rng: np.random.Generator, ik: Solver, cube: FloatArray) -> FloatArray | None:
        """Return joint positions near the point, or None where this draw cannot be reached."""
        del cube
        target = np.array(self.centre) + rng.uniform(-1.0, 1.0, 3) * self.spread
        pitch = self.pitch + rng.uniform(-self.pitch_spread, self.pitch_spread)
        return _solved(ik, target, pitch, self.roll, float(rng.uniform(*self.opening)))


@dataclass(frozen=True, kw_only=True)
class NearCube:
    """The TCP starts relative to the cube with both wrist joints given, as pick-101 does.

    Attributes:
        offset: from the cube [m].
        away: range of a horizontal distance in any direction, added to the offset [m].
        height: of the TCP above the table [m] instead of the offset's; None for the offset's.
        wrist_flex: [rad].
        wrist_roll: [rad].
        opening: opening of the gripper.
    """

    offset: tuple[float, float, float] = (0.0, -0.015, 0.035)
    away: Range = (0.0, 0.0)
    height: float | None = None
    wrist_flex: float = math.pi / 2
    wrist_roll: float = math.pi / 2
    opening: float = 0.65

    def sample(self, rng: np.random.Generator, ik: Solver, cube: FloatArray) -> FloatArray | None:
        """Return joint positions near the cube, or None where this draw cannot be reached."""
        direction, distance = rng.uniform(-math.pi, math.pi), rng.uniform(*self.away)
        target = cube + self.offset + distance * np.array([math.cos(direction), math.sin(direction), 0.0])
        if self.height is not None:
            target[2] = self.height
        seed = np.zeros(NUM_JOINTS)
        seed[3], seed[4] = self.wrist_flex, self.wrist_roll
        found = ik.solve(target, seed, locked=('wrist_flex', 'wrist_roll'))
        if not found.success:
            return None
        q = found.q.copy()
        q[-1] = gripper_opening_to_rad(self.opening)
        return q


ArmStart: TypeAlias = AtPose | AtPoint | NearCube


def home_pose(ik: Solver, opening: float = 0.5) -> FloatArray:
    """Return the joint positions (6,) [rad] in which the arm waits between episodes."""
    q = _solved(ik, np.array(HOME_TCP), GRIP_PITCH_RAD, 0.0, opening)
    assert q is not None
    return q


def _solved(ik: Solver, target: FloatArray, pitch: float, roll: float, opening: float) -> FloatArray | None:
    seed = np.zeros(NUM_JOINTS)
    seed[JOINT_NAMES.index('wrist_roll')] = roll
    found = ik.solve(target, seed, pitch=pitch, locked=('wrist_roll',))
    if not found.success:
        return None
    q = found.q.copy()
    q[-1] = gripper_opening_to_rad(opening)
    return q
