# SPDX-License-Identifier: Apache-2.0
"""The curves that a page draws over the episodes of this run, thinned so that days fit, and sentences of learning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import math
import time
from typing import Any

from so101_console.coach import CoachConfig, EpisodeNumbers, healthy, USUAL
from so101_contract.interval import wilson

HISTORY = 1200
"""Most rows kept."""
MOST_RESULTS = 20_000
"""Episodes whose numbers are kept, so that a late label corrects every row that it has a part in."""


def finite(value: float) -> float | None:
    """Return a number as JSON has it: NaN and infinity are unknown."""
    return round(float(value), 4) if math.isfinite(value) else None


# What each chart shows: columns of the rows, what they are called where there are several, an interval, the unit, what
# a number is multiplied with, and the top of its axis. Where the numbers are healthy says the coach.
CHARTS: tuple[Mapping[str, Any], ...] = (
    {
        'title': 'Success',
        'names': ('success', 'unaided'),
        'said': ('of the last 20', 'without help'),
        'interval': ('success_low', 'success_high'),
        'unit': ' %',
        'scale': 100,
        'top': 1,
    },
    {'title': 'By hand', 'names': ('by_hand',), 'unit': ' %', 'scale': 100, 'top': 1},
    {'title': 'Correction', 'names': ('correction',), 'unit': ' steps'},
    {'title': 'Human work', 'names': ('human_minutes',), 'unit': ' min'},
    {'title': 'Q of its bound', 'names': ('q_mean', 'q_bound'), 'said': ('mean', 'bound'), 'unit': ''},
    {'title': 'Updates per step', 'names': ('utd',), 'unit': ''},
    {
        'title': 'Steps to learn from',
        'names': ('online_size', 'demo_size'),
        'said': ('all', 'shown by a human'),
        'unit': '',
    },
)
LOOKED_BACK = 400
"""Episodes among which those of the coach's window are looked for: some of them were thrown away."""
EPISODE = 'episode'
OF_EPISODES = ('success', 'success_low', 'success_high', 'unaided', 'by_hand', 'correction', 'human_minutes')
OF_LEARNER = ('q_mean', 'q_bound', 'utd', 'online_size', 'demo_size')
NAMES = (EPISODE, *OF_EPISODES, *OF_LEARNER)
NOTHING: Sequence[float | None] = (None,) * len(OF_EPISODES)
UNHEARD: Sequence[float | None] = (None,) * len(OF_LEARNER)


@dataclass
class _Row:
    """What is known after an episode.

    Attributes:
        episode: where it stands on the axis.
        upto: how many results it counts.
        minutes: work of a human so far.
        rates: in the order of `OF_EPISODES`.
        learner: in the order of `OF_LEARNER`.
        revision: when it changed last.
    """

    episode: int
    upto: int = 0
    minutes: float = math.nan
    rates: Sequence[float | None] = NOTHING
    learner: Sequence[float | None] = UNHEARD
    revision: int = 0


