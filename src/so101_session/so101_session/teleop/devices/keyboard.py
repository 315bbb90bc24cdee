# SPDX-License-Identifier: Apache-2.0
"""The keyboard of a terminal as a device."""

from collections.abc import Iterable
import math

from so101_session.teleop.devices.base import Device, DeviceState, Event, Feedback, limited
from so101_session.teleop.devices.held_keys import HeldKeys
from so101_session.teleop.devices.key_map import DEFAULT_KEYS, KeyMap
from so101_session.teleop.devices.keys import Code, CTRL_C, KeyDecoder, Kind
from so101_session.teleop.devices.terminal import ASK_ALIVE, KITTY_FLAGS, Terminal

ASK_PERIOD_S = 0.1
SILENCE_S = 0.3
"""While keys are down, a terminal that has answered before must answer at least this often [s]."""

QUIET_S = 5.0
"""Keys that are down and silent for so long are let go [s]: the one that was pressed last repeats."""

STALL_S = 0.05
"""Longer pauses between two polls are those of this program, not of the person: what was typed meanwhile waits."""


class Keyboard(Device):
    """Keys of a terminal. Motion acts while a key is down, everything else once for each press.

    While keys are down the terminal is asked whether it is there: a line that is dead, with a key down at its far
    end, lets the arm hold.
    """

    def __init__(
        self, terminal: Terminal, keys: Iterable[str] = DEFAULT_KEYS, speed: float = 0.5, motion: bool = True
    ) -> None:
        """Prepare.

        Args:
            terminal: where the keys come from; closed with the device.
            keys: see `key_map`.
            speed: share of the fastest speed to begin with.
            motion: False where the keys only ask for events, beside a device that moves.
        """
        self.map = KeyMap.parse(keys)
        self.speed = speed
        self._motion = motion
        self._terminal = terminal
        self._decoder = KeyDecoder()
        self._held = HeldKeys(self.map.opposites)
        self._kitty = self._answers = False
        self._asked_s = self._asked_first_s = -math.inf
        self._key_s = -math.inf
        self._polled_s, self._attended_s = math.inf, 0.0
        self._waiting = False
        self._gone = False

    def poll(self, now: float) -> DeviceState:
        """Read what was typed."""
        self._attended_s += min(max(now - self._polled_s, 0.0), STALL_S)
        self._polled_s = now
        data = None if self._gone else self._terminal.read()
        if data is None:
            self._gone = True
            self._held.release_all()
            return DeviceState(alive=False, quit=True, note='the terminal is gone')
        if data:
            self._waiting = False  # whatever came, the line is there
        events: list[Event] = []
        quits = False
        if now - self._key_s > QUIET_S:
            self._held.release_all()
        for code in self._decoder.feed(data, now):
            quits |= code.key == CTRL_C and code.kind is not Kind.RELEASE
            self._take(code, now, events)
        down = self._held.down(self._attended_s)
        self._ask(bool(down), now)
        if self._waiting and now - self._asked_first_s > SILENCE_S:
            self._held.release_all()
            return DeviceState(
                alive=False, events=tuple(events), quit=quits, note='the terminal does not answer'
            )
        return self._state(down, tuple(events), quits)

    def feel(self, feedback: Feedback, now: float) -> None:
        """Nothing: keys do not push back."""

    def close(self) -> None:
        """Put the terminal back."""
        self._terminal.close()

    def _take(self, code: Code, now: float, events: list[Event]) -> None:
        if code.kind is Kind.KITTY:
            # Only one that says releases is believed when it says presses: else a key would stay down for good.
            self._kitty = code.key.isdecimal() and int(code.key) & KITTY_FLAGS == KITTY_FLAGS
            self._terminal.speak_kitty()
        elif code.kind is Kind.ALIVE:
            self._answers = True
        elif code.kind is Kind.FOCUS_OUT:
            self._held.release_all()
        elif code.kind is Kind.RELEASE:
            self._held.release(code.key)
        elif self._pressed(code, now):
            self.speed = self.map.speeds.get(code.key, self.speed)
            if code.key in self.map.events:
                events.append(self.map.events[code.key])

    def _pressed(self, code: Code, now: float) -> bool:
        """Note that a key is down; return whether it was just pressed."""
        if code.key not in self.map.motions and code.key not in self.map.events | self.map.speeds:
            return False
        self._key_s = now
        if not self._kitty:
            return self._held.hit(code.key, self._attended_s)
        return self._held.press(code.key, self._attended_s) and code.kind is not Kind.REPEAT

    def _ask(self, down: bool, now: float) -> None:
        if not down:
            self._waiting = False
        elif self._answers and now - self._asked_s >= ASK_PERIOD_S:
            self._asked_s = now
            if not self._waiting:
                self._waiting, self._asked_first_s = True, now
            self._terminal.write(ASK_ALIVE)

    def _state(self, down: dict[str, float], events: tuple[Event, ...], quits: bool) -> DeviceState:
        sums = [0.0] * 4
        moving = False
        for key, share in down.items():
            if key in self.map.motions and self._motion:
                axis, sign = self.map.motions[key]
                sums[axis] += sign * share
                moving = True
        x, y, z = (self.speed * limited(value) for value in sums[:3])
        note = f'speed {self.speed:.0%}' if self._motion else ''
        return DeviceState(
            active=moving, axes=(x, y, z), gripper=limited(sums[3]), events=events, quit=quits, note=note
        )
