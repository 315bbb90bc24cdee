# SPDX-License-Identifier: Apache-2.0
"""Can this calibration be right, is it the one that the servos hold, and does its zero agree with the model's?

The questions are answered in sentences. The first compares each joint's recorded travel with the model's: real arms
differ from the model by up to 9 percent (27 at the gripper), recording mistakes by far more. The last one puts the arm
into a known pose: LeRobot's zero is the middle of what was recorded, so it carries the errors of the stops and of the
assembly, 5 to 15 degrees on real arms. An offset per joint takes out what is left; an error too large for that is an
assembly error, and the sentence says which.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
import math
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from so101_contract.joints import GRIPPER, GRIPPER_CLOSED_RAD, JOINT_LIMITS_RAD, JOINT_NAMES
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError, JointCalibration, MAX_TICK

FULL_TURN_JOINTS = ('wrist_roll',)
"""Joints that may be recorded as the whole turn 0..4095: they have no stop that must be found."""

LEAST_TRAVEL, MOST_TRAVEL = 0.5, 1.35
"""Recorded travel over the model's; outside of this the recording is wrong."""

LEAST_LINEAR_TRAVEL = 0.25
"""The same for a leader's trigger, which need not turn as far as the jaw."""

SEAM_MARGIN = 200
"""Between two samples a hand moves a joint by less, so a wrapped range ends this near to the seam [ticks]."""


def travel_of_model(name: str) -> float:
    """Travel of a joint of the model, from limit to limit [rad]."""
    low, high = JOINT_LIMITS_RAD[name]
    return high - low


def joint_problem(name: str, joint: JointCalibration, *, linear: bool = False) -> str | None:
    """Say what makes the recorded range of a joint impossible, or None when it is plausible."""
    if name in FULL_TURN_JOINTS and (joint.range_min, joint.range_max) == (0, MAX_TICK):
        return None
    ratio = joint.travel_rad / travel_of_model(name)
    least = LEAST_LINEAR_TRAVEL if linear and name == GRIPPER else LEAST_TRAVEL
    if least <= ratio <= MOST_TRAVEL:
        return None
    degrees = f'{math.degrees(joint.travel_rad):.1f} degrees ({joint.range_min} to {joint.range_max} ticks)'
    model = f'{math.degrees(travel_of_model(name)):.0f}'
    if ratio < least:
        return (
            f'{name}: expected a travel of about {model} degrees, got {degrees}: the joint was not moved '
            f'from stop to stop; calibrate again and move it all the way'
        )
    if joint.range_min < SEAM_MARGIN or joint.range_max > MAX_TICK - SEAM_MARGIN:
        return (
            f"{name}: expected a travel of about {model} degrees, got {degrees}: the encoder's seam "
            f'(4095 to 0) lies inside the travel and the range wrapped; calibrate again with this project, '
            f'which finds the seam and moves it away'
        )
    return (
        f'{name}: expected a travel of about {model} degrees, got {degrees}: the horn slipped or this is '
        f'another joint; check the assembly and calibrate again'
    )


def problems(calibration: ArmCalibration) -> tuple[str, ...]:
    """One sentence for each joint whose recorded range cannot be right."""
    linear = calibration.gripper_map == 'linear'
    found = (joint_problem(name, calibration[name], linear=linear) for name in JOINT_NAMES)
    return tuple(sentence for sentence in found if sentence)


def require_plausible(calibration: ArmCalibration) -> ArmCalibration:
    """Return the calibration, or raise `CalibrationError` with everything that is wrong with it."""
    found = problems(calibration)
    if found:
        raise CalibrationError('. '.join(found))
    return calibration


@dataclass(frozen=True)
class ServoValues:
    """The part of a joint's calibration that lives in its servo's EEPROM [ticks]."""

    homing_offset: int
    range_min: int
    range_max: int

    @classmethod
    def of(cls, joint: JointCalibration) -> 'ServoValues':
        """What the servo of this joint should hold."""
        return cls(joint.homing_offset, joint.range_min, joint.range_max)


@dataclass(frozen=True)
class Difference:
    """One number that a calibration and a servo do not agree on [ticks]."""

    joint: str
    field: str
    calibration: int
    servo: int

    def __str__(self) -> str:
        return f'{self.joint}: {self.field} is {self.calibration} in the file and {self.servo} in the servo'


def differences(calibration: ArmCalibration, servos: Mapping[str, ServoValues]) -> tuple[Difference, ...]:
    """List every number in which the servos differ from the calibration, in joint order."""
    return tuple(
        Difference(name, field, wanted, found)
        for name in JOINT_NAMES
        for field in ('homing_offset', 'range_min', 'range_max')
        if (wanted := getattr(calibration[name], field)) != (found := getattr(servos[name], field))
    )


def matching(
    calibrations: Mapping[str, ArmCalibration], servos: Mapping[str, ServoValues]
) -> tuple[str, ...]:
    """Names of the calibrations that these servos hold.

    The homing offsets of two arms practically never agree, so this tells which arm is on the port.
    """
    return tuple(name for name, calibration in calibrations.items() if not differences(calibration, servos))


