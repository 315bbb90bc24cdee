# SPDX-License-Identifier: Apache-2.0
"""What five joints can do for an orientation: the pitch and roll that come closest to it at a given pan."""

import math

import numpy as np

from so101_kinematics.fk import Array

FIT_ROUNDS = 20
"""Alternations of the fit; each halves the remaining error at least, and most orientations need two."""


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
