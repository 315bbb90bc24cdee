# SPDX-License-Identifier: Apache-2.0
import math

from deltas import ee_delta
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.joints import gripper_opening_to_rad, limits_arrays
from so101_kinematics.config import KinematicsConfig
from so101_kinematics.ee_controller import EeController, Hold
from so101_kinematics.errors import KinematicsError
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.profiles import Clip

DT = 0.02
START = np.array([0.0, -0.5, 0.35, 1.15, 0.2, 0.4])  # TCP at about (0.25, 0, 0.12)
FK = ForwardKinematics()


def controller(**values):
    return EeController(KinematicsConfig(**values))


def command(xyz=(0.0, 0.0, 0.0), t=0.0, gripper=0.3, **changes):
    return ee_delta(xyz, gripper, t, **changes)


def run(ctrl, q, ticks, *, t=0.0, xyz=(0.0, 0.0, 0.0), once=False, follow=True, **changes):
    """Drive an arm that is where it was told one period before; return time, joints, last command."""
    out = None
    for i in range(ticks):
        delta = None
        if i % 5 == 0:
            delta = command(xyz if i == 0 or not once else (0.0, 0.0, 0.0), t, **changes)
        out = ctrl.update(t, q, t, delta)
        if follow and out.q_goal is not None:
            q = out.q_goal
        t += DT
    return t, q, out


def test_nothing_is_commanded_before_the_first_displacement():
    ctrl = controller()
    out = ctrl.update(0.0, START, 0.0)
    assert out.q_goal is None
    assert out.setpoint is None
    assert out.held
    assert out.reason is Hold.NO_COMMAND


def test_A4_a_displacement_moves_the_setpoint_by_its_metres_exactly_once():
    for axis in np.eye(3):
        ctrl = controller()
        t, q, out = run(ctrl, START, 5)
        begin = out.setpoint
        t, q, out = run(ctrl, q, 25, t=t, xyz=0.02 * axis, once=True)
        np.testing.assert_allclose(out.setpoint - begin, 0.02 * axis, atol=1e-12)
        np.testing.assert_allclose(FK.pose(out.q_goal).position, out.setpoint, atol=1e-4)


def test_a_displacement_is_spread_over_the_interpolation_time():
    ctrl = controller(interpolation_s=0.1)
    t, q, out = run(ctrl, START, 5)
    begin = out.setpoint
    lead = []
    for i in range(7):
        out = ctrl.update(t, q, t, command((0.02, 0.0, 0.0), t) if i == 0 else None)
        lead.append((out.setpoint - begin)[0])
        q, t = out.q_goal, t + DT
    np.testing.assert_allclose(lead, [0.004, 0.008, 0.012, 0.016, 0.02, 0.02, 0.02], atol=1e-9)


def test_without_interpolation_the_setpoint_jumps():
    ctrl = controller(interpolation_s=0.0)
    t, q, out = run(ctrl, START, 5)
    begin = out.setpoint
    out = ctrl.update(t, q, t, command((0.02, 0.0, 0.0), t))
    np.testing.assert_allclose(out.setpoint - begin, (0.02, 0.0, 0.0), atol=1e-12)


def test_displacements_that_come_early_add_up():
    ctrl = controller()
    t, q, out = run(ctrl, START, 5)
    begin = out.setpoint
    for i in range(30):
        out = ctrl.update(t, q, t, command((0.004 if i in (0, 3, 7) else 0.0, 0.0, 0.0), t))
        q, t = out.q_goal, t + DT
    np.testing.assert_allclose(out.setpoint - begin, (0.012, 0.0, 0.0), atol=1e-9)


def test_A1_with_a_stalled_arm_the_setpoint_never_leads_by_more_than_the_leash():
    ctrl = controller()
    measured = FK.pose(START).position
    t = 0.0
    for i in range(200):
        out = ctrl.update(t, START, t, command((0.02, 0.01, -0.01), t) if i % 5 == 0 else None)
        assert np.linalg.norm(out.setpoint - measured) <= ctrl.config.leash_m + 1e-12
        t += DT
    assert ctrl.counts[Clip.LEASH] > 0
    assert np.linalg.norm(out.setpoint - measured) > 0.9 * ctrl.config.leash_m


