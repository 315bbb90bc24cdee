# SPDX-License-Identifier: Apache-2.0
"""The statistics that LeRobot normalises by, over every row and every pixel; the quantiles are exact.

LeRobot draws some pictures of an episode, takes quantiles from a histogram, and averages those of the episodes. Here a
picture's pixels are counted by their 256 values, and vectors are sorted, so nothing is estimated.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Statistics: TypeAlias = dict[str, Any]
"""Nested lists by the name of the statistic, as JSON and Parquet hold them."""

QUANTILES: Mapping[str, float] = {'q01': 0.01, 'q10': 0.10, 'q50': 0.50, 'q90': 0.90, 'q99': 0.99}
FloatArray: TypeAlias = npt.NDArray[np.float64]

_LEVELS = 256


def vector_statistics(rows: npt.ArrayLike) -> Statistics:
    """Return the statistics of the entries of rows (n,) or (n, entries)."""
    values = np.asarray(rows, dtype=np.float64)
    values = values.reshape(len(values), -1)
    found: Statistics = {
        'min': values.min(axis=0).tolist(),
        'max': values.max(axis=0).tolist(),
        'mean': values.mean(axis=0).tolist(),
        'std': values.std(axis=0).tolist(),
        'count': [len(values)],
    }
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return found | dict(zip(QUANTILES, quantiles.tolist(), strict=True))


class PictureCounts:
    """How often each level of each colour occurs in the pictures of a camera."""

    def __init__(self) -> None:
        self.pictures = 0
        self._counts = np.zeros((3, _LEVELS), dtype=np.int64)

    def add(self, picture: npt.NDArray[np.uint8]) -> None:
        """Count a picture (height, width, 3)."""
        self.pictures += 1
        for channel in range(3):
            self._counts[channel] += np.bincount(picture[..., channel].reshape(-1), minlength=_LEVELS)

    def merge(self, other: 'PictureCounts') -> None:
        """Count what another one has counted."""
        self.pictures += other.pictures
        self._counts += other._counts

    def statistics(self) -> Statistics:
        """Return the statistics of the levels 0..1, each of shape (3, 1, 1) as LeRobot has them."""
        levels = np.arange(_LEVELS) / (_LEVELS - 1.0)
        total = self._counts.sum(axis=1)
        mean = self._counts @ levels / total
        variance = self._counts @ levels**2 / total - mean**2
        seen = [np.flatnonzero(counts) for counts in self._counts]
        found = {
            'min': levels[[places[0] for places in seen]],
            'max': levels[[places[-1] for places in seen]],
            'mean': mean,
            'std': np.sqrt(np.maximum(variance, 0.0)),
            **{name: self._quantile(share, levels) for name, share in QUANTILES.items()},
        }
        shaped: Statistics = {name: values.reshape(3, 1, 1).tolist() for name, values in found.items()}
        return shaped | {'count': [self.pictures]}

    def _quantile(self, share: float, levels: FloatArray) -> FloatArray:
        """Return the level that a share of the pixels does not exceed, interpolated between neighbours."""
        found = []
        for counts in self._counts:
            below = np.cumsum(counts)
            place = share * (below[-1] - 1)
            low, high = np.searchsorted(below, [np.floor(place), np.ceil(place)], side='right')
            found.append(levels[low] + (place - np.floor(place)) * (levels[high] - levels[low]))
        return np.array(found)


def without_quantiles(statistics: Statistics) -> Statistics:
    """Return what v2.1 holds of them."""
    return {name: value for name, value in statistics.items() if name not in QUANTILES}


def count_pictures(pictures: Iterable[npt.NDArray[np.uint8]]) -> PictureCounts:
    """Count the pictures of an episode."""
    counts = PictureCounts()
    for picture in pictures:
        counts.add(picture)
    return counts
