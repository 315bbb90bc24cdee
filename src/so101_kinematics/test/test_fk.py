# SPDX-License-Identifier: Apache-2.0
import json
import math
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import mujoco
import numpy as np
import pytest

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_contract.orientation import unit_quat_to_matrix
from so101_description.model import build_spec, load_model
from so101_description.tcp import TcpPreset
from so101_kinematics.errors import KinematicsError
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.orientation import angle_between

REFERENCE = json.loads((Path(__file__).parent / 'data' / 'fk_reference.json').read_text())


def joint_vectors(count=6):
    return st.tuples(*(st.floats(*JOINT_LIMITS_RAD[name]) for name in JOINT_NAMES[:count])).map(np.array)


@pytest.fixture(scope='module')
def fk():
    return ForwardKinematics()


@pytest.mark.parametrize('row', REFERENCE['rows'], ids=lambda row: row['name'])
def test_F7_pose_agrees_with_the_reference_table(fk, row):
    pose = fk.pose(row['q_rad'])
    np.testing.assert_allclose(pose.position, row['position_m'], atol=1e-5)
    assert angle_between(pose.rotation, unit_quat_to_matrix(row['quat_wxyz'])) < 1e-4


def test_the_reference_table_has_the_joint_order_of_the_contract():
    assert tuple(REFERENCE['joint_order']) == JOINT_NAMES


@pytest.mark.parametrize(
    ('tcp', 'at_zero'),
    [('so101', (0.39136, -0.00001, 0.22647)), ('pick101', (0.39136, -0.00018, 0.23437))],
)
def test_F8_each_tcp_preset_is_where_it_is_said_to_be(tcp, at_zero):
    np.testing.assert_allclose(ForwardKinematics(tcp).pose(np.zeros(6)).position, at_zero, atol=1e-5)


@pytest.mark.parametrize(
    ('q', 'position'),
    [
        ((0, 0, 0, math.pi / 2, math.pi / 2, 0), (0.23213, -0.00018, 0.07514)),
        ((0.3, -0.4, 0.5, 0.6, -0.7, 0.1), (0.29565, -0.07963, 0.12032)),
    ],
    ids=['reset', 'any'],
)
def test_F8_pick101_poses_of_training_are_reproduced(q, position):
    np.testing.assert_allclose(ForwardKinematics('pick101').pose(q).position, position, atol=1e-5)


def test_F6_plus_half_a_pi_of_roll_puts_the_moving_jaw_on_the_left_in_the_reset_pose():
    model = load_model(visuals='none', collision=False)
    data = mujoco.MjData(model)
    for name, value in (('wrist_flex', math.pi / 2), ('wrist_roll', math.pi / 2)):
        data.joint(name).qpos = value
    mujoco.mj_kinematics(model, data)
    jaw = data.body('moving_jaw_so101_v1').xpos - data.body('gripper').xpos
    forward_at_roll_zero = ForwardKinematics().pose((0, 0, 0, math.pi / 2, 0, 0)).rotation
    forward_at_roll = ForwardKinematics().pose((0, 0, 0, math.pi / 2, math.pi / 2, 0)).rotation
    # A quarter of a turn about the approach axis: what pointed along the arm now points across it.
    assert angle_between(forward_at_roll_zero, forward_at_roll) == pytest.approx(math.pi / 2, abs=1e-6)
    assert abs(jaw[1]) > abs(jaw[0])


