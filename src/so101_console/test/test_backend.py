# SPDX-License-Identifier: Apache-2.0
"""What a page asks for, and what the node gets to do."""

import queue

import pytest

pytest.importorskip('rclpy')

from so101_console.backend import PageBackend
from so101_console.episode_browser import EpisodeBrowser
from so101_console.frames import Frames
from so101_console.operator_input import DriveError, JogCommands, Wheel, Wish
from so101_console.page_state import PageState
from so101_contract.action import ActionSpec


class Meshes:
    def file(self):
        return b''


@pytest.fixture
def wheel():
    return Wheel(0.2)


@pytest.fixture
def backend(wheel, tmp_path):
    picture = PageState(lambda positions: positions.tolist())
    return PageBackend(Meshes(), picture, Frames(80), EpisodeBrowser(str(tmp_path)), wheel)


def asked(backend):
    found = []
    while True:
        try:
            found.append(backend.asked.get_nowait())
        except queue.Empty:
            return found


def test_taking_over_is_asked_of_the_session_and_gives_the_wheel(backend, wheel):
    assert backend.act('one', {'do': 'take'}) == ''
    assert asked(backend) == ['take']
    assert wheel.driver == 'one'


def test_a_second_page_takes_the_wheel_away_and_is_told_so(backend, wheel):
    backend.act('one', {'do': 'take'})
    assert 'Another page' in backend.act('two', {'do': 'take'})
    assert wheel.driver == 'two'
    backend.act('one', {'do': 'drive', 'axes': [1, 0, 0]})
    assert wheel.wish(0.0) is None


def test_a_page_that_goes_while_it_drives_asks_for_a_hold_and_not_for_the_policy(backend, wheel):
    backend.act('one', {'do': 'take'})
    asked(backend)
    backend.closed('one')
    assert asked(backend) == ['hold']
    assert wheel.driver is None


def test_a_page_that_goes_without_driving_asks_for_nothing(backend):
    backend.act('one', {'do': 'take'})
    asked(backend)
    backend.closed('two')
    assert asked(backend) == []


def test_only_the_driver_gives_back_or_anybody_once_it_is_gone(backend):
    backend.act('one', {'do': 'take'})
    asked(backend)
    assert 'Another page drives' in backend.act('two', {'do': 'give'})
    assert asked(backend) == []
    backend.closed('one')
    asked(backend)
    assert backend.act('two', {'do': 'give'}) == ''
    assert asked(backend) == ['give']


@pytest.mark.parametrize('what', [None, 3, [], {}, 'fly', 'hold', 'clear_fault', 'take '])
def test_what_no_button_says_is_refused(backend, what):
    with pytest.raises(DriveError):
        backend.act('one', {'do': what})
    assert asked(backend) == []


def test_anybody_may_stop(backend):
    backend.act('one', {'do': 'take'})
    backend.act('two', {'do': 'e_stop'})
    assert asked(backend) == ['take', 'e_stop']


def test_the_end_of_a_motion_is_an_action_of_nothing_that_keeps_the_gripper():
    hand = JogCommands(ActionSpec(), 0.5, 20.0)
    hand.commanded(0.3)
    hand.move(Wish((1.0, 0.0, 0.0), 0.0))
    assert hand.acting
    held = hand.hold()
    assert held.translation.tolist() == [0.0, 0.0, 0.0]
    assert held.opening == pytest.approx(0.3)
    assert not hand.acting, 'it is said once'
