# SPDX-License-Identifier: Apache-2.0
"""What a page draws over pictures and around the arm, from the messages that say it."""

import json
import math
import random
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')

from geometry_msgs.msg import PoseStamped, Vector3
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, JointState
from so101_interfaces.msg import EeDelta, SuccessOpinion
from so101_interfaces.msg import TaskReport as TaskReportMessage
from test_views import ARM, frames, HOME  # noqa: F401 (a fixture)
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from so101_console.backend import showable
from so101_console.page_state import Newest, PageState
from so101_console.scene.drawings import Drawings, PlannedStart
from so101_contract.task_report import (
    AtPoint,
    AtPose,
    from_record,
    GroundTruth,
    NearCube,
    Status,
    TaskReport,
    TaskState,
)
from so101_description.cameras import get_camera
from so101_driver.camera.config import Lens
from so101_driver.messages import info_message
from so101_interfaces_py import topics
from so101_kinematics.fk import ForwardKinematics
from so101_testing.payloads import odd_message

WRIST = 'gripper_cam'
HAND = ForwardKinematics('so101').pose(HOME).position.tolist()
STATE = {'poses': ARM.poses(HOME), 'tcp': HAND, 'target': [HAND[0], HAND[1], HAND[2] - 0.02]}


@pytest.fixture
def drawings(frames):  # noqa: F811
    newest = Newest(lambda name, error: pytest.fail(f'{name}: {error}'))
    newest.keep('tcp')(pose())
    drawn = Drawings(newest, (WRIST, 'front_cam'), ARM.gripper, PlannedStart('so101', None, ARM.poses))
    drawn.frames = frames
    info = info_message(Lens.pinhole(get_camera('nexus').intrinsics(320, 240)), 'gripper_cam_optical_frame')
    drawn.hear(f'{WRIST}/camera_info')(serialize_message(info))
    return drawn


def pose():
    message = PoseStamped()
    message.header.frame_id = 'base_link'
    return serialize_message(message)


def delta(*by, source=EeDelta.SOURCE_POLICY):
    return serialize_message(EeDelta(translation=Vector3(x=by[0], y=by[1], z=by[2]), source=source))


def report(reward=0.25, start=None, cube=(0.25, 0.02, 0.012), **status):
    truth = GroundTruth(
        time_s=0.0, cube_position=cube, cube_quat_wxyz=(1.0, 0.0, 0.0, 0.0), cube_speed=0.0,
        tcp_position=(0.2, 0.0, 0.1), grip_position=(0.2, 0.0, 0.1), jaw_direction=(0.0, 1.0, 0.0),
        finger_position=(0.2, 0.0, 0.1), opening=0.5, touches_static=False, touches_moving=False,
        on_table=True, in_tray=False,
    )  # fmt: skip
    state = TaskState(truth, Status(**status), reward, 1)
    said = TaskReport(0, 'lift', 'easy', state, arm_start=start or AtPoint())
    return serialize_message(from_record(said, TaskReportMessage()))


def said(drawings, later=0.0, running=True, **state):
    drawings._said = -math.inf, False, {}  # as if the last page had asked long ago
    whole = drawings.said(time.monotonic() + later, {**STATE, **state}, running=running)
    return json.loads(json.dumps(showable(whole), allow_nan=False))


def lines(whole, camera=0):
    return {line['what']: line['points'] for line in whole['drawn'][camera]['lines']}


def test_the_next_motions_and_the_target_are_drawn_from_the_hand(drawings):
    drawings.hear(topics.POLICY_EE_DELTA)(delta(0.0, 0.01, 0.0))
    drawings.hear(topics.TELEOP_EE_DELTA)(delta(0.0, -0.01, 0.0, source=EeDelta.SOURCE_TELEOP))
    drawn = lines(said(drawings))
    assert set(drawn) == {'policy', 'hand', 'target'}
    assert drawn['policy'][0] == drawn['hand'][0], 'both begin at the hand'
    (_, to_left), (_, to_right) = drawn['policy'], drawn['hand']
    # The wrist's camera looks from behind over the fingers: left is left.
    assert to_left[0] < drawn['policy'][0][0] < to_right[0]
    assert len(drawn['target']) == 1


def test_pages_that_ask_at_the_same_time_are_told_the_same(drawings):
    now = time.monotonic()
    first = drawings.said(now, STATE, running=True)
    assert drawings.said(now + 0.01, STATE, running=True) is first
    assert drawings.said(now + 0.01, STATE, running=False) is not first
    assert drawings.said(now + 0.2, STATE, running=True) is not first


def test_what_was_said_half_a_second_ago_is_drawn_no_more(drawings):
    drawings.hear(topics.POLICY_EE_DELTA)(delta(0.0, 0.01, 0.0))
    assert 'policy' in lines(said(drawings))
    assert 'policy' not in lines(said(drawings, later=1.0))


