# SPDX-License-Identifier: Apache-2.0
"""The learning curves that a page draws, thinned so that hours fit."""

from collections.abc import Mapping
import math
from typing import Any

HISTORY = 1200
"""Most rows kept."""


def finite(value: float) -> float | None:
    """Return a number as JSON has it: NaN and infinity are unknown."""
    return round(float(value), 4) if math.isfinite(value) else None


# What each chart shows: columns of the rows, the unit, what a number is multiplied with, and the top of its axis.
CHARTS: tuple[Mapping[str, Any], ...] = (
    {'title': 'Success', 'names': ('success_rate',), 'unit': ' %', 'scale': 100, 'top': 1},
    {'title': 'By hand', 'names': ('intervention_rate',), 'unit': ' %', 'scale': 100, 'top': 1},
    {'title': 'Q of its bound', 'names': ('q_mean', 'q_bound'), 'unit': ''},
    {'title': 'Updates per step', 'names': ('utd',), 'unit': ''},
    {'title': 'Online steps', 'names': ('online_size',), 'unit': ''},
    {'title': 'Demo steps', 'names': ('demo_size',), 'unit': ''},
)
NAMES = tuple(name for chart in CHARTS for name in chart['names'])


class Curves:
    """One row a message; when there are too many, every second one is dropped and a new generation begins."""

    def __init__(self) -> None:
        self._rows: list[list[float | None]] = []
        self._every = 1
        self._count = 0
        self._generation = 0

    def add(self, values: Mapping[str, float]) -> None:
        """Add a row of `NAMES`."""
        self._count += 1
        if self._count % self._every:
            return
        self._rows.append([finite(values[name]) for name in NAMES])
        if len(self._rows) > HISTORY:
            self._rows = self._rows[::2]
            self._every *= 2
            self._generation += 1

    def since(self, told: int) -> dict[str, Any]:
        """Return the rows that a page has not heard of; all of them where they were thinned since.

        Args:
            told: what the answer before said in `until`; 0 at first.
        """
        generation, start = divmod(told, HISTORY * 2)
        rows = list(self._rows)
        if generation != self._generation:
            start = 0
        until = self._generation * HISTORY * 2 + len(rows)
        return {'charts': _charts(), 'rows': rows[start:], 'from': start, 'until': until}


def _charts() -> list[dict[str, Any]]:
    return [
        {
            **{k: v for k, v in chart.items() if k != 'names'},
            'columns': [NAMES.index(n) for n in chart['names']],
        }
        for chart in CHARTS
    ]
