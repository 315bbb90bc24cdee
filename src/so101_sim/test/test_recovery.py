# SPDX-License-Identifier: Apache-2.0
from so101_sim.human.recovery import LOOK_S, MOST, Recovery, RecoveryAction, TRIES, WINDOW_S


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


def after_a_fault(recovery):
    """A fault cuts an episode short; it is cleared, and the motors are on again."""
    recovery.begun()
    recovery.update(fault=False, disabled=False, now_s=0.0)
    recovery.cut_short()
    recovery.update(fault=True, disabled=False, now_s=1.0, waits=True)
    assert recovery.update(fault=True, disabled=False, now_s=2.0, waits=True) is RecoveryAction.CLEAR_FAULT
    assert recovery.update(fault=False, disabled=True, now_s=3.0, waits=True) is RecoveryAction.ENABLE


def test_after_a_fault_it_presses_start_until_an_episode_begins():
    recovery = Recovery()
    after_a_fault(recovery)
    seen = [recovery.update(fault=False, disabled=False, now_s=4.0 + t, waits=True) for t in range(3)]
    assert seen == [RecoveryAction.START] * 3
    recovery.begun()
    assert recovery.update(fault=False, disabled=False, now_s=9.0) is None


def test_where_nobody_waits_for_start_it_presses_nothing():
    recovery = Recovery()
    after_a_fault(recovery)
    assert recovery.update(fault=False, disabled=False, now_s=9.0, waits=False) is None


def test_what_a_human_has_stopped_a_human_starts():
    for stop in ({'stopped': True, 'disabled': False}, {'stopped': False, 'disabled': True}):
        recovery = Recovery()
        recovery.begun()
        recovery.cut_short()
        assert recovery.update(fault=False, now_s=0.0, waits=True, **stop) is None
        seen = [recovery.update(fault=False, disabled=False, now_s=1.0 + t, waits=True) for t in range(9)]
        assert seen == [None] * 9
