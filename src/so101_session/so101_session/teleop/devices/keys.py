# SPDX-License-Identifier: Apache-2.0
"""What the bytes of a terminal mean: keys, as plain terminals and as the kitty keyboard protocol say them.

A plain terminal sends a key's character when it is pressed and again while it repeats; it never says that a key was
let go. The kitty protocol (https://sw.kovidgoyal.net/kitty/keyboard-protocol/) says press, repeat and release.
"""

from dataclasses import dataclass
from enum import Enum
import re

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
