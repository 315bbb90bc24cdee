# SPDX-License-Identifier: Apache-2.0
"""How long the bus waits for answers, and how it tells late ones apart. No port, no clock."""

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from so101_driver.bus.readings import STATE_END, STATE_START, WindowChooser, WINDOWS
from so101_driver.bus.registers import Reg
from so101_driver.bus.single import AnswerTimer

WIRE_S = 0.0014


def learnt(extras_s):
    timer = AnswerTimer(0.002, 0.025)
    for extra_s in extras_s:
        timer.finished(extra_s)
    return timer


def test_the_first_wait_is_the_longest():
    assert AnswerTimer(0.002, 0.025).timeout_s(WIRE_S) == pytest.approx(WIRE_S + 0.025)


def test_a_quick_line_is_waited_for_briefly_but_never_less_than_the_floor():
    assert learnt([0.0001] * 30).timeout_s(WIRE_S) == pytest.approx(WIRE_S + 0.002)


@settings(deadline=None)
@given(st.floats(0.0, 0.02), st.floats(0.0, 0.004))
def test_the_wait_covers_what_the_line_usually_takes(usual_s, jitter_s):
    timer = learnt([usual_s, usual_s + jitter_s] * 20)
    assert WIRE_S + usual_s + jitter_s <= timer.timeout_s(WIRE_S) + 1e-9 <= WIRE_S + 0.025 + 1e-9


def test_a_line_that_became_slower_is_waited_for_longer_until_it_answers():
    timer = learnt([0.0001] * 30)
    for _ in range(3):
        timer.unfinished()
    assert timer.timeout_s(WIRE_S) == pytest.approx(WIRE_S + 0.002)
    for _ in range(20):
        timer.unfinished()
    assert timer.timeout_s(WIRE_S) == pytest.approx(WIRE_S + 0.025)
    timer.finished(0.0001)
    assert timer.timeout_s(WIRE_S) < WIRE_S + 0.003


def test_every_window_holds_the_whole_state_and_no_two_have_one_size():
    assert WINDOWS[0].start == STATE_START == Reg.PRESENT_POSITION.address
    assert WINDOWS[0].size == 15
    assert len({window.size for window in WINDOWS}) == len(WINDOWS) >= 10
    for window in WINDOWS:
        assert window.start <= STATE_START
        assert window.start + window.size >= STATE_END


def test_the_smallest_window_is_used_while_nothing_is_missed_and_again_after_a_while():
    chooser = WindowChooser(WINDOWS, 0.05)
    assert chooser.choose((1, 2), 10.0) is WINDOWS[0]
    chooser.missed(WINDOWS[0], 2, 10.0)
    assert chooser.choose((1, 2), 10.01) is WINDOWS[1]
    assert chooser.choose((1,), 10.01) is WINDOWS[0]
    assert chooser.is_due(WINDOWS[0], 2, 10.01)
    assert not chooser.is_due(WINDOWS[0], 1, 10.01)
    assert not chooser.is_due(WINDOWS[0], 2, 10.06)
    assert chooser.choose((1, 2), 10.06) is WINDOWS[0]


def test_where_all_windows_are_due_the_one_with_the_fewest_is_chosen():
    chooser = WindowChooser(WINDOWS[:2], 0.05)
    for servo_id in (1, 2):
        chooser.missed(WINDOWS[0], servo_id, 1.0)
    chooser.missed(WINDOWS[1], 3, 1.0)
    assert chooser.choose((1, 2, 3), 1.0) is WINDOWS[1]
