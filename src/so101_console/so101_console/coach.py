# SPDX-License-Identifier: Apache-2.0
"""The episodes of this run in numbers, and short advice to the human beside the arm from the last of them."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
import math
import statistics
from typing import Any

from so101_contract.config import BY_HAND_SHARE, LONG_INTERVENTION_STEPS, Q_MARGIN, REWARDED_SHARE
from so101_contract.human_time import unaided_after
from so101_contract.session import HumanSeconds
from so101_interfaces_py.params import check_bounds, live_param, ParameterError


@dataclass(frozen=True, kw_only=True)
class CoachConfig:
    """When the coach says something; the page says it by the new values at once where they change."""

    coach_window: int = live_param(20, doc='Episodes that the coach looks at.', lo=1, hi=200)
    coach_enough: int = live_param(5, doc='Fewer episodes than this say nothing to the coach.', lo=1, hi=200)
    coach_rewarded: float = live_param(
        REWARDED_SHARE,
        doc='Share of episodes that should earn a reward, by the policy or by a human.',
        lo=0.0,
        hi=1.0,
    )
    coach_sparse: float = live_param(
        0.15, doc='Interventions in fewer episodes than this share are sparse.', lo=0.0, hi=1.0
    )
    coach_long_steps: int = live_param(
        LONG_INTERVENTION_STEPS,
        doc='Interventions that are longer on average are too long.',
        lo=1,
        hi=100_000,
    )

    coach_by_hand: float = live_param(
        BY_HAND_SHARE, doc='Share of the steps that a human should not exceed for long.', lo=0.0, hi=1.0
    )

    def __post_init__(self) -> None:
        """Check each value, and that the coach looks at enough of them to judge."""
        check_bounds(self)
        if self.coach_enough > self.coach_window:
            raise ParameterError(
                f'expected coach_enough up to coach_window, got {self.coach_enough} and {self.coach_window} episodes; '
                f'correct one'
            )


USUAL = CoachConfig()


def healthy(when: CoachConfig = USUAL) -> dict[str, list[float | str | None]]:
    """Return the range in which each number of the curves is well, by the thresholds that the advice goes by.

    An end is a number, None for the end of the axis, or the name of another number of the curves.
    """
    return {
        'success': [when.coach_rewarded, None],
        'by_hand': [None, when.coach_by_hand],
        'correction': [None, float(when.coach_long_steps)],
        'q_mean': [None, 'q_bound'],
    }


@dataclass(frozen=True)
class EpisodeNumbers:
    """What an episode was like.

    Attributes:
        steps: actions.
        intervened: of them, decided by a human.
        interventions: runs of such actions, with steps between them that nobody answered.
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


@dataclass(frozen=True)
class Scene:
    """Whom the advice is for.

    Attributes:
        simulated: no real arm is moved, and all that it costs is time.
        scripted: the scripted operator helps, whom nobody can advise; a human at the page still may.
    """

    simulated: bool = False
    scripted: bool = False


REAL = Scene()


def advice(
    episodes: Sequence[EpisodeNumbers],
    learner: LearnerNumbers | None = None,
    when: CoachConfig = USUAL,
    scene: Scene = REAL,
) -> list[str]:
    """Return what a human should do differently, the most important first; at most three sentences."""
    said: list[str] = []
    if learner is not None and learner.q_mean > learner.q_bound * (1.0 + Q_MARGIN):
        labels = '' if scene.simulated else 'check the success labels, and '
        said.append(
            f'The learner believes in more than can be earned (Q {learner.q_mean:.2f}, bound {learner.q_bound:.2f}): '
            f'pause, {labels}go back to the best checkpoint if it does not come down.'
        )
    if (
        learner is not None
        and learner.state == 'waiting'
        and learner.demos == 0
        and len(episodes) < when.coach_enough
    ):
        said.append(
            'Nothing is known yet: the scripted operator shows the task first; you can too (T).'
            if scene.scripted
            else 'Nothing is known yet: show the task a few times from start to success.'
        )
    recent = list(episodes)[-when.coach_window :]
    if len(recent) >= when.coach_enough:
        said += _habits(recent, when, scene)
    return said[:3]


def summary(episodes: Sequence[EpisodeNumbers], when: CoachConfig = USUAL) -> str:
    """Return the numbers that the advice is about, and what they should be."""
    recent = list(episodes)[-when.coach_window :]
    if len(recent) < when.coach_enough:
        return f'{len(recent)} of the {when.coach_enough} episodes that it takes to judge.'
    rewarded = sum(episode.success for episode in recent) / len(recent)
    runs = sum(episode.interventions for episode in recent)
    length = sum(episode.intervened for episode in recent) / runs if runs else 0.0
    helped = sum(episode.interventions > 0 for episode in recent) / len(recent)
    return (
        f'Last {len(recent)} episodes: {rewarded:.0%} rewarded ({_least(when)}), {helped:.0%} with help, '
        f'{length:.0f} steps a correction (under {when.coach_long_steps}).'
    )


def _least(when: CoachConfig) -> str:
    share = when.coach_rewarded
    return 'at least a third' if share == USUAL.coach_rewarded else f'at least {share:.0%}'


