# SPDX-License-Identifier: Apache-2.0
"""Whether the light is still that in which a classifier was trained.

A network that has never seen this light answers all the same, and wrongly. What light does to pictures shows in how
their colours are spread, which what moves in them changes little over a few seconds: so the mean and the spread of
each colour, averaged over a window of steps, are compared with those of the windows of its training, in their standard
deviations. Shift of the inputs, in the words of Rabanser et al., Failing Loudly (2019), by univariate statistics.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from so101_contract.errors import ContractError
from so101_contract.record import Record

WINDOW = 20
"""Steps that are looked at together: two seconds, in which the arm moves through all that it does."""
FEWEST = 10
"""Steps before anything is said: a picture or two tell more of what is seen than of the light."""
FLOOR = 3.0
"""Grey levels by which windows differ at least: no camera is steadier, and no lamp."""
MARGIN = 1.5
"""The light is another one when it is so much further away than any window of the training."""
AGAIN = 0.9
"""It is the old one again below this share of the bound."""
PER_VIEW = 9
"""Numbers of a picture: of each colour its tenth, its half and its nine tenths."""

FloatArray = npt.NDArray[np.float64]


def colours(images: npt.NDArray[np.uint8]) -> FloatArray:
    """Return how the colours of pictures (B, V, 3, S, S) are spread, (B, 9 V) in grey levels."""
    batch, views = images.shape[:2]
    flat = images[..., ::2, ::2].reshape(batch, views * 3, -1)
    shares = [np.quantile(flat, share, axis=-1, method='nearest') for share in (0.1, 0.5, 0.9)]
    result: FloatArray = np.stack(shares, axis=-1).reshape(batch, -1).astype(np.float64)
    return result


def windows(values: FloatArray) -> FloatArray:
    """Return the means of the windows of one stretch of pictures (N, F); one where it is shorter than a window."""
    starts = range(0, max(1, len(values) - WINDOW + 1), WINDOW // 2)
    return np.stack([values[start : start + WINDOW].mean(axis=0) for start in starts])


@dataclass(frozen=True, kw_only=True)
class Light(Record):
    """The light of a training.

    Attributes:
        mean: of the windows' colours [grey levels].
        spread: their standard deviations [grey levels].
        bound: distance from which the light is another one, in standard deviations.
    """

    KIND: ClassVar[str] = 'hilserl_learner/light/1'
    ERROR = ContractError

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    bound: float

    def __post_init__(self) -> None:
        """Check that a distance can be measured."""
        super().__post_init__()
        if not (0 < len(self.mean) == len(self.spread) <= 8 * PER_VIEW and not len(self.mean) % PER_VIEW):
            raise ContractError(
                f'expected {PER_VIEW} means and spreads for each camera, got {len(self.mean)} and {len(self.spread)}; '
                f'train it again'
            )
        if min(self.spread) <= 0.0 or self.bound <= 0.0 or max(map(abs, self.mean)) > 255.0:
            raise ContractError(
                'expected grey levels, spreads and a bound above 0, got others; train it again'
            )

    @property
    def views(self) -> int:
        """Cameras that it is of."""
        return len(self.mean) // PER_VIEW

    @classmethod
    def of(cls, episodes: Sequence[npt.NDArray[np.uint8]]) -> 'Light':
        """Return the light of the pictures (N, V, 3, S, S) of each episode."""
        per_episode = [windows(colours(images)) for images in episodes if len(images)]
        every = np.concatenate(per_episode)
        mean, spread = every.mean(axis=0), np.maximum(every.std(axis=0), FLOOR)
        furthest = float(_distance(every, mean, spread).max())
        return cls(
            mean=tuple(mean.tolist()), spread=tuple(spread.tolist()), bound=MARGIN * max(1.0, furthest)
        )

    def distance(self, window: FloatArray) -> float:
        """Return how far the mean colours (F,) of a window are, as a share of the bound."""
        distance = _distance(window[None], np.array(self.mean), np.array(self.spread))
        return float(distance[0]) / self.bound


def _distance(values: FloatArray, mean: FloatArray, spread: FloatArray) -> FloatArray:
    result: FloatArray = np.sqrt((((values - mean) / spread) ** 2).mean(axis=1))
    return result


class LightWatch:
    """Follows the light, one step after the other."""

    def __init__(self, light: Light) -> None:
        self._light = light
        self._last: deque[FloatArray] = deque(maxlen=WINDOW)
        self.share = math.nan
        """Distance of the last window as a share of the bound; NaN before the first."""
        self.drifted = False

    def see(self, images: npt.NDArray[np.uint8]) -> None:
        """Take the pictures (V, 3, S, S) of a step."""
        self._last.append(colours(images[None])[0])
        if len(self._last) < FEWEST:
            return
        self.share = self._light.distance(np.mean(self._last, axis=0))
        self.drifted = self.share >= (AGAIN if self.drifted else 1.0)
