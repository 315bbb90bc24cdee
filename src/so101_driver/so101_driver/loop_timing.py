# SPDX-License-Identifier: Apache-2.0
"""How regular a loop is."""

from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW_S = 10.0
# A cycle that begins this share of a period late has missed its time.
LATE_SHARE = 0.5


@dataclass(frozen=True)
class Regularity:
    """Period of a loop over the last seconds [s], and what it missed since its start."""

    period_p50: float
    period_p99: float
    cycles: int
    missed: int


class LoopTiming:
    """Counts the cycles of a loop.

    Args:
        period_s: Nominal period [s].
    """

    def __init__(self, period_s: float) -> None:
        self._nominal = period_s
        self._periods: deque[float] = deque(maxlen=max(2, round(WINDOW_S / period_s)))
        self._last: float | None = None
        self._cycles = 0
        self._missed = 0

    def tick(self, now: float) -> None:
        """Note that a cycle begins at `now` [s, monotonic]."""
        self._cycles += 1
        if self._last is not None:
            period = now - self._last
            self._periods.append(period)
            self._missed += max(0, round(period / self._nominal - 1.0 + 0.5 - LATE_SHARE))
        self._last = now

    def regularity(self) -> Regularity:
        """Return the present figures; NaN before the second cycle."""
        p50, p99 = np.percentile(self._periods or [float('nan')], [50, 99])
        return Regularity(float(p50), float(p99), self._cycles, self._missed)
