# SPDX-License-Identifier: Apache-2.0
"""Gamepads: the Linux joystick interface on a pipe, and sensor_msgs/Joy."""

import os

import pytest

from so101_session.teleop.devices.base import DeviceError, Event
from so101_session.teleop.devices.controls import DEADMAN, FROZEN_S
from so101_session.teleop.devices.pads import (
    AXIS,
    BUTTON,
    changed,
    EVENT,
    find_pad,
    FULL_SCALE,
    Gamepad,
    INITIAL,
    Joy,
    PADS,
    PadSettings,
)

AXIS_COUNT, BUTTON_COUNT = 8, 15


class JoystickFile:
    """Speaks the joystick interface through a named pipe."""

    def __init__(self, path, pad='generic', **options):
        self.path = str(path / 'js0')
        os.mkfifo(self.path)
        self.map = PADS[pad]
        self.device = Gamepad(self.path, PadSettings(pad=pad, **options))
        self.now = 0.0
        self.plug_in()

    def plug_in(self, down=()):
        self.handle = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        for number in range(BUTTON_COUNT):
            self._send(BUTTON | INITIAL, number, number in down)
        triggers = {self.map.axes['close'], self.map.axes['open']}
        for number in range(AXIS_COUNT):
            self._send(AXIS | INITIAL, number, -FULL_SCALE if number in triggers else 0)

    def pull_out(self):
        os.close(self.handle)

    def button(self, number, down):
        self._send(BUTTON, number, down)

    def axis(self, number, value):
        self._send(AXIS, number, round(value * FULL_SCALE))

    def poll(self, wait=0.02):
        self.now += wait
        return self.device.poll(self.now)

    def close(self):
        self.device.close()

    def _send(self, kind, number, value):
        os.write(self.handle, EVENT.pack(0, int(value), kind, number))


class JoyTopic:
    """Says the same as joy_node does: every axis turned round."""

    def __init__(self, pad='generic', **options):
        self.map = PADS[pad]
        self.device = Joy(PadSettings(pad=pad, **options))
        self.turned = pad != 'sdl'
        self.triggers = {self.map.axes['close'], self.map.axes['open']}
        self.axes = [
            self.map.triggers_from if number in self.triggers else 0.0 for number in range(AXIS_COUNT)
        ]
        self.buttons = [0] * BUTTON_COUNT
        self.now = 0.0
        self.poll()

    def button(self, number, down):
        self.buttons[number] = int(down)

    def axis(self, number, value):
        self.axes[number] = value

    def poll(self, wait=0.02):
        self.now += wait
        keeps = set() if self.turned else self.triggers
        self.device.hear(
            [value if number in keeps else -value for number, value in enumerate(self.axes)],
            self.buttons,
            self.now,
        )
        return self.device.poll(self.now)

    def close(self):
        self.device.close()


@pytest.fixture(
    params=['js xbox', 'js playstation', 'js generic', 'joy generic', 'joy playstation', 'joy sdl']
)
def pad(request, tmp_path):
    how, name = request.param.split()
    made = JoystickFile(tmp_path, name) if how == 'js' else JoyTopic(name)
    made.poll()
    yield made
    made.close()


def number_of(pad, meaning):
    return next(number for number, known in pad.map.buttons.items() if known == meaning)


def test_T7_an_event_comes_once_for_each_press_on_every_pad(pad):
    for number, meaning in pad.map.buttons.items():
        if meaning == DEADMAN:
            continue
        told = []
        for down in (True, True, True, False, False, True, False):
            pad.button(number, down)
            told += pad.poll().events
        assert told == [meaning, meaning]


def test_T7_every_pad_can_ask_for_every_event(pad):
    # But for power after a stop: whoever gives it stands before the arm, and presses no button by accident.
    assert {*pad.map.buttons.values(), *pad.map.asked_by_cross} - {DEADMAN} == {*Event} - {Event.RECOVER}


def test_T7_a_button_that_is_down_at_the_start_is_no_press(tmp_path):
    joystick = JoystickFile(tmp_path)
    joystick.pull_out()
    joystick.plug_in(down={0, 1})
    assert joystick.poll().events == ()
    joystick.close()


def test_the_sticks_mean_the_same_on_every_pad(pad):
    pad.button(number_of(pad, DEADMAN), True)
    pad.axis(pad.map.axes['x'], -1.0)  # pushed up
    pad.axis(pad.map.axes['y'], 1.0)  # pushed right
    pad.axis(pad.map.axes['z'], -1.0)
    state = pad.poll()
    assert state.active
    assert state.axes == pytest.approx((1.0, -1.0, 1.0), abs=1e-3)


