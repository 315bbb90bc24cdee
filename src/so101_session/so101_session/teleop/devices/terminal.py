# SPDX-License-Identifier: Apache-2.0
"""A terminal that gives every key at once, and that is put back as it was, whatever ends the program.

Only the terminal's own bytes are read: keys act while it has the focus, over SSH as well, and no other program's keys
are seen.
"""

import atexit
import contextlib
import os
import select
import termios
import time
from typing import Any

from so101_session.teleop.devices.base import DeviceError

ASK_KITTY = b'\x1b[?u'
ASK_ALIVE = b'\x1b[5n'
ASK_WHAT = b'\x1b[c'
FOCUS_ON, FOCUS_OFF = b'\x1b[?1004h', b'\x1b[?1004l'
KITTY_FLAGS = 11
"""Unambiguous codes (1), press, repeat and release (2), for every key (8)."""

KITTY_ON, KITTY_OFF = b'\x1b[>%du' % KITTY_FLAGS, b'\x1b[<u'

DRAIN_S = 0.15
"""How long answers may still be on their way at the end [s]; they must not appear in the shell."""

_INPUT, _LOCAL, _CHARACTERS = 0, 3, 6


class Terminal:
    """The terminal of a person, in raw mode while it is open; output goes on as usual, Ctrl-C interrupts.

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
