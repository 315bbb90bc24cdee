# SPDX-License-Identifier: Apache-2.0
"""Keys of a terminal: what its bytes mean, and which key does what.

A plain terminal sends a key's character when it is pressed and again while it repeats; it never says that a key was
let go. The kitty protocol (https://sw.kovidgoyal.net/kitty/keyboard-protocol/) says press, repeat and release.
What a key does is said in a parameter: 'w=x+', 'o=open', 't=takeover', '1=speed 0.2'.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
import re

from so101_session.teleop.devices.base import DeviceError, Event

ESCAPE = 0x1B
ESCAPE_WAIT_S = 0.05
"""A lone escape byte is the key itself after this long [s]; over a slow line a sequence may come in pieces."""

MAX_SEQUENCE = 32
CTRL_C = 'ctrl+c'

_FINAL = {'A': 'up', 'B': 'down', 'C': 'right', 'D': 'left', 'H': 'home', 'F': 'end'}
_TILDE = {'1': 'home', '2': 'insert', '3': 'delete', '4': 'end', '5': 'page_up', '6': 'page_down'}
_NAMED = {9: 'tab', 13: 'enter', 27: 'escape', 32: 'space', 127: 'backspace'}
_CHARACTERS = {
    '\r': 'enter',
    '\n': 'enter',
    '\t': 'tab',
    ' ': 'space',
    '\x7f': 'backspace',
    '\x08': 'backspace',
}
_CTRL = 4
_PRIVATE_KEYS = range(57344, 63744)  # modifier and media keys of the protocol, which have no meaning here
_CSI = re.compile(r'\x1b\[([<=>?]?)([0-9;:]*)([@-~])')


class Kind(Enum):
    """What a code says."""

    HIT = 'hit'  # pressed, or repeated: a plain terminal does not tell which
    PRESS = 'press'
    REPEAT = 'repeat'
    RELEASE = 'release'
    FOCUS_OUT = 'focus out'
    KITTY = 'kitty'  # the terminal knows the protocol; the key is what it does of it, as a number
    ALIVE = 'alive'  # the terminal answered


@dataclass(frozen=True)
class Code:
    """One thing that the terminal said: what, and of which key ('w', 'up', 'space', 'ctrl+c')."""

    kind: Kind
    key: str = ''


class KeyDecoder:
    """Turns bytes into codes; a sequence may come in pieces."""

    def __init__(self) -> None:
        self._pending = ''
        self._since_s = 0.0

    def feed(self, data: bytes, now: float) -> list[Code]:
        """Take bytes; what is no key that means something is dropped."""
        if data:
            self._pending += data.decode('utf-8', errors='replace')
            self._since_s = now
        codes: list[Code] = []
        while self._pending:
            length, code = self._first()
            if not length:
                if now - self._since_s < ESCAPE_WAIT_S and len(self._pending) < MAX_SEQUENCE:
                    break
                length, code = 1, Code(Kind.HIT, 'escape')
            self._pending = self._pending[length:]
            if code is not None:
                codes.append(code)
        return codes

    def _first(self) -> tuple[int, Code | None]:
        """Return how long the first code is, 0 where it is not whole, and what it means."""
        text = self._pending
        if ord(text[0]) != ESCAPE:
            return 1, _character(text[0])
        if len(text) == 1 or text in ('\x1b[', '\x1bO'):
            return 0, None
        if text[1] == 'O':
            return 3, Code(Kind.HIT, _FINAL[text[2]]) if text[2] in _FINAL else None
        if text[1] != '[':
            return 1, Code(Kind.HIT, 'escape')
        match = _CSI.match(text)
        if match is None:
            return 0, None
        return match.end(), _sequence(*match.groups())


def _character(character: str) -> Code | None:
    if character == '\x03':
        return Code(Kind.HIT, CTRL_C)
    key = _CHARACTERS.get(character, character.lower())
    return Code(Kind.HIT, key) if len(key) > 1 or key.isprintable() else None


def _sequence(prefix: str, parameters: str, final: str) -> Code | None:
    if prefix == '?':
        return {'u': Code(Kind.KITTY, parameters), 'c': Code(Kind.ALIVE)}.get(final)
    if prefix:
        return None
    if final == 'n':
        return Code(Kind.ALIVE)
    if final == 'O':
        return Code(Kind.FOCUS_OUT)
    number, modifiers, event = _numbers(parameters)
    key = _key(number, final)
    if not key:
        return None
    if modifiers & _CTRL:
        key = f'ctrl+{key}'
    kinds = {'': Kind.HIT, '1': Kind.PRESS, '2': Kind.REPEAT, '3': Kind.RELEASE}
    kind = kinds.get(event, Kind.HIT)
    # Only the protocol has codes that end in u: without an event they are presses.
    return Code(Kind.PRESS if final == 'u' and kind is Kind.HIT else kind, key)


def _numbers(parameters: str) -> tuple[str, int, str]:
    """Split 'code:alternates;modifiers:event;text'."""
    fields = parameters.split(';')
    modifiers, _, event = (fields[1] if len(fields) > 1 else '').partition(':')
    # Sent plus one. Caps lock and num lock are among them and do not matter.
    return fields[0].partition(':')[0], max(int(modifiers or 1) - 1, 0), event.partition(':')[0]


def _key(number: str, final: str) -> str:
    if final == '~':
        return _TILDE.get(number, '')
    if final != 'u':
        return _FINAL.get(final, '')
    code = int(number or 0)
    if code in _PRIVATE_KEYS or not 0 < code < 0x110000:
        return ''
    return _NAMED.get(code, chr(code).lower())


DEFAULT_KEYS = (
    *('w=x+', 's=x-', 'a=y+', 'd=y-', 'r=z+', 'f=z-'),
    *('up=x+', 'down=x-', 'left=y+', 'right=y-', 'page_up=z+', 'page_down=z-'),
    *('e=open', 'q=close', 'o=open', 'c=close', '7=speed 0.2', '8=speed 0.5', '9=speed 1.0'),
    *(
        'space=e_stop',
        't=takeover',
        'g=give_back',
        'n=start',
        'enter=start',
        'h=reset',
        'b=reset',
        'p=pause',
        'u=recover',
    ),
    *('1=success', '2=failure', '3=discard', 'y=success', 'x=discard', '4=success_now', '5=not_yet'),
)
"""The one map of keys, in the terminal and on the operator's page; `enter` and other named keys are the terminal's."""

_MOTIONS = {
    **{f'{name}{sign}': (axis, 1 if sign == '+' else -1) for axis, name in enumerate('xyz') for sign in '+-'},
    'open': (3, 1),
    'close': (3, -1),
}
MEANINGS = {
    'x+': 'forward',
    'x-': 'back',
    'y+': 'left',
    'y-': 'right',
    'z+': 'up',
    'z-': 'down',
    'open': 'open the gripper',
    'close': 'close the gripper',
    'takeover': 'take over',
    'give_back': 'give back to the policy',
    'start': 'start the next episode',
    'success': 'it worked: episode ends',
    'failure': 'it failed: episode ends',
    'discard': 'forget this episode',
    'success_now': 'success can be seen from now on',
    'not_yet': 'no success can be seen, whatever the classifier says',
    'reset': 'back to the start',
    'pause': 'pause, go on',
    'recover': 'clear a stop or fault; again: motors on',
    'e_stop': 'STOP the arm',
}


@dataclass(frozen=True)
class KeyMap:
    """What keys mean.

    Attributes:
        motions: key -> axis (0, 1, 2 for x, y, z, 3 for the gripper) and sign.
        events: key -> what it asks for.
        speeds: key -> share of the fastest speed.
    """

    motions: dict[str, tuple[int, int]]
    events: dict[str, Event]
    speeds: dict[str, float]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> 'KeyMap':
        """Read a parameter.

        Raises:
            DeviceError: an entry means nothing, or a key means two things.
        """
        motions: dict[str, tuple[int, int]] = {}
        events: dict[str, Event] = {}
        speeds: dict[str, float] = {}
        for entry in entries:
            key, _, meaning = entry.rpartition('=')
            if not key or key in motions or key in events or key in speeds:
                raise DeviceError(f'expected each key once, as in w=x+, got {entry!r}; correct keys')
            if meaning in _MOTIONS:
                motions[key] = _MOTIONS[meaning]
            elif meaning in set(Event):
                events[key] = Event(meaning)
            else:
                speeds[key] = _speed(entry, meaning)
        return cls(motions, events, speeds)

    @property
    def opposites(self) -> dict[str, frozenset[str]]:
        """Return for each key of a motion those that move the other way."""
        return {
            key: frozenset(
                other for other, (axis2, sign2) in self.motions.items() if axis == axis2 and sign != sign2
            )
            for key, (axis, sign) in self.motions.items()
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return what the keys do, for people: the keys, and their meaning."""
        said: dict[str, list[str]] = {}
        for key, motion in self.motions.items():
            name = next(name for name, value in _MOTIONS.items() if value == motion)
            said.setdefault(MEANINGS[name], []).append(key)
        for key, event in self.events.items():
            said.setdefault(MEANINGS[event.value], []).append(key)
        for key, speed in self.speeds.items():
            said.setdefault(f'{speed:.0%} of the fastest speed', []).append(key)
        return [(' '.join(keys), meaning) for meaning, keys in said.items()]


def _speed(entry: str, meaning: str) -> float:
    word, _, number = meaning.partition(' ')
    try:
        speed = float(number)
    except ValueError:
        speed = -1.0
    if word != 'speed' or not 0.0 < speed <= 1.0:
        known = ', '.join([*MEANINGS, 'speed 0.2'])
        raise DeviceError(f'expected one of {known} for a key, got {entry!r}; correct keys')
    return speed
