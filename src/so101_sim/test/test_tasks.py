# SPDX-License-Identifier: Apache-2.0
import math

import pytest

from so101_contract.joints import gripper_rad_to_opening
from so101_sim.errors import PresetError
from so101_sim.tasks import Judge, Lift, Place

LIFTED = {
    'cube_position': (0.25, 0.0, 0.09),
    'touches_static': True,
    'touches_moving': True,
    'on_table': False,
    'opening': 0.2,
}
PLACED = {
    'cube_position': (0.23, 0.14, 0.018),
    'in_tray': True,
    'on_table': False,
    'tray_position': (0.23, 0.14, 0.0),
}


def test_lifting_succeeds_after_the_hold_steps_and_not_before(make_truth):
    judge = Judge(Lift(hold_steps=3))
    found = [judge.judge(make_truth(**LIFTED)) for _ in range(3)]
    assert [status.success for status in found] == [False, False, True]
    assert [status.good_steps for status in found] == [1, 2, 3]


def test_a_cube_that_sinks_in_between_starts_over(make_truth):
    judge = Judge(Lift(hold_steps=2))
    high, low = make_truth(**LIFTED), make_truth(**{**LIFTED, 'cube_position': (0.25, 0.0, 0.05)})
    assert [judge.judge(truth).success for truth in (high, low, high, high)] == [False, False, False, True]


@pytest.mark.parametrize(
    'change', [{'touches_moving': False}, {'touches_static': False}], ids=['static only', 'moving only']
)
def test_a_cube_that_is_thrown_or_balanced_does_not_count(make_truth, change):
    judge = Judge(Lift(hold_steps=1))
    assert not judge.judge(make_truth(**{**LIFTED, **change})).success


def test_pick101_calls_a_cube_held_only_by_a_nearly_closed_gripper(make_truth):
    task = Lift(max_gripper_rad=0.25)
    assert task.holds(make_truth(**{**LIFTED, 'opening': gripper_rad_to_opening(0.24)}))
    assert not task.holds(make_truth(**{**LIFTED, 'opening': gripper_rad_to_opening(0.26)}))


def test_letting_go_above_the_table_is_a_drop_and_pushing_on_the_table_is_not(make_truth):
    judge = Judge(Lift())
    judge.judge(make_truth(**LIFTED))
    assert judge.judge(make_truth(cube_position=(0.25, 0.0, 0.05), on_table=False)).dropped
    touching = {**LIFTED, 'on_table': True, 'cube_position': (0.25, 0.0, 0.015)}
    judge.judge(make_truth(**touching))
    assert not judge.judge(make_truth()).dropped


@pytest.mark.parametrize('place', [(0.6, 0.0, 0.0), (0.25, 0.4, 0.0), (0.25, 0.0, -0.4), (-0.1, 0.0, 0.0)])
def test_a_cube_out_of_reach_is_a_failure_with_a_reason(make_truth, place):
    status = Judge(Lift()).judge(make_truth(cube_position=place))
    assert status.failure
    assert 'out of reach' in status.reason


def test_physics_that_diverge_end_the_episode(make_truth):
    status = Judge(Lift()).judge(make_truth(cube_speed=math.nan))
    assert status.failure
    assert 'diverged' in status.reason


def test_a_reset_of_the_judge_forgets_the_episode(make_truth):
    judge = Judge(Lift(hold_steps=2))
    judge.judge(make_truth(**LIFTED))
    judge.reset()
    status = judge.judge(make_truth(**LIFTED))
    assert not status.success
    assert not status.dropped


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({}, True),
        ({'touches_static': True}, False),
        ({'cube_speed': 0.1}, False),
        ({'in_tray': False}, False),
        ({'cube_position': (0.23, 0.19, 0.018)}, False),
    ],
    ids=['lies in it', 'still touched', 'still moves', 'beside it', 'on its edge'],
)
def test_a_cube_is_placed_when_it_lies_in_the_tray_let_go_of(make_truth, change, expected):
    assert Judge(Place(hold_steps=1)).judge(make_truth(**{**PLACED, **change})).success == expected


def test_placing_without_a_tray_is_refused(make_truth):
    with pytest.raises(PresetError, match='tray'):
        Judge(Place()).judge(make_truth())
