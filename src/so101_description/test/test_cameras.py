# SPDX-License-Identifier: Apache-2.0
import math

import mujoco
import numpy as np
import pytest

from so101_description.cameras import CAMERA_PRESETS, CameraPreset, get_camera, OPTICAL_IN_LINK, vertical_fov
from so101_description.errors import PresetError
from so101_description.model import build_spec, load_model, official_mjcf
from so101_description.pose import Pose

PRESETS = list(CAMERA_PRESETS)


def test_the_nexus_preset_is_the_camera_of_the_official_file():
    official = mujoco.MjSpec.from_file(str(official_mjcf()))
    for geom in official.geoms:
        official.delete(geom)
    for mesh in official.meshes:
        official.delete(mesh)
    model = official.compile()
    preset = CAMERA_PRESETS['nexus']
    np.testing.assert_allclose(preset.pose.position, model.cam('wrist_cam').pos, atol=1e-12)
    assert abs(np.dot(preset.pose.quat_wxyz, model.cam('wrist_cam').quat)) == pytest.approx(1, abs=1e-12)
    assert preset.fovy_deg == model.cam('wrist_cam').fovy


def test_the_nexus_camera_looks_forward_and_down_at_zero():
    model = load_model(visuals='none', collision=False)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.cam('gripper_cam').xpos, (0.3332, 0.0398, 0.2363), atol=1e-4)
    np.testing.assert_allclose(-data.cam('gripper_cam').xmat[2::3], (0.878, -0.479, -0.023), atol=1e-3)


def test_the_pick101_camera_sits_opposite_to_the_jaw():
    assert CAMERA_PRESETS['pick101'].pose.position[1] < 0 < CAMERA_PRESETS['nexus'].pose.position[1]


def test_the_menagerie_field_of_view_follows_from_lens_and_sensor():
    assert CAMERA_PRESETS['menagerie'].fovy_deg == pytest.approx(48.5, abs=0.1)


@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_sees_the_fingertips(name):
    model = load_model(camera=name, visuals='none', collision=False)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = data.cam('gripper_cam')
    x, y, z = camera.xmat.reshape(3, 3).T @ (data.site('tcp').xpos - camera.xpos)
    half = math.tan(math.radians(CAMERA_PRESETS[name].fovy_deg) / 2)
    assert z < 0, 'the TCP is behind the camera'
    assert abs(y / z) < half
    assert abs(x / z) < half * 4 / 3


@pytest.mark.parametrize('name', PRESETS)
def test_optical_frame_looks_where_the_mujoco_camera_looks_with_y_down(name):
    preset = CAMERA_PRESETS[name]
    camera, optical = preset.pose.rotation(), preset.optical_pose.rotation()
    np.testing.assert_allclose(optical[:, 0], camera[:, 0], atol=1e-12)
    np.testing.assert_allclose(optical[:, 1], -camera[:, 1], atol=1e-12)
    np.testing.assert_allclose(optical[:, 2], -camera[:, 2], atol=1e-12)
    assert preset.optical_pose.position == preset.pose.position


@pytest.mark.parametrize('name', PRESETS)
def test_link_frame_looks_along_x_with_z_up_in_the_image(name):
    preset = CAMERA_PRESETS[name]
    link, optical = preset.link_pose.rotation(), preset.optical_pose.rotation()
    np.testing.assert_allclose(link[:, 0], optical[:, 2], atol=1e-12)
    np.testing.assert_allclose(link[:, 1], -optical[:, 0], atol=1e-12)
    np.testing.assert_allclose(link[:, 2], -optical[:, 1], atol=1e-12)


def test_optical_rotation_is_the_one_of_rep_103():
    np.testing.assert_allclose(OPTICAL_IN_LINK.rpy(), (-math.pi / 2, 0, -math.pi / 2), atol=1e-12)


@pytest.mark.parametrize('size', [(640, 480), (84, 84), (320, 240), (1920, 1080), (1, 1)])
@pytest.mark.parametrize('name', PRESETS)
def test_the_borders_of_the_image_are_half_the_field_of_view_from_its_centre(name, size):
    preset = CAMERA_PRESETS[name]
    k = preset.intrinsics(*size)
    top, bottom = (-0.5 - k.cy) / k.fy, (size[1] - 0.5 - k.cy) / k.fy  # pixel centres are integers
    assert math.degrees(math.atan(bottom) - math.atan(top)) == pytest.approx(preset.fovy_deg)
    assert (k.fx, k.cx) == (k.fy, (size[0] - 1) / 2)
    assert (k.width, k.height) == size