def test_a_preset_of_ones_own_moves_the_tcp():
    preset = TcpPreset.from_mapping({'position': [0.0, 0.0, -0.0981274 - 0.02]})
    q = (0.3, -0.4, 0.5, 0.6, -0.7)
    longer = ForwardKinematics(preset).pose(q).position - ForwardKinematics('pick101').pose(q).position
    assert np.linalg.norm(longer) == pytest.approx(0.02, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(joint_vectors(), joint_vectors())
def test_F13_a_pose_depends_on_its_argument_only(a, b):
    one, other = shared_solvers()
    first = one.pose(a)
    one.jacobian(b)
    other.pose(b)
    again = one.pose(a)
    np.testing.assert_array_equal(first.position, again.position)
    np.testing.assert_array_equal(first.rotation, again.rotation)
    np.testing.assert_array_equal(first.position, other.pose(a).position)


def test_F13_a_result_is_not_overwritten_by_the_next_one(fk):
    first = fk.pose(np.zeros(6))
    kept = first.position.copy(), first.rotation.copy()
    fk.pose(np.full(6, 0.5))
    np.testing.assert_array_equal(first.position, kept[0])
    np.testing.assert_array_equal(first.rotation, kept[1])


def test_F13_the_argument_is_not_changed(fk):
    q = np.full(6, 0.3)
    fk.pose(q)
    fk.jacobian(q)
    np.testing.assert_array_equal(q, np.full(6, 0.3))


def test_F14_joints_are_found_by_name_behind_a_loose_cube(fk):
    scene = mujoco.MjSpec()
    cube = scene.worldbody.add_body(name='cube', pos=[0.2, 0.0, 0.1])
    cube.add_freejoint()
    cube.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.015] * 3)
    frame = scene.worldbody.add_frame(pos=[0.4, -0.3, 0.7], euler=[0.2, -0.1, 1.1])
    scene.attach(build_spec(visuals='none', collision=False), frame=frame, prefix='left_')
    behind = ForwardKinematics(scene.compile(), prefix='left_')
    q = (0.3, -0.4, 0.5, 0.6, -0.7, 0.1)
    expected, got = fk.pose(q), behind.pose(q)
    np.testing.assert_allclose(got.position, expected.position, atol=1e-12)
    np.testing.assert_allclose(got.rotation, expected.rotation, atol=1e-12)
    np.testing.assert_allclose(behind.jacobian(q), fk.jacobian(q), atol=1e-12)
    np.testing.assert_allclose(behind.positions([q, q])[1], expected.position, atol=1e-12)
    np.testing.assert_allclose(behind.anchors_at_zero, fk.anchors_at_zero, atol=1e-12)


@pytest.mark.parametrize('tcp', ['so101', 'pick101'])
def test_the_jacobian_is_the_derivative_of_the_pose(tcp):
    fk = ForwardKinematics(tcp)
    rng = np.random.default_rng(0)
    step = 1e-6
    for _ in range(10):
        q = rng.uniform(fk.lower, fk.upper)
        J = fk.jacobian(q)
        for joint in range(5):
            more, less = q.copy(), q.copy()
            more[joint] += step
            less[joint] -= step
            a, b = fk.pose(less), fk.pose(more)
            turn = (b.rotation @ a.rotation.T - a.rotation @ b.rotation.T) / (4 * step)
            np.testing.assert_allclose(J[:3, joint], (b.position - a.position) / (2 * step), atol=1e-8)
            np.testing.assert_allclose(J[3:, joint], (turn[2, 1], turn[0, 2], turn[1, 0]), atol=1e-6)


def test_many_positions_at_once_are_those_one_by_one(fk):
    rows = np.random.default_rng(1).uniform(-1, 1, (7, 6))
    np.testing.assert_array_equal(fk.positions(rows), [fk.pose(row).position for row in rows])
    np.testing.assert_array_equal(fk.positions(rows[:, :5]), fk.positions(rows))


def test_the_gripper_does_not_move_the_tcp(fk):
    a, b = fk.pose((0.1, 0.2, 0.3, 0.4, 0.5, 0.0)), fk.pose((0.1, 0.2, 0.3, 0.4, 0.5, 1.0))
    np.testing.assert_array_equal(a.position, b.position)


def test_pitch_is_the_angle_of_the_approach_below_the_horizontal(fk):
    for q in np.random.default_rng(2).uniform(-1, 1, (20, 5)):
        approach = fk.pose(q).rotation[:, 2]
        assert -approach[2] == pytest.approx(math.sin(fk.pitch(q)), abs=1e-5)


def test_the_quaternion_is_in_the_order_of_ros(fk):
    x, y, z, w = fk.pose(np.zeros(6)).quat_xyzw
    np.testing.assert_allclose((w, x, y, z), REFERENCE['rows'][0]['quat_wxyz'], atol=1e-5)


def test_limits_are_those_of_the_contract(fk):
    for i, name in enumerate(JOINT_NAMES[:5]):
        assert (fk.lower[i], fk.upper[i]) == pytest.approx(JOINT_LIMITS_RAD[name], abs=1e-9)


@pytest.mark.parametrize('q', [np.zeros(4), np.zeros((1, 6)), [0, 0, math.nan, 0, 0], [math.inf] * 6])
def test_what_is_no_joint_vector_is_refused(fk, q):
    with pytest.raises(KinematicsError, match='joint positions'):
        fk.pose(q)
    with pytest.raises(KinematicsError, match='joint positions'):
        fk.jacobian(q)


@pytest.mark.parametrize('q', [np.zeros(5), np.zeros((2, 4)), [[math.nan] * 5]])
def test_what_are_no_joint_vectors_is_refused(fk, q):
    with pytest.raises(KinematicsError, match='one row per pose'):
        fk.positions(q)


_SHARED = []


def shared_solvers():
    if not _SHARED:
        _SHARED.extend((ForwardKinematics(), ForwardKinematics()))
    return _SHARED