def _habits(recent: Sequence[EpisodeNumbers], when: CoachConfig, scene: Scene) -> list[str]:
    said = []
    rewarded = sum(episode.success for episode in recent) / len(recent)
    touched = sum(episode.interventions > 0 for episode in recent) / len(recent)
    runs = sum(episode.interventions for episode in recent)
    length = sum(episode.intervened for episode in recent) / runs if runs else 0.0
    if rewarded < when.coach_rewarded:
        few = f'Only {rewarded:.0%} of the last {len(recent)} episodes were rewarded'
        said.append(
            f'{few}, although the scripted operator helps: help it yourself (T), or begin with an easier scene '
            f'(preset:=easy).'
            if scene.scripted
            else f'{few}: help more, until {_least(when)} end in success.'
        )
    if length > when.coach_long_steps:
        said.append(_long(length, touched < when.coach_sparse, when, scene))
    alone = [e.steps for e in recent if not e.success and not e.interventions]
    if rewarded < when.coach_rewarded and touched < when.coach_sparse and alone and not scene.scripted:
        said.append('Let it try for 20 to 30 steps, then step in when it is stuck or moving away.')
    if touched == 0.0 and rewarded > 0.9:
        harder = (
            'or try it on a harder scene (preset:=wide, preset:=gap)'
            if scene.simulated
            else 'or make the task harder'
        )
        said.append(f'It needs no help any more: count its successes with ./so101 trial, {harder}.')
    return said


def _long(length: float, rare: bool, when: CoachConfig, scene: Scene) -> str:
    if scene.scripted:
        return (
            f'The scripted operator corrects for {length:.0f} steps at a time, since the policy knows little yet; '
            f'that falls as it learns, to under {when.coach_long_steps}.'
        )
    seldom = ', and they are rare: long, rare ones make the learner believe in too much' if rare else ''
    return (
        f'Your corrections are {length:.0f} steps long{seldom}. Nudge it back on its way and let go: under '
        f'{when.coach_long_steps} steps.'
    )


KEPT = 2000
OPEN = 20
"""Episodes that have begun and not ended; a session has one, but numbers come over the network."""
LATENCIES = 2000
"""Of one episode that are kept."""
FAILED = ('failure', 'time limit')
"""Outcomes of an episode in which the task was not done; one that a fault cut short says nothing of that."""
NO_COUNTERS: Mapping[str, int] = {}


def human_line(session: Mapping[str, Any]) -> str:
    """Return what the session costs a human so far; `session` is what the session says of itself."""
    if not session.get('human'):
        return ''
    said = str(HumanSeconds(**session['human']))
    until = unaided_after(float(session.get('human_until_unaided_s', math.nan)))
    arm, human = session.get('resets_by_arm', 0), session.get('resets_by_human', 0)
    resets = f'{arm} resets by the arm, {human} asked of a human' if arm or human else ''
    line = ' · '.join(filter(None, [said, resets, until]))
    return line[:1].upper() + line[1:]


class Episodes:
    """Counts while an episode runs; lists it when it has ended."""

    def __init__(self) -> None:
        self._closed: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._open: dict[int, dict[str, Any]] = {}
        self.life = 0
        """Counts up where a session was started again, whose numbers begin anew."""

    def begin(self, episode: int, counters: Mapping[str, int] = NO_COUNTERS, stamp_ns: int = 0) -> None:
        """Note that an episode begins, when, and how the arm's counters stand."""
        if self._find(episode) is not None:
            self.life += 1
        self._entry(episode).update(before=dict(counters), stamp_ns=stamp_ns)

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
        """Count a step that nobody answered; whoever drove drives on."""
        self._entry(episode)['dropped'] += 1

    def end(
        self, episode: int, outcome: str, reason: str = '', counters: Mapping[str, int] = NO_COUNTERS
    ) -> None:
        """Note how an episode ended; a later label of a closed one replaces the first."""
        closed = self._find(episode)
        if closed is not None:
            closed.update(outcome=outcome, reason=reason)
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

    def numbers_of(self, episode: int) -> EpisodeNumbers | None:
        """Return what an episode of this life was like that has ended; None where it was thrown away."""
        entry = self._find(episode)
        return None if entry is None or entry['outcome'] == 'discard' else _numbers(entry)

    def stamp_of(self, episode: int) -> int:
        """Return when an episode of this life began that has ended [ns]; 0 where that is not known."""
        entry = self._find(episode)
        return 0 if entry is None else int(entry['stamp_ns'])

    def numbers(self, most: int = KEPT) -> list[EpisodeNumbers]:
        """Return what the coach reads, the last so many; episodes that were thrown away do not count."""
        counted = (_numbers(entry) for entry in list(self._closed)[::-1] if entry['outcome'] != 'discard')
        return list(islice(counted, most))[::-1]

    def rows(self, most: int) -> list[dict[str, Any]]:
        """Return what the page lists, the newest first; behind them the last one that failed, however long ago."""
        closed = list(self._closed)[::-1]
        newest = closed[:most]
        failed = next((entry for entry in closed if entry['outcome'] in FAILED), None)
        if failed is not None and not any(entry is failed for entry in newest):
            newest.append(failed)
        return [
            {
                **{key: value for key, value in entry.items() if key not in ('human', 'stamp_ns')},
                'stamp': str(entry['stamp_ns']),
                'correctable': entry['life'] == self.life,
            }
            for entry in newest
        ]

    def _find(self, episode: int) -> dict[str, Any] | None:
        """Return an episode of this life that has ended; the newest are looked at first."""
        mine = (entry for entry in reversed(self._closed) if entry['life'] == self.life)
        return next((entry for entry in mine if entry['episode'] == episode), None)

    def _entry(self, episode: int) -> dict[str, Any]:
        empty = {
            'episode': episode,
            'steps': 0,
            'intervened': 0,
            'interventions': 0,
            'dropped': 0,
            'human': False,
            'latencies': [],
            'life': self.life,
            'stamp_ns': 0,
        }
        entry = self._open.setdefault(episode, empty)
        if len(self._open) > OPEN:
            del self._open[min(number for number in self._open if number != episode)]
        return entry


def _numbers(entry: Mapping[str, Any]) -> EpisodeNumbers:
    return EpisodeNumbers(
        entry['steps'], entry['intervened'], entry['interventions'], entry['outcome'] == 'success'
    )
