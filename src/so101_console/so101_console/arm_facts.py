# SPDX-License-Identifier: Apache-2.0
"""What `arm/status` means for the page: rows, a line about the bus, and shares over the last seconds."""

from collections import deque
from collections.abc import Mapping
import math
from typing import Any

import numpy as np
from so101_interfaces.msg import ArmStatus

from so101_console.curves import finite
from so101_console.health import ArmFacts

ARM_STATES: Mapping[int, str] = {
    ArmStatus.DISABLED: 'off',
    ArmStatus.ENABLED: 'ready',
    ArmStatus.HOLD: 'ready',
    ArmStatus.E_STOP: 'stopped',
    ArmStatus.FAULT: 'fault',
}
WINDOW_S = 10.0


def counters(arm: ArmStatus) -> dict[str, int]:
    """Return the counters whose growth during an episode says what it was like."""
    return {'clamped': int(arm.clamped), 'lost': int(arm.lost + arm.corrupt + arm.late)}


class ArmWatch:
    """Shares of the last seconds, from counters that only grow."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, int, int, int, int]] = deque()

    def hear(self, now: float, arm: ArmStatus) -> None:
        """Take another status."""
        bad = int(arm.lost + arm.corrupt + arm.late)
        self._past.append((now, int(arm.requests), bad, int(arm.cycles), int(arm.missed_cycles)))
        while now - self._past[0][0] > WINDOW_S:
            self._past.popleft()

    @property
    def lost(self) -> float:
        """Share of bus requests without a good answer."""
        return self._share(1, 2)

    @property
    def missed(self) -> float:
        """Share of control cycles that were late."""
        return self._share(3, 4)

    def facts(self, arm: ArmStatus) -> ArmFacts:
        """Return what the doctor looks at."""
        heat = np.array(arm.temperature, dtype=float)
        hottest = ('', math.nan)
        if heat.size and np.isfinite(heat).any():
            warmest = int(np.nanargmax(heat))
            hottest = arm.name[warmest], float(heat[warmest])
        return ArmFacts(
            state=ARM_STATES[arm.state],
            reason=arm.reason,
            hottest=hottest,
            lost=self.lost,
            missed=self.missed,
        )

    def _share(self, whole: int, part: int) -> float:
        if len(self._past) < 2:
            return 0.0
        first, last = self._past[0], self._past[-1]
        total = last[whole] - first[whole]
        return min((last[part] - first[part]) / total, 1.0) if total > 0 else 0.0


def servo_rows(arm: ArmStatus, angles: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for each servo; what is not known is None."""
    return [
        {
            'name': name,
            'angle': angles.get(name),
            'temperature': finite(arm.temperature[i]),
            'voltage': finite(arm.voltage[i]),
            'load': finite(arm.load[i]),
            'state': f'error {arm.error[i]}' if arm.error[i] else 'on' if arm.torque[i] else 'off',
            'healthy': not arm.error[i],
        }
        for i, name in enumerate(arm.name)
    ]


def bus_line(arm: ArmStatus, watch: ArmWatch) -> str:
    """Return a sentence about the bus and the driver's loop."""
    return (
        f'Bus: {watch.lost:.1%} of the last seconds lost or damaged, {arm.reconnects} reconnects · '
        f'loop {1e3 * arm.period_p50:.1f} ms, 99 % under {1e3 * arm.period_p99:.1f} ms · '
        f'{arm.clamped} commands cut, {arm.refused} refused'
    )