WARN_RAD = math.radians(5)
FAIL_RAD = math.radians(15)


@dataclass(frozen=True)
class NamedPose:
    """A pose of the model that can be recognised by eye.

    Attributes:
        name: short.
        look: how the arm looks, seen from behind it.
        joints_rad: angles in `JOINT_NAMES` order [rad].
    """

    name: str
    look: str
    joints_rad: tuple[float, ...]


POSES: Mapping[str, NamedPose] = MappingProxyType(
    {
        pose.name: pose
        for pose in (
            NamedPose(
                'zero',
                'pan straight ahead; upper arm leaning 14 degrees forward of upright; forearm and gripper '
                'level, pointing forward; moving jaw on top; gripper closed',
                (0.0, 0.0, 0.0, 0.0, 0.0, GRIPPER_CLOSED_RAD),
            ),
            NamedPose(
                'top_down',
                'pan straight ahead; upper arm leaning 14 degrees forward of upright; forearm level; gripper '
                'pointing straight down; moving jaw on the left; gripper closed',
                (0.0, 0.0, 0.0, math.pi / 2, math.pi / 2, GRIPPER_CLOSED_RAD),
            ),
        )
    }
)


class Agreement(Enum):
    """What the error of one joint means."""

    GOOD = 'good'
    WARN = 'warn'
    FAIL = 'fail'


@dataclass(frozen=True)
class JointZero:
    """The zero of one joint.

    Attributes:
        name: of the joint.
        expected_rad: angle of the pose [rad].
        measured_rad: angle that the calibration gives [rad].
        error_rad: measured minus expected, the short way round [rad].
        agreement: what it means.
        finding: one sentence.
    """

    name: str
    expected_rad: float
    measured_rad: float
    error_rad: float
    agreement: Agreement
    finding: str


def check_zero(measured_rad: npt.ArrayLike, expected_rad: npt.ArrayLike) -> tuple[JointZero, ...]:
    """Compare the joint angles that an arm reports in a pose with those of the pose.

    Args:
        measured_rad: (6,) in `JOINT_NAMES` order [rad].
        expected_rad: (6,) likewise, as in `POSES` [rad].
    """
    measured, expected = (np.asarray(v, dtype=np.float64) for v in (measured_rad, expected_rad))
    size = (len(JOINT_NAMES),)
    if measured.shape != size or expected.shape != size or not np.isfinite([measured, expected]).all():
        raise ValueError(f'expected six finite angles each, got {measured.tolist()} and {expected.tolist()}')
    return tuple(
        _check_joint(name, float(m), float(e))
        for name, m, e in zip(JOINT_NAMES, measured, expected, strict=True)
    )


def corrected(calibration: ArmCalibration, zeros: tuple[JointZero, ...]) -> ArmCalibration:
    """Return the calibration with offsets that take the errors out.

    Raises:
        CalibrationError: a joint is so far off that an offset would hide an assembly error.
    """
    bad = [zero.finding for zero in zeros if zero.agreement is Agreement.FAIL]
    if bad:
        raise CalibrationError(f'expected errors below 15 degrees, got: {" ".join(bad)} Nothing was changed')
    joints = {
        zero.name: replace(
            calibration[zero.name], offset_rad=calibration[zero.name].offset_rad - zero.error_rad
        )
        for zero in zeros
    }
    return ArmCalibration(joints, calibration.gripper_map)


def _check_joint(name: str, measured: float, expected: float) -> JointZero:
    error = (measured - expected + math.pi) % (2 * math.pi) - math.pi
    size = abs(error)
    degrees = f'{math.degrees(error):+.1f} degrees'
    if size <= WARN_RAD:
        agreement, finding = Agreement.GOOD, f'{name} agrees with the model ({degrees}).'
    elif size <= FAIL_RAD:
        agreement, finding = Agreement.WARN, f'{name} is {degrees} off; an offset can take that out.'
    else:
        agreement, finding = Agreement.FAIL, f'{name} is {degrees} off: {_cause(name, measured, expected)}.'
    return JointZero(name, expected, measured, error, agreement, finding)


def _cause(name: str, measured: float, expected: float) -> str:
    error = abs((measured - expected + math.pi) % (2 * math.pi) - math.pi)
    if name == GRIPPER and measured > expected:
        return (
            'it reads open, so the jaw was not closed, or its horn is mounted mirrored; close the jaw, or '
            'calibrate with --mirrored-gripper'
        )
    if error >= math.pi - FAIL_RAD:
        return 'the horn is mounted half a turn off; reassemble the joint, then calibrate'
    if abs(expected) > FAIL_RAD and abs(measured + expected) <= FAIL_RAD:
        return 'the joint turns against the model; check the horn, or set its sign to -1'
    if abs(error - math.pi / 2) <= FAIL_RAD:
        return 'the horn is mounted a quarter turn off; reassemble the joint, then calibrate'
    return 'the arm is not in the pose, or the horn is mounted teeth off; check both, then calibrate'
