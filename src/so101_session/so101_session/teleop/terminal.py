# SPDX-License-Identifier: Apache-2.0
"""What a person sees in the terminal: the keys once, and one line that lives. No ROS, no library."""

from collections.abc import Mapping, Sequence
import select
import shutil
from typing import Any, TextIO

from so101_session.teleop.devices.base import DeviceState
from so101_session.teleop.devices.key_map import KeyMap

CLEAR_LINE = '\r\x1b[2K'
BOLD, DIM, RED, GREEN, PLAIN = '\x1b[1m', '\x1b[2m', '\x1b[31m', '\x1b[32m', '\x1b[0m'
_ARROWS = (('forward', 'back'), ('left', 'right'), ('up', 'down'))
PAD_HELP = (
    ('right shoulder', 'hold it to move (deadman)'),
    ('left stick', 'forward, back, left, right'),
    ('right stick', 'up, down'),
    ('triggers', 'left opens, right closes the gripper'),
    ('left shoulder', 'take over'),
    ('back, share', 'give back to the policy'),
    ('A, cross', 'it worked: episode ends'),
    ('X, square', 'it failed: episode ends'),
    ('Y, triangle', 'forget this episode'),
    ('B, circle', 'STOP the arm'),
    ('start, options', 'pause, go on'),
    ('cross up', 'back to the start'),
    ('cross down', 'start the next episode'),
)
LEADER_HELP = (
    ('pull the leader', 'take over'),
    ('handle', 'the gripper, once you move it'),
)


def help_lines(device: str, keys: Sequence[str]) -> list[str]:
    """Return what there is to press."""
    rows: list[tuple[str, str]] = []
    if device == 'leader':
        rows += LEADER_HELP
    if device in ('gamepad', 'joy'):
        rows += PAD_HELP
    else:
        asks = KeyMap.parse(keys)
        moves = KeyMap(asks.motions, {}, asks.speeds) if device == 'keyboard' else KeyMap({}, {}, {})
        rows += moves.lines() + KeyMap({}, asks.events, {}).lines()
    rows.append(('Ctrl-C', 'end; the arm holds'))
    wide = max(len(what) for what, _ in rows)
    return [f'  {what:<{wide}}  {meaning}' for what, meaning in rows]


def status_line(state: DeviceState, opening: float | None, status: Mapping[str, Any], rate_hz: float) -> str:
    """Return what goes on now, in one line."""
    if not state.alive:
        return f'dead: {state.note}; the arm holds'
    driver = str(status.get('driver', '')) or 'no session'
    parts = [f'driver {driver}']
    if state.active:
        parts.append(_motion(state) or 'holding')
        parts.append(f'{rate_hz:.0f} Hz')
    if opening is not None:
        parts.append(f'gripper {opening:.0%} open')
    episode = status.get('episode')
    if episode:
        parts.append(f'episode {episode} step {status.get("index", 0)}')
    parts += [text for text in (state.note, str(status.get('sentence', ''))) if text]
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
                return  # a line that is stuck must not stop the person
            self._out.write(text)
            self._out.flush()
        except OSError:
            self._live = False  # nobody looks any longer
