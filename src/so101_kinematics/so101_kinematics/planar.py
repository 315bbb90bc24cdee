# SPDX-License-Identifier: Apache-2.0
"""Geometry in the arm's plane, in plain floats; angles are measured from "forward" towards "down"."""

import math

Planar = tuple[float, float]
"""A vector in the arm's plane: forward, up [m]."""


def turned(vector: Planar, angle: float) -> Planar:
    """Return a vector turned down by an angle [rad]."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * vector[0] + sin * vector[1], cos * vector[1] - sin * vector[0]


def two_links(first: Planar, second: Planar, x: float, z: float) -> tuple[Planar, ...]:
    """Return the two ways to bring the end of two links to a point.

    Args:
        first: first link at zero turn, from the origin [m].
        second: second link at zero turn, from the end of the first [m].
        x: where the end shall be, forward [m].
        z: where the end shall be, up [m].

    Returns:
        (turn of the first link, turn of the second relative to the first) [rad]; nothing where the links are
        too short or too long.
    """
    squared_1 = first[0] * first[0] + first[1] * first[1]
    squared_2 = second[0] * second[0] + second[1] * second[1]
    length_1, length_2 = math.sqrt(squared_1), math.sqrt(squared_2)
    cos_bend = (x * x + z * z - squared_1 - squared_2) / (2.0 * length_1 * length_2)
    if not -1.0 <= cos_bend <= 1.0:
        return ()
    bend = math.acos(cos_bend)
    lean = math.atan2(length_2 * math.sin(bend), length_1 + length_2 * cos_bend)
    rest = math.atan2(-first[1], first[0])
    aim = math.atan2(-z, x) - rest
    straight = rest - math.atan2(-second[1], second[0])
    return (aim - lean, straight + bend), (aim + lean, straight - bend)
