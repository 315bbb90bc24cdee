# SPDX-License-Identifier: Apache-2.0
"""Where to start for an orientation that five joints can only come close to."""

import math

import numpy as np

from so101_kinematics.closed_form import ArmGeometry
from so101_kinematics.descent import Mask
from so101_kinematics.fk import Array
from so101_kinematics.orientation import fit_pitch_and_roll

PITCHES_RAD = tuple(sorted((math.radians(degrees) for degrees in range(-170, 181, 10)), key=abs))
"""Changes of pitch that are tried where the one that fits is out of reach, smallest first."""

ROUNDS = 5
"""Rounds between the pan that a roll asks for and the roll that a pan asks for; each gains a digit or two."""


def pose_starts(
    geometry: ArmGeometry, goal: Array, rotation: Array, *, rotation_at_zero: Array, seed: Array, free: Mask
) -> list[tuple[float, float, Array]]:
    """Return what comes closest to an orientation at a target, facing it and turned away from it.

    Pan is given by the target and the roll, which moves the TCP sideways, and the roll that fits by the pan:
    they are found in turn.

    Args:
        geometry: the arm.
        goal: (3,) TCP position [m].
        rotation: (3, 3) wanted orientation of the TCP.
        rotation_at_zero: (3, 3) orientation with all joints at zero.
        seed: (5,) joint positions within limits [rad].
        free: (5,) joints that may move.

    Returns:
        Pitch and roll [rad] that fit, and (5,) joint positions to start from; at least one.
    """
    x, y, z = goal.tolist()
    found = []
    for facing in (0, 1) if free[:4].all() else ():
        roll = float(seed[4])
        for _ in range(ROUNDS):
            planes = geometry.pan_solutions(x, y, roll)
            if len(planes) <= facing:
                break
            pan, forward = planes[facing]
            pitch, roll = _fit(geometry, rotation, rotation_at_zero, pan, None if free[4] else roll)
        else:
            start = _first_in_plane(geometry, (pan, forward, z), pitch, roll)
            if start is not None:
                found.append((pitch, roll, start))
    if not found:
        locked_roll = None if free[4] else float(seed[4])
        pitch, roll = _fit(geometry, rotation, rotation_at_zero, float(seed[0]), locked_roll)
        start = seed.copy()
        start[4] = roll
        found.append((pitch, roll, start))
    return found


def _fit(
    geometry: ArmGeometry, rotation: Array, rotation_at_zero: Array, pan: float, locked_roll: float | None
) -> tuple[float, float]:
    """Return the pitch, and the roll within its limits, that come closest to an orientation."""
    _, pitch, roll = fit_pitch_and_roll(rotation, rotation_at_zero, pan)
    if locked_roll is not None:
        return pitch, locked_roll
    low, high = geometry.limits[4]
    return pitch, min(max(roll, low), high)


def _first_in_plane(
    geometry: ArmGeometry, place: tuple[float, float, float], pitch: float, roll: float
) -> Array | None:
    """Return a solution (5,) whose pitch is the closest to a wanted one; the place is (pan, forward, up)."""
    for offset in PITCHES_RAD:
        solutions = geometry.solve_in_plane(*place, pitch + offset, roll)
        if solutions:
            return np.array(solutions[0])
    return None
