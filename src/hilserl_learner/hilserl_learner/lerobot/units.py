# SPDX-License-Identifier: Apache-2.0
"""Which of LeRobot's units a dataset is in: it does not say.

A file holds degrees, -100..100 or rad (`JointScale` has their way to rad). What was asked for is held against the
joint limits, and where nothing was asked for, only one of them may be possible.
"""

from collections.abc import Sequence
import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hilserl_learner.errors import DatasetError
from hilserl_learner.lerobot.dataset import Feature
from so101_contract.joints import JOINT_NAMES, limits_arrays, NUM_JOINTS
from so101_contract.observation import JOINT_MARGIN_RAD
from so101_driver.calibration.calibration import ArmCalibration
from so101_driver.calibration.lerobot_units import DEGREES, JointScale, RAD, RANGE, UNITS

FloatArray: TypeAlias = npt.NDArray[np.float64]

OUTLIERS = 0.02
"""Share of the rows that may lie beyond the limits before the units are doubted, 0..1."""

TARGET_OUTLIERS = 0.5
"""The same for targets: a leader arm turns further than the one that follows."""

_ROUNDING = 0.01
_PREFIXES, _SUFFIX = ('', 'main_'), '.pos'


def fits(scale: JointScale, values: FloatArray, outliers: float = OUTLIERS) -> bool:
    """Whether positions (n, 6) can be in the units of a scale, if so large a share of the rows may lie outside."""
    if scale.units != RAD and _like_rad(values):
        return False
    if scale.units == RANGE and np.abs(values[:, :-1]).max() > 100.0 + _ROUNDING:
        return False
    return bool(outside(scale.to_rad(values)).any(axis=1).mean() <= outliers)


def from_rad(positions: npt.ArrayLike) -> FloatArray:
    """Turn positions (n, 6) [rad] into LeRobot's degrees, and 0..100 for the gripper."""
    return JointScale(DEGREES).from_rad(positions)


def outside(positions: FloatArray) -> npt.NDArray[np.bool_]:
    """Which positions (n, 6) [rad] of the arm lie beyond the limits, by more than stops and calibrations differ.

    The gripper tells nothing: its range is the jaw's that was calibrated, and real jaws open wider than the model's.
    """
    low, high = limits_arrays()
    beyond = (positions < low - JOINT_MARGIN_RAD) | (positions > high + JOINT_MARGIN_RAD)
    return beyond[:, :-1]


def choose_units(
    asked: str, values: FloatArray, calibration: ArmCalibration | None, where: str
) -> JointScale:
    """Return the units of positions (n, 6), as asked for or as the only ones that they can be in.

    Raises:
        DatasetError: they cannot be in the units that were asked for; or none were, and several are possible.
    """
    scales = {units: JointScale(units, calibration) for units in UNITS}
    fitting = [units for units, scale in scales.items() if fits(scale, values)]
    if asked in fitting or (not asked and len(fitting) == 1):
        return scales[asked or fitting[0]]
    told = f'{_extremes(values)} in {where}'
    if not fitting:
        raise DatasetError(
            f'expected joint positions of an SO-101 in degrees, in -100..100 or in rad, got {told}: none of them '
            f'stays within the limits; this may be another arm, or need its calibration: --calibration FILE'
        )
    would = ' or '.join(fitting)
    if asked:
        raise DatasetError(
            f'expected joint positions in {asked}, got {told}: that would be {would}; pass --units {fitting[0]}'
        )
    hint = (
        ' (some end at exactly 100, as the clipped range does)'
        if RANGE in fitting and _clipped(values)
        else ''
    )
    raise DatasetError(
        f'expected --units, which a dataset does not say, got {told}, which may be {would}{hint}; LeRobot records '
        f'degrees since 0.4.4 unless told otherwise, and -100..100 before'
    )


def joint_columns(feature: Feature, folder: object) -> list[int]:
    """Return which entries of a feature are the positions of the six joints, in `JOINT_NAMES` order.

    Raises:
        DatasetError: its names are those of another robot.
    """
    size = int(np.prod(feature.shape))
    names = feature.names
    if not names and size in (NUM_JOINTS, 2 * NUM_JOINTS, 3 * NUM_JOINTS):
        return list(range(NUM_JOINTS))  # as gym_manipulator records: positions, velocities, currents
    found = [_place(name, names) for name in JOINT_NAMES]
    if None in found or len(names) != size:
        raise DatasetError(
            f'expected the joints {", ".join(JOINT_NAMES)} (with or without {_SUFFIX}) in {feature.key} of {folder}, '
            f'got {list(names) or f"{size} entries without names"}; this is not a dataset of an SO-101'
        )
    return [place for place in found if place is not None]


def _place(joint: str, names: Sequence[str]) -> int | None:
    for prefix in _PREFIXES:
        for suffix in (_SUFFIX, ''):
            if f'{prefix}{joint}{suffix}' in names:
                return names.index(f'{prefix}{joint}{suffix}')
    return None


def _like_rad(values: FloatArray) -> bool:
    """Whether positions (n, 6) hardly differ from zero, as degrees and percent of a moving arm never do."""
    return bool(np.abs(values[:, :-1]).max() <= math.pi and np.abs(values[:, -1]).max() <= 2.0)


def _clipped(values: FloatArray) -> bool:
    return bool((np.abs(values[:, :-1]) == 100.0).any())


def _extremes(values: FloatArray) -> str:
    """Say from where to where the joint goes that goes furthest."""
    flat: Any = np.abs(values).max(axis=0)
    worst = int(flat.argmax())
    return f'{JOINT_NAMES[worst]} from {values[:, worst].min():.4g} to {values[:, worst].max():.4g}'
