# SPDX-License-Identifier: Apache-2.0
"""The way back, which only tests need: from the numbers of a state block to the rotation that they name."""

import numpy as np

from so101_contract.orientation import multiply, quat_to_matrix


def euler_to_matrix(euler):
    """Turn roll, pitch, yaw (3,) [rad] into the (3, 3) matrix Rz(yaw) Ry(pitch) Rx(roll)."""
    roll, pitch, yaw = np.asarray(euler, dtype=np.float64)
    half = [(np.cos(angle / 2), np.sin(angle / 2)) for angle in (roll, pitch, yaw)]
    x, y, z = (half[0][0], half[0][1], 0, 0), (half[1][0], 0, half[1][1], 0), (half[2][0], 0, 0, half[2][1])
    return quat_to_matrix(multiply(z, multiply(y, x)))


def rot6d_to_matrix(rot6d):
    """Turn six numbers (6,) into the (3, 3) rotation that they name, after Gram and Schmidt."""
    numbers = np.asarray(rot6d, dtype=np.float64)
    x = numbers[:3] / np.linalg.norm(numbers[:3])
    rest = numbers[3:] - x * (x @ numbers[3:])
    y = rest / np.linalg.norm(rest)
    return np.stack([x, y, np.cross(x, y)], axis=1)
