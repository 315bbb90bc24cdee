# SPDX-License-Identifier: Apache-2.0
"""The joints of the SO-101: names, order, limits, and the gripper's two ways to say how open it is.

Positions are in rad with the zeros and signs of the vendor's "new calibration" model. Servo ticks, degrees
and percent belong to the driver and never reach this module.
"""

from collections.abc import Iterable, Mapping
import functools
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from so101_contract.errors import JointError

FloatOrArray = TypeVar('FloatOrArray', float, npt.NDArray[np.float64])

JOINT_NAMES: tuple[str, ...] = (
    'shoulder_pan',
    'shoulder_lift',
    'elbow_flex',
    'wrist_flex',
    'wrist_roll',
    'gripper',
)
"""Every joint, in the order of every vector that has no names of its own."""

ARM_JOINTS: tuple[str, ...] = JOINT_NAMES[:5]
GRIPPER = 'gripper'
NUM_JOINTS = len(JOINT_NAMES)

JOINT_LIMITS_RAD: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        'shoulder_pan': (-1.9198621771937616, 1.9198621771937634),
        'shoulder_lift': (-1.7453292519943224, 1.7453292519943366),
        'elbow_flex': (-1.69, 1.69),
        'wrist_flex': (-1.6580628494556928, 1.6580627293335335),
        'wrist_roll': (-2.7438472969992493, 2.841206309382605),
        'gripper': (-0.17453297762778586, 1.7453291995659765),
    }
)
"""Lower and upper end of each joint's range [rad], digit for digit those of the vendor's MJCF model."""

GRIPPER_CLOSED_RAD, GRIPPER_OPEN_RAD = JOINT_LIMITS_RAD[GRIPPER]


def gripper_opening_to_rad(opening: FloatOrArray) -> FloatOrArray:
    """Turn an opening (0 closed .. 1 open) into a gripper joint position [rad].

    The map is affine and does not clip: 1.1 is ten percent beyond the open end.
    """
    return GRIPPER_CLOSED_RAD + opening * (GRIPPER_OPEN_RAD - GRIPPER_CLOSED_RAD)


def gripper_rad_to_opening(rad: FloatOrArray) -> FloatOrArray:
    """Turn a gripper joint position [rad] into an opening (0 closed .. 1 open), without clipping."""
    return (rad - GRIPPER_CLOSED_RAD) / (GRIPPER_OPEN_RAD - GRIPPER_CLOSED_RAD)


def limits_arrays() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the lower and the upper limits [rad] as two (6,) arrays in `JOINT_NAMES` order."""
    limits = np.array([JOINT_LIMITS_RAD[name] for name in JOINT_NAMES], dtype=np.float64)
    return limits[:, 0].copy(), limits[:, 1].copy()


def order_by_name(names: Iterable[str], values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Put values that come with joint names into `JOINT_NAMES` order.

    Args:
        names: joint names as they came, in any order; names of other joints are ignored.
        values: one value per name (n,), any unit.

    Returns:
        The (6,) values of this arm's joints, as a new array.

    Raises:
        JointError: a joint is named twice, or the lengths differ.
        MissingJointError: a joint is missing; it is a `KeyError` as well.
    """
    given = tuple(names)
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(given),):
        raise JointError(
            f'expected one value per joint name, got {len(given)} names and values of shape {array.shape}; '
            f'fill both lists of the message'
        )
    return array[_places(given)]


@functools.lru_cache(maxsize=16)
def _places(given: tuple[str, ...]) -> npt.NDArray[np.intp]:
    """Return where the joints of this arm stand among the names; they are the same in every message of a topic."""
    index = {name: i for i, name in enumerate(given)}
    if len(index) != len(given):
        twice = sorted({name for name in given if given.count(name) > 1})
        raise JointError(
            f'expected each joint once, got {twice} more than once in {list(given)}; rename them'
        )
    missing = [name for name in JOINT_NAMES if name not in index]
    if missing:
        raise MissingJointError(
            f'expected the joints {list(JOINT_NAMES)}, got {list(given)} without {missing}; '
            f'publish every joint in each message'
        )
    places = np.array([index[name] for name in JOINT_NAMES], dtype=np.intp)
    places.setflags(write=False)
    return places


class MissingJointError(JointError, KeyError):
    """A joint of this arm is not among the names that came."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes
