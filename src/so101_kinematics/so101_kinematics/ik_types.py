# SPDX-License-Identifier: Apache-2.0
"""Options and results of inverse kinematics, and the checks of what it is given."""

from dataclasses import dataclass
import math

import numpy as np
import numpy.typing as npt

from so101_kinematics.errors import IkError
from so101_kinematics.fk import Array, NUM_ARM_JOINTS, NUM_JOINTS

ROTATION_TOLERANCE = 1e-3
"""How far a rotation matrix may be from orthonormal, element by element."""


@dataclass(frozen=True)
class IkOptions:
    """When a solution counts, and how long it is looked for.

    Attributes:
        position_tolerance: largest distance from the target position [m].
        pitch_tolerance: largest distance from the target pitch [rad].
        orientation_tolerance: largest angle to the target orientation [rad].
        max_iterations: steps of one descent.
        restarts: further descents, from samples, when the first ones fail; 0 looks next to the seed only, so
            that the arm never changes its configuration (a rotation takes the closest exact solution still).
    """

    position_tolerance: float = 5e-4
    pitch_tolerance: float = 5e-3
    orientation_tolerance: float = 2e-2
    max_iterations: int = 40
    restarts: int = 24

    def __post_init__(self) -> None:
        """Check the numbers."""
        tolerances = (self.position_tolerance, self.pitch_tolerance, self.orientation_tolerance)
        if not all(t > 0.0 for t in tolerances) or self.max_iterations < 1 or self.restarts < 0:
            raise IkError(
                f'expected positive tolerances and iterations, and restarts >= 0, got {self}; correct them'
            )


@dataclass(frozen=True)
class IkResult:
    """What was found.

    Attributes:
        success: everything that was asked for is within its tolerance.
        q: joint positions [rad], as many as the seed had, within limits; the closest point found where
            success is False.
        position_error: distance from the target position [m].
        pitch_error: distance from the target pitch [rad]; 0 where none was asked for.
        orientation_error: angle to the target orientation [rad]; 0 where none was asked for.
        iterations: steps taken, over all starts.
    """

    success: bool
    q: Array
    position_error: float
    pitch_error: float
    orientation_error: float
    iterations: int


def finite_array(name: str, values: npt.ArrayLike, *shapes: tuple[int, ...]) -> Array:
    """Return finite numbers of one of some shapes as a new array."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise IkError(f'expected {name} as numbers of shape {shapes[0]}, got {values!r}') from error
    if array.shape not in shapes or not all(map(math.isfinite, array.flat)):
        wanted = ' or '.join(map(str, shapes))
        raise IkError(
            f'expected {name} as finite numbers of shape {wanted}, got {array.tolist()}; '
            f'check where it comes from'
        )
    return array


def joint_vector(name: str, values: npt.ArrayLike) -> Array:
    """Return (5,) or (6,) joint positions [rad] as a new array."""
    return finite_array(name, values, (NUM_ARM_JOINTS,), (NUM_JOINTS,))


def rotation_matrix(values: npt.ArrayLike) -> Array:
    """Return a (3, 3) rotation matrix as a new array."""
    rotation = finite_array('rotation', values, (3, 3))
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > ROTATION_TOLERANCE or np.linalg.det(rotation) < 0.0:
        raise IkError(f'expected a rotation matrix, got {rotation.tolist()}; normalise it')
    return rotation
