# SPDX-License-Identifier: Apache-2.0
import math
import subprocess
import sys

from arm_picture import (
    build_scene,
    camera_of_view,
    draw,
    drawn_corners,
    main,
    parse_pose,
    POSES,
    TABLE,
    VIEWS,
)
import cv2
import mujoco
import numpy as np
import pytest

from so101_contract.joints import JOINT_LIMITS_RAD
from so101_description.cameras import CAMERA_PRESETS
from so101_description.errors import DescriptionError
from so101_description.model import arm_index, load_model

RENDERS = pytest.mark.usefixtures('renders')
OUTSIDE = [name for name, direction in VIEWS.items() if direction is not None]


@RENDERS
def test_a_picture_is_the_same_again_and_leaves_the_state_alone():
    model, data = build_scene(POSES['reach'], cube=True)
    eye, fovy = camera_of_view(model, data, 'wrist', 1.0)
    before = data.geom_xpos.copy(), data.qpos.copy(), data.time
    one, two = (draw((model, data), eye, fovy, (40, 40), samples=1) for _ in range(2))
    assert (one == two).all()
    assert (before[0] == data.geom_xpos).all()
    assert (before[1] == data.qpos).all()
    assert before[2] == data.time


@RENDERS
def test_samples_smooth_edges_and_change_nothing_else():
    scene = build_scene(POSES['zero'])
    view = camera_of_view(*scene, 'side', 1.0)
    coarse, fine = (draw(scene, *view, (64, 64), samples=samples).astype(int) for samples in (1, 3))
    assert np.abs(coarse - fine).mean() < 6
    assert np.abs(np.diff(fine, axis=1)).mean() < np.abs(np.diff(coarse, axis=1)).mean()


@pytest.mark.parametrize('view', OUTSIDE)
@pytest.mark.parametrize('pose', POSES)
@pytest.mark.parametrize('aspect', [0.5, 16 / 9])
def test_outside_views_hold_the_whole_arm(view, pose, aspect):
    model, data = build_scene(POSES[pose], cube=True)
    eye, fovy = camera_of_view(model, data, view, aspect)
    seen = (drawn_corners(model, data) - eye.position) @ eye.rotation()
    assert (seen[:, 2] < 0).all()
    slope = math.tan(math.radians(fovy) / 2)
    assert np.abs(seen[:, 1] / seen[:, 2]).max() < slope
    assert np.abs(seen[:, 0] / seen[:, 2]).max() < slope * aspect
    assert eye.position[2] > 0, 'the eye is under the table'


def test_drawn_corners_hold_every_vertex_tightly():
    model, data = build_scene(POSES['reach'])
    vertices = []
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        local = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
        vertices.append(local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    vertices, corners = np.concatenate(vertices), drawn_corners(model, data)
    for sign in (1, -1):
        slack = (sign * corners).max(axis=0) - (sign * vertices).max(axis=0)
        assert (slack > -1e-6).all()
        assert (slack < 0.05).all()


def test_top_view_has_forward_up_and_left_on_the_left():
    model, data = build_scene(POSES['zero'])
    eye, _ = camera_of_view(model, data, 'top', 1.0)
    assert eye.rotation()[:, 1] @ (1, 0, 0) > 0.99
    assert eye.rotation()[:, 0] @ (0, -1, 0) > 0.99


@RENDERS
@pytest.mark.parametrize('camera', CAMERA_PRESETS)
def test_wrist_view_is_that_of_the_preset_and_sees_the_cube(camera):
    model, data = build_scene(POSES['reach'], camera=camera, cube=True)
    eye, fovy = camera_of_view(model, data, 'wrist', 4 / 3)
    assert fovy == pytest.approx(CAMERA_PRESETS[camera].fovy_deg)
    assert eye.position == pytest.approx(data.cam_xpos[arm_index(model).camera])
    picture = draw((model, data), eye, fovy, (64, 48), samples=1).astype(int)
    red = picture[..., 0] - picture[..., 1:].max(axis=2) > 60
    assert red.sum() > 20


def test_an_unknown_view_is_refused():
    model, data = build_scene(POSES['zero'])
    with pytest.raises(DescriptionError, match=r"'three-quarter'.*got 'front'"):
        camera_of_view(model, data, 'front', 1.0)


@pytest.mark.parametrize('name', POSES)
def test_named_poses_keep_the_limits_touch_nothing_and_stay_above_the_table(name):
    model = load_model()
    data = mujoco.MjData(model)
    data.qpos[arm_index(model).qpos] = POSES[name]
    mujoco.mj_forward(model, data)
    for value, (lower, upper) in zip(POSES[name], JOINT_LIMITS_RAD.values(), strict=True):
        assert lower <= value <= upper
    assert data.ncon == 0
    scene, state = build_scene(POSES[name])
    corners = drawn_corners(scene, state).reshape(scene.ngeom - 1, 8, 3)  # all but the table
    bodies = np.delete(scene.geom_bodyid, scene.geom(TABLE).id)
    links = corners[bodies > scene.body('shoulder').id]  # base and shoulder stand on the table
    assert links[..., 2].min() > 0.0


def test_reach_points_sixty_degrees_down_from_a_hand_above_the_table():
    model = load_model(visuals='none', collision=False)
    data = mujoco.MjData(model)
    arm = arm_index(model)
    data.qpos[arm.qpos] = POSES['reach']
    mujoco.mj_forward(model, data)
    forward = data.site_xmat[arm.tcp_site].reshape(3, 3)[:, 2]
    assert math.degrees(math.asin(-forward[2])) == pytest.approx(60, abs=3)
    assert 0.02 < data.site_xpos[arm.tcp_site][2] < 0.08


def test_cube_stands_on_the_table_before_the_gripper_and_axes_weigh_nothing():
    plain, _ = build_scene(POSES['reach'])
    model, data = build_scene(POSES['reach'], tcp='pick101', cube=True)
    cube = int(np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_BOX)[0])
    tip = data.site_xpos[arm_index(model).tcp_site]
    assert data.geom_xpos[cube][2] == pytest.approx(model.geom_size[cube][2])
    assert np.linalg.norm(data.geom_xpos[cube][:2] - tip[:2]) < 0.03
    assert np.sum(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE) == 3
    assert model.body('gripper').mass == pytest.approx(plain.body('gripper').mass)


