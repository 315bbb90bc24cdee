# SPDX-License-Identifier: Apache-2.0
"""Where the sticks and buttons of known pads are, by number, and how that is said in a parameter.

Meanings go by place, not by letter: the lower button (A, cross) says success on every pad. Numbers are those of the
Linux joystick interface; axes are positive to the right, down, and when pulled.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from so101_session.teleop.devices.base import DeviceError, Event

DEADMAN = 'deadman'
AXES = ('x', 'y', 'z', 'close', 'open', 'hat_y')


@dataclass(frozen=True)
class PadMap:
    """One pad.

    Attributes:
        axes: number of the axis that gives each of `AXES`; a missing one is not there.
        buttons: button -> what it asks for, or `DEADMAN`.
        hat: what pushing the cross up (-1) or down (1) asks for.
        words: parts of the names by which such pads report, in lower case.
        triggers_from: value of a trigger at rest, -1 or 0.
    """

    axes: Mapping[str, int]
    buttons: Mapping[int, str]
    hat: Mapping[int, Event] = field(default_factory=lambda: {-1: Event.RESET, 1: Event.START})
    words: tuple[str, ...] = ()
    triggers_from: float = -1.0


_STICKS = {'x': 1, 'y': 0, 'z': 4, 'close': 5, 'open': 2, 'hat_y': 7}
_XBOX = {
    0: Event.SUCCESS,  # A, below
    1: Event.E_STOP,  # B, right and red
    2: Event.FAILURE,  # X, left
    3: Event.DISCARD,  # Y, above
    4: Event.TAKEOVER,  # left shoulder
    5: DEADMAN,  # right shoulder
    6: Event.GIVE_BACK,  # back, view
    7: Event.PAUSE,  # start, menu
}
PADS: Mapping[str, PadMap] = {
    'xbox': PadMap(_STICKS, _XBOX, words=('xbox', 'x-box', 'microsoft', 'xinput', '360')),
    'playstation': PadMap(
        _STICKS,
        {
            0: Event.SUCCESS,  # cross, below
            1: Event.E_STOP,  # circle, right and red
            3: Event.FAILURE,  # square, left
            2: Event.DISCARD,  # triangle, above
            4: Event.TAKEOVER,  # L1
            5: DEADMAN,  # R1
            8: Event.GIVE_BACK,  # share, create
            9: Event.PAUSE,  # options
        },
        words=('sony', 'playstation', 'dualsense', 'dualshock', 'wireless controller'),
    ),
    # What most other pads do: those that speak XInput, among them Logitech and 8BitDo.
    'generic': PadMap(_STICKS, _XBOX),
    # The game_controller_node of the ROS package joy, whatever the pad.
    'sdl': PadMap(
        {'x': 1, 'y': 0, 'z': 3, 'close': 5, 'open': 4},
        {
            **{0: Event.SUCCESS, 1: Event.E_STOP, 2: Event.FAILURE, 3: Event.DISCARD},
            **{9: Event.TAKEOVER, 10: DEADMAN, 4: Event.GIVE_BACK, 6: Event.PAUSE},
            **{11: Event.RESET, 12: Event.START},
        },
        triggers_from=0.0,
    ),
}


def find_pad(choice: str, name: str) -> tuple[str, PadMap]:
    """Return the pad that is chosen, or for `auto` the one that a device's name fits.

    Raises:
        DeviceError: there is no such pad.
    """
    if choice != 'auto':
        if choice not in PADS:
            raise DeviceError(f'expected one of auto, {", ".join(PADS)} as pad, got {choice!r}; correct pad')
        return choice, PADS[choice]
    for known, pad in PADS.items():
        if any(word in name.lower() for word in pad.words):
            return known, pad
    return 'generic', PADS['generic']


def changed(pad: PadMap, entries: Iterable[str]) -> PadMap:
    """Return a pad with other numbers: 'x=1' moves an axis, '3=discard' gives a button a meaning.

    Raises:
        DeviceError: an entry means nothing.
    """
    axes, buttons = dict(pad.axes), dict(pad.buttons)
    for entry in filter(None, entries):
        left, _, right = entry.partition('=')
        if left in AXES and right.isdecimal():
            axes[left] = int(right)
        elif left.isdecimal() and right in {*Event, DEADMAN}:
            buttons[int(left)] = right
        else:
            raise DeviceError(
                f'expected an axis ({", ".join(AXES)}) and its number as in x=1, or a button and what it does '
                f'({DEADMAN}, {", ".join(Event)}) as in 3=discard, got {entry!r}; correct pad_changes'
            )
    return replace(pad, axes=axes, buttons=buttons)
