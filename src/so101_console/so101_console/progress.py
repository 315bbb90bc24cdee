# SPDX-License-Identifier: Apache-2.0
"""Whether it is getting better: the success of the last episodes against that of those before, in one sentence.

Each rate comes with Wilson's 95 % interval; the two are compared by the interval of their difference that follows from
both (Newcombe, 1998, "Interval estimation for the difference between independent proportions", method 10).
"""

from collections.abc import Sequence
import math

from so101_console.coach import EpisodeNumbers
from so101_contract.interval import wilson

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