def test_A1_an_arm_that_is_pulled_away_takes_the_setpoint_along():
    ctrl = controller()
    t, _q, out = run(ctrl, START, 10, follow=False)
    for shift in np.linspace(0.0, 0.6, 30):
        moved = START + np.array([shift, 0, 0, 0, 0, 0])
        out = ctrl.update(t, moved, t, command(t=t))
        lead = np.linalg.norm(out.setpoint - FK.pose(moved).position)
        assert lead <= ctrl.config.leash_m + 1e-12
        t += DT
    assert out.setpoint[1] < -0.05


@pytest.mark.parametrize('joint', range(4))
@pytest.mark.parametrize('by', [0.1, -0.1])
def test_A2_a_disturbance_shows_in_the_next_command(joint, by):
    ctrl, undisturbed = controller(), controller()
    for each in (ctrl, undisturbed):
        t, q, _ = run(each, START, 30)
    disturbed = q.copy()
    disturbed[joint] += by
    without = undisturbed.update(t, q, t, command(t=t))
    with_it = ctrl.update(t, disturbed, t, command(t=t))
    # It is pushed back, and harder than the servo alone would: the goal moves against the disturbance.
    change = (with_it.q_goal - without.q_goal)[joint]
    assert change * by < 0.0
    assert abs(change) > 5e-4
    assert np.linalg.norm(with_it.setpoint - FK.pose(disturbed).position) <= ctrl.config.leash_m + 1e-12


def test_A2_a_big_disturbance_moves_the_setpoint_at_once():
    ctrl = controller()
    t, q, out = run(ctrl, START, 30)
    disturbed = q + np.array([0.5, 0, 0, 0, 0, 0])
    moved = ctrl.update(t, disturbed, t, command(t=t))
    assert np.linalg.norm(moved.setpoint - out.setpoint) > 0.05
    assert np.abs(moved.q_goal - disturbed)[:5].max() < 0.25


def test_A1_no_goal_leads_its_reading_by_more_than_allowed():
    ctrl = controller(max_joint_lead_rad=0.05, leash_m=0.2)
    t = 0.0
    for i in range(50):
        out = ctrl.update(t, START, t, command((0.03, 0.0, 0.02), t) if i % 5 == 0 else None)
        assert np.abs(out.q_goal - START)[:5].max() <= 0.05 + 1e-9
        t += DT
    assert ctrl.counts[Clip.JOINT_LEAD] > 0


def test_A3_zero_displacements_leave_a_perfect_arm_where_it_is():
    ctrl = controller()
    _, q, out = run(ctrl, START, 3000, gripper=0.3)
    np.testing.assert_allclose(q[:5], START[:5], atol=1e-6)
    assert not out.held


def test_A10_a_displacement_that_is_too_long_is_shortened_and_counted():
    ctrl = controller(max_delta_m=0.03, leash_m=0.2)
    t, q, out = run(ctrl, START, 5)
    begin = out.setpoint
    t, q, out = run(ctrl, q, 10, t=t, xyz=(0.0, 0.4, 0.3), once=True)
    np.testing.assert_allclose(out.setpoint - begin, (0.0, 0.024, 0.018), atol=1e-9)
    assert ctrl.counts[Clip.DELTA] == 1
    assert not out.held


@pytest.mark.parametrize('axis', range(3))
@pytest.mark.parametrize('sign', [-1.0, 1.0])
def test_A10_the_setpoint_stays_in_the_workspace_and_comes_back_at_once(axis, sign):
    lower, upper = (0.18, -0.08, 0.06), (0.30, 0.08, 0.18)
    ctrl = controller(workspace_min=lower, workspace_max=upper)
    xyz = np.zeros(3)
    xyz[axis] = 0.02 * sign
    t, q, out = run(ctrl, START, 150, xyz=xyz)
    bound = (upper if sign > 0 else lower)[axis]
    assert out.setpoint[axis] == pytest.approx(bound, abs=1e-9)
    assert ctrl.counts[Clip.WORKSPACE] > 0
    t, q, out = run(ctrl, q, 6, t=t, xyz=-xyz, once=True)
    assert out.setpoint[axis] == pytest.approx(bound - 0.02 * sign, abs=1e-9)


