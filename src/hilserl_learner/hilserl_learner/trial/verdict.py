# SPDX-License-Identifier: Apache-2.0
"""Which of two policies is better, asked after every pair of trials without being fooled by asking often.

Each place is tried once with A and once with B. Pairs that end alike tell nothing; of the others (McNemar, 1947) B wins
each with a chance of 1/2 at most if it is no better than A. Against that stands every chance q above 1/2, all alike
likely beforehand. After k wins in n such pairs their likelihood is larger by

    E = 2^n * integral from 1/2 to 1 of 2 q^k (1 - q)^(n - k) dq
      = sum over i = 0 .. k of C(n + 1, i) / ((n + 1) C(n, k))

If B is no better, E has a mean of 1 at most at whatever moment one looks, and so it ever reaches 1 / alpha with a
chance of alpha at most (Ville, 1939; "safe testing", Grünwald et al., arXiv:1906.07801). Either policy may turn out to
be the better one, so each way gets half of alpha.
"""

from dataclasses import dataclass
from fractions import Fraction
import math

ALPHA = 0.05
MOST_PAIRS = 1000
"""Beyond so many more pairs two policies are called too alike to tell."""


@dataclass(frozen=True)
class Tally:
    """Pairs of trials by how A and B ended.

    Attributes:
        both: both succeeded.
        only_a: A succeeded and B did not.
        only_b: B succeeded and A did not.
        neither: both failed.
    """

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0

    @property
    def pairs(self) -> int:
        """All of them."""
        return self.both + self.only_a + self.only_b + self.neither

    def add(self, a: bool, b: bool) -> 'Tally':
        """Return the tally with one more pair."""
        counts = [self.both, self.only_a, self.only_b, self.neither]
        counts[[(True, True), (True, False), (False, True), (False, False)].index((a, b))] += 1
        return Tally(*counts)


def evidence(wins: int, losses: int) -> float:
    """Return the e-value against "no better": how much likelier the wins are if it is better."""
    n = wins + losses
    total = sum(math.comb(n + 1, i) for i in range(wins + 1))
    return float(Fraction(total, (n + 1) * math.comb(n, wins)))


def better(tally: Tally, alpha: float = ALPHA) -> str:
    """Return which is better with a confidence of 1 - alpha, `A` or `B`; empty while that is not known."""
    enough = 2.0 / alpha
    if evidence(tally.only_b, tally.only_a) >= enough:
        return 'B'
    return 'A' if evidence(tally.only_a, tally.only_b) >= enough else ''


def pairs_needed(tally: Tally, alpha: float = ALPHA) -> int | None:
    """Return about how many more pairs a verdict takes if things go on like this; None where they are too alike."""
    if not tally.pairs:
        return None
    wins, losses = max(tally.only_a, tally.only_b), min(tally.only_a, tally.only_b)
    per_pair = wins / tally.pairs, losses / tally.pairs
    if wins == losses:
        return None

    def decides(more: int) -> bool:
        then = (round(count + more * rate) for count, rate in zip((wins, losses), per_pair, strict=True))
        return evidence(*then) >= 2.0 / alpha

    low, high = 0, 1
    while not decides(high):
        low, high = high, 2 * high
        if high > MOST_PAIRS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def verdict(tally: Tally, alpha: float = ALPHA) -> str:
    """Return in a sentence which is better, or how far it is from there to knowing."""
    if not tally.pairs:
        return 'Not known yet which is better: no place has been tried with both.'
    winner = better(tally, alpha)
    told = f'of {tally.pairs} places only A succeeded at {tally.only_a} and only B at {tally.only_b}'
    if winner:
        return f'{winner} is better with {1.0 - alpha:.0%}: {told}.'
    more = pairs_needed(tally, alpha)
    if more is None:
        return f'Not known yet which is better: {told}; so alike, they would need far more than {MOST_PAIRS} places.'
    return f'Not known yet which is better: {told}; if it goes on like this, about {2 * more} more trials.'
