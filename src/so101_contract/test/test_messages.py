# SPDX-License-Identifier: Apache-2.0
"""The messages that travel, as records and back: live ones, and those from a bag."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from sensor_msgs.msg import JointState
from so101_interfaces.msg import EeDelta, EpisodeEvent, Step

from so101_contract.action import EeDeltaValue
from so101_contract.errors import ContractError
from so101_contract.joints import BASE_FRAME, JOINT_NAMES, VelocityEstimator
from so101_contract.messages import (
    action_message,
    action_record,
    EpisodeEventRecord,
    event_message,
    event_record,
    image_message,
    image_pixels,
    image_sample,
    joint_message,
    joint_sample,
    JointSample,
    step_message,
    step_record,
    StepRecord,
)
from so101_contract.observation_spec import CameraSpec
from so101_contract.session import EventKind, NO_EPISODE, Source
from so101_interfaces_py.conversions import array_to_image, joint_state

CAMERA = CameraSpec('gripper_cam', 64)
NOW_NS = 1_800_000_000_999_999_999
MOVE = EeDeltaValue(np.array([0.01, -0.02, 0.003]), 0.25)


def from_bag(message):
    """Return what `rosbags` makes of a message: plain objects with its fields, numbers as arrays."""
    if hasattr(message, 'get_fields_and_field_types'):
        names = message.get_fields_and_field_types()
        return SimpleNamespace(**{name: from_bag(getattr(message, name)) for name in names})
    if hasattr(message, 'typecode'):
        return np.array(message, dtype=message.typecode)
    return [from_bag(item) for item in message] if isinstance(message, list) else message


@pytest.fixture(params=[lambda message: message, from_bag], ids=['live', 'bag'])
def read(request):
    return request.param


def test_a_step_keeps_every_stamp_to_the_nanosecond():
    message = Step(
        episode=3, index=4, joint_stamp=Time(sec=1_800_000_000, nanosec=7), reward=0.5, truncated=True
    )
    message.header.stamp = Time(sec=1_800_000_000, nanosec=999_999_999)
    message.image_stamps = [Time(sec=1, nanosec=2), Time(sec=3, nanosec=4)]
    record = step_record(message)
    assert record.stamp_ns == 1_800_000_000_999_999_999
    assert record.joint_stamp_ns == 1_800_000_000_000_000_007
    assert record.image_stamps_ns == (1_000_000_002, 3_000_000_004)
    assert (record.episode, record.index, record.reward, record.ends) == (3, 4, 0.5, True)


def test_joints_are_taken_by_name():
    names = list(reversed(JOINT_NAMES))
    message = JointState(
        name=names, position=[float(i) for i in range(6)], velocity=[0.1 * i for i in range(6)]
    )
    sample = joint_sample(message, VelocityEstimator())
    np.testing.assert_array_equal(sample.position, [5, 4, 3, 2, 1, 0])
    np.testing.assert_allclose(sample.velocity, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


def test_F12_an_arm_that_tells_no_velocity_gets_one_from_the_stamps():
    estimator = VelocityEstimator()
    joint_sample(joint_state(JOINT_NAMES, [0.0] * 6, Time(sec=1, nanosec=0)), estimator)
    sample = joint_sample(joint_state(JOINT_NAMES, [0.1] * 6, Time(sec=1, nanosec=200_000_000)), estimator)
    np.testing.assert_allclose(sample.velocity, 0.5)


@pytest.mark.parametrize(
    'message',
    [
        JointState(name=['a'], position=[0.0]),
        JointState(name=list(JOINT_NAMES), position=[math.nan] * 6, velocity=[0.0] * 6),
        JointState(),
    ],
    ids=['other joints', 'nan', 'empty'],
)
def test_joint_messages_that_tell_nothing_are_refused(message):
    with pytest.raises(ContractError):
        joint_sample(message, VelocityEstimator())


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8'])
def test_an_image_comes_out_as_rgb_whatever_the_camera_sends(encoding):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sent = pixels if encoding == 'rgb8' else pixels[..., ::-1].copy()
    sample = image_sample(array_to_image(sent, encoding, Time(sec=5), 'camera'), CAMERA)
    np.testing.assert_array_equal(sample.image, pixels.transpose(2, 0, 1))
    assert sample.stamp_ns == 5_000_000_000


def test_an_image_of_unknown_encoding_is_refused():
    message = array_to_image(np.zeros((4, 4), np.uint8), 'bayer_rggb8', Time(), 'camera')
    with pytest.raises(ContractError, match='bayer'):
        image_sample(message, CAMERA)


def test_a_step_is_the_same_behind_both_conversions(read):
    step = StepRecord(3, 4, NOW_NS, NOW_NS - 7, (1, NOW_NS), 0.5, False, True)
    assert step_record(read(step_message(step))) == step


def test_an_event_is_the_same_behind_both_conversions(read):
    event = EpisodeEventRecord(5, EventKind.START, NOW_NS, 2, 'the human says start', 'a1', 'b2', 'cal-7')
    assert event_record(read(event_message(event))) == event


def test_an_event_of_an_old_bag_lacks_what_came_later():
    old = SimpleNamespace(
        episode=5, index=2, kind=1, header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2))
    )
    assert event_record(old) == EpisodeEventRecord(5, EventKind.SUCCESS, 1_000_000_002, 2)


def test_an_action_is_the_same_behind_both_conversions(read):
    message = action_message(MOVE, Source.TELEOP, NOW_NS, episode=3, index=4)
    assert message.header.frame_id == BASE_FRAME
    action = action_record(read(message))
    np.testing.assert_array_equal(action.translation, MOVE.translation)
    assert (action.opening, action.source, action.stamp_ns) == (0.25, Source.TELEOP, NOW_NS)
    assert (action.episode, action.index) == (3, 4)
    again = action_message(action, action.source, action.stamp_ns, episode=3, index=4)
    assert again == message


def test_an_action_without_an_episode_belongs_to_none():
    message = action_message(MOVE, Source.TELEOP, NOW_NS, frame_id='elsewhere')
    assert (message.episode, message.index, message.header.frame_id) == (NO_EPISODE, 0, 'elsewhere')


@pytest.mark.parametrize(
    'message',
    [EeDelta(source=9), EeDelta(gripper=math.nan), EpisodeEvent(kind=99), Step(reward=math.nan)],
    ids=['source', 'nan', 'kind', 'reward'],
)
def test_messages_that_no_sender_should_send_are_refused(message):
    make = {EeDelta: action_record, EpisodeEvent: event_record, Step: step_record}[type(message)]
    with pytest.raises(ContractError, match='expected'):
        make(message)


def test_joints_are_the_same_behind_both_conversions(read):
    sample = JointSample(NOW_NS, np.arange(6.0), 0.1 * np.arange(6.0))
    again = joint_sample(read(joint_message(sample)), VelocityEstimator())
    np.testing.assert_array_equal(again.position, sample.position)
    np.testing.assert_array_equal(again.velocity, sample.velocity)
    assert again.stamp_ns == NOW_NS


def test_pixels_are_the_same_behind_both_conversions(read):
    pixels = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    message = image_message(pixels, NOW_NS, 'camera')
    np.testing.assert_array_equal(image_pixels(read(message)), pixels)
    assert image_sample(read(message), CAMERA).stamp_ns == NOW_NS


def test_joints_without_a_mute_one_are_told_but_are_no_observation():
    sample = JointSample(1, np.arange(6.0), np.zeros(6))
    message = joint_message(sample, without=('elbow_flex',))
    assert list(message.name) == [name for name in JOINT_NAMES if name != 'elbow_flex']
    assert list(message.position) == [0.0, 1.0, 3.0, 4.0, 5.0]
    with pytest.raises(ContractError, match='elbow_flex'):
        joint_sample(message, VelocityEstimator())
