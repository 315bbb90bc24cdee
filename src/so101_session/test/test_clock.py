# SPDX-License-Identifier: Apache-2.0
"""Stamps, freshness, and the regularity of the clock."""

import pytest

from so101_session.session.clock import AHEAD_S, GONE_S, Jitter, Senses, SimulatedClock, Source, stamp_of


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


def test_messages_that_lack_a_joint_do_not_count_and_it_is_named():
    source = Source('no joints', 0.3)
    source.heard(1, 1.0)
    source.lacking = 'elbow_flex'
    assert str(source.silent(1.5)) == 'no joints with elbow_flex for 0.5 s'
    source.heard(2, 1.6)
    assert source.silent(1.6) is None
    assert str(source.silent(2.0)) == 'no joints for 0.4 s'


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


def test_of_several_cameras_the_one_that_hangs_is_told_by_its_name():
    senses = Senses.of(['gripper_cam', 'front_cam'], joint_timeout_s=1.0, camera_timeout_s=0.5)
    senses.arm = None
    for source in (senses.joints, senses.kinematics, *senses.cameras):
        source.heard(1, 0.0)
    assert senses.problem(0.4) is None
    senses.cameras[0].heard(2, 0.6)
    assert str(senses.problem(0.9)) == 'the camera front_cam has sent no image for 0.9 s'
    assert not senses.newer_than(1)


class Machine:
    """Its time, which a test decides."""

    def __init__(self):
        self.now_s = 1000.0
        self.clock = SimulatedClock(lambda: self.now_s)

    def passes(self, seconds, simulated_s=None):
        self.now_s += seconds
        if simulated_s is not None:
            self.clock.heard(simulated_s)
        return self.clock.now()


def test_simulated_time_goes_on_from_that_of_the_machine_and_with_the_twin_from_then_on():
    machine = Machine()
    assert machine.passes(1.0) == 1001.0, 'nobody has said a word yet'
    assert machine.passes(1.0, simulated_s=7.0) == 1002.0
    assert machine.passes(1.0, simulated_s=7.5) == pytest.approx(1002.5), 'half as fast'
    assert machine.passes(0.05) == pytest.approx(1002.55), 'between two words it goes on'


def test_it_stands_still_with_a_twin_that_does_and_never_goes_back():
    machine = Machine()
    machine.passes(1.0, simulated_s=0.0)
    stood = machine.passes(5.0)
    assert stood == pytest.approx(1001.0 + AHEAD_S)
    assert machine.passes(1.0, simulated_s=0.02) == stood
    assert machine.passes(0.02, simulated_s=AHEAD_S + 0.02) == pytest.approx(stood + 0.02)


def test_a_twin_that_begins_anew_or_is_gone_does_not_stop_time_for_ever():
    machine = Machine()
    machine.passes(1.0, simulated_s=50.0)
    before = machine.clock.now()
    assert machine.passes(0.5, simulated_s=0.0) >= before
    assert machine.passes(1.0, simulated_s=1.0) == pytest.approx(machine.passes(0.0))
    gone = machine.passes(GONE_S)
    assert machine.passes(3.0) == pytest.approx(gone + 3.0)