@pytest.mark.parametrize(
    'message',
    [
        delta(0.0, 0.0, 0.0),
        delta(0.0, 0.01, 0.0, source=EeDelta.SOURCE_NONE),
        delta(math.nan, 0.0, 0.0),
        delta(1e300, 0.0, 0.0),
    ],
    ids=['rest', 'nobody', 'nan', 'huge'],
)
def test_what_is_no_motion_is_not_drawn(drawings, message):
    drawings.hear(topics.POLICY_EE_DELTA)(message)
    assert set(lines(said(drawings))) == {'target'}


def test_a_camera_of_which_nobody_says_where_it_is_says_so_and_the_others_are_drawn_over(drawings):
    told = said(drawings)
    assert told['drawn'][1] == {'lines': [], 'why': 'Nothing is drawn here: its camera_info has not come.'}
    assert lines(told)
    assert len(told['seen']) == 1


def test_an_arm_of_which_nothing_is_known_yet_is_no_trouble(drawings):
    told = said(drawings, poses=None, tcp=None, target=None)
    assert told['drawn'][0]['why'] == 'Nothing is drawn here: where the gripper is has not come.'


def test_the_score_is_what_the_classifier_says_and_what_a_simulation_knows(drawings):
    assert said(drawings)['scores'] == []
    drawings.hear(topics.SUCCESS_OPINION)(serialize_message(SuccessOpinion(probability=0.831)))
    drawings.hear(topics.SIM_TASK)(report(success=True))
    assert said(drawings)['scores'] == [
        {'who': 'Classifier', 'share': 0.83, 'said': '83% success'},
        {'who': 'Simulation', 'share': None, 'said': 'reward 0.25, done'},
    ]
    dark = SuccessOpinion(probability=math.nan, reason='it is too dark')
    drawings.hear(topics.SUCCESS_OPINION)(serialize_message(dark))
    assert said(drawings)['scores'][0] == {'who': 'Classifier', 'share': None, 'said': 'it is too dark'}
    assert said(drawings, later=2.0)['scores'] == []


def test_objects_are_shown_where_a_simulation_knows_them_and_as_large_as_they_are(drawings):
    assert said(drawings)['objects'] is None
    drawings.hear(topics.SIM_TASK)(report())
    told = said(drawings)['objects']
    assert told == {'cube': [0.25, 0.02, 0.012, 1.0, 0.0, 0.0, 0.0], 'half': 0.012, 'mark': None}
    drawings.hear(topics.SIM_TASK)(report(cube=(math.inf, 0.0, 0.0)))
    assert said(drawings)['objects'] is None


def test_where_the_next_episode_begins_is_shown_between_episodes(drawings):
    assert said(drawings, running=False)['planned'] is None, 'nobody says where'
    drawings.hear(topics.SIM_TASK)(report(start=AtPoint()))
    assert said(drawings)['planned'] is None
    planned = said(drawings, running=False)['planned']
    assert len(planned['poses']) == len(STATE['poses'])
    middle = np.add(planned['box']['low'], planned['box']['high']) / 2.0
    np.testing.assert_allclose(middle, AtPoint().centre, atol=1e-3)


def test_each_way_to_place_the_arm_is_shown_or_left_out():
    asked = []
    planned = PlannedStart('so101', AtPose(), lambda q: asked.append(q) or q.tolist())
    assert planned.said(None) == {'poses': [0.0] * 6, 'box': None}
    assert planned.said(None)
    assert len(asked) == 1, 'it is worked out once'
    assert planned.said(NearCube()) is None


def test_whatever_comes_is_drawn_or_left_out(frames):  # noqa: F811
    """Real messages of odd values, on everything that is drawn from; what is told in the end is JSON."""
    rng, told = random.Random(0), []
    state = PageState(ARM.poses, lambda name, error: told.append(name))
    drawn = Drawings(state.newest, (WRIST, 'front_cam'), ARM.gripper, PlannedStart('so101', None, ARM.poses))
    drawn.frames = frames
    heard = {
        f'{WRIST}/camera_info': CameraInfo,
        'front_cam/camera_info': CameraInfo,
        topics.SIM_TASK: TaskReportMessage,
    }
    heard |= {
        topics.POLICY_EE_DELTA: EeDelta,
        topics.TELEOP_EE_DELTA: EeDelta,
        topics.SUCCESS_OPINION: SuccessOpinion,
    }
    kept = {'tcp': PoseStamped, 'joints': JointState, 'markers': MarkerArray}
    names = ('base_link', 'gripper_link', 'gripper_cam_optical_frame', 'front_cam_optical_frame')
    for turn in range(600):
        for name, kind in heard.items():
            drawn.hear(name)(serialize_message(odd_message(kind, rng)))
        for name, kind in kept.items():
            state.newest.keep(name)(serialize_message(odd_message(kind, rng)))
        transforms = odd_message(TFMessage, rng)
        for transform in transforms.transforms:
            transform.child_frame_id, transform.header.frame_id = rng.sample(names, 2)
        drawn.frames.hear(transforms)
        page = state.state(float(turn), None, 'page', {'age': None, 'fps': 0.0})
        json.dumps(showable(drawn.said(float(turn), page, running=bool(turn % 2))), allow_nan=False)
    assert told, 'some of it could not be used, and was told'
