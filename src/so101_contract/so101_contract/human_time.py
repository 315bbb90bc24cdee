# SPDX-License-Identifier: Apache-2.0
"""What a session costs a human: for how long one was needed, and for what; and what that cost until nobody helped.

It is counted from the events of a session alone, by their stamps. So the session that publishes them, whoever reads
them in a bag, and a training without ROS, which makes them up by its own clock, count the same.

| kind | from .. to |
|---|---|
| demonstrations | a human drives from the first step of an episode on, until it ends or the human gives back |
| takeovers | a human takes over later in the episode, until it ends or the human gives back |
| labels | `LABEL_S` for each label that a human gives: to look, decide and press |
| resets | the scene waits for a human to arrange it, until an episode is asked for |
| waiting | the arm has all it needs and waits for Start, or in a pause, for somebody to press it again |

The human works in the first four; the arm waits in the last one. `minutes until unaided` is the work up to the end of
the first `WINDOW` episodes in a row of which a share of `UNAIDED` succeeded without a hand on the arm, late labels
counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
import math

from so101_contract.messages import EpisodeEventRecord
from so101_contract.session import EventKind, HumanSeconds, minutes, Outcome

LABEL_S = 2.0
"""What a label costs [s]."""

WINDOW, UNAIDED = 20, 0.9
"""Episodes in a row, and the share of them that must succeed unaided."""

COUNTED = frozenset({Outcome.SUCCESS, Outcome.FAILURE, Outcome.TIME_LIMIT})
"""Outcomes of the episodes that count: what was thrown away, or cut short by a fault, says nothing of the policy."""

MOST_EPISODES = 100_000
"""Events come from files and over the network: of a session that claims to be longer, the newest episodes are kept."""


class Need(StrEnum):
    """What a human is needed for."""

    DEMONSTRATIONS = 'demonstrations'
    TAKEOVERS = 'takeovers'
    LABELS = 'labels'
    RESETS = 'resets'
    WAITING = 'waiting'


def unaided_after(seconds: float) -> str:
    """Return how long a human worked until the policy needed none, for people; empty where it still does.

    Args:
        seconds: `HumanTime.until_unaided_s`.
    """
    if math.isnan(seconds):
        return ''
    return f'{UNAIDED:.0%} of {WINDOW} episodes unaided after {minutes(seconds)} min of a human'


@dataclass
class _Episode:
    """An episode, as far as it matters here."""

    number: int
    aided: bool = False
    outcome: Outcome | None = None
    worked_s: float = 0.0


class HumanTime:
    """Counts while events come in, in the order in which they were said; one instance for one session, or one bag.

    Attributes:
        by_arm: resets in which the arm has put the object back by itself.
        by_human: times that a human was asked to arrange the scene.
    """

    def __init__(self) -> None:
        self.by_arm = self.by_human = 0
        self._spent_ns = dict.fromkeys(Need, 0)
        self._now: Need | None = None
        self._before_pause: Need | None = None
        self._since_ns = self._last_ns = 0
        self._episodes: list[_Episode] = []
        self._running: _Episode | None = None
        self._until_s: float | None = None
        self._on: dict[EventKind, Callable[[EpisodeEventRecord], None]] = {
            EventKind.START: self._start,
            EventKind.INTERVENTION_START: self._take_over,
            EventKind.INTERVENTION_END: lambda event: self._turn_to(None, event.stamp_ns),
            EventKind.PAUSE: self._pause,
            EventKind.RESUME: lambda event: self._turn_to(self._before_pause, event.stamp_ns),
            EventKind.NEED_RESET: self._need_reset,
            EventKind.NEED_START: lambda event: self._turn_to(Need.WAITING, event.stamp_ns),
            EventKind.NEED_OVER: lambda event: self._turn_to(None, event.stamp_ns),
            EventKind.PUT_BACK: self._put_back,
        }

    def event(self, event: EpisodeEventRecord) -> None:
        """Take an event."""
        self._last_ns = max(self._last_ns, event.stamp_ns)
        if event.kind.outcome is not None:
            self._end(event, event.kind.outcome)
        elif (act := self._on.get(event.kind)) is not None:
            act(event)

    def spent(self, now_ns: int | None = None) -> HumanSeconds:
        """Return the times so far.

        Args:
            now_ns: the time of the graph [ns], until which what goes on is counted; that of the last event by default.
        """
        spent = dict(self._spent_ns)
        if self._now is not None:
            spent[self._now] += max(0, (self._last_ns if now_ns is None else now_ns) - self._since_ns)
        return HumanSeconds(**{need.value: nanoseconds / 1e9 for need, nanoseconds in spent.items()})

    @property
    def until_unaided_s(self) -> float:
        """Work of a human until the policy needed none [s]; NaN while it does."""
        if self._until_s is None:
            self._until_s = self._find_unaided()
        return self._until_s

    @property
    def sentence(self) -> str:
        """What it cost so far, for people."""
        resets = f'{self.by_arm} resets by the arm, {self.by_human} asked of a human'
        return '; '.join(filter(None, [str(self.spent()), resets, unaided_after(self.until_unaided_s)]))

    def report(self) -> dict[str, float | int | None]:
        """Return the numbers by name, for programs [min]; None where the policy still needs a human."""
        spent, until_s = self.spent(), self.until_unaided_s
        kinds: dict[str, float | int | None] = {
            f'{need.value}_min': round(getattr(spent, need.value) / 60.0, 3) for need in Need
        }
        until = None if math.isnan(until_s) else round(until_s / 60.0, 3)
        return {
            'human_min': round(spent.worked / 60.0, 3),
            **kinds,
            'until_unaided_min': until,
            'resets_by_arm': self.by_arm,
            'resets_by_human': self.by_human,
        }

    def _start(self, event: EpisodeEventRecord) -> None:
        self._turn_to(None, event.stamp_ns)
        self._running = _Episode(event.episode)
        self._episodes.append(self._running)
        del self._episodes[:-MOST_EPISODES]

    def _take_over(self, event: EpisodeEventRecord) -> None:
        if self._running is not None:
            self._running.aided = True
        first = event.index == 0
        self._turn_to(Need.DEMONSTRATIONS if first else Need.TAKEOVERS, event.stamp_ns)

    def _pause(self, event: EpisodeEventRecord) -> None:
        before = self._now
        self._turn_to(Need.WAITING, event.stamp_ns)
        self._before_pause = before

    def _need_reset(self, event: EpisodeEventRecord) -> None:
        self.by_human += 1
        self._turn_to(Need.RESETS, event.stamp_ns)

    def _put_back(self, event: EpisodeEventRecord) -> None:
        del event
        self.by_arm += 1

    def _end(self, event: EpisodeEventRecord, outcome: Outcome) -> None:
        if event.by_human:
            self._spent_ns[Need.LABELS] += round(LABEL_S * 1e9)
        running = self._running
        if running is not None and running.number == event.episode:
            self._turn_to(None, event.stamp_ns)
            running.outcome, running.worked_s = outcome, self.spent(event.stamp_ns).worked
            self._running = None
        else:  # a late label: of the newest episode of that number
            late = (one for one in reversed(self._episodes) if one.number == event.episode and one.outcome)
            episode = next(late, None)
            if episode is None:
                return
            episode.outcome = outcome
        self._until_s = None

    def _turn_to(self, need: Need | None, now_ns: int) -> None:
        """Count what has gone on up to now, and note what goes on from now on."""
        if self._now is not None:
            self._spent_ns[self._now] += max(0, now_ns - self._since_ns)
        self._now, self._since_ns, self._before_pause = need, now_ns, None

    def _find_unaided(self) -> float:
        counted = [one for one in self._episodes if one.outcome in COUNTED]
        good = [one.outcome is Outcome.SUCCESS and not one.aided for one in counted]
        enough = math.ceil(UNAIDED * WINDOW)
        for last in range(WINDOW - 1, len(counted)):
            if sum(good[last - WINDOW + 1 : last + 1]) >= enough:
                return counted[last].worked_s
        return math.nan


class MadeUpSession:
    """Counts where no session says anything: episodes of a simulation in this process, by its own time."""

    def __init__(self, period_s: float) -> None:
        """Prepare for steps of this length [s]."""
        self.time = HumanTime()
        self._period_ns = round(period_s * 1e9)
        self._now_ns = 0
        self._number = 0
        self._index = 0
        self._by_human = False

    def step(self, *, by_human: bool) -> None:
        """Take a step of an episode, and who acted in it."""
        if self._index == 0:
            self._number += 1
            self._say(EventKind.START)
        if by_human != self._by_human:
            self._say(EventKind.INTERVENTION_START if by_human else EventKind.INTERVENTION_END)
            self._by_human = by_human
        self._index += 1
        self._now_ns += self._period_ns

    def end(self, outcome: Outcome, *, labelled: bool = False) -> None:
        """End the episode; `labelled`: because a human has said so."""
        if self._by_human:
            self._say(EventKind.INTERVENTION_END)
        self._say(EventKind(outcome.value), by_human=labelled)
        self._index, self._by_human = 0, False

    def _say(self, kind: EventKind, *, by_human: bool = False) -> None:
        self.time.event(EpisodeEventRecord(self._number, kind, self._now_ns, self._index, by_human=by_human))
