# SPDX-License-Identifier: Apache-2.0
"""A fixed pose of one frame in another, and the three ways in which robot files write its rotation."""

from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np
import numpy.typing as npt

from so101_contract.orientation import matrix_to_quat, multiply, unit_quat_to_matrix
from so101_description.errors import PresetError

Matrix = npt.NDArray[np.float64]


def _vector(name: str, values: Sequence[float], size: int) -> tuple[float, ...]:
    """Return `size` finite floats, or raise `PresetError` that names the value."""
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError) as error:
        raise PresetError(f'expected {size} numbers as {name}, got {values!r}') from error
    if len(numbers) != size or not all(math.isfinite(v) for v in numbers):
        raise PresetError(f'expected {size} finite numbers as {name}, got {values!r}')
    return numbers


@dataclass(frozen=True)
class Pose:
    """Pose of a child frame in its parent frame.

    Attributes:
        position: origin of the child in the parent [m], (x, y, z).
        quat_wxyz: rotation that takes child coordinates to parent coordinates, (w, x, y, z); stored with unit
            length.
    """

    position: tuple[float, ...]
    quat_wxyz: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Check the numbers and bring the quaternion to unit length."""
        position = _vector('position', self.position, 3)
        quat = _vector('quat_wxyz', self.quat_wxyz, 4)
        norm = math.hypot(*quat)
        if abs(norm - 1.0) > 1e-3:
            raise PresetError(
                f'expected a unit quaternion (w, x, y, z), got {quat} of length {norm:.6g}; normalise it'
            )
        object.__setattr__(self, 'position', position)
        object.__setattr__(self, 'quat_wxyz', tuple(v / norm for v in quat))

    @classmethod
    def from_euler(cls, position: Sequence[float], euler_xyz: Sequence[float]) -> 'Pose':
        """Make a pose from MJCF's default Euler angles.

        Args:
            position: origin of the child in the parent [m].
            euler_xyz: turns about the child's own x, then y, then z [rad] (MuJoCo's `eulerseq="xyz"`).
        """
        x, y, z = _vector('euler_xyz', euler_xyz, 3)
        quat = multiply(multiply(_axis_quat(0, x), _axis_quat(1, y)), _axis_quat(2, z))
        return cls(tuple(position), tuple(quat.tolist()))

    @classmethod
    def from_rpy(cls, position: Sequence[float], rpy: Sequence[float]) -> 'Pose':
        """Make a pose from URDF's roll, pitch, yaw [rad]: turns about the parent's fixed x, y, then z."""
        roll, pitch, yaw = _vector('rpy', rpy, 3)
        turn = multiply(_axis_quat(1, pitch), _axis_quat(0, roll))
        return cls(tuple(position), tuple(multiply(_axis_quat(2, yaw), turn).tolist()))

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike) -> 'Pose':
        """Make a pose from a homogeneous (4, 4) matrix."""
        T = np.asarray(matrix, dtype=np.float64)
        if T.shape != (4, 4):
            raise PresetError(f'expected a (4, 4) transform, got shape {T.shape}')
        return cls(tuple(T[:3, 3].tolist()), tuple(matrix_to_quat(T[:3, :3]).tolist()))

    def rotation(self) -> Matrix:
        """Return the (3, 3) rotation matrix, child to parent."""
        return unit_quat_to_matrix(self.quat_wxyz)

    def matrix(self) -> Matrix:
        """Return the homogeneous (4, 4) transform, child to parent."""
        T = np.eye(4)
        T[:3, :3] = self.rotation()
        T[:3, 3] = self.position
        return T

    def rpy(self) -> tuple[float, float, float]:
        """Return URDF's roll, pitch, yaw [rad]: turns about the parent's fixed x, then y, then z."""
        return matrix_to_rpy(self.rotation())

    def inverse(self) -> 'Pose':
        """Return the pose of the parent in the child."""
        w, x, y, z = self.quat_wxyz
        position = -self.rotation().T @ np.array(self.position)
        return Pose(tuple(position.tolist()), (w, -x, -y, -z))

    def __matmul__(self, child: 'Pose') -> 'Pose':
        """Chain two poses: (a in world) @ (b in a) is b in world."""
        position = np.array(self.position) + self.rotation() @ np.array(child.position)
        return Pose(tuple(position.tolist()), tuple(multiply(self.quat_wxyz, child.quat_wxyz).tolist()))


def _axis_quat(axis: int, angle: float) -> tuple[float, ...]:
    """Return the quaternion of a turn by `angle` [rad] about axis 0, 1 or 2."""
    quat = [math.cos(angle / 2), 0.0, 0.0, 0.0]
    quat[1 + axis] = math.sin(angle / 2)
    return tuple(quat)


def matrix_to_rpy(rotation: npt.ArrayLike) -> tuple[float, float, float]:
    """Return URDF's roll, pitch, yaw [rad] of a (3, 3) rotation matrix: R = Rz(yaw) Ry(pitch) Rx(roll).

    Exact at pitch +-90 degrees as well, where many of the arm's parts are mounted: roll is measured after yaw
    has been taken out, so whatever yaw comes out there, roll makes up for it.
    """
    R = np.asarray(rotation, dtype=np.float64)
    yaw = math.atan2(R[1, 0], R[0, 0])
    pitch = math.atan2(-R[2, 0], math.hypot(R[0, 0], R[1, 0]))
    c, s = math.cos(yaw), math.sin(yaw)
    roll = math.atan2(s * R[0, 2] - c * R[1, 2], c * R[1, 1] - s * R[0, 1])
    return roll, pitch, yaw