def test_an_arm_outside_the_workspace_is_not_drawn_in_but_may_be_driven_in():
    ctrl = controller(workspace_min=(0.30, -0.2, 0.02))
    begin = FK.pose(START).position
    t, q, out = run(ctrl, START, 50)
    np.testing.assert_allclose(out.setpoint, begin, atol=1e-9)
    t, q, out = run(ctrl, q, 10, t=t, xyz=(-0.02, 0.0, 0.0), once=True)
    np.testing.assert_allclose(out.setpoint, begin, atol=1e-9)
    t, q, out = run(ctrl, q, 10, t=t, xyz=(0.02, 0.0, 0.0), once=True)
    np.testing.assert_allclose(out.setpoint, begin + np.array((0.02, 0.0, 0.0)), atol=1e-9)


@pytest.mark.parametrize('shift_rad', [0.0, 1e-15, -1e-12, 1e-9, -1e-7, 1e-5, -1e-4, 3e-4, -1e-3])
def test_A10_out_of_reach_is_counted_and_the_way_back_takes_effect_at_once(shift_rad):
    # At the edge of the reach a bit decides how far out the arm stands; the way back must not depend on it.
    ctrl = controller(workspace_max=(0.6, 0.25, 0.5))
    t, q, out = run(ctrl, START + shift_rad, 200, xyz=(0.02, 0.0, 0.0))
    assert ctrl.counts[Clip.REACH] > 0
    furthest = out.setpoint[0]
    assert np.linalg.norm(FK.pose(out.q_goal).position - out.setpoint) < 1e-3
    t, q, out = run(ctrl, q, 6, t=t, xyz=(-0.02, 0.0, 0.0), once=True)
    assert out.setpoint[0] == pytest.approx(furthest - 0.02, abs=2e-3)


BAD_COMMANDS = {
    'nan': lambda t: command((math.nan, 0.0, 0.0), t),
    'infinite': lambda t: command((0.0, math.inf, 0.0), t),
    'nan gripper': lambda t: command(t=t, gripper=math.nan),
    'text': lambda t: command('left', t),
    'unknown source': lambda t: command((0.02, 0.0, 0.0), t, source=9),
    'old': lambda t: command((0.02, 0.0, 0.0), t - 0.25),
    'from the future': lambda t: command((0.02, 0.0, 0.0), t + 0.25),
    'other frame': lambda t: command((0.02, 0.0, 0.0), t, frame_id='world'),
    'no frame': lambda t: command((0.02, 0.0, 0.0), t, frame_id=''),
}
REASONS = {
    'old': Hold.STALE_COMMAND,
    'from the future': Hold.STALE_COMMAND,
    'other frame': Hold.WRONG_FRAME,
    'no frame': Hold.WRONG_FRAME,
}


@pytest.mark.parametrize('kind', BAD_COMMANDS)
def test_A14_a_displacement_that_cannot_be_executed_holds_and_is_counted(kind):
    ctrl = controller()
    t, q, good = run(ctrl, START, 20, xyz=(0.01, 0.0, 0.0))
    out = ctrl.update(t, q, t, BAD_COMMANDS[kind](t))
    assert out.held
    assert out.reason is REASONS.get(kind, Hold.BAD_COMMAND)
    np.testing.assert_array_equal(out.q_goal, good.q_goal)
    np.testing.assert_array_equal(out.setpoint, good.setpoint)
    assert ctrl.counts[out.reason] == 1


def test_F9_a_displacement_is_executed_in_the_frame_it_names_or_not_at_all():
    ctrl = controller(base_frame='left/base_link')
    out = ctrl.update(0.0, START, 0.0, command((0.01, 0.0, 0.0), base='left/base_link'))
    assert out.reason is Hold.WRONG_FRAME
    out = ctrl.update(
        0.02, START, 0.02, command((0.01, 0.0, 0.0), 0.02, frame_id='left/base_link', base='left/base_link')
    )
    assert not out.held


def test_A14_a_stream_that_stops_holds_after_the_timeout_and_keeps_the_goal():
    ctrl = controller(command_timeout_s=0.2)
    t, q, _ = run(ctrl, START, 21, xyz=(0.02, 0.0, 0.0))
    goals = []
    for _ in range(100):
        out = ctrl.update(t, q, t)
        goals.append((out.held, out.q_goal))
        t += DT
    held = [goal for is_held, goal in goals if is_held]
    assert len(held) >= 88
    assert out.reason is Hold.STALE_COMMAND
    assert all(np.array_equal(goal, held[0]) for goal in held)


