# SPDX-License-Identifier: Apache-2.0
"""Messages as records, the numbers about answers, and the hash of an observation."""

from dataclasses import replace
import math

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from sensor_msgs.msg import JointState
from so101_interfaces.msg import Step

from drqv2_policy_node.acting_stats import ActingStats, WINDOW
from drqv2_policy_node.message_records import image_sample, joint_sample, step_record
from drqv2_policy_node.observed import Observed
from so101_contract.errors import ContractError
from so101_contract.joints import JOINT_NAMES
from so101_contract.manifest import golden_observation
from so101_contract.observation import observation_digest
from so101_contract.observation_spec import CameraSpec
from so101_contract.presets import get_observation
from so101_contract.velocity import VelocityEstimator
from so101_interfaces_py.conversions import array_to_image, joint_state

SPEC = get_observation('compact')
CAMERA = CameraSpec('gripper_cam', 64)


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


def test_the_digest_changes_with_every_part_of_an_observation():
    seen = golden_observation(SPEC, 0)
    state, image = seen.state.copy(), seen.images['gripper_cam'].copy()
    state[0, 0] = np.nextafter(state[0, 0], 1.0)
    image[-1, 0, 0, 0] ^= 1
    others = [replace(seen, state=state), replace(seen, images={'gripper_cam': image})]
    assert len({observation_digest(one) for one in (seen, golden_observation(SPEC, 1), *others)}) == 4
    assert observation_digest(seen) == observation_digest(golden_observation(SPEC, 0))


def test_what_was_observed_travels_as_json():
    observed = Observed(episode=1, index=2, sha256='a' * 64, version=3, std=0.1, seed=4, latency_s=0.002)
    assert Observed.from_json(observed.to_json(indent=None)) == observed


def test_saturation_is_the_share_of_components_at_their_limit():
    stats = ActingStats()
    assert (stats.saturation, math.isnan(stats.latency_s(50))) == (0.0, True)
    stats.acted(0.001, np.array([1.0, -0.995, 0.5, 0.0]), 0.01)
    assert stats.saturation == 0.5


def test_only_the_last_answers_count():
    stats = ActingStats()
    for latency in [1.0] * WINDOW + [0.002] * WINDOW:
        stats.acted(latency, np.zeros(4), 0.01)
    assert (stats.latency_s(95), stats.actions) == (0.002, 2 * WINDOW)
