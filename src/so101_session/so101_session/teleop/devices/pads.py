# SPDX-License-Identifier: Apache-2.0
"""Pads: where the sticks and buttons of known ones are, what they ask for, and the two ways in which they come.

What each place of a pad means stands in `controls`. Numbers are those of the Linux joystick interface; axes are
positive to the right, down, and when pulled. A pad comes in by that interface (`Gamepad`: eight bytes for each change,
nothing to install), or as `sensor_msgs/Joy` of another node (`Joy`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
import fcntl
import logging
import math
import os
from pathlib import Path
import struct

from so101_contract.config import STICK_DEAD_ZONE
from so101_session.teleop.devices.base import Device, DeviceError, DeviceState, Event, Feedback, limited
from so101_session.teleop.devices.controls import buttons_at, DEADMAN, FROZEN_S, TRIGGER_START

AXES = ('x', 'y', 'z', 'close', 'open', 'hat_y', 'hat_x')


@dataclass(frozen=True)
class PadMap:
    """One pad.

    Attributes:
        axes: number of the axis that gives each of `AXES`; a missing one is not there.
        buttons: button -> what it asks for, or `DEADMAN`.
        hats: what pushing the cross up or left (-1), or down or right (1) asks for, by its axis.
        words: parts of the names by which such pads report, in lower case.
        triggers_from: value of a trigger at rest, -1 or 0.
    """

    axes: Mapping[str, int]
    buttons: Mapping[int, str]
    hats: Mapping[str, Mapping[int, str]] = field(
        default_factory=lambda: {
            'hat_y': buttons_at(cross_up=-1, cross_down=1),
            'hat_x': buttons_at(cross_left=-1, cross_right=1),
        }
    )
    words: tuple[str, ...] = ()
    triggers_from: float = -1.0

    @property
    def asked_by_cross(self) -> list[str]:
        """What can be asked for with a cross that is an axis."""
        return [asked for name, hat in self.hats.items() if name in self.axes for asked in hat.values()]


_STICKS = {'x': 1, 'y': 0, 'z': 4, 'close': 5, 'open': 2, 'hat_y': 7, 'hat_x': 6}
_XBOX = buttons_at(below=0, right=1, left=2, above=3, left_shoulder=4, right_shoulder=5, back=6, start=7)
_PLAYSTATION = buttons_at(
    below=0, right=1, left=3, above=2, left_shoulder=4, right_shoulder=5, back=8, start=9
)
_SDL = {
    **buttons_at(below=0, right=1, left=2, above=3, left_shoulder=9, right_shoulder=10, back=4, start=6),
    **buttons_at(cross_up=11, cross_down=12, cross_left=13, cross_right=14),
}
PADS: Mapping[str, PadMap] = {
    'xbox': PadMap(_STICKS, _XBOX, words=('xbox', 'x-box', 'microsoft', 'xinput', '360')),
    'playstation': PadMap(
        _STICKS,
        _PLAYSTATION,
        words=('sony', 'playstation', 'dualsense', 'dualshock', 'wireless controller'),
    ),
    # What most other pads do: those that speak XInput, among them Logitech and 8BitDo.
    'generic': PadMap(_STICKS, _XBOX),
    # The game_controller_node of the ROS package joy, whatever the pad.
    'sdl': PadMap({'x': 1, 'y': 0, 'z': 3, 'close': 5, 'open': 4}, _SDL, triggers_from=0.0),
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


HAT_SHARE = 0.5


@dataclass
class Pad:
    """A pad with its present sticks and buttons.

    Attributes:
        map: where they are.
        deadzone: share of a stick's way that counts as rest.
        speed: share of the fastest speed at the end of a stick.
        needs_deadman: the stick counts only while the deadman button is down.
        axes: number -> value -1..1, positive to the right, down, pulled.
        buttons: those that are down.
    """

    map: PadMap
    deadzone: float
    speed: float
    needs_deadman: bool
    axes: dict[int, float] = field(default_factory=dict)
    buttons: set[int] = field(default_factory=set)
    _events: list[Event] = field(default_factory=list)
    _hats: dict[str, int] = field(default_factory=dict)
    _rested: set[str] = field(default_factory=set)
    _trusted: bool = True

    def axis(self, number: int, value: float, *, initial: bool = False) -> None:
        """Take the position of an axis.

        Args:
            number: of the axis.
            value: -1..1.
            initial: it was there before anybody looked.
        """
        self.axes[number] = limited(value)
        for name in ('close', 'open'):
            if self.map.axes.get(name) == number and self._pulled(value) < TRIGGER_START:
                self._rested.add(name)  # before its first report a trigger reads half pulled
        for name, asked in self.map.hats.items():
            if self.map.axes.get(name) != number:
                continue
            hat = -1 if value < -HAT_SHARE else 1 if value > HAT_SHARE else 0
            if hat != self._hats.get(name, 0) and hat in asked and not initial:
                self._events.append(Event(asked[hat]))
            self._hats[name] = hat

    def button(self, number: int, down: bool, *, initial: bool = False) -> None:
        """Take the state of a button; its event comes with the edge, and with no other state."""
        meaning = self.map.buttons.get(number)
        if down and initial and meaning == DEADMAN:
            self._trusted = False  # it was down before anybody looked: let it go first
        if not down and meaning == DEADMAN:
            self._trusted = True
        if down and number not in self.buttons and meaning not in (None, DEADMAN) and not initial:
            self._events.append(Event(meaning))
        (self.buttons.add if down else self.buttons.discard)(number)

    def forget(self) -> None:
        """The pad is gone: nothing is held any more, and a deadman that is down when it returns must be let go."""
        self.axes.clear()
        self.buttons.clear()
        self._events.clear()
        self._rested.clear()
        self._hats.clear()

    @property
    def held(self) -> bool:
        """Whether the deadman button is down, or none is needed."""
        if not self.needs_deadman:
            return True
        deadman = {number for number, meaning in self.map.buttons.items() if meaning == DEADMAN}
        return self._trusted and bool(deadman & self.buttons)

    def state(self) -> DeviceState:
        """Return what the human wants now; the events are told once."""
        # Forward is a stick pushed up, which is negative; left is negative too.
        x, y, z = (-self._stick(name) * self.speed for name in 'xyz')
        gripper = self._trigger('open') - self._trigger('close')
        events, self._events = tuple(self._events), []
        moving = bool(x or y or z or gripper)
        if not self.held:
            return DeviceState(events=events, note='hold the deadman button to move' if moving else '')
        return DeviceState(active=moving, axes=(x, y, z), gripper=gripper, events=events)

    def _stick(self, name: str) -> float:
        value = self.axes.get(self.map.axes.get(name, -1), 0.0)
        beyond = max(abs(value) - self.deadzone, 0.0) / (1.0 - self.deadzone)
        return beyond if value > 0 else -beyond

    def _pulled(self, value: float) -> float:
        rest = self.map.triggers_from
        return max((value - rest) / (1.0 - rest), 0.0)

    def _trigger(self, name: str) -> float:
        if name not in self._rested:
            return 0.0
        pulled = self._pulled(self.axes.get(self.map.axes.get(name, -1), self.map.triggers_from))
        return pulled if pulled >= TRIGGER_START else 0.0


logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PadSettings:
    """Which pad, and what it does.

    Attributes:
        pad: one of `PADS`, or auto.
        changes: see `changed`.
        deadzone: share of a stick's way that counts as rest.
        speed: share of the fastest speed at the end of a stick.
        needs_deadman: nothing moves without the deadman button.
    """

    pad: str = 'auto'
    changes: tuple[str, ...] = ()
    deadzone: float = STICK_DEAD_ZONE
    speed: float = 1.0
    needs_deadman: bool = True

    def make(self) -> Pad:
        """Return a pad at rest, as one that does not say its name.

        Raises:
            DeviceError: there is no such pad, or a change means nothing.
        """
        found = changed(find_pad(self.pad, '')[1], self.changes)
        return Pad(found, self.deadzone, self.speed, self.needs_deadman)


EVENT = struct.Struct('<IhBB')
"""struct js_event: time [ms], value, type, number."""

BUTTON, AXIS, INITIAL = 0x01, 0x02, 0x80
FULL_SCALE = 32767
NAME_BYTES = 128
_GET_NAME = 0x80006A13 + (NAME_BYTES << 16)  # JSIOCGNAME
LOOK_PERIOD_S = 0.5
FOLDER = Path('/dev/input')
_READ_BYTES = 64 * EVENT.size


class Gamepad(Device):
    """A pad that is plugged in now or later; one that is pulled out is dead until it comes back."""

    def __init__(self, path: str = '', settings: PadSettings | None = None) -> None:
        """Prepare; the pad may be missing yet.

        Args:
            path: of the joystick; the first that is there by default.
            settings: which pad, and what it does.
        """
        self._path, self._settings = path, settings or PadSettings()
        self._pad = self._settings.make()
        self._handle: int | None = None
        self._rest = b''
        self._look_s = self._heard_s = -math.inf
        self._why = 'no gamepad yet'

    def poll(self, now: float) -> DeviceState:
        """Read what changed."""
        if self._handle is None:
            self._open(now)
        if self._handle is None or not self._read(now):
            return DeviceState(alive=False, note=self._why)
        state = self._pad.state()
        if state.active and now - self._heard_s > FROZEN_S:
            return DeviceState(alive=False, events=state.events, note='the gamepad is frozen; move a stick')
        return state

    def feel(self, feedback: Feedback, now: float) -> None:
        """Nothing: pads do not push back."""

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _open(self, now: float) -> None:
        if now - self._look_s < LOOK_PERIOD_S:
            return
        self._look_s = now
        path = self._path or min(map(str, FOLDER.glob('js*')), default='')
        if not path:
            self._why = f'no gamepad in {FOLDER}; plug one in'
            return
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            self._why = f'the gamepad {path} cannot be opened: {error.strerror}'
            return
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._why = (
                f'the gamepad {path} is read by another program; end that, one at a time may act on it'
            )
            self.close()
            return
        name = _name(self._handle)
        known, found = find_pad(self._settings.pad, name)
        self._pad.map = changed(found, self._settings.changes)
        self._heard_s, self._rest = now, b''
        logger.info('gamepad %s (%s), buttons as %s', path, name or 'without a name', known)

    def _read(self, now: float) -> bool:
        assert self._handle is not None
        try:
            while True:
                data = os.read(self._handle, _READ_BYTES)
                if not data:
                    return self._lost('it was pulled out')
                self._heard_s = now
                self._take(data)
        except BlockingIOError:
            return True
        except OSError as error:
            return self._lost(str(error.strerror))

    def _take(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % EVENT.size
        self._rest = data[whole:]
        for _, value, kind, number in EVENT.iter_unpack(data[:whole]):
            initial = bool(kind & INITIAL)
            if kind & BUTTON:
                self._pad.button(number, bool(value), initial=initial)
            elif kind & AXIS:
                self._pad.axis(number, value / FULL_SCALE, initial=initial)

    def _lost(self, why: str) -> bool:
        logger.warning('the gamepad is gone: %s', why)
        self._why = f'the gamepad is gone: {why}'
        self._pad.forget()
        self.close()
        return False


def _name(handle: int) -> str:
    buffer = bytearray(NAME_BYTES)
    try:
        fcntl.ioctl(handle, _GET_NAME, buffer)
    except OSError:
        return ''
    return buffer.split(b'\x00', 1)[0].decode(errors='replace')


SILENCE_S = 0.3
"""A pad that is not heard of for longer is dead [s]; joy_node repeats itself 20 times a second."""


class Joy(Device):
    """A pad, message by message. `joy_node` turns every axis round: left, up and pulled are its positive ones."""

    def __init__(self, settings: PadSettings | None = None) -> None:
        """Prepare. `sdl` as pad is for game_controller_node."""
        settings = settings or PadSettings()
        # What is released reads +1 from joy_node, and 0 from game_controller_node, which does not turn triggers.
        self._turned_triggers = settings.pad != 'sdl'
        self._pad = settings.make()
        self._heard_s = -math.inf
        self._fresh = True

    def hear(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> None:
        """Take a message; what is down in the first one after a silence was not pressed for us."""
        if now - self._heard_s > SILENCE_S:
            self._pad.forget()
            self._fresh = True
        self._heard_s = now
        triggers = {self._pad.map.axes.get(name) for name in ('close', 'open')}
        for number, value in enumerate(axes):
            keeps = number in triggers and not self._turned_triggers
            turned = value if keeps else -value
            self._pad.axis(number, turned if math.isfinite(turned) else 0.0, initial=self._fresh)
        for number, down in enumerate(buttons):
            self._pad.button(number, bool(down), initial=self._fresh)
        self._fresh = False

    def poll(self, now: float) -> DeviceState:
        """Say what the last message means."""
        if now - self._heard_s > SILENCE_S:
            return DeviceState(alive=False, note='no message of the pad; does joy_node run?')
        return self._pad.state()

    def feel(self, feedback: Feedback, now: float) -> None:
        """Nothing: pads do not push back."""

    def close(self) -> None:
        """Nothing is held."""
