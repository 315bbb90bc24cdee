# SPDX-License-Identifier: Apache-2.0
"""A bounded store of stamped samples that steps wait for."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Sample = TypeVar('Sample')
Key = TypeVar('Key', bound=Hashable)


class SamplePool(Generic[Sample, Key]):
    """Keeps the samples that came last, and remembers who asked for one that has not come yet."""

    def __init__(self, limit: int, waiting_limit: int) -> None:
        """Make a pool for so many samples, and so many keys that wait; what came first leaves first."""
        self._limit = limit
        self._waiting_limit = waiting_limit
        self._waiting_count = 0
        self._samples: dict[int, Sample] = {}
        self._waiting: dict[int, list[Key]] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, stamp_ns: int, sample: Sample) -> tuple[bool, list[Key]]:
        """Store a sample; it replaces one with the same stamp, which is its copy or of a clock set back.

        Returns:
            Whether its stamp was new, and who waited for it.
        """
        new = self._samples.pop(stamp_ns, None) is None
        self._samples[stamp_ns] = sample
        if len(self._samples) > self._limit:
            del self._samples[next(iter(self._samples))]
        waited = self._waiting.pop(stamp_ns, [])
        self._waiting_count -= len(waited)
        return new, waited

    def get(self, stamp_ns: int) -> Sample | None:
        """Return the sample with that stamp, or None where it has not come or has left."""
        return self._samples.get(stamp_ns)

    def wait(self, stamp_ns: int, key: Key) -> None:
        """Remember that `key` needs the sample with that stamp."""
        self._waiting.setdefault(stamp_ns, []).append(key)
        self._waiting_count += 1
        while self._waiting_count > self._waiting_limit:
            self._waiting_count -= len(self._waiting.pop(next(iter(self._waiting))))

    def forget(self, condition: Callable[[Key], bool]) -> None:
        """Stop waiting on behalf of the keys for which the condition holds."""
        kept = {stamp: [key for key in keys if not condition(key)] for stamp, keys in self._waiting.items()}
        self._waiting = {stamp: keys for stamp, keys in kept.items() if keys}
        self._waiting_count = sum(map(len, self._waiting.values()))
