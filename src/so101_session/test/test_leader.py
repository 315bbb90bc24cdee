# SPDX-License-Identifier: Apache-2.0
"""A leader arm: the real bus code on virtual servos."""

import time

import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.registers import Reg
from so101_driver.emulator.arm import calibrated_arm, virtual_calibration
from so101_session.teleop.devices.base import DeviceError, Event, Feedback
from so101_session.teleop.devices.leader import CONFIRM_S, Leader, leader_arm, Shadow, Tracker

HOME = np.array([0.1, -0.5, 0.6, 0.9, 0.2, 0.6])
TICK = 0.02
CALIBRATION = virtual_calibration()


class Rig:
    """A virtual leader arm and a follower that stands where it is told."""

    def __init__(self, pose=HOME, torque=0.3):
        self.arm = calibrated_arm(CALIBRATION, pose, pacing=False)
        self.arm.start()
        self.device = Leader(
            leader_arm(self.arm.port, CALIBRATION, torque, 8.4),
            Tracker('so101', (0.02, 0.02, 0.02), 0.06),
            Shadow(align_speed_rad_s=2.0, speed_rad_s=2.0, pull_rad=0.2, pull_s=0.12),
        )
        self.follower = HOME.copy()
        self.intervening = False
        self.events = []
        self.told = []

    def feedback(self):
        return Feedback(self.follower.copy(), 0.5, (0.0, 0.0, 0.0), self.intervening)

    def run(self, duration, condition=lambda _: False):
        """Poll in real time; return the state for which the condition holds, or the last one."""
        end = time.monotonic() + duration
        while True:
            now = time.monotonic()
            self.device.feel(self.feedback(), now)
            state = self.device.poll(now)
            self.events += state.events
            self.told.append(state)
            if condition(state) or now > end:
                return state
            time.sleep(TICK)

    def align(self):
        state = self.run(60.0, lambda state: state.note == 'shadowing')
        assert state.note == 'shadowing', state

    def pull(self, joint='shoulder_lift', share=0.9, far=0.5):
        """Push a joint with more than its torque, up to a stop that far away [rad]."""
        index = JOINT_NAMES.index(joint)
        here = float(self.arm.dynamics.positions[index])
        self.arm.set_stops(index + 1, here - 400, here + far * 4096 / (2 * np.pi))
        self.arm.set_load(index + 1, share)

    def pose(self):
        ticks = [servo.get(Reg.PRESENT_POSITION) for servo in self.arm.servos]
        return CALIBRATION.ticks_to_rad(ticks)

    def torque(self):
        return {servo.get(Reg.TORQUE_ENABLE) for servo in self.arm.servos}

    def close(self):
        self.device.close()
        self.arm.stop()


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.close()


def test_P8_the_leader_does_not_move_when_its_torque_comes_on():
    rig = Rig(np.add(HOME, [0.3, 0.2, -0.2, 0.1, 0.2, 0.0]))
    try:
        begin = rig.pose()
        rig.run(60.0, lambda _: rig.torque() == {1})
        assert rig.torque() == {1}
        assert np.max(np.abs(rig.pose() - begin)) < 0.05
    finally:
        rig.close()


def test_P9_the_leader_shadows_the_follower_while_the_policy_drives(rig):
    rig.align()
    rig.follower = np.add(HOME, [0.3, -0.2, 0.2, 0.1, 0.2, 0.0])
    rig.run(60.0, lambda _: np.max(np.abs((rig.pose() - rig.follower)[:5])) < 0.04)
    assert np.max(np.abs((rig.pose() - rig.follower)[:5])) < 0.05
    assert not any(state.active for state in rig.told)
    assert rig.events == []


def test_the_torque_of_the_shadow_is_gentle(rig):
    rig.align()
    assert {servo.get(Reg.TORQUE_LIMIT) for servo in rig.arm.servos} == {300}


def test_P9_whoever_pulls_the_leader_takes_over_without_a_jump(rig):
    rig.align()
    rig.pull()
    state = rig.run(60.0, lambda state: state.active)
    assert rig.events == [Event.TAKEOVER]
    assert np.allclose(state.displacement, 0.0, atol=1e-12)
    assert state.opening == 0.5
    rig.intervening = True
    rig.run(60.0, lambda _: rig.torque() == {0})
    assert rig.torque() == {0}
    assert rig.events == [Event.TAKEOVER]


def test_P9_a_takeover_by_the_session_lets_the_leader_go_limp(rig):
    rig.align()
    rig.intervening = True
    assert rig.run(60.0, lambda state: state.active).active
    rig.run(60.0, lambda _: rig.torque() == {0})
    assert rig.torque() == {0}
    assert rig.events == []


def test_P8_the_leader_goes_back_to_shadowing_without_a_jump(rig):
    rig.align()
    rig.intervening = True
    rig.run(0.3)
    rig.pull('elbow_flex', 0.2, 0.4)
    rig.run(0.5)
    rig.arm.set_load(3, 0.0)
    rig.intervening = False
    before = rig.pose()
    rig.run(60.0, lambda _: rig.torque() == {1})
    assert np.max(np.abs(rig.pose() - before)) < 0.05
    rig.align()
    assert np.max(np.abs((rig.pose() - rig.follower)[:5])) < 0.1


def test_a_pull_that_the_session_does_not_answer_is_forgotten(rig):
    rig.align()
    rig.pull()
    rig.run(60.0, lambda state: state.active)
    rig.arm.set_load(2, 0.0)
    rig.run(CONFIRM_S + 60.0, lambda _: not rig.device.drives)
    assert not rig.device.drives


def test_a_leader_that_is_unplugged_is_dead_and_engages_afresh_when_it_is_back(rig):
    rig.align()
    rig.intervening = True
    rig.run(0.5)
    rig.arm.unplug()
    state = rig.run(60.0, lambda state: not state.alive)
    assert not state.alive
    assert not state.active
    rig.pull('elbow_flex', 0.5, 0.3)
    rig.arm.replug()
    state = rig.run(60.0, lambda state: state.active)
    assert state.active
    assert np.allclose(state.displacement, 0.0, atol=1e-12)


def test_a_mute_servo_makes_the_leader_dead(rig):
    rig.align()
    rig.arm.servo(3).power_off()
    assert not rig.run(60.0, lambda state: not state.alive).alive


def test_the_leader_holds_still_while_the_follower_is_not_known(rig):
    rig.align()
    rig.follower = HOME + 0.5
    now = time.monotonic()
    before = rig.pose()
    for _ in range(20):
        rig.device.feel(Feedback(), now)
        assert not rig.device.poll(time.monotonic()).active
        time.sleep(TICK)
    assert np.max(np.abs(rig.pose() - before)) < 0.1


def test_the_leader_is_limp_after_the_end(rig):
    rig.align()
    rig.device.close()
    rig.device.close()
    assert rig.torque() == {0}


def test_a_leader_that_is_not_there_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(DeviceError, match='the leader arm cannot be used'):
        Leader(
            leader_arm(str(tmp_path / 'nothing'), CALIBRATION, 0.3, 8.4),
            Tracker('so101', (0.02,) * 3, 0.06),
            Shadow(0.6, 2.0, 0.2, 0.1),
        )
