# SPDX-License-Identifier: Apache-2.0
from so101_sim.human.recovery import Attendant, Deed, LOOK_S, MOST, TRIES, WINDOW_S


def test_after_a_look_the_fault_is_cleared_and_then_the_motors_are_switched_on():
    attendant = Attendant()
    assert attendant.look(fault=True, disabled=False, now_s=0.0) is None
    assert attendant.look(fault=True, disabled=False, now_s=LOOK_S) is Deed.CLEAR_FAULT
    assert attendant.look(fault=False, disabled=True, now_s=LOOK_S + 0.1) is None
    assert attendant.look(fault=False, disabled=True, now_s=2.1 * LOOK_S) is Deed.ENABLE


def test_a_fault_that_goes_by_itself_needs_nobody():
    attendant = Attendant()
    attendant.look(fault=True, disabled=False, now_s=0.0)
    attendant.look(fault=False, disabled=False, now_s=0.5)
    assert attendant.look(fault=True, disabled=False, now_s=LOOK_S) is None


def test_motors_that_somebody_switched_off_stay_off():
    attendant = Attendant()
    assert all(attendant.look(fault=False, disabled=True, now_s=float(t)) is None for t in range(10))


def test_motors_that_do_not_switch_on_get_their_power_taken_away_and_given_back():
    attendant = Attendant()
    attendant.look(fault=True, disabled=False, now_s=0.0)
    assert attendant.look(fault=True, disabled=False, now_s=LOOK_S) is Deed.CLEAR_FAULT
    seen = [attendant.look(fault=False, disabled=True, now_s=(2 + t) * LOOK_S) for t in range(2 * TRIES + 2)]
    assert seen == 2 * ([Deed.ENABLE] * TRIES + [Deed.POWER_CYCLE])


def test_an_arm_that_fails_again_and_again_is_left_alone():
    attendant = Attendant()
    done = [attendant.look(fault=True, disabled=False, now_s=t * LOOK_S) for t in range(5 * MOST)]
    assert done.count(Deed.CLEAR_FAULT) == MOST
    assert attendant.look(fault=True, disabled=False, now_s=2 * WINDOW_S) is Deed.CLEAR_FAULT
