# SPDX-License-Identifier: Apache-2.0
"""The terminal that a human sits at: keys in, one at a time, and one line out that lives.

Only the terminal's own bytes are read: keys act while it has the focus, over SSH as well, and no other program's keys
are seen. It is put back as it was, whatever ends the program. No ROS, no library.
"""

import atexit
from collections.abc import Sequence
import contextlib
import os
import select
import shutil
import termios
import time
from typing import Any, TextIO

from so101_contract.session import SessionStatus
from so101_session.teleop.devices.base import DeviceError, DeviceState
from so101_session.teleop.devices.controls import pad_lines
from so101_session.teleop.devices.keys import KeyMap

CLEAR_LINE = '\r\x1b[2K'
BOLD, DIM, RED, GREEN, PLAIN = '\x1b[1m', '\x1b[2m', '\x1b[31m', '\x1b[32m', '\x1b[0m'
_ARROWS = (('forward', 'back'), ('left', 'right'), ('up', 'down'))
LEADER_HELP = (('pull the leader', 'take over'), ('handle', 'the gripper, once you move it'))


def help_lines(device: str, keys: Sequence[str]) -> list[str]:
    """Return what there is to press."""
    rows: list[tuple[str, str]] = []
    if device == 'leader':
        rows += LEADER_HELP
    if device in ('gamepad', 'joy'):
        rows += pad_lines()
    else:
        asks = KeyMap.parse(keys)
        moves = KeyMap(asks.motions, {}, asks.speeds) if device == 'keyboard' else KeyMap({}, {}, {})
        rows += moves.lines() + KeyMap({}, asks.events, {}).lines()
    rows.append(('Ctrl-C', 'end; the arm holds'))
    wide = max(len(what) for what, _ in rows)
    return [f'  {what:<{wide}}  {meaning}' for what, meaning in rows]


def status_line(
    state: DeviceState, opening: float | None, status: SessionStatus | None, rate_hz: float
) -> str:
    """Return what goes on now, in one line."""
    if not state.alive:
        return f'dead: {state.note}; the arm holds'
    parts = [f'driver {"no session" if status is None else status.driver}']
    if state.active:
        parts.append(_motion(state) or 'holding')
        parts.append(f'{rate_hz:.0f} Hz')
    if opening is not None:
        parts.append(f'gripper {opening:.0%} open')
    if status is not None and status.episode:
        parts.append(f'episode {status.episode} step {status.index}')
    parts += [text for text in (state.note, '' if status is None else status.sentence) if text]
    return ' | '.join(parts)


def _motion(state: DeviceState) -> str:
    if state.displacement is not None:
        return ' '.join(f'{1e3 * value:+4.0f}' for value in state.displacement) + ' mm'
    words = [names[value < 0] for names, value in zip(_ARROWS, state.axes, strict=True) if value]
    if state.gripper:
        words.append('opening' if state.gripper > 0 else 'closing')
    return ' '.join(words)


class TerminalScreen:
    """Writes to a terminal; to anything else only what happens."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._shown = ''

    def line(self, text: str, colour: str = '') -> None:
        """Replace the line that lives."""
        if not self._live:
            return
        text = text[: max(shutil.get_terminal_size().columns - 1, 10)]
        if text != self._shown:
            self._shown = text
            self._write(f'{CLEAR_LINE}{colour}{text}{PLAIN if colour else ""}')

    def say(self, sentence: str) -> None:
        """Write a line that stays."""
        self._shown = ''
        self._write(f'{CLEAR_LINE if self._live else ""}{sentence}\n')

    def _write(self, text: str) -> None:
        try:
            if self._live and not select.select([], [self._out], [], 0.0)[1]:
                return  # a line that is stuck must not stop the human
            self._out.write(text)
            self._out.flush()
        except OSError:
            self._live = False  # nobody looks any longer


ASK_KITTY = b'\x1b[?u'
ASK_ALIVE = b'\x1b[5n'
FOCUS_ON, FOCUS_OFF = b'\x1b[?1004h', b'\x1b[?1004l'
KITTY_FLAGS = 11
"""Unambiguous codes (1), press, repeat and release (2), for every key (8)."""

KITTY_ON, KITTY_OFF = b'\x1b[>%du' % KITTY_FLAGS, b'\x1b[<u'

DRAIN_S = 0.15
"""How long answers may still be on their way at the end [s]; they must not appear in the shell."""

_INPUT, _LOCAL, _CHARACTERS = 0, 3, 6


class Terminal:
    """The terminal of a human, in raw mode while it is open; output goes on as usual, Ctrl-C interrupts.

    Args:
        keyboard: file descriptor to read keys from.
        screen: file descriptor to write to.

    Raises:
        DeviceError: there is no terminal.
    """

    def __init__(self, keyboard: int = 0, screen: int = 1) -> None:
        self._keyboard, self._screen = keyboard, screen
        self._kitty = False
        self._before: list[Any] | None = None
        if not os.isatty(keyboard):
            raise DeviceError(
                'the keyboard is read from a terminal, and standard input is none; '
                'run ./so101 teleop in a terminal, or choose another device'
            )
        try:
            before = termios.tcgetattr(keyboard)
            raw = termios.tcgetattr(keyboard)
        except termios.error as error:
            raise DeviceError(f'the terminal cannot be read ({error}); open another one') from error
        raw[_INPUT] &= ~termios.IXON  # Ctrl-S would freeze the terminal
        raw[_LOCAL] &= ~(termios.ICANON | termios.ECHO)
        raw[_CHARACTERS][termios.VMIN], raw[_CHARACTERS][termios.VTIME] = 0, 0
        raw[_CHARACTERS][termios.VSUSP] = b'\x00'  # Ctrl-Z would leave the shell with a raw terminal
        self._before = before
        # Beside close(): whatever the program dies of in Python, the terminal is put back.
        atexit.register(self.close)
        termios.tcsetattr(keyboard, termios.TCSANOW, raw)
        self.write(FOCUS_ON + ASK_KITTY + ASK_ALIVE)

    def read(self) -> bytes | None:
        """Return what was typed since the last call; None where the terminal is gone."""
        data = b''
        try:
            while select.select([self._keyboard], [], [], 0.0)[0]:
                piece = os.read(self._keyboard, 4096)
                if not piece:
                    return data or None
                data += piece
        except OSError:
            return None
        return data

    def write(self, data: bytes) -> None:
        """Write at once; what a terminal that is gone or stuck does not take is dropped."""
        try:
            if select.select([], [self._screen], [], 0.0)[1]:
                os.write(self._screen, data)
        except OSError:
            return

    def speak_kitty(self) -> None:
        """Ask a terminal that knows the protocol for press and release; it says what it does of it."""
        if not self._kitty:
            self._kitty = True
            self.write(KITTY_ON + ASK_KITTY)

    def close(self) -> None:
        """Put everything back; safe to call twice."""
        before, self._before = self._before, None
        if before is None:
            return
        self.write((KITTY_OFF if self._kitty else b'') + FOCUS_OFF)
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and self.read() is not None:
            time.sleep(0.01)
        with contextlib.suppress(termios.error, OSError):  # the terminal may be gone
            termios.tcsetattr(self._keyboard, termios.TCSAFLUSH, before)
        atexit.unregister(self.close)
