# SPDX-License-Identifier: Apache-2.0
"""Which keys are down. Where the terminal says so, that; otherwise what its repeats allow to conclude.

A plain terminal sends a held key once, pauses for half a second, and then repeats it some thirty times a second. When
a second key goes down, the first one falls silent although it is still down, for good. So:

* a key that came once is down until the pause is over; nobody knows yet whether it is held or was tapped, so it
  counts as `TAP_SHARE` after the time of a tap;
* a key that repeats is down until its repeats stay away for longer than they use to;
* a key that was down when another one came is carried: it stays down as long as others come, until it comes again
  itself, its opposite comes, or all fall silent. One that came a while before the other may have been tapped, so it
  is carried with `TAP_SHARE`.

The length of the pause and of the repeats is learned from what comes.
"""

from collections import deque
from dataclasses import dataclass, field
import math

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
