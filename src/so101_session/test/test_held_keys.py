# SPDX-License-Identifier: Apache-2.0
"""Which keys are down, from what a plain terminal sends."""

import numpy as np
import pytest
from typematic import bytes_of, Press, watch

from so101_session.teleop.devices.keyboard import HeldKeys, TAP_S, TAP_SHARE
from so101_session.teleop.devices.keys import DEFAULT_KEYS, KeyMap

OPPOSITES = KeyMap.parse(DEFAULT_KEYS).opposites
SETTINGS = [(0.25, 30.0), (0.5, 30.0), (0.66, 25.0), (0.5, 11.0), (0.4, 50.0)]


def downs(arrived, end, held=None):
    held = held or HeldKeys(OPPOSITES)
    return watch(arrived, held.hit, held.down, end)


def gaps(seen, key, begin, end):
    return [now for now, down in seen if begin <= now <= end and key not in down]


@pytest.mark.parametrize(('pause', 'rate'), SETTINGS)
def test_T6_a_held_key_is_down_without_a_gap(pause, rate):
    seen = downs(bytes_of([Press('w', 0.1, 2.1)], pause, rate), 3.0)
    assert not gaps(seen, 'w', 0.12, 2.05)


@pytest.mark.parametrize(('pause', 'rate'), SETTINGS)
@pytest.mark.parametrize('second', [0.1, 0.13, 0.25, 0.5, 1.0])
def test_T6_two_held_keys_are_both_down_for_two_seconds(pause, rate, second):
    seen = downs(bytes_of([Press('w', 0.1, 2.5), Press('d', second, 2.5)], pause, rate), 3.5)
    assert not gaps(seen, 'w', 0.12, 2.4)
    assert not gaps(seen, 'd', second + 0.02, 2.4)


def test_T6_three_held_keys_are_all_down():
    seen = downs(bytes_of([Press('w', 0.1, 2.5), Press('d', 0.15, 2.5), Press('r', 1.2, 2.5)]), 3.5)
    assert not gaps(seen, 'w', 0.12, 2.4)
    assert not gaps(seen, 'd', 0.17, 2.4)
    assert not gaps(seen, 'r', 1.22, 2.4)


def test_T6_a_line_that_jitters_leaves_no_gap_once_it_is_known():
    rng = np.random.default_rng(0)
    held = HeldKeys(OPPOSITES)
    jitter = rng.uniform(0.0, 0.06, 500).tolist()
    seen = downs(bytes_of([Press('w', 0.1, 6.0), Press('d', 2.0, 6.0)], jitter=jitter), 6.0, held)
    assert not gaps(seen, 'w', 0.2, 5.9)


def test_all_keys_are_up_soon_after_they_are_let_go():
    seen = downs(bytes_of([Press('w', 0.1, 2.0), Press('d', 0.2, 2.0)]), 3.0)
    assert all(not down for now, down in seen if now > 2.3)


def test_a_tap_moves_in_full_for_a_moment_only():
    seen = downs([(0.1, 'w')], 2.0)
    full = sum(down.get('w') == 1.0 for _, down in seen) * 0.02
    assert full == pytest.approx(TAP_S, abs=0.03)
    assert all(down.get('w', 0.0) <= TAP_SHARE for now, down in seen if now > 0.1 + TAP_S + 0.02)


def test_the_pause_of_a_keyboard_is_learned_and_shortens_taps():
    held = HeldKeys(OPPOSITES)
    downs(bytes_of([Press('w', 0.0, 1.0)], pause=0.25), 2.0, held)
    assert 0.25 < held.pause_s < 0.35
    held.hit('d', 10.0)
    assert not held.down(10.4)


def test_a_pause_longer_than_thought_is_learned():
    held = HeldKeys(OPPOSITES)
    downs(bytes_of([Press('w', 0.0, 1.5)], pause=0.9), 2.0, held)
    assert held.pause_s > 0.9
    seen = downs([(now + 0.0, key) for now, key in bytes_of([Press('d', 3.0, 5.0)], pause=0.9)], 5.0, held)
    assert not gaps(seen, 'd', 3.02, 4.9)


def test_the_opposite_key_ends_a_carried_one():
    seen = downs(bytes_of([Press('w', 0.1, 3.0), Press('d', 0.8, 1.5), Press('s', 1.2, 3.0)]), 3.0)
    assert all('w' not in down for now, down in seen if now > 1.25)


def test_a_key_let_go_before_the_next_one_is_not_carried():
    seen = downs(bytes_of([Press('w', 0.1, 1.0), Press('d', 1.1, 2.0)]), 3.0)
    assert all('w' not in down for now, down in seen if now > 1.15)


def test_a_key_that_may_have_been_tapped_is_carried_slowly():
    seen = downs(bytes_of([Press('w', 0.1, 0.15), Press('d', 0.5, 2.0)]), 3.0)
    assert all(down.get('w', 0.0) <= TAP_SHARE for now, down in seen if now > 0.5)


def test_T7_a_held_key_counts_as_one_press():
    held = HeldKeys(OPPOSITES)
    pressed = [held.hit(key, now) for now, key in bytes_of([Press('y', 0.1, 3.0)])]
    assert pressed == [True] + [False] * (len(pressed) - 1)


def test_T7_each_press_counts_once():
    held = HeldKeys(OPPOSITES)
    presses = [Press('y', start, start + 0.1) for start in (0.0, 1.5, 3.0)]
    assert sum(held.hit(key, now) for now, key in bytes_of(presses)) == 3


def test_a_press_that_says_its_release_is_down_until_then():
    held = HeldKeys(OPPOSITES)
    held.press('w', 0.0)
    assert held.down(30.0) == {'w': 1.0}
    held.release('w')
    assert not held.down(30.0)


def test_nothing_is_down_after_the_focus_was_lost():
    held = HeldKeys(OPPOSITES)
    held.press('w', 0.0)
    held.hit('d', 0.0)
    held.release_all()
    assert not held.down(0.01)
