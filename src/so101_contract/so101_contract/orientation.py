# SPDX-License-Identifier: Apache-2.0
"""Orientation of the TCP as numbers for a network: Euler angles, six of a matrix's entries, or a quaternion.

Euler angles are what RoboBase policies were trained with. They jump where the hand points straight down,
which is where this arm works, so new policies take one of the two continuous forms.
"""

from enum import Enum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.errors import OrientationError
from so101_contract.joints import ARM_JOINTS, JOINT_NAMES

FloatArray: TypeAlias = npt.NDArray[np.float64]

SINGULAR_COS_PITCH = 1e-6
_ROTATION_TOLERANCE = 1e-3
_SIGN_REFERENCE = np.array([8.0, 4.0, 2.0, 1.0])  # orthogonal to no turn by right angles


class OrientationKind(Enum):
    """How an orientation is said; the value is the name of the state block."""

    EULER = 'tcp_euler'
    ROT6D = 'tcp_rot6d'
    QUAT = 'tcp_quat'

    @property
    def size(self) -> int:
        """Number of entries."""
        return {'tcp_euler': 3, 'tcp_rot6d': 6, 'tcp_quat': 4}[self.value]


def as_matrix(rotation: npt.ArrayLike) -> FloatArray:
    """Return a rotation that comes as (3, 3) matrix or as (4,) quaternion wxyz as a (3, 3) matrix.

    A matrix is returned with the very numbers that came; it is checked, not repaired.

    Raises:
        OrientationError: it is neither, or not a rotation within 1e-3.
    """
    array = np.asarray(rotation, dtype=np.float64)
    if array.shape == (4,):
        norm = float(np.linalg.norm(array))
        if not abs(norm - 1.0) <= _ROTATION_TOLERANCE:
            raise OrientationError(f'expected a unit quaternion wxyz, got norm {norm:.6g}; normalise it')
        return quat_to_matrix(array)
    if array.shape != (3, 3):
        raise OrientationError(
            f'expected a (3, 3) matrix or a (4,) quaternion wxyz, got shape {array.shape}; convert it'
        )
    error = float(np.abs(array.T @ array - np.eye(3)).max())
    if not (error <= _ROTATION_TOLERANCE and np.linalg.det(array) > 0):
        raise OrientationError(
            f'expected a rotation matrix, got {array.tolist()}, whose columns are not a right-handed '
            f'orthonormal frame; check its source'
        )
    return array


def quat_to_matrix(quat: npt.ArrayLike) -> FloatArray:
    """Turn a quaternion wxyz (4,) into a (3, 3) matrix; its length does not matter."""
    q = np.asarray(quat, dtype=np.float64)
    return unit_quat_to_matrix(q / np.linalg.norm(q))


def unit_quat_to_matrix(quat: npt.ArrayLike) -> FloatArray:
    """Turn a unit quaternion wxyz (4,) into a (3, 3) matrix, without another division by its length."""
    w, x, y, z = np.asarray(quat, dtype=np.float64)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix_to_quat(matrix: npt.ArrayLike) -> FloatArray:
    """Turn a (3, 3) matrix into a unit quaternion wxyz (4,), w >= 0."""
    R = np.asarray(matrix, dtype=np.float64)
    # The outer product 4 q q^T; its row with the largest diagonal entry loses no digits.
    outer = np.array(
        [
            [1 + R[0, 0] + R[1, 1] + R[2, 2], R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]],
            [R[2, 1] - R[1, 2], 1 + R[0, 0] - R[1, 1] - R[2, 2], R[0, 1] + R[1, 0], R[0, 2] + R[2, 0]],
            [R[0, 2] - R[2, 0], R[0, 1] + R[1, 0], 1 - R[0, 0] + R[1, 1] - R[2, 2], R[1, 2] + R[2, 1]],
            [R[1, 0] - R[0, 1], R[0, 2] + R[2, 0], R[1, 2] + R[2, 1], 1 - R[0, 0] - R[1, 1] + R[2, 2]],
        ]
    )
    row = outer[int(np.argmax(np.diag(outer)))]
    quat: FloatArray = row / np.linalg.norm(row)
    return -quat if quat[0] < 0 else quat