def test_a_square_image_is_the_centre_crop_of_a_wide_one():
    wide, square = CAMERA_PRESETS['nexus'].intrinsics(640, 480), CAMERA_PRESETS['nexus'].intrinsics(480, 480)
    assert square.fx == wide.fx
    assert square.cx == wide.cx - 80


def test_intrinsics_default_to_the_reference_image():
    assert CAMERA_PRESETS['menagerie'].intrinsics()[:2] == (1920, 1080)


def test_camera_matrix_projects_the_optical_axis_to_the_image_centre():
    K = CAMERA_PRESETS['nexus'].intrinsics(640, 480).matrix()
    np.testing.assert_allclose(K @ [0, 0, 1], [319.5, 239.5, 1])


def test_compiled_model_holds_the_chosen_camera():
    for name, preset in CAMERA_PRESETS.items():
        model = load_model(camera=name, visuals='none', collision=False)
        assert model.ncam == 1
        assert model.cam('gripper_cam').fovy[0] == preset.fovy_deg
        assert tuple(model.cam_resolution[0]) == (preset.width, preset.height)


def test_quoted_horizontal_field_of_view_becomes_the_vertical_one():
    assert vertical_fov(103.0, 640, 480) == pytest.approx(86.6, abs=0.1)


def test_a_camera_of_your_own_can_be_used():
    mine = CameraPreset.from_mapping(
        {'position': [0.0, 0.05, -0.03], 'euler_xyz': [-0.4, 0.0, 0.0], 'fovx_deg': 103.0, 'name': 'mine'}
    )
    assert get_camera(mine) is mine
    assert (mine.width, mine.height) == (640, 480)
    assert mine.fovy_deg == pytest.approx(86.6, abs=0.1)
    assert (
        build_spec(camera=mine, visuals='none', collision=False).camera('gripper_cam').fovy == mine.fovy_deg
    )


def test_quaternion_and_euler_angles_say_the_same():
    common = {'position': [0, 0, 0], 'fovy_deg': 70}
    euler = CameraPreset.from_mapping(common | {'euler_xyz': [0.1, 0.2, 0.3]})
    quat = CameraPreset.from_mapping(common | {'quat_wxyz': list(euler.pose.quat_wxyz)})
    np.testing.assert_allclose(quat.pose.quat_wxyz, euler.pose.quat_wxyz, atol=1e-15)


@pytest.mark.parametrize(
    'change',
    [
        {'fovy_deg': 0.0},
        {'fovy_deg': 180},
        {'fovy_deg': math.nan},
        {'fovy_deg': '70'},
        {'fovy_deg': True},
        {'fovx_deg': 90.0},
        {'width': 0},
        {'height': 4.5},
        {'euler_xyz': [0, 0, 0]},
        {'position': [0, 0]},
        {'fov': 3},
    ],
    ids=str,
)
def test_a_malformed_camera_is_refused(change):
    values = {'position': [0, 0, 0], 'quat_wxyz': [1, 0, 0, 0], 'fovy_deg': 70.0}
    CameraPreset.from_mapping(values)
    with pytest.raises(PresetError, match='expected'):
        CameraPreset.from_mapping(values | change)


@pytest.mark.parametrize('missing', ['position', 'quat_wxyz', 'fovy_deg'])
def test_a_camera_without_pose_or_view_is_refused(missing):
    values = {'position': [0, 0, 0], 'quat_wxyz': [1, 0, 0, 0], 'fovy_deg': 70.0}
    del values[missing]
    with pytest.raises(PresetError, match='expected a camera'):
        CameraPreset.from_mapping(values)


@pytest.mark.parametrize('size', [(0, 480), (640, -1), (640.0, 480), (640, None)], ids=str)
def test_intrinsics_of_an_impossible_image_are_refused(size):
    with pytest.raises(PresetError, match='expected'):
        CAMERA_PRESETS['nexus'].intrinsics(*size)


def test_an_unknown_camera_is_refused_with_the_known_ones():
    with pytest.raises(PresetError, match=r"nexus.*pick101.*got 'wrist_cam'"):
        get_camera('wrist_cam')


def test_presets_repeat_their_name():
    for name, preset in CAMERA_PRESETS.items():
        assert preset.name == name
        assert isinstance(preset.pose, Pose)
