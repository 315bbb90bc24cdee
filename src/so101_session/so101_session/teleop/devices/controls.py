# SPDX-License-Identifier: Apache-2.0
"""What to press: one map of keys and one of pads, for every device and the operator's page. No ROS.

Help texts, tables of the documentation and what the page reads are drawn from them. A pad's buttons go by place, not
by letter: the lower one says success on every pad.
"""

from collections.abc import Mapping
from typing import Any

from so101_contract.config import STICK_DEAD_ZONE
from so101_session.teleop.devices.base import Event
from so101_session.teleop.devices.keys import DEFAULT_KEYS, KeyMap, MEANINGS

DEADMAN = 'deadman'
GRIPPER = 3
"""Number of the gripper among the axes of a key map."""

TRIGGER_START = 0.1
"""Share of its way from which on a trigger counts."""

FROZEN_S = 3.0
"""A stick that is held without a single change for this long is that of a pad out of reach [s]."""

PAD: Mapping[str, str] = {
    'below': Event.SUCCESS,
    'left': Event.FAILURE,
    'above': Event.DISCARD,
    'right': Event.E_STOP,
    'left_shoulder': Event.TAKEOVER,
    'right_shoulder': DEADMAN,
    'back': Event.GIVE_BACK,
    'start': Event.PAUSE,
    'cross_up': Event.RESET,
    'cross_down': Event.START,
    'cross_right': Event.SUCCESS_NOW,
    'cross_left': Event.NOT_YET,
}
"""Place of a button -> what it asks for. Nothing moves unless the deadman is held."""

STICKS = (
    ('left stick', 'forward, back, left, right'),
    ('right stick', 'up, down'),
    ('triggers', 'left opens, right closes the gripper'),
)
_PLACES: Mapping[str, str] = {
    'below': 'A, cross (below)',
    'left': 'X, square (left)',
    'above': 'Y, triangle (above)',
    'right': 'B, circle (right, red)',
    'left_shoulder': 'left shoulder',
    'right_shoulder': 'right shoulder',
    'back': 'back, share',
    'start': 'start, options',
    'cross_up': 'cross up',
    'cross_down': 'cross down',
    'cross_right': 'cross right',
    'cross_left': 'cross left',
}
_MEANINGS = {**MEANINGS, DEADMAN: 'hold it to move (deadman)'}

STANDARD = {
    **{'below': 0, 'right': 1, 'left': 2, 'above': 3, 'left_shoulder': 4, 'right_shoulder': 5},
    **{'back': 8, 'start': 9, 'cross_up': 12, 'cross_down': 13, 'cross_left': 14, 'cross_right': 15},
}
"""Where a browser has the buttons of a pad of the standard layout (https://www.w3.org/TR/gamepad/#remapping)."""

_STANDARD_STICKS: Mapping[str, Any] = {'axes': [1, 0, 3], 'open': 6, 'close': 7}
"""The axes that give x, y and z, each negative towards it, and the triggers, which are buttons there."""

_PAGE_NAMES: Mapping[str, str] = {Event.TAKEOVER: 'take', Event.GIVE_BACK: 'give'}


def buttons_at(**places: int) -> dict[int, str]:
    """Return button -> what it asks for, of a pad that has these numbers at these places."""
    return {number: PAD[place] for place, number in places.items()}


def pad_lines() -> list[tuple[str, str]]:
    """Return what the parts of a pad do, for people."""
    first = [(_PLACES[place], _MEANINGS[meaning]) for place, meaning in PAD.items() if meaning == DEADMAN]
    rest = [(_PLACES[place], _MEANINGS[meaning]) for place, meaning in PAD.items() if meaning != DEADMAN]
    return [*first, *STICKS, *rest]


def page_controls() -> dict[str, Any]:
    """Return what the page needs: its keys and a pad in the browser, as numbers, and as lines to read."""
    keys = KeyMap.parse(DEFAULT_KEYS)
    # Letters and digits alone: the space bar stops whatever the map says, and the others move the focus of a page.
    motions = {key: motion for key, motion in keys.motions.items() if len(key) == 1}
    events = {key: event for key, event in keys.events.items() if len(key) == 1}
    moves = {
        key: {'axis': axis, 'sign': sign} if axis < GRIPPER else {'gripper': sign}
        for key, (axis, sign) in motions.items()
    }
    asks = {key: {'act': _page_name(event)} for key, event in events.items()}
    buttons = {number: PAD[place] for place, number in STANDARD.items()}
    pad = {
        'buttons': {number: _page_name(asked) for number, asked in buttons.items() if asked != DEADMAN},
        'deadman': next(number for number, asked in buttons.items() if asked == DEADMAN),
        'deadzone': STICK_DEAD_ZONE,
        'trigger_start': TRIGGER_START,
        'frozen_ms': 1000.0 * FROZEN_S,
        **_STANDARD_STICKS,
    }
    lines = [('space', MEANINGS[Event.E_STOP]), *KeyMap(motions, events, {}).lines(), *pad_lines()]
    return {'keys': {**moves, **asks}, 'pad': pad, 'lines': lines}


def _page_name(event: str) -> str:
    return _PAGE_NAMES.get(event, str(event))


def tables() -> dict[str, str]:
    """Return the tables of the documentation, by name: what can be asked for, and what moves."""
    keys = KeyMap.parse(DEFAULT_KEYS)
    places = {asked: _PLACES[place] for place, asked in PAD.items()}
    asked = [
        f'| {MEANINGS[event.value]} | {_listed(key for key, known in keys.events.items() if known is event)} | '
        f'{places.get(event, "")} |'
        for event in Event
    ]
    moves = [
        f'| {" ".join(f"`{key}`" for key in words.split())} | {meaning} |' for words, meaning in _moves(keys)
    ]
    return {
        'asked': '\n'.join(['| asked for | keys | gamepad |', '|---|---|---|', *asked]),
        'moves': '\n'.join(['| keys | what |', '|---|---|', *moves]),
        'pad': '\n'.join(
            ['| gamepad | what |', '|---|---|', *(f'| {part} | {meaning} |' for part, meaning in pad_lines())]
        ),
    }


def _moves(keys: KeyMap) -> list[tuple[str, str]]:
    return KeyMap(keys.motions, {}, keys.speeds).lines()


def _listed(keys: Any) -> str:
    return ', '.join(f'`{key}`' for key in keys)
