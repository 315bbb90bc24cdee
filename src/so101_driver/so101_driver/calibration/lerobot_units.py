# SPDX-License-Identifier: Apache-2.0
"""How LeRobot says joint positions, and what that is in rad.

LeRobot has had two units: since 0.4.4 the arm's joints are degrees by default, before that -100..100 over the
calibrated range; the gripper is 0 (closed) to 100 (open) in both. Zero degrees are the middle of the calibrated range,
which is our zero too. LeRobot counts 4095 ticks to the turn where a servo has 4096, so its degree is a four-thousandth
shorter than a degree.

Without the arm's calibration the range is taken from the model: exact for degrees, an approximation for -100..100 and
for the gripper, whose real travel differs from the model's by up to a quarter.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.joints import (
    ARM_JOINTS,
    GRIPPER_CLOSED_RAD,
    GRIPPER_OPEN_RAD,
    gripper_opening_to_rad,
    gripper_rad_to_opening,
    limits_arrays,
)
from so101_driver.calibration.calibration import ArmCalibration, MAX_TICK, RAD_PER_TICK

FloatArray: TypeAlias = npt.NDArray[np.float64]

DEGREES, RANGE, RAD = 'degrees', 'range', 'rad'
UNITS = (DEGREES, RANGE, RAD)

_TICKS_PER_DEGREE = MAX_TICK / 360.0
_FULL_TURN = 'wrist_roll'  # LeRobot sets its range to the whole turn


@dataclass(frozen=True)
class JointScale:
    """Joint positions in one of LeRobot's units, and their way to rad and back.

    Attributes:
        units: one of `UNITS`.
        calibration: of the arm that is meant, where it is known.
    """

    units: str
    calibration: ArmCalibration | None = None

    def to_rad(self, values: npt.ArrayLike) -> FloatArray:
        """Turn positions (n, 6) in `JOINT_NAMES` order into rad."""
        said = np.asarray(values, dtype=np.float64)
        if self.units == RAD:
            return said.copy()
        if self.calibration is not None:
            return self.calibration.ticks_to_rad(self._ticks(said, self.calibration))
        return np.column_stack(
            [said[:, :-1] * self._rad_per_unit(), gripper_opening_to_rad(said[:, -1] / 100.0)]
        )

    def from_rad(self, positions: npt.ArrayLike) -> FloatArray:
        """Turn positions (n, 6) [rad] into these units: `to_rad` backwards."""
        rad = np.asarray(positions, dtype=np.float64)
        if self.units == RAD:
            return rad.copy()
        if self.calibration is not None:
            return self._said(self.calibration.rad_to_exact_ticks(rad), self.calibration)
        return np.column_stack(
            [rad[:, :-1] / self._rad_per_unit(), 100.0 * gripper_rad_to_opening(rad[:, -1])]
        )

    def positions(self, values: npt.ArrayLike) -> FloatArray:
        """Return the same as `to_rad`, with the gripper within its limits."""
        rad = self.to_rad(values)
        rad[:, -1] = np.clip(rad[:, -1], GRIPPER_CLOSED_RAD, GRIPPER_OPEN_RAD)
        return rad

    def _rad_per_unit(self) -> FloatArray | float:
        return half_travel() / 100.0 if self.units == RANGE else _TICKS_PER_DEGREE * RAD_PER_TICK

    def _ticks(self, said: FloatArray, calibration: ArmCalibration) -> FloatArray:
        low, travel = _range(calibration)
        share = (said + 100.0) / 200.0
        share[:, -1] = said[:, -1] / 100.0
        if calibration['gripper'].drive_mode:
            share[:, -1] = 1.0 - share[:, -1]
        ticks = low + share * travel
        if self.units == DEGREES:
            ticks[:, :-1] = (low + travel / 2)[:-1] + said[:, :-1] * _TICKS_PER_DEGREE
        return ticks

    def _said(self, ticks: FloatArray, calibration: ArmCalibration) -> FloatArray:
        low, travel = _range(calibration)
        share = (ticks - low) / travel
        if calibration['gripper'].drive_mode:
            share[:, -1] = 1.0 - share[:, -1]
        said = 200.0 * share - 100.0
        said[:, -1] = 100.0 * share[:, -1]
        if self.units == DEGREES:
            said[:, :-1] = (ticks - low - travel / 2)[:, :-1] / _TICKS_PER_DEGREE
        return said


def half_travel() -> FloatArray:
    """Half of what each arm joint of the model can turn [rad], as LeRobot would record it."""
    low, high = limits_arrays()
    half = (high - low)[:-1] / 2
    half[ARM_JOINTS.index(_FULL_TURN)] = MAX_TICK / 2 * RAD_PER_TICK
    return half


def _range(calibration: ArmCalibration) -> tuple[FloatArray, FloatArray]:
    """Return the lowest ticks of the joints and their travel."""
    low = calibration.range_min.astype(np.float64)
    return low, calibration.range_max - low