@pytest.mark.parametrize(
    'words', [['0', '-0.1', '0.2', '0', '0', '1'], ['0,-0.1,0.2,0,0,1'], ['0', '-1e-1,', '.2', '0 0', '1']]
)
def test_six_numbers_are_a_pose(words):
    assert parse_pose(words) == pytest.approx((0, -0.1, 0.2, 0, 0, 1))


@pytest.mark.parametrize('words', [['fly'], [], ['1', '2'], ['0'] * 7, ['zero', 'rest'], ['0'] * 5 + ['x']])
def test_a_pose_that_is_neither_name_nor_six_numbers_is_refused(words):
    with pytest.raises(DescriptionError, match=r"'zero', 'rest', 'reach'.*6 numbers in rad .*shoulder_pan"):
        parse_pose(words)


@pytest.mark.parametrize('value', ['3.0', '-90', 'nan', 'inf'])
def test_a_joint_beyond_its_limits_is_named(value):
    with pytest.raises(DescriptionError, match=r'elbow_flex between -1\.690 and 1\.690 rad'):
        parse_pose(['0', '0', value, '0', '0', '0'])


@RENDERS
def test_command_writes_a_png_in_a_process_of_its_own(tmp_path):
    path = tmp_path / 'arm.png'
    arguments = [str(path), '--pose', '0', '-0.5', '0.5', '0', '0', '0', '--size', '64x36', '--samples', '1']
    env = {'PYTHONPATH': ':'.join(sys.path), '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1'}
    result = subprocess.run(
        [sys.executable, '-m', 'arm_picture', *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')
    picture = cv2.imread(str(path))
    assert picture.shape == (36, 64, 3)
    blue, green, red = (picture[..., channel].astype(int) for channel in range(3))
    assert np.mean((red > blue + 60) & (green > blue + 60)) > 0.03, 'no yellow arm'
    assert [entry.name for entry in tmp_path.iterdir()] == ['arm.png']


@RENDERS
@pytest.mark.parametrize('size', ['96x54', '20x90', '90x20', '1x1'])
def test_inset_fits_into_any_size(tmp_path, size):
    path = tmp_path / 'arm.png'
    assert main([str(path), '--size', size, '--samples', '1', '--inset', '--cube', '--tcp', 'so101']) == 0
    height, width = cv2.imread(str(path)).shape[:2]
    assert f'{width}x{height}' == size


@pytest.mark.parametrize(
    ('name', 'arguments', 'sentence'),
    [
        ('arm.png', ['--pose', 'fly'], "expected a pose as one of ['zero', 'rest', 'reach']"),
        ('arm.png', ['--pose', '9', '0', '0', '0', '0', '0'], 'expected shoulder_pan between'),
        ('arm.png', ['--samples', '0'], 'expected samples of at least 1'),
        ('arm.png', ['--size', '9999x9'], 'expected a picture of 1 to 4096 px each way'),
        ('arm.jpg', [], 'expected a .png file in a folder that exists'),
        ('missing/arm.png', [], 'expected a .png file in a folder that exists'),
    ],
)
def test_command_refuses_in_one_sentence_and_writes_nothing(tmp_path, capsys, name, arguments, sentence):
    assert main([str(tmp_path / name), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(sentence)
    assert error.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('size', ['960', '0x10', '10x-1', '1e3x5', 'axb', '99999x1'])
def test_a_size_that_is_none_is_refused(tmp_path, capsys, size):
    with pytest.raises(SystemExit):
        main([str(tmp_path / 'arm.png'), '--size', size])
    assert 'expected WIDTHxHEIGHT in pixels' in capsys.readouterr().err


def test_help_names_poses_views_and_joints(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(['--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert exit_info.value.code == 0
    for word in (*POSES, *VIEWS, *JOINT_LIMITS_RAD, 'OUT.png', 'rad'):
        assert word in text
