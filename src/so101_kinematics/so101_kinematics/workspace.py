# SPDX-License-Identifier: Apache-2.0
"""Where the TCP may be sent: a box in the base frame, and which pitches the arm can take at a point of it."""

from dataclasses import dataclass
import math
from typing import Self

import numpy as np
import numpy.typing as npt

from so101_kinematics.closed_form import ArmGeometry
from so101_kinematics.errors import WorkspaceError
from so101_kinematics.fk import Array

PITCH_STEP_RAD = math.radians(1.0)
"""Grid of the pitches that are tried; solutions end within one step of the true limit."""


@dataclass(frozen=True)
class Workspace:
    """A box in the base frame that the TCP may move in.

    Attributes:
        lower: smallest x, y, z [m].
        upper: largest x, y, z [m].
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the corners."""
        corners = np.array([self.lower, self.upper], dtype=np.float64)
        if corners.shape != (2, 3) or not np.isfinite(corners).all() or not (corners[0] < corners[1]).all():
            raise WorkspaceError(
                f'expected a workspace with three finite bounds, each lower one below its upper one [m], '
                f'got {self.lower} and {self.upper}; correct them'
            )

    def contains(self, point: npt.ArrayLike) -> bool:
        """Return whether a point (3,) [m] is in the box or on its surface."""
        return not self.clamp(point)[1]

    def clamp(self, point: npt.ArrayLike) -> tuple[Array, bool]:
        """Return the point (3,) of the box closest to a point (3,) [m], and whether that is another one."""
        wanted = np.asarray(point, dtype=np.float64)
        inside = np.minimum(np.maximum(wanted, self.lower), self.upper)
        return inside, bool((inside != wanted).any())

    def extended_to(self, point: npt.ArrayLike) -> Self:
        """Return the smallest box that holds this one and a point (3,) [m].

        An arm that starts outside its workspace must not be drawn into it on its own, but may be driven
        there: the box that reaches out to where it is lets it stay and come in, and not go further out.
        """
        lower = np.minimum(self.lower, point)
        upper = np.maximum(self.upper, point)
        return type(self)(tuple(lower.tolist()), tuple(upper.tolist()))


def reachable_pitches(geometry: ArmGeometry, position: npt.ArrayLike, roll: float = 0.0) -> Array:
    """Return the approach pitches that the arm can take at a point, facing it.

    Args:
        geometry: the arm.
        position: (3,) TCP position in the base frame [m].
        roll: wrist_roll [rad].

    Returns:
        (n,) pitches below the horizontal in ascending order, one per degree of -180..180 [rad]; none where
        the point is out of reach.
    """
    x, y, z = (float(v) for v in np.asarray(position, dtype=np.float64))
    planes = [(pan, forward) for pan, forward in geometry.pan_solutions(x, y, roll) if forward >= 0.0]
    grid = np.arange(-180, 181) * PITCH_STEP_RAD
    found = [
        pitch
        for pitch in grid.tolist()
        if any(geometry.solve_in_plane(pan, forward, z, pitch, roll) for pan, forward in planes)
    ]
    return np.array(found)


def is_reachable(geometry: ArmGeometry, position: npt.ArrayLike, roll: float = 0.0) -> bool:
    """Return whether the TCP reaches a point (3,) [m] with some pitch, facing it, at a given roll [rad]."""
    return len(reachable_pitches(geometry, position, roll)) > 0
