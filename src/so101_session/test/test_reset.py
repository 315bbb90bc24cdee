# SPDX-License-Identifier: Apache-2.0
"""The way back to the start: closed-loop, limited, and honest about where it is stuck."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from session_world import MOTION_S, report_of, world

from so101_contract.joints import ARM_JOINTS, limits_arrays
from so101_contract.session import SessionState
from so101_contract.task_report import AtPoint, AtPose
from so101_driver.gate.config import GateConfig
from so101_session.session.config import ResetConfig
from so101_session.session.episode import SessionError
from so101_session.session.reset import GRIPPER_SPEED, StartPlanner, Way

PERIOD = 0.02
PLANNER = StartPlanner(ResetConfig())


def ways_from(q):
    """Via points and a start: always the same for the same pose."""
    PLANNER._rng = np.random.default_rng(0)
    return PLANNER.way(q, PLANNER.arm_start())


def planner(**values):
    return StartPlanner(ResetConfig(**values))


def follow(way, q, *, speed=2.0, sag=0.0, blocked=None, seconds=20.0):
    """Lead an arm that follows at a speed, hangs below its goal, and may be blocked at a joint angle."""
    trace, goals, now = [q], [], 100.0
    for _ in range(round(seconds / PERIOD)):
        now += PERIOD
        step = way.update(now, q)
        goals.append(step.goal)
        if step.arrived or step.stuck:
            return np.array(trace), np.array(goals), step
        target = step.goal - sag * np.array([0.0, 1.0, 1.0, 0.5, 0.0, 0.0])
        q = q + np.clip(target - q, -speed * PERIOD, speed * PERIOD)
        if blocked is not None:
            q[1] = max(q[1], blocked)
        trace.append(q)
    raise AssertionError('neither arrived nor stuck')


def distance(q, goal):
    return float(np.linalg.norm(PLANNER.fk.position(q[:5]) - PLANNER.fk.position(goal[:5])))


POSES = st.lists(st.floats(0.1, 0.9), min_size=6, max_size=6).map(
    lambda shares: limits_arrays()[0] + np.array(shares) * (limits_arrays()[1] - limits_arrays()[0])
)


@settings(max_examples=40, deadline=None)
@given(POSES)
def test_A9_P8_from_anywhere_it_arrives_within_15_mm_at_no_more_than_10_degrees_in_a_step(q):
    ways = ways_from(q)
    trace, goals, step = follow(Way(ResetConfig(reset_step_deg=10.0), PLANNER.fk, ways), q)
    assert step.arrived
    assert distance(trace[-1], ways[-1]) <= 0.015
    per_step = np.abs(goals[5:, :5] - goals[:-5, :5]).max()
    assert per_step <= math.radians(10.0) + 1e-9


def test_a_long_way_behind_a_via_point_is_not_taken_for_stuck():
    low, high = limits_arrays()
    q = low + np.array([0.5, 0.5625, 0.75, 0.125, 0.5, 0.5]) * (high - low)
    ways = ways_from(q)
    assert len(ways) == 2
    for step_deg in (10.0, 3.0):
        trace, _, step = follow(Way(ResetConfig(reset_step_deg=step_deg), PLANNER.fk, ways), q)
        assert step.arrived, step.stuck
        assert distance(trace[-1], ways[-1]) <= 0.015


def test_P8_the_first_goal_is_where_the_arm_is():
    q = np.array([0.5, 0.3, -0.2, 0.9, 0.4, 0.6])
    way = Way(ResetConfig(), PLANNER.fk, ways_from(q))
    assert way.update(0.0, q).goal == pytest.approx(q)


@settings(max_examples=20, deadline=None)
@given(POSES)
def test_A9_every_goal_is_within_the_limits(q):
    low, high = limits_arrays()
    _, goals, _ = follow(Way(ResetConfig(), PLANNER.fk, ways_from(q)), q)
    assert (goals >= low - 1e-12).all()
    assert (goals <= high + 1e-12).all()


def test_A9_an_arm_that_sags_arrives_too():
    q = np.array([0.5, -0.3, 0.2, 0.9, 0.4, 0.6])
    ways = ways_from(q)
    trace, _, step = follow(Way(ResetConfig(), PLANNER.fk, ways), q, sag=math.radians(2.5))
    assert step.arrived
    assert distance(trace[-1], ways[-1]) <= 0.015


def test_A9_an_arm_that_is_blocked_is_reported_as_stuck_with_the_joint():
    q = np.array([0.0, 0.9, 0.2, 0.3, 0.0, 0.6])
    way = Way(ResetConfig(), PLANNER.fk, ways_from(q))
    trace, _, step = follow(way, q, blocked=0.5)
    assert not step.arrived
    assert 'shoulder_lift is' in step.stuck
    assert len(trace) * PERIOD < ResetConfig().reset_timeout_s


def test_A9_the_goal_stays_close_to_a_joint_that_does_not_follow():
    q = np.array([0.0, 0.9, 0.2, 0.3, 0.0, 0.6])
    way = Way(ResetConfig(), PLANNER.fk, ways_from(q))
    _, goals, _ = follow(way, q, blocked=0.5)
    assert goals[:, 1].min() > 0.5 - math.radians(10.0) - 0.09


def test_A9_a_start_out_of_reach_is_refused_with_a_sentence():
    with pytest.raises(SessionError, match='start that the arm can reach'):
        planner(start_xyz=(0.55, 0.0, 0.5)).way(np.zeros(6), planner(start_xyz=(0.55, 0.0, 0.5)).arm_start())


@settings(max_examples=20, deadline=None)
@given(
    POSES,
    st.sampled_from([('wrist_flex', 1.1), ('wrist_flex', 1.4), ('wrist_roll', 0.8), ('wrist_roll', -1.0)]),
)
def test_A8_a_locked_joint_is_sent_to_its_lock_value_and_nowhere_else(q, lock):
    name, value = lock
    config = ResetConfig(locked_joints=(f'{name}={value}',))
    locked = StartPlanner(config)
    ways = locked.way(q, locked.arm_start())
    i = ARM_JOINTS.index(name)
    assert [way[i] for way in ways[-1:]] == [pytest.approx(value)]


def test_A8_a_joint_that_is_locked_where_it_is_stays_there_for_every_reset():
    config = ResetConfig(locked_joints=('wrist_roll',))
    locked = StartPlanner(config)
    q = np.array([0.0, 0.0, 0.3, 0.8, 0.7, 0.5])
    assert locked.way(q, locked.arm_start())[-1][4] == pytest.approx(0.7)
    q[4] = 0.6
    assert locked.way(q, locked.arm_start())[-1][4] == pytest.approx(0.7)


def test_P25_a_low_hand_rises_before_it_goes_sideways():
    above = PLANNER.way(np.array([0.6, 0.0, 0.4, 1.1, 0.0, 0.6]), PLANNER.arm_start())[-1]
    found = StartPlanner(ResetConfig())._ik.solve(np.array([0.2, 0.15, 0.02]), above)
    assert found.success
    low = np.append(found.q[:5], 0.6)
    ways = PLANNER.way(low, PLANNER.arm_start())
    assert len(ways) == 2
    risen = PLANNER.fk.position(ways[0][:5])
    assert risen == pytest.approx([0.2, 0.15, ResetConfig().safe_height_m], abs=1e-3)
    assert ways[0][-1] == low[-1]


def test_P25_starts_are_drawn_around_their_centre():
    source = StartPlanner(ResetConfig(seed=3))
    points = np.array(
        [source.fk.position(source.way(np.zeros(6), source.arm_start())[-1][:5]) for _ in range(50)]
    )
    centre, spread = np.array(ResetConfig().start_xyz), np.array(ResetConfig().start_spread_m)
    assert (np.abs(points - centre) <= spread + 1e-3).all()
    assert (points.std(axis=0) > 0.3 * spread).all()


def test_A7_episodes_begin_where_the_simulated_task_is_trained():
    wide = AtPoint(spread=(0.04, 0.04, 0.015))
    assert PLANNER.arm_start(report_of(arm_start=wide)) == wide
    assert PLANNER.arm_start(None) == AtPoint()


def test_A7_without_a_simulation_episodes_begin_where_the_parameters_say():
    start = planner(start_from='parameters', start_xyz=(0.2, 0.05, 0.12)).arm_start(
        report_of(arm_start=AtPose())
    )
    assert start.centre == (0.2, 0.05, 0.12)


def test_the_gripper_moves_at_its_own_pace():
    q = np.array([0.0, 0.0, 0.3, 0.8, 0.0, -0.17])
    _, goals, _ = follow(Way(ResetConfig(), PLANNER.fk, ways_from(q)), q)
    assert np.abs(np.diff(goals[:, -1])).max() <= GRIPPER_SPEED * PERIOD + 1e-9


def test_a_reset_that_is_stuck_is_reported_and_tried_again():
    w = world()
    w.q = np.array([1.0, 0.9, 0.2, 0.3, 0.0, 0.6])
    w.arm_moves = False
    w.advance(0.3)
    w.until('waiting')
    assert 'stuck' in w.session.sentence
    assert w.goal == pytest.approx(w.q)
    assert w.steps == []
    w.arm_moves = True
    w.until('running')


def test_an_episode_begins_with_measurements_from_after_the_reset():
    w = world(reward_source='sim')
    w.until('running')
    arrived = next(i for i, effect in enumerate(w.done) if type(effect).__name__ == 'ResetScene')
    assert w.resets == 1
    assert w.steps[0].image_stamps_ns[0] > 0
    assert arrived < w.done.index(w.steps[0])
    assert w.kinds == ['RESET_START', 'RESET_DONE', 'START']


def test_P25_from_the_folded_rest_pose_the_way_is_straight_and_rises():
    q = np.array(GateConfig().rest_rad)
    (goal,) = ways_from(q)
    heights = [PLANNER.fk.position((q + share * (goal - q))[:5])[2] for share in np.linspace(0.0, 1.0, 30)]
    assert min(heights) == heights[0]


def human_arranges(pause_s=5.0):
    """Return a session whose human has so many seconds to arrange the scene, at the moment at which they begin."""
    w = world(reward_source='operator', reset_pause_s=pause_s)
    for _ in range(6000):
        w.advance(MOTION_S)
        if w.session.sentence.startswith('arrange the scene'):
            return w
    raise AssertionError(f'no time to arrange the scene: {w.session.sentence}')


def test_while_a_human_arranges_the_scene_the_session_counts_down():
    w, told = human_arranges(), []
    while w.session.sentence.startswith('arrange the scene'):
        told.append(w.session.sentence)
        w.advance(0.1)
    seconds = [int(said.split()[3]) for said in told]
    assert seconds == sorted(seconds, reverse=True)
    assert set(seconds) == {5, 4, 3, 2, 1}
    assert told[0] == 'arrange the scene: 5 s left, or Start when ready'
    w.advance(1.0)
    assert w.session.state is SessionState.RUNNING


def test_start_says_that_the_scene_is_ready_and_gives_up_the_rest_of_the_pause():
    w = human_arranges(pause_s=500.0)
    w.session.start_episode(skip_reset=False)
    w.advance(1.0)
    assert w.session.state is SessionState.RUNNING
    assert w.session.account.started == 1
