# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from so101_sim.errors import PresetError
from so101_sim.tasks import get_reward, Lift, Moment, Place, REWARDS, Status

STILL = np.zeros(4)


def moment(truth, status=None, action=STILL, last=STILL, gripper=0.5) -> Moment:
    return Moment(truth, status or Status(), np.asarray(action), np.asarray(last), gripper)


def lifted(make_truth, height: float):
    return make_truth(
        cube_position=(0.25, 0.0, height),
        grip_position=(0.235, 0.0, height),
        tcp_position=(0.25, 0.0, height),
        finger_position=(0.27, 0.0, height),
        touches_static=True,
        touches_moving=True,
        on_table=False,
        opening=0.15,
    )


@pytest.mark.parametrize('name', REWARDS)
def test_every_reward_is_made_of_finite_named_terms(make_truth, name):
    for truth in (make_truth(), lifted(make_truth, 0.09)):
        terms = get_reward(name)(moment(truth, Status(success=True, good_steps=3)), Lift())
        assert terms
        assert all(np.isfinite(value) for value in terms.values())


def test_sparse_is_one_at_success_and_nothing_otherwise(make_truth):
    sparse = get_reward('sparse')
    assert sparse(moment(make_truth(), Status(success=True)), Lift()) == {'success': 1.0}
    assert sparse(moment(make_truth(), Status(failure=True)), Lift()) == {'success': 0.0}


def test_minus_one_is_the_sparse_mode_of_pick101(make_truth):
    reward = get_reward('minus_one')
    assert sum(reward(moment(make_truth()), Lift()).values()) == -1.0
    assert sum(reward(moment(make_truth(), Status(success=True)), Lift()).values()) == 0.0


def test_dense_rises_on_the_way_to_the_goal(make_truth):
    dense = get_reward('dense')
    near = make_truth(grip_position=(0.24, 0.0, 0.02))
    way = [make_truth(), near, lifted(make_truth, 0.02), lifted(make_truth, 0.05), lifted(make_truth, 0.09)]
    sums = [sum(dense(moment(truth), Lift()).values()) for truth in way]
    assert sums == sorted(sums)
    assert sums[-1] <= 0.02 + 1e-9


@pytest.mark.parametrize('discount', [0.9, 0.97, 0.98])
def test_dense_pays_success_better_than_waiting_beside_it_forever(make_truth, discount):
    dense = get_reward('dense')
    waiting = sum(dense(moment(lifted(make_truth, 0.058)), Lift()).values()) / (1.0 - discount)
    assert sum(dense(moment(lifted(make_truth, 0.09), Status(success=True)), Lift()).values()) >= waiting


def test_dense_charges_for_jerks(make_truth):
    terms = get_reward('dense')(moment(make_truth(), action=np.ones(4), last=-np.ones(4)), Lift())
    assert terms['jerk'] == pytest.approx(-0.0005 * 16)


def test_placing_makes_progress_towards_the_tray(make_truth):
    dense = get_reward('dense')
    held = {'touches_static': True, 'touches_moving': True, 'tray_position': (0.23, 0.14, 0.0)}
    far = make_truth(cube_position=(0.25, 0.0, 0.08), **held)
    close = make_truth(cube_position=(0.23, 0.12, 0.08), **held)
    assert dense(moment(close), Place())['progress'] > dense(moment(far), Place())['progress'] > 0.0


def test_pick101_gives_the_numbers_of_its_v19(make_truth):
    reward = get_reward('pick101')
    task = Lift(height_m=0.08, hold_steps=10)
    terms = reward(moment(lifted(make_truth, 0.09), Status(good_steps=4), gripper=0.0), task)
    assert terms['reach'] == pytest.approx(1.0)
    assert terms['grasp'] == 1.5
    assert terms['lift'] == pytest.approx(4.0 * (0.09 - 0.015) / 0.065)
    assert terms['off_table'] == 1.0
    assert terms['ramp'] == 2.0
    assert terms['target'] == 1.0
    assert terms['hold'] == 2.0
    pushed = reward(moment(make_truth(cube_position=(0.25, 0.0, 0.008)), Status(dropped=True)), task)
    assert pushed['push_down'] == pytest.approx(-0.1)
    assert pushed['drop'] == -2.0
    assert reward(moment(make_truth(), Status(success=True)), task)['success'] == 10.0


def test_an_unknown_reward_is_refused_with_a_list():
    with pytest.raises(PresetError, match='sparse'):
        get_reward('money')
