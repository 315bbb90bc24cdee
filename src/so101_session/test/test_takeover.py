# SPDX-License-Identifier: Apache-2.0
"""Who drives, over time."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np

from so101_contract.session import Driver
from so101_session.session.takeover import GripperRamp, Takeover, TakeoverRules


def steps(takeover, count, now, period=0.1):
    for _ in range(count):
        takeover.next_step(now)
        takeover.apply_handover()
        now += period
    return now


def test_the_policy_drives_until_somebody_takes_over():
    takeover = Takeover(TakeoverRules())
    assert takeover.driver(0.0) is Driver.POLICY
    takeover.request(True, 0.0)
    assert takeover.apply_handover() is True
    assert takeover.driver(0.1) is Driver.HUMAN


def test_whoever_acts_takes_over_unless_that_is_switched_off():
    for auto in (True, False):
        takeover = Takeover(TakeoverRules(auto_takeover=auto))
        takeover.heard(0.0)
        takeover.apply_handover()
        assert takeover.intervening is auto


def test_a_human_that_is_silent_for_300_ms_does_not_drive_any_more():
    takeover = Takeover(TakeoverRules())
    takeover.request(True, 0.0)
    takeover.apply_handover()
    takeover.heard(1.0)
    assert takeover.driver(1.29) is Driver.HUMAN
    assert takeover.driver(1.31) is Driver.NOBODY
    takeover.heard(2.0)
    assert takeover.driver(2.0) is Driver.HUMAN


def test_without_a_grace_a_silent_human_never_gives_back():
    takeover = Takeover(TakeoverRules())
    takeover.heard(0.0)
    steps(takeover, 1000, 0.0)
    assert takeover.intervening


def test_with_a_grace_a_human_that_did_not_ask_gives_back_after_it():
    takeover = Takeover(TakeoverRules(give_back_s=1.0))
    takeover.heard(0.0)
    steps(takeover, 9, 0.0)
    assert takeover.intervening
    steps(takeover, 4, 0.9)
    assert not takeover.intervening


def test_a_human_that_asked_is_not_subject_to_the_grace():
    takeover = Takeover(TakeoverRules(give_back_s=1.0))
    takeover.request(True, 0.0)
    steps(takeover, 100, 0.0)
    assert takeover.intervening


def test_an_intervention_ends_with_its_episode():
    takeover = Takeover(TakeoverRules())
    takeover.heard(0.0)
    takeover.apply_handover()
    assert takeover.end_episode(0.1)
    assert not takeover.intervening


def test_an_intervention_whose_device_is_dead_survives_its_episode():
    takeover = Takeover(TakeoverRules())
    takeover.heard(0.0)
    takeover.apply_handover()
    assert not takeover.end_episode(5.0)
    assert takeover.driver(5.0) is Driver.NOBODY


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40), st.floats(0.0, 1.0))
def test_the_opening_never_jumps_right_after_a_hand_over(wanted, start):
    ramp = GripperRamp(0.2, 5)
    ramp.begin(start)
    commanded = [start, *(ramp.next(opening) for opening in wanted)]
    assert np.abs(np.diff(commanded))[:5].max() <= 0.2 + 1e-9
    assert commanded[6:] == wanted[5:]
