# SPDX-License-Identifier: Apache-2.0
import math
import subprocess
import sys

from arm_picture import build_scene, camera_of_view, main, parse_pose, POSES, render, VIEWS
import cv2
import mujoco
import numpy as np
import pytest

from so101_contract.joints import JOINT_LIMITS_RAD
from so101_contract.orientation import matrix_to_quat
from so101_description.cameras import CAMERA_PRESETS
from so101_description.errors import DescriptionError
from so101_description.model import arm_index, load_model
from so101_description.pose import Pose
from so101_description.raycast import BACKGROUND, drawn_corners

VISUAL_ONLY = np.array([0, 0, 1, 0, 0, 0], dtype=np.uint8)
OUTSIDE = [name for name, direction in VIEWS.items() if direction is not None]


def looking(origin, target):
    """Pose of a camera at the origin that looks at the target, both (3,) [m]."""
    backward = np.subtract(origin, target) / np.linalg.norm(np.subtract(origin, target))
    right = np.cross((0, 0, 1), backward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(backward, right), backward], axis=1)
    return Pose(tuple(origin), matrix_to_quat(rotation))


def outline(model, data, camera, width, height):
    """Which pixels (height, width) show the arm, from the pinhole numbers of a camera in a body at the origin."""
    k = camera.intrinsics(width, height)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - k.cx) / k.fx, (v - k.cy) / k.fy, np.ones_like(u)], axis=-1).reshape(-1, 3)
    rays = rays @ camera.optical_pose.rotation().T
    geom, depth = np.full(len(rays), -1, dtype=np.int32), np.empty(len(rays))
    origin = np.array(camera.pose.position)
    mujoco.mj_multiRay(
        model, data, origin, rays.ravel(), VISUAL_ONLY, True, -1, geom, depth, None, len(rays), 10.0
    )
    return (geom >= 0).reshape(height, width)


def test_silhouette_is_the_depth_outline():
    model, data = build_scene(POSES['zero'])
    pose = looking(
        (0.2, -0.8, 0.02), (0.2, 0.0, 0.24)
    )  # from just above the table, upwards: no table is seen
    camera = CAMERA_PRESETS['nexus'].from_mapping(
        {'position': pose.position, 'quat_wxyz': pose.quat_wxyz, 'fovy_deg': 24.0}
    )
    picture = render(model, data, pose, 24.0, 160, 120, samples=1)
    expected = outline(model, data, camera, 160, 120)
    assert 0.05 < expected.mean() < 0.5
    assert picture.shape == (120, 160, 3)
    assert picture.dtype == np.uint8
    assert np.mean((picture != BACKGROUND).any(axis=2) != expected) < 1e-3


@pytest.mark.parametrize('target', [(3.0, 0.0, 1.5), (3.0, 0.0, -0.5)], ids=['sky', 'table'])
def test_without_geometry_there_is_background(target):
    model = mujoco.MjSpec().compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    picture = render(model, data, looking((1.5, 0.0, 0.5), target), 30.0, 24, 16)
    assert (picture == BACKGROUND).all()


def test_table_has_no_horizon_and_no_shadow_far_from_the_arm():
    model, data = build_scene(POSES['zero'])
    picture = render(model, data, looking((2.0, 0.0, 0.3), (4.0, 0.0, 0.25)), 40.0, 32, 32, samples=1)
    assert (picture == BACKGROUND).all()


def ball_over_table(**geom):
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.05, 0, 0], pos=[0, 0, 0.1], **geom)
    return spec


def shot(spec, pose, size=48, **options):
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return render(model, data, pose, 30.0, size, size, **options)


def test_a_ball_casts_a_shadow_and_has_a_bright_side():
    picture = shot(ball_over_table(rgba=[0.8, 0.2, 0.2, 1]), looking((0.0, -0.8, 0.5), (0.02, 0.05, 0.05)))
    red = picture[..., 0].astype(int) - picture[..., 1] > 30
    assert red.mean() > 0.03
    rows, columns = np.nonzero(red)
    middle = columns.mean()
    left, right = (
        picture[rows[side], columns[side], 0].mean() for side in (columns < middle, columns > middle)
    )
    assert left > right + 10, 'the light comes from the left'
    dark = ~red & (picture.mean(axis=2) < np.mean(BACKGROUND) - 40)
    assert dark.mean() > 0.01
    assert np.nonzero(dark)[1].mean() > middle, 'the shadow falls to the right'