@pytest.mark.parametrize(
    ('reading', 'age', 'reason'),
    [
        (None, 0.0, Hold.NO_JOINTS),
        (START, 0.3, Hold.STALE_JOINTS),
        (START, -0.3, Hold.STALE_JOINTS),
        (START * math.nan, 0.0, Hold.BAD_JOINTS),
        (START[:5], 0.0, Hold.BAD_JOINTS),
        (START, math.nan, Hold.BAD_JOINTS),
        ('here', 0.0, Hold.BAD_JOINTS),
    ],
    ids=['missing', 'old', 'from the future', 'nan', 'five', 'nan stamp', 'text'],
)
def test_A14_a_reading_that_cannot_be_used_holds_and_is_counted(reading, age, reason):
    ctrl = controller()
    t, _, good = run(ctrl, START, 20, xyz=(0.01, 0.0, 0.0))
    out = ctrl.update(t, reading, t - age, command((0.02, 0.0, 0.0), t))
    assert out.held
    assert out.reason is reason
    np.testing.assert_array_equal(out.q_goal, good.q_goal)
    assert ctrl.counts[reason] == 1


def test_A1_P7_a_command_is_computed_from_the_newest_reading():
    ctrl = controller()
    t, q, _ = run(ctrl, START, 20)
    moved = q + np.array([0.4, 0, 0, 0, 0, 0])
    out = ctrl.update(t, moved, t - 0.01, command(t=t))
    assert np.abs(out.q_goal - moved)[:5].max() < 0.25


def test_motion_resumes_from_the_measured_pose_after_a_hold():
    ctrl = controller()
    t, q, out = run(ctrl, START, 20, xyz=(0.01, 0.0, 0.0))
    carried = q + np.array([0.3, 0.2, 0, 0, 0, 0])
    for _ in range(50):
        out = ctrl.update(t, carried, t)
        t += DT
    assert out.held
    out = ctrl.update(t, carried, t, command(t=t))
    assert not out.held
    np.testing.assert_allclose(out.setpoint, FK.pose(carried).position, atol=1e-9)
    np.testing.assert_allclose(out.q_goal[:5], carried[:5], atol=1e-6)


def test_a_takeover_starts_over_from_the_measured_pose():
    ctrl = controller()
    t, _q, _ = run(ctrl, START, 10, xyz=(0.02, 0.0, 0.0), follow=False, source='policy')
    out = ctrl.update(t, START, t, command(t=t, source='policy'))
    assert np.linalg.norm(out.setpoint - FK.pose(START).position) > 0.03
    out = ctrl.update(t + DT, START, t + DT, command(t=t + DT, source='teleop'))
    np.testing.assert_allclose(out.setpoint, FK.pose(START).position, atol=1e-9)


def test_the_gripper_keeps_its_grip_across_a_takeover():
    ctrl = controller()
    holding = START.copy()
    t, _, out = run(ctrl, holding, 50, gripper=0.0, follow=False, source='policy')
    closed = gripper_opening_to_rad(0.0)
    assert out.q_goal[5] == pytest.approx(closed)
    out = ctrl.update(t, holding, t, command(t=t, gripper=0.0, source='teleop'))
    assert out.q_goal[5] == pytest.approx(closed)


def test_the_gripper_moves_to_an_absolute_opening_at_a_limited_speed():
    ctrl = controller(max_gripper_speed=1.0)
    low, high = gripper_opening_to_rad(0.0), gripper_opening_to_rad(1.0)
    t, q, last = 0.0, START.copy(), START[5]
    for _ in range(100):
        out = ctrl.update(t, q, t, command(t=t, gripper=1.0))
        assert abs(out.q_goal[5] - last) <= 1.0 * (high - low) * DT + 1e-12
        q, last, t = out.q_goal, out.q_goal[5], t + DT
    assert last == pytest.approx(high)
    _, q, out = run(ctrl, q, 100, t=t, gripper=-3.0)
    assert out.q_goal[5] == pytest.approx(low)
    assert ctrl.counts[Clip.GRIPPER] == 20


