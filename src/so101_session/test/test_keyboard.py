# SPDX-License-Identifier: Apache-2.0
"""The keyboard of a terminal, on a pseudo-terminal."""

import os
import signal
import subprocess
import sys
import time

from human import hold, Human
import pytest
from typematic import bytes_of, Press

from so101_session.teleop.devices.base import DeviceError, Event
from so101_session.teleop.devices.keyboard import Keyboard, QUIET_S
from so101_session.teleop.devices.keys import DEFAULT_KEYS, KeyMap
from so101_session.teleop.terminal import Terminal


@pytest.fixture
def make():
    made = []

    def make_keyboard(**options):
        human = Human(**options)
        keyboard = Keyboard(Terminal(human.slave, human.slave))
        made.append((human, keyboard))
        human.look()
        return human, keyboard

    yield make_keyboard
    for human, keyboard in made:
        keyboard.close()
        human.close()


def poll_until(human, keyboard, condition, patience=3.0):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        human.look()
        state = keyboard.poll(time.monotonic())
        if condition(state):
            return state
        time.sleep(0.01)
    pytest.fail(f'not reached: {state}')


def speak_kitty(human, keyboard):
    """Let terminal and program agree; the key that is typed comes after all answers."""
    poll_until(human, keyboard, lambda _: b'\x1b[>11u' in human.look())
    human.type('\x1b[55;1:1u\x1b[55;1:3u')
    poll_until(human, keyboard, lambda _: keyboard.speed == 0.2)
    keyboard.speed = 0.5


def test_T6_two_keys_held_for_two_seconds_act_without_a_gap_on_both_axes(make):
    human, keyboard = make()
    seen = []
    hold(
        human,
        [Press('w', 0.05, 2.3), Press('d', 0.15, 2.3)],
        lambda now: seen.append((now, keyboard.poll(time.monotonic()))),
    )
    held = [state for now, state in seen if 0.25 < now < 2.25]
    assert len(held) > 20
    assert all(state.active for state in held)
    assert all(state.axes[0] > 0.0 and state.axes[1] < 0.0 for state in held)


def test_T6_a_terminal_that_says_releases_acts_exactly_while_keys_are_down(make):
    human, keyboard = make(kitty=True)
    speak_kitty(human, keyboard)
    human.type('\x1b[119;1:1u\x1b[114;1:1u')
    state = poll_until(human, keyboard, lambda state: state.active)
    assert state.axes[0] > 0.0
    assert state.axes[2] > 0.0
    human.type('\x1b[119;1:3u')
    state = poll_until(human, keyboard, lambda state: state.axes[0] == 0.0)
    assert state.active
    human.type('\x1b[114;1:3u')
    poll_until(human, keyboard, lambda state: not state.active)


def test_T6_a_terminal_that_does_not_say_releases_is_not_believed_that_a_key_is_down(make):
    human, keyboard = make(kitty=True, flags=1)
    speak_kitty(human, keyboard)
    human.type('w')
    poll_until(human, keyboard, lambda state: state.active)
    poll_until(human, keyboard, lambda state: not state.active)


def test_T6_a_program_that_stalls_does_not_let_go_of_keys_that_are_held(make):
    human, keyboard = make()
    now = time.monotonic()
    keyboard.poll(now)
    for moment, key in bytes_of([Press('w', 0.0, 3.0), Press('d', 0.05, 3.0)]):
        human.type(key)
        if not 1.0 < moment < 2.0:  # nobody looks for a second
            state = keyboard.poll(now + moment)
    assert state.axes[0] > 0.0
    assert state.axes[1] < 0.0


def test_keys_that_are_down_and_silent_for_long_are_let_go(make):
    human, keyboard = make(kitty=True, answers=True)
    speak_kitty(human, keyboard)
    human.type('\x1b[119;1:1u')
    poll_until(human, keyboard, lambda state: state.active)
    assert not keyboard.poll(time.monotonic() + QUIET_S).active


def test_T5_keys_do_not_act_once_the_terminal_has_lost_the_focus(make):
    human, keyboard = make(kitty=True)
    speak_kitty(human, keyboard)
    human.type('\x1b[119;1:1u')
    poll_until(human, keyboard, lambda state: state.active)
    human.type('\x1b[O')
    poll_until(human, keyboard, lambda state: not state.active)
    assert b'\x1b[?1004h' in human.said