def test_A6_the_triggers_open_and_close_on_every_pad(pad):
    pad.button(number_of(pad, DEADMAN), True)
    assert pad.poll().gripper == 0.0
    pad.axis(pad.map.axes['close'], 1.0)
    assert pad.poll().gripper == pytest.approx(-1.0)
    pad.axis(pad.map.axes['close'], pad.map.triggers_from)
    pad.axis(pad.map.axes['open'], 1.0)
    assert pad.poll().gripper == pytest.approx(1.0)


def test_nothing_moves_without_the_deadman_button(pad):
    pad.axis(pad.map.axes['x'], -1.0)
    state = pad.poll()
    assert not state.active
    assert 'deadman' in state.note
    pad.button(number_of(pad, DEADMAN), True)
    assert pad.poll().active
    pad.button(number_of(pad, DEADMAN), False)
    assert not pad.poll().active


def test_a_stick_within_its_deadzone_rests(pad):
    pad.button(number_of(pad, DEADMAN), True)
    pad.axis(pad.map.axes['x'], -0.14)
    assert not pad.poll().active


def test_T7_the_cross_asks_once(tmp_path):
    joystick = JoystickFile(tmp_path)
    joystick.poll()
    told = []
    for value in (-1.0, -1.0, 0.0, 1.0, 0.0):
        joystick.axis(7, value)
        told += joystick.poll().events
    assert told == [Event.RESET, Event.START]
    told = []
    for value in (1.0, 1.0, 0.0, -1.0, 0.0):
        joystick.axis(6, value)
        told += joystick.poll().events
    assert told == [Event.SUCCESS_NOW, Event.NOT_YET]
    joystick.close()


def test_a_pad_that_is_pulled_out_is_dead_and_comes_back_without_moving(tmp_path):
    joystick = JoystickFile(tmp_path)
    joystick.button(5, True)
    joystick.axis(1, -1.0)
    assert joystick.poll().active
    joystick.pull_out()
    assert not joystick.poll().alive
    joystick.plug_in(down={5})
    assert not joystick.poll(wait=1.0).active
    joystick.axis(1, -1.0)
    assert not joystick.poll().active  # the deadman button was not pressed for us
    joystick.button(5, False)
    joystick.button(5, True)
    assert joystick.poll().active
    joystick.close()


def test_a_pad_out_of_reach_does_not_move_on(tmp_path):
    joystick = JoystickFile(tmp_path)
    joystick.button(5, True)
    joystick.axis(1, -0.8)
    assert joystick.poll().active
    assert not joystick.poll(wait=FROZEN_S + 0.1).alive
    joystick.axis(1, -0.7)
    assert joystick.poll().active
    joystick.close()


def test_a_pad_may_come_later(tmp_path):
    device = Gamepad(str(tmp_path / 'js7'))
    state = device.poll(1.0)
    assert not state.alive
    assert 'js7' in state.note
    device.close()


def test_a_pad_that_another_program_reads_is_left_to_it(tmp_path):
    first = JoystickFile(tmp_path)
    first.poll()
    second = Gamepad(first.path, PadSettings(pad='generic'))
    state = second.poll(0.0)
    assert not state.alive
    assert 'is read by another program' in state.note
    first.device.close()
    assert second.poll(1.0).alive
    second.close()
    first.close()


def test_joy_that_is_silent_is_dead():
    topic = JoyTopic()
    topic.button(5, 1)
    topic.axis(1, -1.0)
    assert topic.poll().active
    assert not topic.device.poll(topic.now + 0.31).alive
    assert not topic.poll(wait=1.0).active  # the deadman button was down when it came back


def test_a_trigger_that_has_not_been_read_yet_does_not_move_the_gripper():
    joy = Joy(PadSettings(pad='generic'))
    joy.hear([0.0] * 8, [0] * 5 + [1] + [0] * 5, 0.0)
    joy.hear([0.0] * 8, [0] * 11, 0.02)
    joy.hear([0.0] * 8, [0] * 5 + [1] + [0] * 5, 0.04)
    assert joy.poll(0.04).gripper == 0.0


@pytest.mark.parametrize(
    ('name', 'known'),
    [
        ('Microsoft X-Box 360 pad', 'xbox'),
        ('Sony Interactive Entertainment Wireless Controller', 'playstation'),
        ('Logitech Gamepad F710', 'generic'),
    ],
)
def test_pads_are_known_by_name(name, known):
    assert find_pad('auto', name)[0] == known


def test_axes_and_buttons_can_be_elsewhere():
    pad = changed(PADS['generic'], ('x=3', '9=pause', ''))
    assert pad.axes['x'] == 3
    assert pad.buttons[9] == Event.PAUSE


@pytest.mark.parametrize('entry', ['w=3', '3=jump', 'x=up', 'nonsense'])
def test_a_change_that_means_nothing_is_refused(entry):
    with pytest.raises(DeviceError, match='correct pad_changes'):
        changed(PADS['generic'], (entry,))


def test_a_pad_that_is_not_known_is_refused():
    with pytest.raises(DeviceError, match='correct pad'):
        find_pad('nintendo64', '')