@pytest.mark.parametrize('profile', ['setpoint', 'pick101'])
@pytest.mark.parametrize('source', ['policy', 'teleop', 'reset'])
def test_A8_a_locked_joint_is_commanded_to_its_lock_whatever_the_source(profile, source):
    ctrl = controller(
        profile=profile,
        tcp='pick101' if profile == 'pick101' else 'so101',
        locked_joints=('wrist_roll=1.5708', 'wrist_flex'),
    )
    t, q = 0.0, START.copy()
    for i in range(40):
        out = ctrl.update(t, q, t, command((0.01, 0.005, -0.005), t, source=source) if i % 5 == 0 else None)
        assert out.q_goal[4] == 1.5708
        assert out.q_goal[3] == START[3]
        q, t = out.q_goal, t + DT
    ctrl.reseed(q)
    assert ctrl.update(t, q, t, command(t=t, source='teleop')).q_goal[4] == 1.5708


def test_A8_the_tcp_goes_where_it_should_with_a_locked_joint():
    ctrl = controller(locked_joints=('wrist_roll',))
    t, q, out = run(ctrl, START, 5)
    begin = out.setpoint
    for xyz in ((0.02, 0, 0), (0, 0.02, 0), (0, 0, 0.02)):
        t, q, out = run(ctrl, q, 10, t=t, xyz=xyz, once=True)
    np.testing.assert_allclose(out.setpoint - begin, (0.02, 0.02, 0.02), atol=1e-9)
    np.testing.assert_allclose(FK.pose(out.q_goal).position, out.setpoint, atol=1e-4)
    assert out.q_goal[4] == START[4]


def test_roll_and_pitch_are_kept_where_the_position_allows():
    ctrl = controller()
    t, q, _ = run(ctrl, START, 5)
    for xyz in ((0.01, 0, 0), (0, 0.01, 0), (0, 0, 0.008), (-0.01, -0.01, 0), (0, 0, -0.01)):
        t, q, _ = run(ctrl, q, 20, t=t, xyz=xyz)
        assert q[4] == pytest.approx(START[4], abs=0.01)
        assert FK.pitch(q) == pytest.approx(FK.pitch(START), abs=0.02)


def test_reseeding_with_the_servos_goal_repeats_it():
    ctrl = controller()
    sagging = START - np.array([0, 0.02, 0.015, 0.005, 0, 0])
    ctrl.reseed(sagging, START)
    held = ctrl.update(0.0, sagging, 0.0)
    np.testing.assert_array_equal(held.q_goal, START)
    out = ctrl.update(0.02, sagging, 0.02, command(t=0.02))
    np.testing.assert_allclose(out.setpoint, FK.pose(sagging).position, atol=1e-9)
    np.testing.assert_allclose(out.q_goal[:5], START[:5], atol=1e-6)


def test_after_release_nothing_is_commanded_until_motion_resumes_where_the_arm_is():
    ctrl = controller()
    t, q, _ = run(ctrl, START, 20)
    ctrl.release()
    elsewhere = q + np.array([0.5, 0.3, -0.4, 0.2, 0.0, 0.3])
    out = ctrl.update(t + 1.0, elsewhere, t + 1.0)
    assert out.held
    assert out.q_goal is None
    out = ctrl.update(t + 1.02, elsewhere, t + 1.02, command(t=t + 1.02))
    np.testing.assert_allclose(out.q_goal[:5], elsewhere[:5], atol=0.01)
    assert abs(out.q_goal[5] - elsewhere[5]) < 0.2


def test_reseeding_with_what_is_no_reading_raises():
    for bad in (START * math.nan, START[:5], None):
        with pytest.raises(KinematicsError, match='q_measured'):
            controller().reseed(bad)
    with pytest.raises(KinematicsError, match='q_goal'):
        controller().reseed(START, START[:5])


def test_a_clock_that_is_set_back_starts_over():
    ctrl = controller()
    _t, q, _ = run(ctrl, START, 20, t=1000.0, xyz=(0.01, 0.0, 0.0))
    out = ctrl.update(5.0, q, 5.0)
    assert out.held
    out = ctrl.update(5.02, q, 5.02, command(t=5.02))
    assert not out.held
    np.testing.assert_allclose(out.setpoint, FK.pose(q).position, atol=1e-9)


def test_a_rest_pose_outside_the_limits_is_commanded_back_into_them():
    rest = np.array([-0.0591, -1.8415, 1.7135, 0.7210, -0.1097, 0.0])
    low, high = limits_arrays()
    _t, _q, out = run(controller(), rest, 20, follow=False)
    assert (out.q_goal >= low).all()
    assert (out.q_goal <= high).all()