def test_T5_only_the_bytes_of_the_terminal_are_read(make):
    human, keyboard = make()
    other, foreign = make()
    other.type('wwww')
    human.look()
    assert not keyboard.poll(time.monotonic()).active
    assert foreign.poll(time.monotonic()).active
    assert 'pynput' not in sys.modules


@pytest.mark.parametrize('entry', [entry for entry in DEFAULT_KEYS if entry.partition('=')[2] in set(Event)])
def test_T7_each_event_comes_once_for_a_key_that_is_held(make, entry):
    key, _, event = entry.partition('=')
    human, keyboard = make()
    code = {'space': b' ', 'enter': b'\r'}.get(key, key.encode())
    events = []
    for _ in range(5):
        human.type(code)
        time.sleep(0.02)
        events += keyboard.poll(time.monotonic()).events
    assert events == [Event(event)]


def test_a_dead_line_with_a_key_down_is_noticed_within_its_time(make):
    human, keyboard = make(kitty=True)
    speak_kitty(human, keyboard)
    human.type('\x1b[119;1:1u')
    poll_until(human, keyboard, lambda state: state.active)
    human.answers = False
    state = poll_until(human, keyboard, lambda state: not state.alive)
    assert not state.active
    human.answers = True
    human.type('\x1b[0n')
    assert not poll_until(human, keyboard, lambda state: state.alive).active


def test_a_terminal_that_is_closed_ends_the_program(make):
    human, keyboard = make()
    os.close(human.master)
    try:
        state = keyboard.poll(time.monotonic())
        assert not state.alive
        assert state.quit
    finally:
        human.master = os.open('/dev/null', os.O_RDONLY)


def test_ctrl_c_ends_the_program_where_the_terminal_sends_it_as_a_code(make):
    human, keyboard = make(kitty=True)
    speak_kitty(human, keyboard)
    human.type('\x1b[99;5u')
    assert poll_until(human, keyboard, lambda state: state.quit)


def test_the_speed_is_chosen_by_keys(make):
    human, keyboard = make()
    human.type('7')
    poll_until(human, keyboard, lambda _: keyboard.speed == 0.2)
    human.type('w')
    assert poll_until(human, keyboard, lambda state: state.active).axes == (0.2, 0.0, 0.0)


def test_the_terminal_is_put_back(make):
    human, keyboard = make(kitty=True)
    speak_kitty(human, keyboard)
    assert not human.restored()
    keyboard.close()
    keyboard.close()
    assert human.restored()
    assert human.look().endswith(b'\x1b[<u\x1b[?1004l')


PROGRAM = """
import os, sys, time
from so101_session.teleop.terminal import Terminal
terminal = Terminal()
os.write(2, b'ready')
{}
"""


@pytest.mark.parametrize('ending', ['raise RuntimeError', 'sys.exit(3)', 'time.sleep(30)'])
def test_the_terminal_is_put_back_whatever_ends_the_program(ending):
    human = Human()
    process = subprocess.Popen(
        [sys.executable, '-c', PROGRAM.format(ending)],
        stdin=human.slave,
        stdout=human.slave,
        stderr=subprocess.PIPE,
    )
    assert process.stderr.read(5) == b'ready'
    if 'sleep' in ending:
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=100.0)
    assert human.restored()
    human.close()


def test_without_a_terminal_one_sentence_says_what_to_do():
    handle = os.open('/dev/null', os.O_RDONLY)
    with pytest.raises(DeviceError, match=r'run \./so101 teleop in a terminal'):
        Terminal(handle, handle)
    os.close(handle)


@pytest.mark.parametrize('entry', ['w', 'w=jump', 'w=speed 3', 'w=speed fast', '=x+'])
def test_a_key_that_means_nothing_is_refused(entry):
    with pytest.raises(DeviceError, match='correct keys'):
        KeyMap.parse([entry])


def test_a_key_that_means_two_things_is_refused():
    with pytest.raises(DeviceError, match='each key once'):
        KeyMap.parse(['w=x+', 'w=x-'])


def test_every_event_has_a_key():
    assert set(KeyMap.parse(DEFAULT_KEYS).events.values()) == set(Event)
