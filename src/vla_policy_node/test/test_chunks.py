# SPDX-License-Identifier: Apache-2.0
"""Which target counts when: entries that have passed, blending, an end, and chunks that no good policy says."""

import numpy as np
import pytest

from so101_contract.action import ActionSpec
from so101_contract.joints import limits_arrays
from so101_driver.calibration.lerobot_units import JointScale
from so101_kinematics.config import KinematicsConfig
from so101_kinematics.fk import ForwardKinematics
from vla_policy_node.chunks import Chunk, ChunkError, Pace, Plausibility, Timeline
from vla_policy_node.path import EePath, LEASH_M

MS = 1_000_000
ENTRY = 33 * MS
PACE = Pace(period_ns=ENTRY, replan=8, use=16, blend_ns=100 * MS, step_ns=100 * MS)
ARM = np.array([0.1, -0.5, 0.6, 0.9, 0.1, 0.5])


def chunk(number=1, stamp=0, start=0.0, step=0.01, n=16):
    return Chunk(number, stamp, ENTRY, start + step * np.arange(n)[:, None] * np.ones(6))


def test_the_target_is_that_of_the_time_and_what_has_passed_is_skipped():
    timeline = Timeline(PACE)
    timeline.add(chunk(), 2 * ENTRY)
    for entry in (0, 5, 7.5, 15):
        target = timeline.target(2 * ENTRY, round(entry * ENTRY))
        np.testing.assert_allclose(target, 0.01 * entry, atol=1e-9)


def test_past_its_last_entry_and_before_its_observation_there_is_none():
    timeline = Timeline(PACE)
    timeline.add(chunk(stamp=ENTRY), 2 * ENTRY)
    assert timeline.target(2 * ENTRY, 16 * ENTRY + MS) is None
    assert timeline.target(2 * ENTRY, ENTRY - 1) is None
    assert Timeline(PACE).target(0, 0) is None


def test_what_comes_while_the_arm_stands_begins_where_it_stands():
    timeline = Timeline(PACE)
    timeline.add(chunk(), 400 * MS)  # nothing has moved since its observation
    assert timeline.target(400 * MS, 400 * MS)[0] == 0.0
    for ms in range(400, 800, 100):
        assert timeline.target(ms * MS, (ms + 100) * MS) is not None
    assert timeline.target(800 * MS, 900 * MS) is None  # the arm stands from 800 on
    timeline.add(chunk(2, stamp=500 * MS), 1200 * MS)
    stopped = (800 - 500) * MS / ENTRY
    assert timeline.target(1200 * MS, 1200 * MS)[0] == pytest.approx(0.01 * stopped)


def test_only_so_much_of_a_chunk_is_used():
    timeline = Timeline(Pace(period_ns=ENTRY, replan=4, use=6, blend_ns=0, step_ns=100 * MS))
    timeline.add(chunk(), 0)
    assert timeline.target(0, 5 * ENTRY) is not None
    assert timeline.target(0, 5 * ENTRY + MS) is None


def test_a_new_chunk_takes_over_little_by_little():
    timeline = Timeline(PACE)
    timeline.add(chunk(step=0.0), 0)
    timeline.add(chunk(2, start=1.0, step=0.0), 100 * MS)
    seen = [timeline.target(100 * MS + ms * MS, 200 * MS)[0] for ms in (0, 25, 50, 100, 150)]
    np.testing.assert_allclose(seen, [0.0, 0.25, 0.5, 1.0, 1.0], atol=1e-9)


def test_where_the_old_chunk_has_ended_the_new_one_counts_at_once_and_was_late():
    timeline = Timeline(PACE)
    timeline.add(chunk(step=0.0, n=4), 0)
    assert timeline.target(0, 99 * MS)[0] == 0.0
    timeline.add(chunk(2, start=1.0, step=0.0), 200 * MS)
    assert timeline.target(200 * MS, 210 * MS)[0] == 1.0
    assert timeline.late_share == 1.0


def test_after_another_one_drove_the_newest_chunk_counts_alone():
    timeline = Timeline(PACE)
    timeline.add(chunk(step=0.0), 0)
    timeline.add(chunk(2, start=1.0, step=0.0), 0)
    timeline.forget_older()
    assert timeline.target(0, 0)[0] == 1.0


def test_many_chunks_take_no_more_memory_than_a_few():
    timeline = Timeline(PACE)
    for number in range(1000):
        timeline.add(chunk(number, stamp=number), number)
    assert len(timeline._blended) <= 4


