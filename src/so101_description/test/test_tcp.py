# SPDX-License-Identifier: Apache-2.0
import json
import math
from pathlib import Path

import mujoco
import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_contract.orientation import unit_quat_to_matrix
from so101_description.errors import PresetError
from so101_description.model import arm_index, load_model
from so101_description.pose import Pose
from so101_description.tcp import get_tcp, TCP_PRESETS, TcpPreset

REFERENCE = json.loads((Path(__file__).parent / 'data' / 'fk_reference.json').read_text())


def tcp_pose(tcp, q):
    model = load_model(tcp=tcp, visuals='none', collision=False)
    data = mujoco.MjData(model)
    arm = arm_index(model)
    data.qpos[arm.qpos] = q
    mujoco.mj_kinematics(model, data)
    return data.site_xpos[arm.tcp_site].copy(), data.site_xmat[arm.tcp_site].reshape(3, 3).copy()


def angle_between(a, b):
    return 2 * math.asin(min(1.0, np.linalg.norm(a - b) / (2 * math.sqrt(2))))


@pytest.mark.parametrize(
    ('tcp', 'expected'),
    [('pick101', (0.39136, -0.00018, 0.23437)), ('so101', (0.39136, -0.00001, 0.22647))],
)
def test_F8_the_tcp_is_a_declared_parameter_79_mm_apart(tcp, expected):
    position, _ = tcp_pose(tcp, np.zeros(6))
    np.testing.assert_allclose(position, expected, atol=1e-5)


@pytest.mark.parametrize(
    ('q', 'expected'),
    [
        ((0, 0, 0, math.pi / 2, math.pi / 2, 0), (0.23213, -0.00018, 0.07514)),
        ((0.3, -0.4, 0.5, 0.6, -0.7, 0.1), (0.29565, -0.07963, 0.12032)),
    ],
    ids=['training-reset', 'arbitrary'],
)
def test_F6_named_poses_of_the_training_simulator_are_where_it_had_them(q, expected):
    position, _ = tcp_pose('pick101', q)
    np.testing.assert_allclose(position, expected, atol=1e-5)


def test_F6_the_sign_of_wrist_roll_is_that_of_the_training_simulator():
    _, plus = tcp_pose('pick101', (0, 0, 0, math.pi / 2, math.pi / 2, 0))
    _, minus = tcp_pose('pick101', (0, 0, 0, math.pi / 2, -math.pi / 2, 0))
    assert angle_between(plus, minus) == pytest.approx(math.pi, abs=1e-6)


@pytest.mark.parametrize(
    ('tcp', 'quat'), [('so101', 'quat_wxyz_urdf'), ('so_arm100', 'quat_wxyz_so_arm100_mjcf')]
)
@pytest.mark.parametrize('row', REFERENCE['rows'], ids=lambda row: row['name'])
def test_F7_forward_kinematics_agrees_with_the_reference_table(tcp, quat, row):
    assert tuple(REFERENCE['joint_order']) == JOINT_NAMES
    position, rotation = tcp_pose(tcp, row['q_rad'])
    np.testing.assert_allclose(position, row['position_m'], atol=1e-5)
    expected = np.array(row[quat])
    assert angle_between(rotation, unit_quat_to_matrix(expected / np.linalg.norm(expected))) < 1e-4


@pytest.mark.parametrize('row', REFERENCE['rows'], ids=lambda row: row['name'])
def test_bodies_agree_with_the_reference_table(row):
    model = load_model(visuals='none', collision=False)
    data = mujoco.MjData(model)
    data.qpos[arm_index(model).qpos] = row['q_rad']
    mujoco.mj_kinematics(model, data)
    for body, key in (('gripper', 'gripper_body'), ('moving_jaw_so101_v1', 'moving_jaw_body')):
        np.testing.assert_allclose(data.body(body).xpos, row[f'{key}_position_m'], atol=1e-5)
        quat = np.array(row[f'{key}_quat_wxyz'])
        expected = unit_quat_to_matrix(quat / np.linalg.norm(quat))
        assert angle_between(data.body(body).xmat.reshape(3, 3), expected) < 1e-4


def test_presets_are_named_after_themselves_and_say_their_source():
    assert set(TCP_PRESETS) == {'so101', 'so_arm100', 'pick101', 'menagerie'}
    for name, preset in TCP_PRESETS.items():
        assert preset.name == name
        assert len(preset.source) > 10


def test_distances_between_the_presets_are_the_published_ones():
    def distance(a, b):
        return math.dist(TCP_PRESETS[a].pose.position, TCP_PRESETS[b].pose.position)

    assert distance('so101', 'pick101') == pytest.approx(0.0079, abs=5e-5)
    assert distance('so101', 'menagerie') == pytest.approx(0.0199, abs=5e-5)
    assert distance('so101', 'so_arm100') == 0


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        TCP_PRESETS['mine'] = TCP_PRESETS['so101']


def test_a_tcp_of_your_own_can_be_used():
    mine = TcpPreset.from_mapping({'name': 'fingertip', 'position': [0, 0, -0.104]})
    assert get_tcp(mine) is mine
    assert mine.pose == Pose((0.0, 0.0, -0.104))
    gripper = np.array(REFERENCE['rows'][0]['gripper_body_position_m'])
    position, _ = tcp_pose(mine, np.zeros(6))
    np.testing.assert_allclose(position, gripper + np.array([0.104, 0, 0]), atol=1e-5)


@pytest.mark.parametrize(
    'values', [{}, {'pos': [0, 0, 0]}, {'position': [0, 0, 0], 'quat': [1, 0, 0, 0]}, {'position': [0, 0]}]
)
def test_a_malformed_tcp_is_refused(values):
    with pytest.raises(PresetError):
        TcpPreset.from_mapping(values)


def test_an_unknown_tcp_is_refused_with_the_known_ones():
    with pytest.raises(PresetError, match=r"so101.*pick101.*got 'gripperframe'"):
        get_tcp('gripperframe')
