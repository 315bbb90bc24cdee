# SPDX-License-Identifier: Apache-2.0
"""Where the TCP may be sent: a box in the base frame."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from so101_kinematics.errors import WorkspaceError
from so101_kinematics.fk import Array


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