def test_the_next_chunk_is_asked_for_as_much_ahead_as_answers_take():
    timeline = Timeline(PACE)
    assert timeline.wants(0, 0.0)
    timeline.add(chunk(), 0)
    due = 8 * ENTRY
    assert not timeline.wants(due - 1, 0.0)
    assert timeline.wants(due, 0.0)
    assert timeline.wants(due - 100 * MS, 0.1)
    assert not timeline.wants(due - 101 * MS, 0.1)


# ---- plausibility -----------------------------------------------------------------------------------------


def plausibility(units='degrees'):
    return Plausibility(scale=JointScale(units), first_rad=0.35, jump_rad=0.35)


def said(rad, units='degrees', n=16):
    return JointScale(units).from_rad(np.tile(rad, (n, 1)))


@pytest.mark.parametrize('units', ['degrees', 'range', 'rad'])
def test_targets_near_the_arm_become_rad(units):
    near = ARM + np.array([0.1, -0.1, 0.1, 0.1, 0.2, 0.7])
    np.testing.assert_allclose(plausibility(units).targets(said(near, units), ARM), np.tile(near, (16, 1)))


@pytest.mark.parametrize(('theirs', 'ours'), [('rad', 'degrees'), ('degrees', 'rad'), ('rad', 'range')])
def test_another_unit_is_refused_and_named(theirs, ours):
    with pytest.raises(ChunkError, match=f'in {ours}, got .*units:=') as error:
        plausibility(ours).targets(said(ARM, theirs), ARM)
    assert theirs in str(error.value).split('; ')[-1]


def test_a_target_90_degrees_away_is_refused():
    far = said(ARM)
    far[:, 0] += 90.0
    with pytest.raises(ChunkError, match='shoulder_pan 90 degrees from the arm'):
        plausibility().targets(far, ARM)


def test_a_leap_within_a_chunk_is_refused():
    leaps = said(ARM)
    leaps[5:, 1] -= 45.0
    with pytest.raises(ChunkError, match='shoulder_lift 45 degrees in a single entry'):
        plausibility().targets(leaps, ARM)


def test_a_target_far_beyond_the_limits_is_refused_and_a_little_beyond_is_cut():
    ramp = said(ARM)
    ramp[:, 3] = np.degrees(ARM[3]) + np.linspace(0.0, 90.0, 16)
    with pytest.raises(ChunkError, match=r'wrist_flex .* beyond the end of its range'):
        plausibility().targets(ramp, ARM)
    ramp[:, 3] = np.degrees(ARM[3]) + np.linspace(0.0, 50.0, 16)
    rad = plausibility().targets(ramp, ARM)
    assert rad[-1, 3] == limits_arrays()[1][3]


def test_the_gripper_may_snap():
    snap = said(ARM)
    snap[8:, -1] = 100.0
    assert plausibility().targets(snap, ARM)[-1, -1] == pytest.approx(limits_arrays()[1][-1])


# ---- the way of the TCP -----------------------------------------------------------------------------------


def path():
    return EePath('so101', ActionSpec(), KinematicsConfig().workspace)


def test_actions_lead_the_setpoint_to_the_targets_and_no_further():
    fk, way, target = ForwardKinematics(), path(), ARM + np.array([0.2, 0.0, 0.0, 0.0, 0.0, 0.3])
    start, goal = fk.pose(ARM).position, fk.pose(target).position
    moved = sum(way.action(target, ARM + min(1.0, 0.3 * k) * (target - ARM)).translation for k in range(8))
    np.testing.assert_allclose(start + moved, goal, atol=2e-3)
    assert way.cut_share > 0.0


def test_an_arm_that_is_blocked_is_not_left_further_behind_than_the_leash():
    way, target = path(), ARM + np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    for _ in range(20):
        way.action(target, ARM)
    back = way.action(ARM, ARM)
    assert np.linalg.norm(back.translation) <= LEASH_M + 0.02


def test_after_a_hold_it_begins_where_the_arm_is():
    way, target = path(), ARM + np.array([0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
    first = way.action(target, ARM)
    way.start_over()
    np.testing.assert_array_equal(way.action(target, ARM).translation, first.translation)


def test_where_another_one_acts_on_top_of_it_it_goes_on_from_what_was_done():
    target = ARM + np.array([0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
    way, alone = path(), path()
    said = way.action(target, ARM).translation
    alone.action(target, ARM)
    way.carried_out(said + np.array([0.0, 0.0, 0.004]))
    difference = way.action(target, ARM).translation - alone.action(target, ARM).translation
    np.testing.assert_allclose(difference, [0.0, 0.0, -0.004], atol=1e-9)
