# SPDX-License-Identifier: Apache-2.0
"""How well a rate is known from a number of trials."""

import math

Z_95 = 1.96
"""So many standard deviations to either side hold 95 % of a normal distribution."""


def wilson(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Return the interval in which the true rate lies with the confidence that belongs to z (Wilson, 1927)."""
    if trials < 1:
        return 0.0, 1.0
    p, n = successes / trials, trials
    middle = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)
    return max(0.0, low), min(1.0, high)