def multiply(one: npt.ArrayLike, two: npt.ArrayLike) -> FloatArray:
    """Return the product of two quaternions wxyz: first turn by `two`, then by `one`."""
    a, b, c, d = np.asarray(one, dtype=np.float64)
    w, x, y, z = np.asarray(two, dtype=np.float64)
    return np.array(
        [
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ]
    )


def matrix_to_euler(matrix: npt.ArrayLike) -> FloatArray:
    """Turn a (3, 3) matrix into roll, pitch, yaw [rad] with R = Rz(yaw) Ry(pitch) Rx(roll).

    Where cos(pitch) < 1e-6 yaw is 0 and roll takes up the rest, as in the environment that RoboBase policies
    for this arm were trained in.
    """
    R = np.asarray(matrix, dtype=np.float64)
    cos_pitch = np.sqrt(R[0, 0] ** 2 + R[1, 0] ** 2)
    pitch = np.arctan2(-R[2, 0], cos_pitch)
    if cos_pitch < SINGULAR_COS_PITCH:
        return np.array([np.arctan2(-R[1, 2], R[1, 1]), pitch, 0.0])
    return np.array([np.arctan2(R[2, 1], R[2, 2]), pitch, np.arctan2(R[1, 0], R[0, 0])])


def matrix_to_rot6d(matrix: npt.ArrayLike) -> FloatArray:
    """Return the first column of a (3, 3) matrix followed by the second one, (6,)."""
    R = np.asarray(matrix, dtype=np.float64)
    return np.concatenate([R[:, 0], R[:, 1]])


def continuous_quat(matrix: npt.ArrayLike, joint_pos: npt.ArrayLike) -> FloatArray:
    """Turn a (3, 3) matrix into the quaternion wxyz (4,) whose sign never jumps as the joints move.

    A quaternion and its negative are the same rotation, and no rule that looks at the rotation alone picks
    one of them without a jump. The joints decide it: the arm's orientation is a product of five turns about
    known axes, and the product of their quaternions is continuous in the joint angles. So the answer depends
    on the present pose only, not on how the arm got there, and is the same live and from a recording.

    Args:
        matrix: orientation of the TCP in the base frame.
        joint_pos: the joints at which the TCP has that orientation (5,) or (6,) [rad].
    """
    joints = np.asarray(joint_pos, dtype=np.float64)
    if joints.shape not in {(len(ARM_JOINTS),), (len(JOINT_NAMES),)}:
        raise OrientationError(
            f'expected {len(ARM_JOINTS)} or {len(JOINT_NAMES)} joint positions, got shape {joints.shape}; '
            f'pass the joints of one pose'
        )
    quat = matrix_to_quat(matrix)
    # The TCP frame in the gripper is a constant; up to sign it is what the joints' turns leave over.
    pan, pitch, roll = -joints[0] / 2, joints[1:4].sum() / 2, -joints[4] / 2
    arm = multiply(
        (np.cos(pan), 0, 0, np.sin(pan)),
        multiply((np.cos(pitch), 0, np.sin(pitch), 0), (np.cos(roll), np.sin(roll), 0, 0)),
    )
    mounting = multiply(arm * (1, -1, -1, -1), quat)
    return quat if mounting @ _SIGN_REFERENCE >= 0 else -quat


def orientation_entries(
    kind: OrientationKind, rotation: npt.ArrayLike, joint_pos: npt.ArrayLike
) -> FloatArray:
    """Return the entries of a state block for an orientation, `(kind.size,)`.

    Args:
        kind: how to say it.
        rotation: (3, 3) matrix or quaternion wxyz (4,) of the TCP in the base frame.
        joint_pos: the joints at which the TCP has that orientation [rad]; decides a quaternion's sign.
    """
    matrix = as_matrix(rotation)
    if kind is OrientationKind.EULER:
        return matrix_to_euler(matrix)
    if kind is OrientationKind.ROT6D:
        return matrix_to_rot6d(matrix)
    return continuous_quat(matrix, joint_pos)
