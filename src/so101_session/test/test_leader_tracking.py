# SPDX-License-Identifier: Apache-2.0
"""From the pose of a leader to displacements of the follower."""

import numpy as np
import pytest

from so101_contract.action import ActionSpec, EeDeltaValue
from so101_contract.joints import gripper_opening_to_rad
from so101_kinematics.fk import ForwardKinematics
from so101_session.teleop.devices.base import Feedback
from so101_session.teleop.devices.leader import CONTROLLER_LEASH_M, Shadow, Tracker

SCALE = (0.02, 0.02, 0.02)
PERIOD = 0.1
HOME = np.array([0.1, -0.5, 0.6, 0.9, 0.2, 0.6])
FK = ForwardKinematics()


class Follower:
    """A follower that does what it is told, with a lag, and never more than it can."""

    def __init__(self, joints=HOME, lag=0.5, blocked=()):
        self.joints = joints.copy()
        self.setpoint = FK.position(joints[:5])
        self.executed = np.zeros(3)
        self.opening = 0.5
        self.lag, self.blocked = lag, list(blocked)

    @property
    def tcp(self):
        return FK.position(self.joints[:5])

    def feedback(self):
        return Feedback(self.joints.copy(), self.opening, tuple(self.executed))

    def obey(self, drive):
        way = np.array(drive.displacement)
        self.executed += way
        self.setpoint = self.setpoint + way
        self.opening = drive.opening
        ahead = self.setpoint - self.tcp
        far = np.linalg.norm(ahead)
        if far > CONTROLLER_LEASH_M:
            self.setpoint = self.tcp + ahead * CONTROLLER_LEASH_M / far
        self.settle()

    def settle(self):
        for _ in range(3):
            position, jacobian = FK.evaluate(self.joints[:5])
            way = (self.setpoint - position) * self.lag
            way[self.blocked] = 0.0
            self.joints[:5] += np.linalg.pinv(jacobian, rcond=1e-2) @ way


def leader_at(shift, joints=HOME, opening=0.5):
    """Return joints whose TCP is `shift` away."""
    target = FK.position(joints[:5]) + shift
    result = joints.copy()
    for _ in range(30):
        position, jacobian = FK.evaluate(result[:5])
        result[:5] += np.linalg.pinv(jacobian, rcond=1e-2) @ (target - position)
    result[5] = gripper_opening_to_rad(opening)
    return result


def run(tracker, follower, poses, begin=0.0):
    drives = []
    for tick, pose in enumerate(poses):
        drive = tracker.follow(pose, follower.feedback(), begin + tick * PERIOD)
        follower.obey(drive)
        drives.append(drive)
    return drives


def test_P8_the_first_action_after_a_takeover_asks_for_no_motion():
    follower = Follower()
    far_away = leader_at((0.05, -0.08, 0.06), opening=0.95)
    drive = Tracker('so101', SCALE, 0.06).follow(far_away, follower.feedback(), 0.0)
    assert np.allclose(drive.displacement, 0.0, atol=1e-12)
    assert drive.opening == follower.opening


def test_P9_a_leader_that_disagrees_moves_the_follower_by_how_it_moves():
    follower, tracker = Follower(), Tracker('so101', SCALE, 0.06)
    begin, away = follower.tcp, np.array([0.05, -0.06, 0.04])
    ways = [np.array([0.003, 0.002, -0.002]) * tick for tick in range(20)]
    run(tracker, follower, [leader_at(away + way) for way in ways] + [leader_at(away + ways[-1])] * 25)
    assert np.allclose(follower.tcp - begin, ways[-1], atol=0.002)


def test_P9_a_wild_leader_never_asks_for_more_than_the_scale():
    follower, tracker = Follower(), Tracker('so101', SCALE, 0.06)
    rng = np.random.default_rng(0)
    drives = run(tracker, follower, [leader_at(rng.uniform(-0.06, 0.06, 3)) for _ in range(40)])
    spec = ActionSpec()
    for drive in drives:
        assert not any(spec.limit(EeDeltaValue(np.array(drive.displacement), drive.opening)).clipped)


def test_the_follower_does_not_drift_from_the_leader_on_a_long_way():
    follower, tracker = Follower(), Tracker('so101', SCALE, 0.06)
    begin = follower.tcp
    circle = [
        np.array([0.03 * np.sin(turn), 0.05 * (1.0 - np.cos(turn)), 0.02 * np.sin(2 * turn)])
        for turn in np.linspace(0.0, 6 * np.pi, 300)
    ]
    run(tracker, follower, [leader_at(way) for way in circle] + [leader_at(circle[-1])] * 25)
    assert np.linalg.norm(follower.tcp - begin - circle[-1]) < 0.002


def test_actions_that_were_not_executed_are_asked_for_again():
    follower, tracker = Follower(), Tracker('so101', SCALE, 0.06)
    begin, shift = follower.tcp, np.array([0.02, 0.01, 0.01])
    tracker.follow(leader_at(np.zeros(3)), follower.feedback(), 0.0)
    for tick in range(1, 5):  # nobody listens
        assert np.any(tracker.follow(leader_at(shift), follower.feedback(), tick * PERIOD).displacement)
    run(tracker, follower, [leader_at(shift)] * 30, begin=0.5)
    assert np.allclose(follower.tcp - begin, shift, atol=0.002)


def test_the_clutch_slips_when_the_follower_is_blocked_so_that_turning_round_acts_at_once():
    follower, tracker = Follower(blocked=(2,)), Tracker('so101', SCALE, 0.02)
    down = [leader_at((0.0, 0.0, -0.004 * tick)) for tick in range(25)]
    run(tracker, follower, down)
    assert tracker.slipped_m > 0.02
    up = [leader_at((0.0, 0.0, -0.096 + 0.01 * tick)) for tick in range(9)]
    drives = run(tracker, follower, up, begin=2.5)
    assert any(drive.displacement[2] > 0.0 for drive in drives)


