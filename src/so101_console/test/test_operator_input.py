# SPDX-License-Identifier: Apache-2.0
import json
import math
from pathlib import Path
import shutil
import subprocess

import pytest

from so101_console import operator_input
from so101_console.operator_input import DriveError, JogCommands, read_wish, Wheel, Wish
from so101_contract.action import ActionSpec
from so101_session.teleop.devices.base import Event
from so101_session.teleop.devices.controls import DEADMAN, PAD, page_controls, STANDARD
from so101_session.teleop.devices.keys import DEFAULT_KEYS, KeyMap

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


# The page's own script with what a browser has around it: pads that are said step by step, and keys.
BROWSER = """
const listeners = {};
const element = { addEventListener() {}, style: {}, getBoundingClientRect: () => ({}) };
let tick, pads = [], focus = true, owner = '', drives = true, said = [];
globalThis.addEventListener = (name, listener) => { listeners[name] = listener; };
globalThis.document = { addEventListener() {}, querySelectorAll: () => [], getElementById: () => element, hidden: false, hasFocus: () => focus };
Object.defineProperty(globalThis, 'navigator', { value: { getGamepads: () => pads } });
globalThis.setInterval = (callback) => { tick = callback; };
const { OperatorInput } = await import(process.argv[1]);
const input = new OperatorInput({ drives: () => drives, drive: (axes, gripper) => said.push([axes, gripper]), act: (what) => said.push(what), padOwner: () => owner });
const pad = (down = [], axes = [0, 0, 0, 0]) => ({ index: 0, mapping: 'standard', axes, buttons: Array.from({ length: 17 }, (_, k) => ({ value: Number(down.includes(k)), pressed: down.includes(k) })) });
const key = (name, code = '') => listeners.keydown({ key: name, code, repeat: false, preventDefault() {} });
const results = [];
for (const step of JSON.parse(process.argv[2])) {
  said = [];
  if (step.controls) input.use(step.controls);
  if ('pad' in step) pads = step.pad ? [pad(...step.pad)] : [];
  if ('focus' in step) focus = step.focus;
  if ('owner' in step) owner = step.owner;
  if (step.key) key(...step.key);
  tick();
  results.push(said);
}
console.log(JSON.stringify(results));
"""
SCRIPT = Path(operator_input.__file__).parent / 'page' / 'operator_input.js'
STILL = [[0, 0, 0], 0]
FORWARD_STICK = [0.0, -1.0, 0.0, 0.0]
AHEAD = [[1, 0, 0], 0]


def at_the_page(*steps):
    """Return what the page says at each step: what is driven, and what is asked for."""
    node = shutil.which('node')
    if node is None:
        pytest.skip('the script of the page needs node')
    told = [{'controls': page_controls()}, *steps]
    command = [node, '--input-type=module', '-e', BROWSER, SCRIPT.as_uri(), json.dumps(told)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output)[1:]


def test_the_pad_at_the_page_moves_while_its_deadman_is_held():
    deadman = page_controls()['pad']['deadman']
    told = at_the_page(
        {'pad': [[], FORWARD_STICK]},
        {'pad': [[deadman], FORWARD_STICK]},
        {'pad': [[], FORWARD_STICK]},
        {'pad': [[deadman], [0.0, -0.14, 0.0, 0.0]]},
        {'pad': [[deadman, 6], [0.0, 0.0, 0.0, 1.0]]},
    )
    assert told == [[STILL], [AHEAD], [STILL], [STILL], [[[0, 0, -1], 1]]]


def test_what_is_held_when_the_pad_or_the_page_comes_was_not_pressed_for_it():
    deadman = page_controls()['pad']['deadman']
    told = at_the_page(
        {'pad': [[deadman, 0], FORWARD_STICK]},
        {'pad': [[], FORWARD_STICK]},
        {'pad': [[deadman], FORWARD_STICK]},
        {'focus': False},
        {'focus': True},
        {'pad': None},
        {'pad': [[1], FORWARD_STICK]},
    )
    assert told == [[STILL], [STILL], [AHEAD], [STILL], [STILL], [STILL], [STILL]]


def test_a_pad_that_another_program_reads_does_nothing_at_the_page():
    deadman = page_controls()['pad']['deadman']
    told = at_the_page(
        {'pad': [[]]},
        {'owner': 'teleop_node'},
        {'pad': [[deadman, 0], FORWARD_STICK]},
        {'owner': ''},
        {'pad': [[]]},
        {'pad': [[deadman, 0], FORWARD_STICK]},
    )
    assert told == [[STILL], [STILL], [STILL], [STILL], [STILL], ['success', AHEAD]]


@pytest.mark.parametrize('place', PAD)
def test_a_button_of_the_pad_asks_at_the_page_for_what_it_asks_for_everywhere(place):
    told = at_the_page({'pad': [[]]}, {'pad': [[STANDARD[place]]]}, {'pad': [[STANDARD[place]]]})
    names = {Event.TAKEOVER: 'take', Event.GIVE_BACK: 'give'}
    asked = [] if PAD[place] == DEADMAN else [names.get(PAD[place], PAD[place])]
    assert told == [[STILL], [*asked, STILL], [STILL]]


def test_a_key_means_at_the_page_what_it_means_in_the_terminal():
    keys = KeyMap.parse(DEFAULT_KEYS)
    names = {Event.TAKEOVER: 'take', Event.GIVE_BACK: 'give'}
    events = {key: event for key, event in keys.events.items() if len(key) == 1}
    told = at_the_page(*({'key': [key]} for key in events))
    assert told == [[names.get(event, event), STILL] for event in events.values()]
    assert at_the_page({'key': ['w']}, {'key': ['q']}) == [[AHEAD], [[[1, 0, 0], -1]]]
    assert keys.events['space'] is Event.E_STOP
    assert at_the_page(
        {'key': [' ', 'Space']}, {'controls': {'keys': {}, 'pad': None}, 'key': [' ', 'Space']}
    ) == [
        ['e_stop', STILL],
        ['e_stop', STILL],
    ]
