# SPDX-License-Identifier: Apache-2.0
import math
from pathlib import Path
import re

import pytest

from so101_console import operator_input
from so101_console.operator_input import DriveError, JogCommands, read_wish, Wheel, Wish
from so101_contract.action import ActionSpec
from so101_contract.config import STICK_DEAD_ZONE

FORWARD = Wish((1.0, 0.0, 0.0), 0.0)


def test_a_wish_is_read():
    assert read_wish({'axes': [1, -0.5, 0], 'gripper': -1}) == Wish((1.0, -0.5, 0.0), -1.0)
    assert not read_wish({'axes': [0, 0, 0]}).moves


@pytest.mark.parametrize(
    'message',
    [
        {},
        {'axes': [1, 0]},
        {'axes': [2, 0, 0]},
        {'axes': [math.nan, 0, 0]},
        {'axes': ['1', 0, 0]},
        {'axes': [True, 0, 0]},
        {'axes': [0, 0, 0], 'gripper': 5},
        {'axes': 'WASD'},
    ],
)
def test_a_garbled_wish_is_refused(message):
    with pytest.raises(DriveError, match='nothing moves'):
        read_wish(message)


def test_only_the_page_with_the_wheel_is_heard():
    wheel = Wheel(0.2)
    assert not wheel.hear('a', FORWARD, 0.0)
    wheel.take('a')
    assert wheel.hear('a', FORWARD, 0.0)
    assert not wheel.hear('b', FORWARD, 0.0)
    assert wheel.take('b') == 'a'
    assert wheel.wish(0.0) is None
    assert not wheel.give_back('a')
    assert wheel.driver == 'b'


def test_a_silent_page_wants_nothing():
    wheel = Wheel(0.2)
    wheel.take('a')
    wheel.hear('a', FORWARD, 1.0)
    assert wheel.wish(1.2) == FORWARD
    assert wheel.wish(1.21) is None


def test_taking_over_again_forgets_what_was_wanted_before():
    wheel = Wheel(0.2)
    wheel.take('a')
    wheel.hear('a', FORWARD, 0.0)
    wheel.take('a')
    assert wheel.wish(0.0) is None


def test_the_gripper_goes_on_from_what_it_was_told_last():
    hand = JogCommands(ActionSpec(), 0.5, 10.0)
    hand.commanded(0.3)
    assert hand.move(Wish((0.0, 0.0, 0.0), 0.0)).opening == pytest.approx(0.3)
    hand.commanded(0.9)  # its own command comes back
    assert hand.move(Wish((0.0, 0.0, 0.0), -1.0)).opening == pytest.approx(0.18)
    hand.let_go()
    hand.commanded(0.9)
    assert hand.move(Wish((0.0, 0.0, 0.0), 1.0)).opening == 1.0


def test_full_stick_is_the_share_of_the_largest_action_that_the_parameter_says():
    assert JogCommands(ActionSpec(), 0.5, 10.0).move(FORWARD).translation.tolist() == pytest.approx(
        [0.01, 0.0, 0.0]
    )


def test_the_page_has_the_dead_zone_that_every_stick_has():
    script = (Path(operator_input.__file__).parent / 'page' / 'operator_input.js').read_text()
    assert float(re.search(r'DEADZONE = ([\d.]+);', script)[1]) == STICK_DEAD_ZONE
