# SPDX-License-Identifier: Apache-2.0
"""Where an episode begins: places of the cube, and how the arm is placed."""

from dataclasses import dataclass, field

import numpy as np

from so101_contract.arm_start import ArmStart, AtPoint, AtPose, home_pose, HOME_TCP, NearCube
from so101_kinematics.ik import InverseKinematics
from so101_sim.errors import PresetError
from so101_sim.servo import FloatArray

__all__ = ['HOME_TCP', 'ArmStart', 'AtPoint', 'AtPose', 'NearCube', 'Start', 'home_pose']

Range = tuple[float, float]
ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class Start:
    """The reset distribution of a task.

    Attributes:
        cube_x: range of the cube's centre [m].
        cube_y: the same, to the left [m].
        cube_yaw: range of its turn [rad].
        arm: how the arm is placed.
    """

    cube_x: Range = (0.22, 0.28)
    cube_y: Range = (-0.03, 0.03)
    cube_yaw: Range = (0.0, 0.0)
    arm: ArmStart = field(default_factory=AtPoint)

    def sample_cube(self, rng: np.random.Generator, cube_half_size: float) -> tuple[FloatArray, float]:
        """Draw the centre of the cube (3,) [m], and its yaw [rad]."""
        cube = np.array([rng.uniform(*self.cube_x), rng.uniform(*self.cube_y), cube_half_size])
        return cube, float(rng.uniform(*self.cube_yaw))

    def sample(
        self, rng: np.random.Generator, ik: InverseKinematics, cube_half_size: float
    ) -> tuple[FloatArray, FloatArray, float]:
        """Draw a start.

        Returns:
            Joint positions (6,) [rad], centre of the cube (3,) [m], and its yaw [rad].

        Raises:
            PresetError: the arm cannot be placed as this start asks.
        """
        for _ in range(ATTEMPTS):
            cube, yaw = self.sample_cube(rng, cube_half_size)
            q = self.arm.sample(rng, ik, cube)
            if q is not None:
                return q, cube, yaw
        raise PresetError(
            f'expected starts that the arm can reach, got none in {ATTEMPTS} draws of {self}; correct it'
        )
