# SPDX-License-Identifier: Apache-2.0
"""The episodes of this run in numbers, and short advice to the human beside the arm from the last of them."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
import statistics
from typing import Any

from so101_contract.config import LONG_INTERVENTION_STEPS

WINDOW = 20
"""Episodes looked at."""
ENOUGH = 5
"""Fewer episodes than this say nothing."""
SPARSE = 0.15
"""Interventions in fewer episodes than this share are sparse."""
REWARDED = 1 / 3
"""Share of episodes that should earn a reward, by the policy or by a human."""


@dataclass(frozen=True)
class EpisodeNumbers:
    """What an episode was like.

    Attributes:
        steps: actions.
        intervened: of them, decided by a human.
        interventions: runs of such actions.
        success: whether it was rewarded.
    """

    steps: int
    intervened: int
    interventions: int
    success: bool


@dataclass(frozen=True)
class LearnerNumbers:
    """What the learner says of itself; NaN where it does not know."""

    q_mean: float = math.nan
    q_bound: float = math.nan
    demos: int = 0
    state: str = ''


def advice(episodes: Sequence[EpisodeNumbers], learner: LearnerNumbers | None = None) -> list[str]:
    """Return what a human should do differently, the most important first; at most three sentences."""
    said: list[str] = []
    if learner is not None and learner.q_mean > learner.q_bound:
        said.append(
            f'The learner believes in more than can be earned (Q {learner.q_mean:.2f}, bound {learner.q_bound:.2f}): '
            f'pause, check the success labels, and go back to the best checkpoint if it does not come down.'
        )
    if learner is not None and learner.state == 'waiting' and learner.demos == 0 and len(episodes) < ENOUGH:
        said.append('Nothing is known yet: show the task a few times from start to success.')
    recent = list(episodes)[-WINDOW:]
    if len(recent) >= ENOUGH:
        said += _habits(recent)
    return said[:3]


def summary(episodes: Sequence[EpisodeNumbers]) -> str:
    """Return the numbers that the advice is about, and what they should be."""
    recent = list(episodes)[-WINDOW:]
    if len(recent) < ENOUGH:
        return f'{len(recent)} of the {ENOUGH} episodes that it takes to judge.'
    rewarded = sum(episode.success for episode in recent) / len(recent)
    runs = sum(episode.interventions for episode in recent)
    length = sum(episode.intervened for episode in recent) / runs if runs else 0.0
    helped = sum(episode.interventions > 0 for episode in recent) / len(recent)
    return (
        f'Last {len(recent)} episodes: {rewarded:.0%} rewarded (at least a third), {helped:.0%} with help, '
        f'{length:.0f} steps a correction (under {LONG_INTERVENTION_STEPS}).'
    )


def _habits(recent: Sequence[EpisodeNumbers]) -> list[str]:
    said = []
    rewarded = sum(episode.success for episode in recent) / len(recent)
    touched = sum(episode.interventions > 0 for episode in recent) / len(recent)
    runs = sum(episode.interventions for episode in recent)
    length = sum(episode.intervened for episode in recent) / runs if runs else 0.0
    if rewarded < REWARDED:
        said.append(
            f'Only {rewarded:.0%} of the last {len(recent)} episodes were rewarded: help more, until at least a third '
            f'end in success.'
        )
    if length > LONG_INTERVENTION_STEPS:
        rare = (
            ', and they are rare: long, rare ones make the learner believe in too much'
            if touched < SPARSE
            else ''
        )
        said.append(
            f'Your corrections are {length:.0f} steps long{rare}. Nudge it back on its way and let go: under '
            f'{LONG_INTERVENTION_STEPS} steps.'
        )
    alone = [e.steps for e in recent if not e.success and not e.interventions]
    if rewarded < REWARDED and touched < SPARSE and alone:
        said.append('Let it try for 20 to 30 steps, then step in when it is stuck or moving away.')
    if touched == 0.0 and rewarded > 0.9:
        said.append('It needs no help any more: evaluate it, or make the task harder.')
    return said


KEPT = 200
LATENCIES = 2000
"""Of one episode that are kept."""
NO_COUNTERS: Mapping[str, int] = {}


class Episodes:
    """Counts while an episode runs; lists it when it has ended."""

    def __init__(self) -> None:
        self._closed: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._open: dict[int, dict[str, Any]] = {}

    def begin(self, episode: int, counters: Mapping[str, int] = NO_COUNTERS) -> None:
        """Note that an episode begins, and how the arm's counters stand."""
        self._entry(episode)['before'] = dict(counters)

    def action(self, episode: int, *, human: bool, latency_ms: float | None = None) -> None:
        """Count one executed action and how long after its step it came [ms]."""
        entry = self._entry(episode)
        entry['steps'] += 1
        entry['intervened'] += human
        entry['interventions'] += human and not entry['human']
        entry['human'] = human
        if latency_ms is not None and len(entry['latencies']) < LATENCIES:
            entry['latencies'].append(latency_ms)

    def dropped(self, episode: int) -> None:
        """Count a step that nobody answered."""
        entry = self._entry(episode)
        entry['dropped'] += 1
        entry['human'] = False

    def end(
        self, episode: int, outcome: str, reason: str = '', counters: Mapping[str, int] = NO_COUNTERS
    ) -> None:
        """Note how an episode ended; a later label of a closed one replaces the first."""
        for entry in self._closed:
            if entry['episode'] == episode:
                entry.update(outcome=outcome, reason=reason)
                return
        entry = self._entry(episode)
        del self._open[episode]
        latencies = entry.pop('latencies')
        before = entry.pop('before', None)
        entry.update(outcome=outcome, reason=reason)
        entry['latency_ms'] = round(statistics.median(latencies), 1) if latencies else None
        if before is not None:
            entry.update({name: counters[name] - before.get(name, 0) for name in counters})
        self._closed.append(entry)

    def numbers(self) -> list[EpisodeNumbers]:
        """Return what the coach reads; episodes that were thrown away do not count."""
        return [
            EpisodeNumbers(e['steps'], e['intervened'], e['interventions'], e['outcome'] == 'success')
            for e in list(self._closed)
            if e['outcome'] != 'discard'
        ]

    def rows(self, most: int) -> list[dict[str, Any]]:
        """Return what the page lists, the newest first."""
        newest = list(self._closed)[-most:][::-1]
        return [{key: value for key, value in e.items() if key != 'human'} for e in newest]

    def _entry(self, episode: int) -> dict[str, Any]:
        empty = {
            'episode': episode,
            'steps': 0,
            'intervened': 0,
            'interventions': 0,
            'dropped': 0,
            'human': False,
            'latencies': [],
        }
        return self._open.setdefault(episode, empty)
