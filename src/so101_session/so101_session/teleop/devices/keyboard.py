# SPDX-License-Identifier: Apache-2.0
"""The keyboard of a terminal as a device: which keys are down, and what that asks for.

Where the terminal says which keys are down, that counts; otherwise what its repeats allow to conclude. A plain
terminal sends a held key once, pauses for half a second, and then repeats it some thirty times a second. When a second
key goes down, the first one falls silent although it is still down, for good. So:

* a key that came once is down until the pause is over; nobody knows yet whether it is held or was tapped, so it
  counts as `TAP_SHARE` after the time of a tap;
* a key that repeats is down until its repeats stay away for longer than they use to;
* a key that was down when another one came is carried: it stays down as long as others come, until it comes again
  itself, its opposite comes, or all fall silent. One that came a while before the other may have been tapped, so it
  is carried with `TAP_SHARE`.

The length of the pause and of the repeats is learned from what comes.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
import math

from so101_session.teleop.devices.base import Device, DeviceState, Event, Feedback, limited
from so101_session.teleop.devices.keys import Code, CTRL_C, DEFAULT_KEYS, KeyDecoder, KeyMap, Kind
from so101_session.teleop.terminal import ASK_ALIVE, KITTY_FLAGS, Terminal

TAP_S = 0.12
"""A key that came once counts in full for this long [s]."""

TAP_SHARE = 0.25
"""What it counts afterwards, until it repeats or the pause is over."""

PAUSE_S = (0.2, 0.7, 1.1)
"""Least, first and most length of the pause before a key repeats [s]."""

REPEAT_S = (0.02, 0.04, 0.15)
"""Least, first and most distance of two repeats [s]."""

RELEASE_REPEATS = 3.5
"""A key that repeats is up after so many missing repeats, but not before `RELEASE_S`."""

RELEASE_S = 0.13
CARRY_S = 0.08
"""A key that repeats is let go, and not carried, if it was silent for this long when another came [s]."""

CHORD_S = 0.2
"""Keys that come within this time are pressed together [s]."""

MARGIN = 1.15
MEMORY = 40


@dataclass
class _Key:
    """A key that is down, as far as is known."""

    hit_s: float
    first_s: float
    before_s: float = -math.inf  # when it came before it was pressed this time
    repeats: int = 0
    certain: bool = False  # the terminal says when it is let go
    carried: bool = False
    share: float = 1.0


@dataclass
class HeldKeys:
    """Follows the keys that are down.

    Attributes:
        opposites: key -> keys that cannot be meant at the same time.
        pause_s: longest pause before a key repeats, as far as is known [s].
    """

    opposites: dict[str, frozenset[str]] = field(default_factory=dict)
    pause_s: float = PAUSE_S[1]
    _keys: dict[str, _Key] = field(default_factory=dict)
    _last_hit_s: dict[str, float] = field(default_factory=dict)
    _gaps: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))

    @property
    def release_s(self) -> float:
        """Silence after which a key that repeats is up [s]."""
        return max(RELEASE_S, RELEASE_REPEATS * self._typical_s)

    @property
    def _typical_s(self) -> float:
        """Distance of two repeats that nine of ten stay below [s]."""
        return sorted(self._gaps)[(len(self._gaps) * 9) // 10] if self._gaps else REPEAT_S[1]

    def hit(self, key: str, now: float) -> bool:
        """Take a key from a plain terminal; return whether it was pressed, as opposed to repeated."""
        self._expire(now)
        known = self._keys.get(key)
        last_s = self._last_hit_s.get(key, -math.inf)
        self._last_hit_s[key] = now
        if known is None or known.carried:
            # A carried key that comes again was let go in between: it never repeats again by itself.
            self._press(key, now, last_s)
            return known is not None or now - last_s > self.pause_s
        gap = now - known.hit_s
        if gap <= REPEAT_S[2]:
            self._learn(known, gap)
            known.repeats += 1
        known.hit_s = now
        return False

    def press(self, key: str, now: float) -> bool:
        """Take a press that will be followed by a release; return whether the key was up before."""
        new = key not in self._keys
        self._release_opposites(key)
        self._keys[key] = _Key(now, now, certain=True)
        return new

    def release(self, key: str) -> None:
        """Take a release."""
        self._keys.pop(key, None)

    def release_all(self) -> None:
        """Nothing is down any more: the terminal lost the focus, or the line was dead."""
        self._keys.clear()

    def down(self, now: float) -> dict[str, float]:
        """Return what is down, and what it counts: 1, or less for what may have been tapped."""
        self._expire(now)
        return {name: self._share(key, now) for name, key in self._keys.items()}

    def _press(self, key: str, now: float, before_s: float) -> None:
        self._release_opposites(key)
        for name, other in list(self._keys.items()):
            if other.certain or other.carried:
                continue
            silent_s = now - other.hit_s
            if other.repeats and silent_s > max(CARRY_S, 2.0 * self._typical_s):
                del self._keys[name]
                continue
            other.carried = True
            other.share = 1.0 if other.repeats else 0.0 if silent_s <= CHORD_S else TAP_SHARE
        self._keys[key] = _Key(now, now, before_s)

    def _release_opposites(self, key: str) -> None:
        for opposite in self.opposites.get(key, ()):
            self._keys.pop(opposite, None)

    def _learn(self, key: _Key, gap: float) -> None:
        if key.repeats == 0:  # the first repeat after the pause, unless the pause was longer than was thought
            paused = key.hit_s > key.first_s
            pause = key.hit_s - key.first_s if paused else key.first_s - key.before_s
            if PAUSE_S[0] < pause < PAUSE_S[2]:
                self.pause_s = min(max(MARGIN * pause, PAUSE_S[0]), PAUSE_S[2])
        self._gaps.append(max(gap, REPEAT_S[0]))

    def _expire(self, now: float) -> None:
        for name, key in list(self._keys.items()):
            if key.certain or key.carried:
                continue
            patience = self.release_s if key.repeats else self.pause_s
            if now - key.hit_s > patience:
                del self._keys[name]
        if not any(not key.carried for key in self._keys.values()):
            self._keys.clear()  # whoever carried the others is up

    def _share(self, key: _Key, now: float) -> float:
        if key.carried:
            # One that was not known to be held goes with the one that came after it.
            return key.share or max(
                (self._share(other, now) for other in self._keys.values() if not other.carried), default=0.0
            )
        if key.certain or key.repeats or now - key.hit_s <= TAP_S:
            return 1.0
        return TAP_SHARE


ASK_PERIOD_S = 0.1
SILENCE_S = 0.3
"""While keys are down, a terminal that has answered before must answer at least this often [s]."""

QUIET_S = 5.0
"""Keys that are down and silent for so long are let go [s]: the one that was pressed last repeats."""

STALL_S = 0.05
"""Longer pauses between two polls are those of this program, not of the human: what was typed meanwhile waits."""


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
