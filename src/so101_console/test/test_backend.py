# SPDX-License-Identifier: Apache-2.0
"""What a page asks for, and what the node gets to do."""

import json
import math
import queue
import time

import pytest

pytest.importorskip('rclpy')

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from so101_interfaces.msg import ClassifierStatus

from so101_console.archive.browser import EpisodeBrowser
from so101_console.backend import LONGEST_TEXT, PageBackend, showable
from so101_console.console_node import ACTIONS
from so101_console.curves import ClassifierWatch
from so101_console.frames import Frames
from so101_console.operator_input import DriveError, JogCommands, Wheel, Wish
from so101_console.page_state import PageState
from so101_contract.action import ActionSpec
from so101_contract.task.files import get_task


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


def picture(width, height, encoding='rgb8', size=None, step=None):
    fields = {'width': width, 'height': height, 'encoding': encoding, 'step': step or 3 * width}
    return serialize_message(Image(**fields, data=bytes(3 * width * height if size is None else size)))


@pytest.mark.parametrize(
    'odd',
    [
        b'',
        b'\0\1\0\0',
        picture(4, 4)[:-5],
        picture(0, 0),
        picture(4, 4, 'future8'),
        picture(4, 4, size=3),
        picture(2**31, 2**31, size=12),
        picture(4, 4, step=2**31),
        picture(70_000, 1),
    ],
    ids=['empty', 'short', 'cut', 'nothing', 'encoding', 'few bytes', 'giant', 'step', 'wide'],
)
def test_a_picture_that_cannot_be_shown_is_a_sentence_and_the_next_one_is_shown(odd):
    frames = Frames(80)
    frames.add(odd)
    assert frames.jpeg(0) is None
    assert frames.refused
    frames.add(picture(4, 4))
    assert frames.jpeg(0)
    assert not frames.refused


def test_the_pictures_of_a_second_camera_come_with_its_number(wheel, tmp_path):
    state, both = PageState(lambda positions: positions.tolist()), {'wrist': Frames(80), 'front': Frames(80)}
    task = get_task('push_can')
    backend = PageBackend(Meshes(), state, both, EpisodeBrowser(str(tmp_path)), wheel, task=task)
    for frames in both.values():
        frames.add(picture(4, 4))
    (number, first), (_, second) = backend.frame(0), backend.frame(0, 1)
    assert (number, backend.cameras) == (1, 2)
    assert first[:1] == b'\xff'
    assert second == b'\x01' + first
    told = backend.state('page')
    assert told['camera']['name'] == 'wrist'
    assert [camera['name'] for camera in told['cameras']] == ['front']
    assert told['task']['instruction'] == task.instruction
    assert {check['name'] for check in told['checks']} >= {'camera', 'camera front'}


def test_what_cannot_be_drawn_takes_nothing_else_from_a_page(wheel, tmp_path):
    class Broken:
        def said(self, *_, **__):
            raise ValueError('expected a turn, got 1e308')

    state = PageState(lambda positions: positions.tolist())
    backend = PageBackend(
        Meshes(), state, Frames(80), EpisodeBrowser(str(tmp_path)), wheel, drawings=Broken()
    )
    assert backend.state('page')['arm'] is None
    assert 'nothing is drawn: expected a turn' in backend.state('page')['note']


def test_what_a_page_is_told_is_json_and_leaves_room_for_the_buttons():
    told = showable({'a': [math.nan, (1.0, -math.inf)], 'b': 'x' * 100_000, 1: None, 'c': True})
    assert told == {'a': [None, [1.0, None]], 'b': 'x' * LONGEST_TEXT + '…', '1': None, 'c': True}
    json.dumps(told, allow_nan=False)


def test_what_success_looks_like_is_asked_of_session_and_classifier(backend):
    words = ['success_now', 'not_yet', 'doubt_success', 'doubt_other', 'train_classifier']
    for word in words:
        assert backend.act('one', {'do': word}) == ''
    assert asked(backend) == words
    assert set(words) <= set(ACTIONS)


def test_the_picture_that_is_asked_about_is_shown_until_there_is_none(backend):
    assert backend.doubt() == b''
    backend.on_doubt(CompressedImage(format='jpeg', data=b'jpeg'))
    assert backend.doubt() == b'jpeg'
    backend.on_doubt(CompressedImage(format='jpeg'))
    assert backend.doubt() == b''


def test_the_page_says_what_the_classifier_knows_and_when_it_cannot_tell():
    watch, now = ClassifierWatch(), time.monotonic()
    assert watch.said(now) is None
    status = ClassifierStatus(
        state=ClassifierStatus.READY,
        success_pictures=30,
        other_pictures=70,
        episodes=5,
        held_out_episodes=5,
        frame_accuracy=0.98,
        episode_accuracy=1.0,
        doubts=2,
    )
    watch.hear(status)
    said = watch.said(time.monotonic())
    assert said['said'].startswith(
        'The classifier judges: 30 pictures of success, 70 others, of 5 episodes; right on 98'
    )
    assert (said['bad'], said['doubts'], said['labels']) == (False, 2, 100)
    status.state, status.reason = ClassifierStatus.DRIFTED, 'the light is another one'
    watch.hear(status)
    assert watch.said(time.monotonic())['bad']
    assert 'the light is another one' in watch.said(time.monotonic())['said']
    assert watch.said(time.monotonic() + 60.0) is None, 'what is long ago is not shown'
