# SPDX-License-Identifier: Apache-2.0
"""Time as the safety gate sees it: never backwards, never more than a bounded step at once."""

import math
from typing import NamedTuple


class Tick(NamedTuple):
    """One step of time.

    Attributes:
        dt: time to account for [s], 0 .. `max_tick_s`.
        late: more time had passed than may be accounted for.
        jumped: the time was not finite or ran backwards; ages from before cannot be told any longer.
    """

    dt: float
    late: bool = False
    jumped: bool = False


class TickClock:
    """Turns the times of ticks into bounded steps, so that a stalled loop never makes a goal jump."""

    def __init__(self, max_tick_s: float) -> None:
        self._max_tick_s = max_tick_s
        self.last: float | None = None

    def advance(self, now: float) -> Tick:
        """Take the time of a tick [s] in and return the step."""
        if not math.isfinite(now):
            return Tick(0.0, jumped=True)
        before, self.last = self.last, now
        if before is None:
            return Tick(0.0)
        if now < before:
            return Tick(0.0, jumped=True)
        return Tick(min(now - before, self._max_tick_s), late=now - before > self._max_tick_s)

    def since(self, now: float) -> float:
        """Return the time since the last tick [s], infinite where it cannot be told."""
        if self.last is None or not math.isfinite(now):
            return math.inf
        return max(now - self.last, 0.0)
