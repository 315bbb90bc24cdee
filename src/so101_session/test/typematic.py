# SPDX-License-Identifier: Apache-2.0
"""What a plain terminal sends for keys that people hold: once, a pause, then repeats, of the last key alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Press:
    """A key held from one time to another [s]."""

    key: str
    down: float
    up: float


def bytes_of(presses, pause=0.5, rate=30.0, jitter=None):
    """Return (time, key) pairs in order; `jitter` [s] is what the line adds to each, one value after another."""
    sent = []
    for press in presses:
        # As soon as another key goes down, this one falls silent for good.
        end = min([press.up, *(other.down for other in presses if press.down < other.down < press.up)])
        moment, step = press.down, pause
        while moment < end:
            sent.append((moment, press.key))
            moment, step = moment + step, 1.0 / rate
    sent.sort()
    delays = iter(jitter or ())
    late = 0.0
    arrived = []
    for moment, key in sent:
        late = max(moment + next(delays, 0.0), late)
        arrived.append((late, key))
    return arrived


def watch(arrived, take, look, end, period=0.02):
    """Feed keys as they come and look once each period; return (time, what was seen) pairs."""
    seen, queue = [], list(arrived)
    for tick in range(round(end / period)):
        now = tick * period
        while queue and queue[0][0] <= now:
            moment, key = queue.pop(0)
            take(key, moment)
        seen.append((now, look(now)))
    return seen
