# SPDX-License-Identifier: Apache-2.0
"""The joints of the SO-101: names, order, limits, velocities, and the frames at both ends of the chain.

Positions are in rad (REP-103) with the zeros and signs of the vendor's "new calibration" model. Servo ticks, degrees
and percent belong to the driver and never reach this module.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from so101_contract.errors import VelocityError

FloatArray: TypeAlias = npt.NDArray[np.float64]
FloatOrArray = TypeVar('FloatOrArray', float, npt.NDArray[np.float64])

BASE_FRAME = 'base_link'
"""Fixed to the foot of the arm: x forward, y left, z up (REP-103). Actions and workspaces are said in it."""

TCP_FRAME = 'gripper_frame_link'
"""The tool centre point of the chosen TCP preset."""

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


class VelocityEstimator:
    """Difference quotient over the stamps of two successive samples, never over a nominal period.

    The first sample has velocity zero. A sample with the stamp of the one before, or an earlier one, is not
    used (the network delivered it twice or late). After a pause longer than `max_gap_s`, or where the clock
    was set back by more than that, the estimate starts again from zero. Angles are taken as they are: no
    joint of this arm turns past half a revolution, so nothing is unwrapped.
    """

    def __init__(self, size: int = NUM_JOINTS, *, max_gap_s: float = 1.0, smoothing_s: float = 0.0) -> None:
        """Make an estimator.

        Args:
            size: number of joints.
            max_gap_s: a difference over a longer time says nothing about the present [s].
            smoothing_s: time constant of a first-order low-pass [s]; 0 switches it off.
        """
        if size < 1 or not max_gap_s > 0 or not smoothing_s >= 0:
            raise VelocityError(
                f'expected size >= 1, max_gap_s > 0 and smoothing_s >= 0, got {size}, {max_gap_s} and '
                f'{smoothing_s}; correct them'
            )
        self._size = size
        self._max_gap_ns = round(max_gap_s * 1e9)
        self._smoothing_s = smoothing_s
        self.reset()

    def reset(self) -> None:
        """Forget every sample: the next one is the first."""
        self._stamp_ns: int | None = None
        self._position = np.zeros(self._size)
        self._velocity: FloatArray | None = None
        self.ignored = 0
        """Samples that were not used because their stamp was not newer."""
        self.restarts = 0
        """Times that the estimate started again after a gap or a clock set back."""

    def update(self, stamp_ns: int, position: npt.ArrayLike) -> FloatArray:
        """Take a sample and return the velocity at it.

        Args:
            stamp_ns: when the position was read [ns].
            position: joint positions `(size,)` [rad].

        Returns:
            Joint velocities `(size,)` [rad/s], a new array.

        Raises:
            VelocityError: the shape is wrong or an entry is not finite; the sample is not used.
        """
        now = np.array(position, dtype=np.float64)
        if now.shape != (self._size,) or not np.isfinite(now).all():
            raise VelocityError(
                f'expected {self._size} finite positions, got {now.tolist()}; drop it or repair its source'
            )
        if self._stamp_ns is None:
            return self._start(stamp_ns, now)
        elapsed_ns = stamp_ns - self._stamp_ns
        if abs(elapsed_ns) > self._max_gap_ns:
            self.restarts += 1
            return self._start(stamp_ns, now)
        if elapsed_ns <= 0:
            self.ignored += 1
            return self._velocity.copy() if self._velocity is not None else np.zeros(self._size)
        elapsed = elapsed_ns / 1e9
        velocity = (now - self._position) / elapsed
        if self._velocity is not None and self._smoothing_s > 0:
            share = -np.expm1(-elapsed / self._smoothing_s)
            velocity = self._velocity + share * (velocity - self._velocity)
        self._stamp_ns, self._position, self._velocity = stamp_ns, now, velocity
        return velocity.copy()

    def _start(self, stamp_ns: int, position: FloatArray) -> FloatArray:
        self._stamp_ns, self._position, self._velocity = stamp_ns, position, None
        return np.zeros(self._size)
