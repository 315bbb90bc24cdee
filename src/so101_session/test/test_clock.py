# SPDX-License-Identifier: Apache-2.0
"""Stamps, freshness, and the regularity of the clock."""

import pytest

from so101_session.session.clock import Jitter, Senses, Source, stamp_of


def senses():
    made = Senses(Source('no joints', 0.3), [Source('no image', 0.5)], Source('no pose', 0.3), arm=None)
    for source in (made.joints, *made.cameras, made.kinematics):
        source.heard(1, 10.0)
    return made


@pytest.mark.parametrize('kind', ['Image', 'CameraInfo', 'JointState'])
def test_the_stamp_is_read_off_the_bytes_of_a_message(kind):
    pytest.importorskip('rclpy')
    from rclpy.serialization import serialize_message
    from sensor_msgs import msg

    message = getattr(msg, kind)()
    message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_123, 456_789
    message.header.frame_id = 'somewhere'
    assert stamp_of(serialize_message(message)) == 1_700_000_123_000_456_789


def test_P24_old_measurements_are_named_with_their_age():
    made = senses()
    assert made.problem(10.2) is None
    made.joints.heard(2, 10.6)
    made.kinematics.heard(2, 10.6)
    assert str(made.problem(10.6)) == 'no image for 0.6 s'


def test_what_was_never_heard_is_said_so():
    assert str(Source('no joints', 0.3).silent(5.0)) == 'no joints yet'


def test_a_stamp_that_does_not_change_is_no_news():
    source = Source('no image', 0.5)
    source.heard(7, 1.0)
    source.heard(7, 2.0)
    assert str(source.silent(2.0)) == 'no image for 1.0 s'


def test_freshness_counts_the_oldest_of_all_inputs():
    made = senses()
    made.joints.heard(50, 11.0)
    assert not made.newer_than(20)
    made.cameras[0].heard(30, 11.0)
    assert made.newer_than(20)


def test_jitter_is_the_deviation_from_the_period():
    jitter = Jitter(0.1)
    for now in (0.0, 0.1, 0.2, 0.35, 0.4):
        jitter.tick(now)
    assert jitter.quantile(0.0) == pytest.approx(0.0, abs=1e-9)
    assert jitter.quantile(1.0) == pytest.approx(0.05)