@pytest.mark.parametrize('drawn', [0, 2, 3])
def test_only_groups_that_the_viewer_shows_are_drawn(drawn):
    picture = shot(
        ball_over_table(group=drawn, rgba=[0, 0, 1, 1]), looking((0.0, -0.5, 0.1), (0.0, 0.0, 0.1)), samples=1
    )
    blue = picture[..., 2].astype(int) - picture[..., 0] > 60
    assert blue.any() == (drawn < 3)


def test_a_scene_may_have_a_floor_of_its_own():
    spec = ball_over_table()
    spec.worldbody.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], pos=[0, 0, 0.02], rgba=[0.2, 0.6, 0.2, 1]
    )
    picture = shot(spec, looking((0.0, -0.8, 0.5), (0.0, 0.0, 0.05)), samples=1)
    assert (picture[-1, :, 1] > picture[-1, :, 0].astype(int) + 20).all()


@pytest.mark.parametrize('collision', ['pads', True])
def test_collision_geoms_neither_show_nor_hide_anything(collision):
    pictures = []
    for choice in (False, collision):
        model = load_model(collision=choice)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        first = model.body_bvhadr.copy()
        pictures.append(
            render(model, data, looking((0.3, -0.6, 0.3), (0.3, 0, 0.2)), 30.0, 96, 54, samples=1)
        )
        assert (model.body_bvhadr == first).all(), "the caller's model was changed"
    assert np.mean(pictures[0] != pictures[1]) == 0


def test_samples_smooth_edges_and_change_nothing_else():
    pose = looking((0.0, -0.5, 0.02), (0.0, 0.0, 0.1))
    coarse, fine = (
        shot(ball_over_table(rgba=[0, 0, 0.5, 1]), pose, samples=samples).astype(int) for samples in (1, 3)
    )
    assert np.abs(coarse - fine).mean() < 6
    assert len(np.unique(fine[..., 0])) > len(np.unique(coarse[..., 0]))


def test_a_picture_is_the_same_again_and_leaves_the_state_alone():
    model, data = build_scene(POSES['reach'], cube=True)
    eye, fovy = camera_of_view(model, data, 'wrist', 1.0)
    before = data.geom_xpos.copy(), data.qpos.copy(), data.time
    one, two = (render(model, data, eye, fovy, 40, 40, samples=1) for _ in range(2))
    assert (one == two).all()
    assert (before[0] == data.geom_xpos).all()
    assert (before[1] == data.qpos).all()
    assert before[2] == data.time


@pytest.mark.parametrize(
    'wrong',
    [{'width': 0}, {'height': -3}, {'samples': 0}, {'fovy': 0.0}, {'fovy': 180.0}, {'fovy': math.nan}],
)
def test_numbers_out_of_range_are_refused(wrong):
    model, data = build_scene(POSES['zero'])
    good = {'fovy': 30.0, 'width': 8, 'height': 8, 'samples': 1}
    with pytest.raises(DescriptionError, match='expected width, height and samples'):
        render(model, data, Pose((0.0, 0.0, 1.0)), **(good | wrong))


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
    for geom in range(model.ngeom):
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


@pytest.mark.parametrize('camera', CAMERA_PRESETS)
def test_wrist_view_is_that_of_the_preset_and_sees_the_cube(camera):
    model, data = build_scene(POSES['reach'], camera=camera, cube=True)
    eye, fovy = camera_of_view(model, data, 'wrist', 4 / 3)
    assert fovy == pytest.approx(CAMERA_PRESETS[camera].fovy_deg)
    assert eye.position == pytest.approx(data.cam_xpos[arm_index(model).camera])
    picture = render(model, data, eye, fovy, 64, 48, samples=1).astype(int)
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
    corners = drawn_corners(scene, state).reshape(scene.ngeom, 8, 3)
    links = corners[scene.geom_bodyid > scene.body('shoulder').id]  # base and shoulder stand on the table
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
        ('arm.png', ['--samples', '0'], 'expected width, height and samples of at least 1'),
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
