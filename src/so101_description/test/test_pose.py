# SPDX-License-Identifier: Apache-2.0
import math

from hypothesis import given, settings
from hypothesis import strategies as st
import mujoco
import numpy as np
import pytest

from so101_contract.orientation import matrix_to_quat, unit_quat_to_matrix
from so101_description.errors import PresetError
from so101_description.pose import matrix_to_rpy, Pose

ANGLE = st.floats(-2 * math.pi, 2 * math.pi)
ANGLES = st.tuples(ANGLE, ANGLE, ANGLE)
POSITION = st.tuples(*[st.floats(-2.0, 2.0)] * 3)
POSES = st.builds(Pose.from_euler, POSITION, ANGLES)


def axis_rotation(axis, angle):
    quat = np.zeros(4)
    mujoco.mju_axisAngle2Quat(quat, np.eye(3)[axis], angle)
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)


def rotation_of_rpy(roll, pitch, yaw):
    return axis_rotation(2, yaw) @ axis_rotation(1, pitch) @ axis_rotation(0, roll)


@given(ANGLES)
def test_euler_angles_mean_what_mujoco_means(euler):
    expected = np.zeros(4)
    mujoco.mju_euler2Quat(expected, np.array(euler), 'xyz')
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, expected)
    np.testing.assert_allclose(Pose.from_euler((0, 0, 0), euler).rotation().ravel(), matrix, atol=1e-12)


@given(ANGLES)
def test_rpy_gives_the_rotation_back(rpy):
    R = rotation_of_rpy(*rpy)
    np.testing.assert_allclose(rotation_of_rpy(*matrix_to_rpy(R)), R, atol=1e-12)


@given(ANGLES)
def test_a_pose_from_rpy_is_turned_as_urdf_says(rpy):
    pose = Pose.from_rpy((1, 2, 3), rpy)
    assert pose.position == (1, 2, 3)
    np.testing.assert_allclose(pose.rotation(), rotation_of_rpy(*rpy), atol=1e-12)
    np.testing.assert_allclose(Pose.from_rpy((0, 0, 0), pose.rpy()).rotation(), pose.rotation(), atol=1e-12)


@pytest.mark.parametrize('pitch', [math.pi / 2, -math.pi / 2, math.pi / 2 - 1e-9, 1e-7 - math.pi / 2])
@pytest.mark.parametrize('roll', [-3.0, 0.0, 0.7])
@pytest.mark.parametrize('yaw', [-2.0, 0.0, 1.1])
def test_rpy_is_exact_in_gimbal_lock(roll, pitch, yaw):
    R = rotation_of_rpy(roll, pitch, yaw)
    np.testing.assert_allclose(rotation_of_rpy(*matrix_to_rpy(R)), R, atol=1e-12)


@given(ANGLES)
def test_quaternion_of_a_matrix_gives_the_matrix_back(rpy):
    R = rotation_of_rpy(*rpy)
    quat = matrix_to_quat(R)
    assert quat[0] >= 0
    np.testing.assert_allclose(unit_quat_to_matrix(quat), R, atol=1e-12)


@given(POSES, POSES)
@settings(max_examples=50)
def test_chaining_is_matrix_multiplication(a, b):
    np.testing.assert_allclose((a @ b).matrix(), a.matrix() @ b.matrix(), atol=1e-12)


@given(POSES)
@settings(max_examples=50)
def test_a_pose_and_its_inverse_cancel(pose):
    np.testing.assert_allclose((pose @ pose.inverse()).matrix(), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(Pose.from_matrix(pose.matrix()).matrix(), pose.matrix(), atol=1e-12)


def test_quaternion_is_stored_with_unit_length():
    pose = Pose((0, 0, 0), (0.707107, 0, 0.707107, 0))
    assert math.hypot(*pose.quat_wxyz) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ('position', 'quat', 'part'),
    [
        ((0, 0), (1, 0, 0, 0), '3 finite numbers as position'),
        ((0, 0, math.nan), (1, 0, 0, 0), '3 finite numbers as position'),
        ((0, 0, 'x'), (1, 0, 0, 0), '3 numbers as position'),
        ((0, 0, 0), (1, 0, 0), '4 finite numbers as quat_wxyz'),
        ((0, 0, 0), (0, 0, 0, 0), 'unit quaternion'),
        ((0, 0, 0), (2, 0, 0, 0), 'unit quaternion'),
        ((0, 0, 0), None, '4 numbers as quat_wxyz'),
    ],
)
def test_a_malformed_pose_is_refused_by_name(position, quat, part):
    with pytest.raises(PresetError, match=part):
        Pose(position, quat)


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(PresetError, match=r'\(4, 4\)'):
        Pose.from_matrix(np.eye(3))
