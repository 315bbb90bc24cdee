# SPDX-License-Identifier: Apache-2.0
"""The episodes of this run, from executed actions and events."""

from collections import deque
from collections.abc import Mapping
import statistics
from typing import Any

from so101_console.coach import EpisodeNumbers

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

    def action(self, episode: int, *, person: bool, latency_ms: float | None = None) -> None:
        """Count one executed action and how long after its step it came [ms]."""
        entry = self._entry(episode)
        entry['steps'] += 1
        entry['intervened'] += person
        entry['interventions'] += person and not entry['person']
        entry['person'] = person
        if latency_ms is not None and len(entry['latencies']) < LATENCIES:
            entry['latencies'].append(latency_ms)

    def dropped(self, episode: int) -> None:
        """Count a step that nobody answered."""
        entry = self._entry(episode)
        entry['dropped'] += 1
        entry['person'] = False

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
        return [{key: value for key, value in e.items() if key != 'person'} for e in newest]

    def _entry(self, episode: int) -> dict[str, Any]:
        empty = {
            'episode': episode,
            'steps': 0,
            'intervened': 0,
            'interventions': 0,
            'dropped': 0,
            'person': False,
            'latencies': [],
        }
        return self._open.setdefault(episode, empty)
