# SPDX-License-Identifier: Apache-2.0
from so101_sim.human.node import LOOK_S, MOST, Recovery, RecoveryAction, TRIES, WINDOW_S


def test_after_a_look_the_fault_is_cleared_and_then_the_motors_are_switched_on():
    recovery = Recovery()
    assert recovery.update(fault=True, disabled=False, now_s=0.0) is None
    assert recovery.update(fault=True, disabled=False, now_s=LOOK_S) is RecoveryAction.CLEAR_FAULT
    assert recovery.update(fault=False, disabled=True, now_s=LOOK_S + 0.1) is None
    assert recovery.update(fault=False, disabled=True, now_s=2.1 * LOOK_S) is RecoveryAction.ENABLE


def test_a_fault_that_goes_by_itself_needs_nobody():
    recovery = Recovery()
    recovery.update(fault=True, disabled=False, now_s=0.0)
    recovery.update(fault=False, disabled=False, now_s=0.5)
    assert recovery.update(fault=True, disabled=False, now_s=LOOK_S) is None


def test_motors_that_somebody_switched_off_stay_off():
    recovery = Recovery()
    assert all(recovery.update(fault=False, disabled=True, now_s=float(t)) is None for t in range(10))


def test_motors_that_do_not_switch_on_get_their_power_taken_away_and_given_back():
    recovery = Recovery()
    recovery.update(fault=True, disabled=False, now_s=0.0)
    assert recovery.update(fault=True, disabled=False, now_s=LOOK_S) is RecoveryAction.CLEAR_FAULT
    seen = [recovery.update(fault=False, disabled=True, now_s=(2 + t) * LOOK_S) for t in range(2 * TRIES + 2)]
    assert seen == 2 * ([RecoveryAction.ENABLE] * TRIES + [RecoveryAction.POWER_CYCLE])


def test_an_arm_that_fails_again_and_again_is_left_alone():
    recovery = Recovery()
    done = [recovery.update(fault=True, disabled=False, now_s=t * LOOK_S) for t in range(5 * MOST)]
    assert done.count(RecoveryAction.CLEAR_FAULT) == MOST
    assert recovery.update(fault=True, disabled=False, now_s=2 * WINDOW_S) is RecoveryAction.CLEAR_FAULT
