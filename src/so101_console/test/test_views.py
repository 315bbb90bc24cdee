# SPDX-License-Identifier: Apache-2.0
"""Where a camera sees a point of the base: compared with what the simulation's renderer draws there."""

import math

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from so101_console.arm_model import ArmModel
from so101_console.scene.views import MOST_FRAMES, read_optics, StaticFrames, View, view_of
from so101_contract.task_report import home_pose
from so101_description.cameras import FRONT_VIEW, get_camera, OPTICAL_IN_CAMERA
from so101_description.pose import Pose
from so101_description.urdf import urdf_text
from so101_driver.camera.config import Lens
from so101_driver.messages import info_message
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.ik import InverseKinematics
from so101_kinematics.visualization import LinkFrames, LinkTransform, transform_message
from so101_sim.render import Renderer
from so101_sim.scene.scene import FRONT, front_pose, PREFIX
from so101_sim.scene.simulation import Simulation

WIDTH, HEIGHT = 320, 240
ARM = ArmModel('so101')
HOME = home_pose(InverseKinematics(ForwardKinematics('so101')))


def told(*links):
    return TFMessage(transforms=[transform_message(Time(), link) for link in links])


@pytest.fixture
def frames():
    """As kinematics_node and the twin say."""
    stands = front_pose() @ OPTICAL_IN_CAMERA
    known = StaticFrames()
    known.hear(told(*LinkFrames(urdf_text()).fixed()))
    known.hear(told(LinkTransform('base_link', 'front_cam_optical_frame', stands.position, stands.quat_wxyz)))
    return known


def optics(preset, frame):
    return read_optics(info_message(Lens.pinhole(preset.intrinsics(WIDTH, HEIGHT)), frame))


def gripper(q):
    numbers = ARM.poses(q)[7 * ARM.gripper : 7 * ARM.gripper + 7]
    return Pose(tuple(numbers[:3]), tuple(numbers[3:]))


@pytest.fixture(scope='module')
def scene():
    simulation = Simulation()
    renderer = Renderer(simulation.model, WIDTH, HEIGHT)
    yield simulation, renderer
    renderer.close()


CAMERAS = {
    'wrist': (f'{PREFIX}gripper_cam', get_camera('nexus'), 'gripper_cam_optical_frame'),
    'front': (FRONT, FRONT_VIEW, 'front_cam_optical_frame'),
}


@pytest.mark.parametrize('name', CAMERAS)
@pytest.mark.parametrize('turn', [0.0, 0.3, -0.3], ids=lambda turn: f'turned {turn}')
def test_a_point_is_drawn_where_the_camera_sees_it(frames, scene, name, turn):
    simulation, renderer = scene
    camera, preset, frame = CAMERAS[name]
    q = HOME.copy()
    q[0] += turn
    reach = 0.26
    cube = (reach * math.cos(turn), -reach * math.sin(turn), 0.03)
    simulation.reset(q, cube, settle_s=0.0)
    picture = renderer.draw(simulation.data, camera).astype(int)
    red = (picture[:, :, 0] > 60) & (picture[:, :, 0] > 2 * picture[:, :, 1])
    rows, columns = np.nonzero(red)
    assert rows.size > 30, 'the cube is in the picture'
    view = view_of(optics(preset, frame), frames, 'base_link', gripper(simulation.joint_positions))
    ((u, v),) = view.line(cube)
    assert columns.min() - 1 <= u * WIDTH <= columns.max() + 1
    assert rows.min() - 1 <= v * HEIGHT <= rows.max() + 1
    half = max(np.ptp(rows), np.ptp(columns)) / 2.0
    assert math.hypot(u * WIDTH - columns.mean(), v * HEIGHT - rows.mean()) < 0.6 * half


def test_frames_with_a_prefix_and_a_world_that_both_stand_in_are_followed():
    half = math.sqrt(0.5)
    known = StaticFrames()
    known.hear(told(LinkTransform('world', 'left/base_link', (1.0, 0.0, 0.0), (half, 0.0, 0.0, half))))
    known.hear(told(LinkTransform('world', 'eye', (1.0, 0.5, 0.2), (1.0, 0.0, 0.0, 0.0))))
    np.testing.assert_allclose(known.pose('eye', 'left/base_link').position, (0.5, 0.0, 0.2), atol=1e-12)
    assert known.pose('eye', 'right/base_link') is None


