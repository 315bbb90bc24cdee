# SPDX-License-Identifier: Apache-2.0
"""What five joints can do for an orientation: the pitch and roll that come closest to it, and where to start from."""

import math

import numpy as np

from so101_kinematics.closed_form import ArmGeometry
from so101_kinematics.descent import Mask
from so101_kinematics.fk import Array

FIT_ROUNDS = 20
"""Alternations of the fit; each halves the remaining error at least, and most orientations need two."""

PITCHES_RAD = tuple(sorted((math.radians(degrees) for degrees in range(-170, 181, 10)), key=abs))
"""Changes of pitch that are tried where the one that fits is out of reach, smallest first."""

ROUNDS = 5
"""Rounds between the pan that a roll asks for and the roll that a pan asks for; each gains a digit or two."""


def angle_between(a: Array, b: Array) -> float:
    """Return the angle [rad] of the turn that takes one (3, 3) rotation to another.

    It is accurate near 0 and near pi, where the arc cosine of the trace is not.
    """
    turn = a.T @ b
    sine = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    return math.atan2(float(np.linalg.norm(sine)), float(np.trace(turn)) - 1.0)


def pitch_and_roll(
    rotation: Array, rotation_at_zero: Array
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the two (pitch, roll) [rad] that give an orientation, were pan free to turn as they need.

    Args:
        rotation: (3, 3) wanted orientation of the TCP in the base frame.
        rotation_at_zero: (3, 3) orientation with all joints at zero.
    """
    m = rotation @ rotation_at_zero.T  # Rz(-pan) Ry(pitch) Rx(-roll)
    pitch = math.atan2(-m[2, 0], math.hypot(m[0, 0], m[1, 0]))
    roll = -math.atan2(m[2, 1], m[2, 2])
    return (pitch, roll), (math.pi - pitch, math.remainder(roll + math.pi, math.tau))


def fit_pitch_and_roll(rotation: Array, rotation_at_zero: Array, pan: float) -> tuple[float, float, float]:
    """Return the pitch and roll whose TCP orientation is closest to a wanted one.

    The orientation of the TCP is Rz(-pan) Ry(pitch) Rx(-roll) R0. The fit maximises the trace of the wanted
    rotation times its transpose, alternating between the two angles, for each of which it is a sinusoid.

    Args:
        rotation: (3, 3) wanted orientation of the TCP in the base frame.
        rotation_at_zero: (3, 3) orientation with all joints at zero, the R0 above.
        pan: shoulder_pan [rad].

    Returns:
        The angle that remains, pitch and roll [rad], the latter two in (-pi, pi].
    """
    cos, sin = math.cos(pan), math.sin(pan)
    m = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ rotation @ rotation_at_zero.T
    pitch, turn = math.atan2(-m[2, 0], m[0, 0]), math.atan2(-m[1, 2], m[1, 1])
    for _ in range(FIT_ROUNDS):
        c, s = math.cos(turn), math.sin(turn)
        new_pitch = math.atan2(-m[2, 0] + m[0, 1] * s + m[0, 2] * c, m[0, 0] + m[2, 1] * s + m[2, 2] * c)
        c, s = math.cos(new_pitch), math.sin(new_pitch)
        new_turn = math.atan2(-m[1, 2] + m[0, 1] * s + m[2, 1] * c, m[1, 1] + m[0, 2] * s + m[2, 2] * c)
        settled = abs(new_pitch - pitch) + abs(new_turn - turn) < 1e-12
        pitch, turn = new_pitch, new_turn
        if settled:
            break
    c, s = math.cos(pitch), math.sin(pitch)
    ry = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    c, s = math.cos(turn), math.sin(turn)
    rx = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    return angle_between(m, ry @ rx), pitch, -turn


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
