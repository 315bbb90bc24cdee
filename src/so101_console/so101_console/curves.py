# SPDX-License-Identifier: Apache-2.0
"""The learning curves that a page draws, thinned so that hours fit."""

from collections.abc import Mapping
import math
import time
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


def learner_line(learner: Any) -> str:
    """Return what a LearnerStatus says."""
    rate = learner.updates_per_second
    text = (
        f'{learner.state.capitalize()}: version {learner.version}, {learner.updates} updates at '
        f'{f"{rate:.1f}" if math.isfinite(rate) else "-"}/s, {learner.env_steps} steps in {learner.episodes} episodes'
    )
    return f'{text}. {learner.reason}' if learner.reason else text


def base_line(policy: Any | None) -> str:
    """Return who acts on top of a base policy, and what that lacks; empty where there is none."""
    if policy is None or not policy.base:
        return ''
    if policy.base_trouble:
        return f'Its base is silent: {policy.base_trouble[:200]}.'
    share = 0.0 if math.isnan(policy.actor_share) else policy.actor_share
    return f'On top of {policy.base[:80]}: the actor acts in {share:.0%} of the steps.'


CLASSIFIER_STALE_S = 10.0
CLASSIFIER_STATES = ('collects labels', 'learns', 'judges', 'cannot tell in this light', 'does not work')


class ClassifierWatch:
    """Remembers what the classifier says of itself, while it says it."""

    def __init__(self) -> None:
        self._status: Any = None
        self._heard_s = -math.inf

    def hear(self, message: Any) -> None:
        """Take a ClassifierStatus."""
        self._status, self._heard_s = message, time.monotonic()

    def said(self, now: float) -> dict[str, Any] | None:
        """Return a sentence, whether it is bad, and how many pictures are asked about; None without a classifier.

        `labels` changes with each answer, so that a page asks for the next picture.
        """
        status = self._status
        if status is None or now - self._heard_s > CLASSIFIER_STALE_S:
            return None
        state = CLASSIFIER_STATES[min(status.state, len(CLASSIFIER_STATES) - 1)]
        text = (
            f'The classifier {state}: {status.success_pictures} pictures of success, {status.other_pictures} others, '
            f'of {status.episodes} episodes'
        )
        if status.held_out_episodes and math.isfinite(status.frame_accuracy):
            text += (
                f'; right on {status.frame_accuracy:.1%} of the pictures and {status.episode_accuracy:.0%} of the '
                f'episodes that it had not seen'
            )
        return {
            'said': f'{text}. {status.reason}' if status.reason else f'{text}.',
            'bad': status.state >= type(status).DRIFTED,
            'doubts': int(status.doubts),
            'labels': int(status.success_pictures + status.other_pictures),
        }
