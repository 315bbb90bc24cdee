# SPDX-License-Identifier: Apache-2.0
"""The sentences that a page shows first: who drives, which episode runs, what Start would do, whether it gets better.

Whether it is getting better says the success of the last episodes against that of those before. Each rate comes with
Wilson's 95 % interval; the two are compared by the interval of their difference that follows from both (Newcombe, 1998,
"Interval estimation for the difference between independent proportions", method 10).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any

from so101_console.coach import EpisodeNumbers
from so101_console.health import (
    UNKNOWN_ARM,
)
from so101_contract.interval import wilson
from so101_contract.session import (
    Driver,
    SessionState,
    what_start_does,
)

BETWEEN: Mapping[str, str] = {
    'waiting': 'Waiting',
    'resetting': 'Going back to the start',
    'ready': 'At the start',
    'armed': 'About to begin',
    'paused': 'Paused',
    'done': 'Finished',
}
"""Titles of the session's states in which nobody drives."""


@dataclass(frozen=True)
class Headline:
    """What stands at the top.

    Attributes:
        title: few words.
        detail: one sentence.
        drives: `you`, `policy`, `nobody` or `stopped`; the colour.
    """

    title: str
    detail: str
    drives: str


ARRANGE = 'Arrange the scene'
"""The title while a human is asked to."""

SCRIPTED = 'scripted operator'
"""What `human` is called where no person drives but the operator of the simulation."""


def headline(
    arm: str | None,
    reason: str,
    session: Mapping[str, Any] | None,
    *,
    wheel: str | None,
    page: str,
    human: str = '',
    arranging: bool = False,
) -> Headline:
    """Return the state for one page.

    Args:
        arm: `ready`, `off`, `stopped` or `fault`; None where its driver is silent.
        reason: what the driver says.
        session: what the session says; None where it is silent.
        wheel: page that drives, or None.
        page: the page that asks.
        human: where the human is who drives from no page: a device, `SCRIPTED`, or empty where that is not known.
        arranging: a human is asked to arrange the scene.
    """
    stopped = {
        None: ('No arm', 'Its driver is silent: the arm holds, or is off.'),
        'stopped': ('STOPPED', reason or 'Clear the stop, then switch the motors on, then press Start.'),
        'fault': ('Fault', reason or 'The doctor below says what to do.'),
        'off': ('Motors off', reason or 'Motors on holds it where it is; Start moves it.'),
        UNKNOWN_ARM: ('The arm is in a state that this page does not know', reason or 'Use a newer version.'),
    }
    if arm in stopped:
        return Headline(*stopped[arm], 'stopped')
    if session is None:
        return Headline('Nobody drives', 'No session is running; the arm holds.', 'nobody')
    sentence = str(session.get('sentence', ''))
    sentence = sentence[:1].upper() + sentence[1:]
    if SessionState.UNKNOWN in (session.get('state'), session.get('driver')):
        return Headline('A state that this page does not know', f'{sentence}. Use a newer version.', 'you')
    if session.get('state') in BETWEEN:
        title = ARRANGE if arranging else BETWEEN[session['state']]
        said = [] if sentence == title else [f'{sentence}.']
        yours = ['You drive next.'] if wheel == page else []
        return Headline(title, ' '.join(said + yours), 'nobody')
    return _running(session, sentence, wheel, page, human)


def _running(session: Mapping[str, Any], sentence: str, wheel: str | None, page: str, human: str) -> Headline:
    if wheel == page:
        return Headline('You drive', f'{sentence}. Let go with G.', 'you')
    if wheel is not None:
        return Headline('Another page drives', f'{sentence}. Taking over takes it away from there.', 'you')
    if session.get('driver') == Driver.HUMAN:
        scripted = human == SCRIPTED
        where = '' if scripted else f'; the human is at {human or "another device"}'
        return Headline(
            f'{"The scripted operator" if scripted else "A human"} drives', f'{sentence}{where}.', 'you'
        )
    if session.get('intervening'):
        gone = 'Whoever took over is gone, and the arm holds: take over, or give back.'
        return Headline('Nobody drives', gone, 'nobody')
    if session.get('driver') == Driver.POLICY:
        return Headline('The policy drives', f'{sentence}.', 'policy')
    return Headline('Nobody drives', f'{sentence}; the arm holds.', 'nobody')


def episode_line(session: Mapping[str, Any]) -> str:
    """Return which episode runs and how the others ended; `session` is what the session says of itself."""
    if not session:
        return ''
    outcomes = session.get('outcomes', {})
    tally = ', '.join(
        f'{count} {name.lower().replace("_", " ")}' for name, count in outcomes.items() if count
    )
    if session.get('episode'):
        limit = f' of {session["limit"]}' if session.get('limit') else ''
        return f'Episode {session["episode"]}, step {session.get("index", 0)}{limit} · {tally or "the first"}'
    return f'Between episodes · {tally or "none yet"}'


def start_line(arm: str | None, session: Mapping[str, Any] | None, policy_acts: bool) -> str:
    """Return what Start does now; `arm` and `session` as in `headline`."""
    if session is None:
        return 'no session is running'
    if arm != 'ready':
        return 'not before the motors are on'
    return what_start_does(SessionState(session['state']), policy_acts and not session.get('intervening'))


WINDOW = 20
"""Episodes that are compared with as many before them."""
FEWEST = 5
"""Fewer say nothing."""


def progress(episodes: Sequence[EpisodeNumbers], window: int = WINDOW) -> str:
    """Return whether it is getting better, for people; the newest episode stands last."""
    last = list(episodes)[-window:]
    if len(last) < FEWEST:
        missing = FEWEST - len(last)
        more = f'after {missing} more {"episode" if missing == 1 else "episodes"}'
        return f'Is it getting better? That can be said {more}.'
    before = list(episodes)[-window - len(last) : -len(last)]
    said = f'Last {len(last)} episodes: {_rate(last)}{_alone(last)}.'
    if len(before) < FEWEST:
        return f'{said} There are too few before them to compare with.'
    return f'{_judged(last, before)} {said} The {len(before)} before: {_rate(before)}.'


def _rate(episodes: Sequence[EpisodeNumbers]) -> str:
    good = sum(episode.success for episode in episodes)
    low, high = wilson(good, len(episodes))
    return f'{good / len(episodes):.0%} succeeded ({100.0 * low:.0f} to {100.0 * high:.0f} %)'


def _alone(episodes: Sequence[EpisodeNumbers]) -> str:
    """Return how many succeeded without a hand on the arm: with help every policy is good."""
    helped = [episode for episode in episodes if episode.interventions]
    if not helped:
        return ''
    return f', {sum(e.success and not e.interventions for e in episodes)} of them without help'


def _judged(last: Sequence[EpisodeNumbers], before: Sequence[EpisodeNumbers]) -> str:
    (p, low_p, high_p), (q, low_q, high_q) = _known(last), _known(before)
    if p - q - math.hypot(p - low_p, high_q - q) > 0.0:
        return 'It is getting better.'
    if p - q + math.hypot(high_p - p, q - low_q) < 0.0:
        return 'It is getting worse.'
    if p == q:
        return 'It is as it was.'
    return f'It seems {"better" if p > q else "worse"}, but that may be chance.'


def _known(episodes: Sequence[EpisodeNumbers]) -> tuple[float, float, float]:
    good = sum(episode.success for episode in episodes)
    return good / len(episodes), *wilson(good, len(episodes))
