# SPDX-License-Identifier: Apache-2.0
"""What the goals that arrived at the servos say: when they began and froze, and how fast they moved."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from so101_driver.calibration.calibration import RAD_PER_TICK
from so101_driver.gate.config import GateConfig

Vector = npt.NDArray[np.float64]
SERVO_IDS = range(1, 7)


class Goals:
    """The goal positions that arrived at the servos.

    Args:
        events: Writes of Goal_Position, in the order of time.
    """

    def __init__(self, events: Sequence[dict[str, Any]]) -> None:
        self.count = len(events)
        self._times = {i: np.array([e['time_s'] for e in events if e['servo_id'] == i]) for i in SERVO_IDS}
        self._ticks = {i: np.array([e['value'] for e in events if e['servo_id'] == i]) for i in SERVO_IDS}

    @property
    def last_s(self) -> float:
        """When the last one came [s, monotonic]; NaN for none."""
        return max((times[-1] for times in self._times.values() if times.size), default=float('nan'))

    @property
    def first_s(self) -> float:
        """When the first one came [s, monotonic]; NaN for none."""
        return min((times[0] for times in self._times.values() if times.size), default=float('nan'))

    @property
    def frozen_s(self) -> float:
        """When the last one came that differs from the one before [s, monotonic]; NaN for none."""
        changes = [
            times[1:][np.diff(self._ticks[i]) != 0][-1:] for i, times in self._times.items() if times.size > 1
        ]
        return max((float(change[0]) for change in changes if change.size), default=float('nan'))

    @property
    def first(self) -> npt.NDArray[np.int64]:
        """The first goal of each servo (6,) [ticks]; -1 where none came."""
        return np.array([ticks[0] if ticks.size else -1 for ticks in self._ticks.values()])

    @property
    def extremes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The lowest and the highest goal of each servo (6,) [ticks]."""
        return (
            np.array([ticks.min() for ticks in self._ticks.values()]),
            np.array([ticks.max() for ticks in self._ticks.values()]),
        )

    def over_ramp(self, config: GateConfig) -> str:
        """Say how the goals break the speed limit, or nothing where they keep to it.

        One step may account for `max_tick_s`; a mean over 0.2 s, with writes that come some ms early or late,
        may be a tenth more than the limit.
        """
        limits = np.array(config.max_speed_rad_s)
        steps = np.array([np.max(np.abs(np.diff(ticks)), initial=0) for ticks in self._ticks.values()])
        longest = float(np.max((steps - 1) * RAD_PER_TICK / (limits * config.max_tick_s)))
        if longest > 1.0:
            return f'a goal jumped by {longest:.1f} times what one step may be'
        speed = self.speed_share(config)
        return f'goals moved at {speed:.2f} of the speed limit' if speed > 1.1 else ''

    def speed_share(self, config: GateConfig) -> float:
        """Fastest mean over 0.2 s of any goal, over its speed limit."""
        speeds = [fastest(self._times[i], self._ticks[i] * RAD_PER_TICK, 0.2) for i in SERVO_IDS]
        return float(np.max(np.array(speeds) / config.max_speed_rad_s))


def fastest(times: Vector, angles: Vector, window_s: float) -> float:
    """Largest mean speed over any stretch of `window_s` or a little more [rad/s]."""
    ends = np.searchsorted(times, times + window_s)
    inside = np.flatnonzero(ends < times.size)
    if not inside.size:
        return 0.0
    elapsed = times[ends[inside]] - times[inside]
    return float(np.max(np.abs(angles[ends[inside]] - angles[inside]) / elapsed))