readings = st.one_of(
    st.none(),
    st.lists(st.floats(-4.0, 4.0), min_size=6, max_size=6),
    st.lists(st.floats(), min_size=5, max_size=7),
    st.just('nothing'),
)
deltas = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            'xyz': st.tuples(*[st.floats(-0.05, 0.05)] * 3) | st.tuples(*[st.floats()] * 3) | st.just('any'),
            'gripper': st.floats(-1.0, 2.0) | st.floats(),
            't': st.floats(-0.3, 0.3) | st.floats(-1e6, 1e6),
            'frame_id': st.sampled_from(('base_link', 'base_link', 'base_link', 'world')),
            'source': st.sampled_from((0, 1, 0, 1, 7)),
        }
    ),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-0.05, 0.3), readings, st.floats(-0.2, 0.2), deltas), max_size=25),
    st.sampled_from(('setpoint', 'pick101')),
)
def test_A10_whatever_comes_the_loop_goes_on_and_goals_stay_within_limits(events, profile):
    ctrl = controller(profile=profile, tcp='pick101' if profile == 'pick101' else 'so101')
    low, high = limits_arrays()
    now, last = 100.0, None
    ctrl.update(now, START, now, command(t=now))
    for dt, reading, age, delta in events:
        now += dt
        shifted = None if delta is None else ee_delta(**delta | {'t': now + delta['t']})
        out = ctrl.update(now, reading, now - age, shifted)
        if out.q_goal is not None:
            assert (out.q_goal >= low - 1e-12).all()
            assert (out.q_goal <= high + 1e-12).all()
        if out.held and last is not None:
            np.testing.assert_array_equal(out.q_goal, last)
        last = out.q_goal


@pytest.mark.parametrize('profile', ['setpoint', 'pick101'])
def test_a_stop_in_mid_motion_stays_where_the_arm_is_commanded(profile):
    ctrl = controller(profile=profile, tcp='pick101' if profile == 'pick101' else 'so101')
    t, q, _ = run(ctrl, START, 10, xyz=(0.01, 0.0, 0.0), source=2)
    ctrl.update(t, q, t, command((0.01, 0.0, 0.0), t, gripper=1.0, source=2))
    out = ctrl.update(t + DT, q, t + DT)
    ctrl.stop()
    goals = [out.q_goal]
    for i in range(2, 20):
        goals.append(ctrl.update(t + i * DT, goals[-1], t + i * DT).q_goal)
    if profile == 'setpoint':
        np.testing.assert_allclose(goals, np.broadcast_to(out.q_goal, (len(goals), 6)), atol=2e-4)
    reach = ctrl.fk.position(goals[-1][:5]) - ctrl.fk.position(out.q_goal[:5])
    assert np.linalg.norm(reach) < 1e-3
    assert goals[-1][5] == out.q_goal[5], 'the gripper stops too'


def test_nobody_takes_nothing_over():
    ctrl = controller()
    t, _q, out = run(ctrl, START, 5, xyz=(0.01, 0.0, 0.0), follow=False, source=2)
    ahead = out.setpoint
    out = ctrl.update(t, START, t, command(t=t, source=0))
    np.testing.assert_allclose(out.setpoint, ahead, atol=1e-3)
    out = ctrl.update(t + DT, START, t + DT, command(t=t + DT, source=1))
    np.testing.assert_allclose(out.setpoint, ctrl.fk.position(START[:5]), atol=1e-9)


def test_a_stop_before_anything_was_commanded_does_nothing():
    ctrl = controller()
    ctrl.stop()
    assert ctrl.update(0.0, START, 0.0).q_goal is None


def test_after_a_reseed_in_mid_motion_nothing_is_commanded_before_the_next_displacement():
    ctrl = controller()
    t, q, _ = run(ctrl, START, 11, xyz=(0.01, 0.0, 0.0))  # the last displacement came a moment ago
    ctrl.reseed(q)
    for i in range(50):
        assert ctrl.update(t + i * DT, q, t + i * DT).q_goal is None
    assert ctrl.update(t + 1.0, q, t + 1.0, command((0.01, 0.0, 0.0), t + 1.0)).q_goal is not None
