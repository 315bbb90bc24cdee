# SPDX-License-Identifier: Apache-2.0
"""How a policy node is doing: how quick its answers are, and how often its actions are at their limit."""

from collections import deque

import numpy as np
import numpy.typing as npt

WINDOW = 100
LIMIT = 0.99
"""From this size on a component of an action counts as being at its limit."""


class ActingStats:
    """Numbers of the last answers.

    Attributes:
        actions: answers since the start.
        holds: steps left unanswered since the start.
        input_age_s: age of the oldest input of the last answer [s].
    """

    def __init__(self) -> None:
        self.actions = self.holds = 0
        self.input_age_s = float('nan')
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._limited: deque[float] = deque(maxlen=WINDOW)

    def acted(self, latency_s: float, action: npt.NDArray[np.floating], input_age_s: float) -> None:
        """Take note of an answer.

        Args:
            latency_s: from the step's arrival to the action's departure [s].
            action: in network units (4,).
            input_age_s: age of its oldest input [s].
        """
        self.actions += 1
        self.input_age_s = input_age_s
        self._latencies.append(latency_s)
        self._limited.append(float(np.mean(np.abs(action) >= LIMIT)))

    def latency_s(self, percent: float) -> float:
        """Return a percentile of the last latencies [s]; NaN before the first."""
        return float(np.percentile(list(self._latencies), percent)) if self._latencies else float('nan')

    @property
    def saturation(self) -> float:
        """Share of action components at their limit over the last answers, 0..1; 0 before the first."""
        return float(np.mean(self._limited)) if self._limited else 0.0