@dataclass
class Curves:
    """One row an episode; when there are too many, every second one is dropped.

    Attributes:
        coach: whose thresholds are drawn.
    """

    coach: CoachConfig = USUAL
    _rows: list[_Row] = field(default_factory=list)
    _results: dict[tuple[int, int], EpisodeNumbers | None] = field(default_factory=dict)
    _every: int = 1
    _revision: int = 0
    _anew: int = 0
    _life: int = 0
    _offset: int = 0
    _last: int = 0
    _dropped: int = 0

    def close(
        self, life: int, episode: int, numbers: EpisodeNumbers | None, minutes: float = math.nan
    ) -> None:
        """Take an episode that has ended, or that a late label gives another outcome.

        Args:
            life: of the session; its numbers begin again with each.
            episode: its number.
            numbers: what it was like; None where it was thrown away.
            minutes: work of a human until then.
        """
        key, known = (life, episode), (life, episode) in self._results
        self._results[key] = numbers
        if known:
            self._relabel(list(self._results).index(key))
            return
        if life != self._life:
            self._life, self._offset = life, self._last
        self._last = max(self._last + 1, self._offset + episode)
        self._forget()
        upto = self._dropped + len(self._results)
        learner = self._rows[-1].learner if self._rows else UNHEARD
        same = self._rows and self._rows[-1].episode // self._every == self._last // self._every
        if not same or not self._rows[-1].episode:
            self._rows.append(_Row(self._last))
        row = self._rows[-1]
        row.episode, row.upto, row.minutes, row.learner = self._last, upto, minutes, learner
        self._count(row, list(self._results.values()))
        if len(self._rows) > HISTORY:
            self._rows = self._rows[::-2][::-1]
            self._every *= 2
            self._anew = self._revision

    def hear(self, values: Mapping[str, float]) -> None:
        """Take what the learner says of itself, by name."""
        if not self._rows:
            self._rows.append(_Row(self._last))
        row = self._rows[-1]
        row.learner = [finite(values.get(name, math.nan)) for name in OF_LEARNER]
        self._touch(row)

    def since(self, told: int) -> dict[str, Any]:
        """Return the rows that have changed since; all of them where they were thinned.

        Args:
            told: what the answer before said in `until`; 0 at first.
        """
        until, rows = self._revision, list(self._rows)
        start = 0
        if told >= max(self._anew, 1):
            start = next((n for n, row in enumerate(rows) if row.revision > told), len(rows))
        return {
            'charts': charts(self.coach),
            'rows': [[row.episode, *row.rates, *row.learner] for row in rows[start:]] if until > told else [],
            'from': start,
            'until': until,
        }

    def _touch(self, row: _Row) -> None:
        self._revision += 1
        row.revision = self._revision

    def _count(self, row: _Row, results: Sequence[EpisodeNumbers | None]) -> None:
        """Work out the rates of a row again."""
        upto = row.upto - self._dropped
        seen = results[max(upto - LOOKED_BACK, 0) : max(upto, 0)]
        recent = [one for one in seen if one is not None][-self.coach.coach_window :]
        row.rates = [*(finite(value) for value in rates(recent)), finite(row.minutes)]
        self._touch(row)

    def _relabel(self, index: int) -> None:
        """Count again every row that an episode has a part in."""
        first, results = self._dropped + index + 1, list(self._results.values())
        for row in self._rows:
            if first <= row.upto < first + LOOKED_BACK:
                self._count(row, results)

    def _forget(self) -> None:
        while len(self._results) > MOST_RESULTS:
            del self._results[next(iter(self._results))]
            self._dropped += 1


def rates(recent: Sequence[EpisodeNumbers]) -> tuple[float, ...]:
    """Return those of `OF_EPISODES` that some episodes give: success and its interval, alone, by hand, a correction."""
    if not recent:
        return (math.nan,) * 6
    wins = sum(one.success for one in recent)
    alone = sum(one.success and not one.interventions for one in recent)
    runs = sum(one.interventions for one in recent)
    by_hand, steps = sum(one.intervened for one in recent), sum(one.steps for one in recent)
    return (
        wins / len(recent),
        *wilson(wins, len(recent)),
        alone / len(recent),
        by_hand / max(steps, 1),
        by_hand / runs if runs else 0.0,
    )


def charts(coach: CoachConfig = USUAL) -> list[dict[str, Any]]:
    """Return what a page draws, with the columns of the rows by number and the healthy range of each."""
    ranges = healthy(coach)
    told = []
    for chart in CHARTS:
        columns = {
            key: [NAMES.index(name) for name in chart[key]] for key in ('names', 'interval') if key in chart
        }
        words = {key: value for key, value in chart.items() if key not in columns}
        told.append({**words, **columns, 'healthy': ranges.get(chart['names'][0])})
    return told


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
