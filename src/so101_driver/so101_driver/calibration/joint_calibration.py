# SPDX-License-Identifier: Apache-2.0
"""The calibration numbers of one joint, checked when they are put together."""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from types import MappingProxyType

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.registers import TICKS_PER_TURN

MAX_TICK = TICKS_PER_TURN - 1
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN

MAX_HOMING_OFFSET = 2047
"""The servo keeps the offset as 11 bits and a sign."""

SERVO_IDS: Mapping[str, int] = MappingProxyType({name: i + 1 for i, name in enumerate(JOINT_NAMES)})
"""The ID that each joint's servo has on every SO-101."""


class CalibrationError(ValueError):
    """A calibration cannot be right; the message says what is wrong with it and what to do."""


@dataclass(frozen=True)
class JointCalibration:
    """What one servo and its joint need to know about each other.

    Attributes:
        id: servo ID on the bus.
        drive_mode: 1 when the gripper closes towards higher ticks (its horn is mounted mirrored), else 0.
        homing_offset: what the servo subtracts from its encoder [ticks], -2047..2047.
        range_min: lowest tick that the joint reaches, 0..4095.
        range_max: highest tick that the joint reaches, 0..4095.
        sign: -1 when the joint turns against the model, else +1.
        offset_rad: added to the angle [rad]; what a zero check measured.
    """

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int
    sign: int = 1
    offset_rad: float = 0.0

    def __post_init__(self) -> None:
        for name in ('id', 'drive_mode', 'homing_offset', 'range_min', 'range_max', 'sign'):
            _check_whole(name, getattr(self, name))
        if not 0 <= self.id <= 252:
            raise CalibrationError(f'id must be 0 to 252, got {self.id}; run setup-motors')
        if self.drive_mode not in (0, 1):
            raise CalibrationError(f'drive_mode must be 0 or 1, got {self.drive_mode}; calibrate again')
        if abs(self.homing_offset) > MAX_HOMING_OFFSET:
            raise CalibrationError(
                f'homing_offset must be -2047 to 2047, got {self.homing_offset}: the servo was read outside '
                f'one turn; switch the arm off and on and calibrate again'
            )
        self._check_range()
        if self.sign not in (-1, 1):
            raise CalibrationError(f'sign must be 1 or -1, got {self.sign}; correct it or leave it out')
        if not (isinstance(self.offset_rad, int | float) and abs(self.offset_rad) <= math.pi):
            raise CalibrationError(
                f'offset_rad must be -3.1416 to 3.1416, got {self.offset_rad!r}; say it in rad, not degrees'
            )
        object.__setattr__(self, 'offset_rad', float(self.offset_rad) + 0.0)  # no -0.0: it hashes apart

    def _check_range(self) -> None:
        for name, tick in (('range_min', self.range_min), ('range_max', self.range_max)):
            if not 0 <= tick <= MAX_TICK:
                raise CalibrationError(
                    f'{name} must be 0 to {MAX_TICK} ticks, got {tick}: the servo was read outside one turn; '
                    f'switch the arm off and on and calibrate again'
                )
        if self.range_min == self.range_max:
            raise CalibrationError(
                f'range_min and range_max are both {self.range_min}: the joint was not moved while its '
                f'range was recorded; calibrate again and move every joint from stop to stop'
            )
        if self.range_min > self.range_max:
            raise CalibrationError(
                f'range_min must be below range_max, got {self.range_min} and {self.range_max}: the range '
                f"wraps around the encoder's seam (4095 to 0); calibrate again"
            )

    @property
    def middle(self) -> float:
        """Middle of the recorded range [ticks]; may end in .5."""
        return (self.range_min + self.range_max) / 2

    @property
    def travel_rad(self) -> float:
        """Length of the recorded range [rad]."""
        return (self.range_max - self.range_min) * RAD_PER_TICK


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise CalibrationError(f'{name} must be a whole number, got {value!r}; calibrate again')
