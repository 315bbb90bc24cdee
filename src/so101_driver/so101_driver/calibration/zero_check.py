# SPDX-License-Identifier: Apache-2.0
"""Does the arm's zero agree with the model's? Put the arm into a known pose and compare.

LeRobot's zero is the middle of what was recorded, so it carries the errors of the stops and of the assembly:
5 to 15 degrees on real arms. An offset per joint takes out what is left; an error too large for that is an
assembly error, and the sentence says which.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
import math
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from so101_contract.joints import GRIPPER, GRIPPER_CLOSED_RAD, JOINT_NAMES
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError

WARN_RAD = math.radians(5)
FAIL_RAD = math.radians(15)


@dataclass(frozen=True)
class NamedPose:
    """A pose of the model that a person can recognise.

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


class Verdict(Enum):
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
        verdict: what it means.
        finding: one sentence.
    """

    name: str
    expected_rad: float
    measured_rad: float
    error_rad: float
    verdict: Verdict
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
    bad = [zero.finding for zero in zeros if zero.verdict is Verdict.FAIL]
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
        verdict, finding = Verdict.GOOD, f'{name} agrees with the model ({degrees}).'
    elif size <= FAIL_RAD:
        verdict, finding = Verdict.WARN, f'{name} is {degrees} off; an offset can take that out.'
    else:
        verdict, finding = Verdict.FAIL, f'{name} is {degrees} off: {_cause(name, measured, expected)}.'
    return JointZero(name, expected, measured, error, verdict, finding)


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