def test_without_the_follower_nothing_is_said_and_the_clutch_is_out():
    follower, tracker = Follower(), Tracker('so101', SCALE, 0.06)
    tracker.follow(HOME, follower.feedback(), 0.0)
    assert tracker.follow(leader_at((0.02, 0.0, 0.0)), Feedback(), 0.1) is None
    assert not tracker.engaged
    drive = tracker.follow(leader_at((0.05, 0.0, 0.0)), follower.feedback(), 0.2)
    assert np.allclose(drive.displacement, 0.0, atol=1e-12)


@pytest.mark.parametrize(
    'locked', [{'wrist_flex': 0.9, 'wrist_roll': 0.2}, {'wrist_flex': None, 'wrist_roll': None}]
)
def test_A8_joints_of_the_leader_that_are_locked_in_the_follower_count_for_nothing(locked):
    follower, tracker = Follower(), Tracker('so101', SCALE, 0.06, locked)
    tracker.follow(HOME, follower.feedback(), 0.0)
    turned = HOME + np.array([0.0, 0.0, 0.0, 0.4, -1.0, 0.0])
    assert np.allclose(tracker.follow(turned, follower.feedback(), 0.1).displacement, 0.0, atol=1e-9)
    moved = HOME + np.array([0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert np.any(np.abs(tracker.follow(moved, follower.feedback(), 0.2).displacement) > 0.003)


def test_A6_the_gripper_stays_as_commanded_until_the_handle_moves():
    follower, tracker = Follower(), Tracker('so101', SCALE, 0.06)
    follower.opening = 0.0  # it holds something
    drives = run(tracker, follower, [leader_at(np.zeros(3), opening=0.9)] * 10)
    assert all(drive.opening == 0.0 for drive in drives)


def test_A6_the_gripper_goes_where_the_handle_is_without_a_jump():
    follower, tracker = Follower(), Tracker('so101', SCALE, 0.06)
    follower.opening = 0.0
    handle = [0.9, *np.linspace(0.9, 0.6, 8), *[0.6] * 12]
    drives = run(tracker, follower, [leader_at(np.zeros(3), opening=opening) for opening in handle])
    openings = [drive.opening for drive in drives]
    assert openings[-1] == pytest.approx(0.6, abs=1e-6)
    assert np.max(np.abs(np.diff(openings))) < 0.25


SHADOW = {'align_speed_rad_s': 0.6, 'speed_rad_s': 2.0, 'pull_rad': 0.2, 'pull_s': 0.12}
TICK = 0.02


def lead(shadow, leader, follower_at, ticks, begin=0, lag=0.3, hand=None):
    """Let a lagging leader follow; return its last pose and when it counted as pulled."""
    pulled = None
    for tick in range(begin, begin + ticks):
        now = tick * TICK
        goal = shadow.goal(leader, follower_at(now), now)
        leader = leader + lag * (goal - leader) if hand is None else hand
        if shadow.pulled(leader, now) and pulled is None:
            pulled = now
    return leader, pulled


def test_P8_the_shadow_goes_to_the_follower_slowly():
    shadow, leader = Shadow(**SHADOW), HOME.copy()
    follower = HOME + 0.8
    before = shadow.goal(leader, follower, 0.0)
    for tick in range(1, 200):
        goal = shadow.goal(leader, follower, tick * TICK)
        assert np.max(np.abs(goal - before)) <= 2.0 * TICK + 1e-9 if shadow.aligned else 0.6 * TICK + 1e-9
        leader = before = goal
    assert np.allclose(goal, follower)
    assert shadow.aligned


def test_a_leader_that_lags_behind_a_quick_follower_is_not_pulled():
    shadow = Shadow(**SHADOW)
    leader, _ = lead(shadow, HOME.copy(), lambda _: HOME, 50)
    swing = lambda now: HOME + 0.6 * np.sin(2.0 * (now - 1.0))
    _, pulled = lead(shadow, leader, swing, 300, begin=50, lag=0.1)
    assert pulled is None


def test_a_leader_that_is_pulled_takes_over_after_a_tenth_of_a_second():
    shadow = Shadow(**SHADOW)
    leader, _ = lead(shadow, HOME.copy(), lambda _: HOME, 50)
    _, pulled = lead(shadow, leader, lambda _: HOME, 50, begin=50, hand=np.add(HOME, [0, 0.3, 0, 0, 0, 0]))
    assert pulled == pytest.approx(1.0 + 0.12, abs=2 * TICK)


def test_a_touch_is_no_takeover():
    shadow = Shadow(**SHADOW)
    leader, _ = lead(shadow, HOME.copy(), lambda _: HOME, 50)
    _, pulled = lead(shadow, leader, lambda _: HOME, 4, begin=50, hand=np.add(HOME, [0, 0.3, 0, 0, 0, 0]))
    _, again = lead(shadow, leader, lambda _: HOME, 50, begin=54)
    assert pulled is None
    assert again is None


def test_squeezing_the_handle_is_no_takeover():
    shadow = Shadow(**SHADOW)
    leader, _ = lead(shadow, HOME.copy(), lambda _: HOME, 50)
    _, pulled = lead(shadow, leader, lambda _: HOME, 50, begin=50, hand=np.add(HOME, [0, 0, 0, 0, 0, 0.8]))
    assert pulled is None


def test_P9_a_leader_that_never_agreed_cannot_be_pulled():
    shadow = Shadow(**SHADOW)
    _, pulled = lead(shadow, HOME + 1.0, lambda _: HOME, 300, hand=HOME + 1.0)
    assert pulled is None