def test_frames_that_go_in_circles_or_are_none_or_too_many_harm_nobody():
    known = StaticFrames()
    still = (1.0, 0.0, 0.0, 0.0)
    known.hear(told(LinkTransform('a', 'b', (0.0,) * 3, still), LinkTransform('b', 'a', (0.0,) * 3, still)))
    assert known.pose('a', 'c') is None
    bad = TransformStamped(child_frame_id='worse')
    bad.transform.translation.x = math.nan
    known.hear(TFMessage(transforms=[bad]))
    assert known.pose('worse', '') is None
    for block in range(3):
        named = [TransformStamped(child_frame_id=f'{block}/{n}') for n in range(2 * MOST_FRAMES)]
        known.hear(TFMessage(transforms=named))
    assert len(known._parents) == MOST_FRAMES


@pytest.mark.parametrize(
    ('model', 'd'),
    [('plumb_bob', [0.1, -0.05, 0.001, 0.001, 0.0]), ('rational_polynomial', [0.1] * 8), ('equidistant', [0.01] * 4)],
)  # fmt: skip
def test_each_model_of_distortion_bends_what_is_off_the_axis_and_leaves_the_middle(model, d):
    k = [200.0, 0.0, 159.5, 0.0, 200.0, 119.5, 0.0, 0.0, 1.0]
    info = CameraInfo(width=320, height=240, distortion_model=model, d=d, k=k)
    lens = read_optics(info).lens
    straight = View(Lens.pinhole(get_camera('nexus').intrinsics(320, 240)), Pose((0.0, 0.0, 0.0)))
    bent = View(lens, Pose((0.0, 0.0, 0.0)))
    assert bent.line((0.0, 0.0, 1.0)) == [[0.5, 0.5]]
    assert bent.line((0.5, 0.3, 1.0)) != straight.line((0.5, 0.3, 1.0))
    assert bent.line((9.0, 0.3, 1.0)) == [], 'so far out its numbers mean nothing'


def test_what_lies_behind_the_camera_is_cut_off():
    view = View(Lens.pinhole(get_camera('nexus').intrinsics(320, 240)), Pose((0.0, 0.0, 0.0)))
    assert view.line((0.0, 0.0, -1.0)) == []
    assert view.line((0.0, 0.0, 0.5), (0.1, 0.0, -0.5))[0] == [0.5, 0.5]
    assert view.line((math.nan, 0.0, 1.0)) == []
    assert len(view.pyramid()) == 5


@pytest.mark.parametrize(
    ('info', 'why'),
    [
        (None, 'has not come'),
        (CameraInfo(width=320, height=240, distortion_model='plumb_bob', d=[0.0] * 5), 'not calibrated'),
        (CameraInfo(width=320, height=240), 'distortion model'),
        (
            info_message(Lens.pinhole(FRONT_VIEW.intrinsics(320, 240)), 'somewhere'),
            'no static transform says where somewhere is in base_link',
        ),
    ],
    ids=['silent', 'not calibrated', 'no model', 'no place'],
)
def test_a_camera_that_cannot_be_drawn_over_says_why(frames, info, why):
    known = None if info is None else read_optics(info)
    assert why in view_of(known, frames, 'base_link', gripper(HOME))


@pytest.mark.parametrize('metres', [1e308, 1e200, 3e38, math.inf, math.nan])
def test_a_transform_that_leads_out_of_the_room_is_left_out_and_the_good_one_stays(frames, metres):
    before = frames.pose('front_cam_optical_frame', 'base_link')
    for parent, child in (('base_link', 'front_cam_optical_frame'), ('front_cam_optical_frame', 'lens')):
        far = TransformStamped(child_frame_id=child)
        far.header.frame_id = parent
        far.transform.translation.x = far.transform.translation.y = metres
        frames.hear(TFMessage(transforms=[far]))
    assert frames.pose('front_cam_optical_frame', 'base_link') == before
    assert frames.pose('lens', 'base_link') is None
