# SPDX-License-Identifier: Apache-2.0
"""Scaling of the state in front of a network, and the checks that keep bad statistics out."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from so101_contract.errors import ObservationError
from so101_contract.record import Record

MIN_RANGE = 1e-3
"""Smallest half range of a state entry that normalisation accepts; a smaller one blows noise up."""

OUTLIER = 1.5
OUTLIER_SHARE = 0.01


class NormalizationMode(Enum):
    """What happens to the state between replay and network."""

    NONE = 'none'
    AFFINE = 'affine'


@dataclass(frozen=True, kw_only=True)
class Normalization(Record):
    """How the state is scaled before a network sees it: not at all (RoboBase), or (x - offset) / scale.

    Attributes:
        mode: none or affine.
        offset: per entry of the state, in its unit; empty with mode none.
        scale: per entry, in its unit; empty with mode none.
    """

    KIND: ClassVar[str] = 'so101_contract/normalization/1'
    ERROR = ObservationError

    mode: NormalizationMode = NormalizationMode.NONE
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse statistics that would blow up an entry."""
        super().__post_init__()
        if self.mode is NormalizationMode.NONE and (self.offset or self.scale):
            raise ObservationError(
                'expected no statistics with mode none, got some; remove them or use affine'
            )
        if len(self.offset) != len(self.scale):
            raise ObservationError(
                f'expected as many offsets as scales, got {len(self.offset)} and {len(self.scale)}; '
                f'correct them'
            )
        narrow = [i for i, scale in enumerate(self.scale) if scale < MIN_RANGE]
        if narrow:
            raise ObservationError(
                f'expected statistics with a half range of at least {MIN_RANGE}, got '
                f'{[self.scale[i] for i in narrow]} in the state entries {narrow}; record data in which they '
                f'move, or set their range by hand'
            )

    @classmethod
    def from_range(cls, low: npt.ArrayLike, high: npt.ArrayLike) -> 'Normalization':
        """Map low..high of each entry onto -1..1."""
        lower, upper = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        if lower.shape != upper.shape or lower.ndim != 1:
            raise ObservationError(
                f'expected one low and one high per entry, got {lower.shape} and {upper.shape}; correct them'
            )
        return cls(
            mode=NormalizationMode.AFFINE,
            offset=tuple(((lower + upper) / 2).tolist()),
            scale=tuple(((upper - lower) / 2).tolist()),
        )

    def apply(self, state: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return states (..., D) as a network sees them."""
        array = np.asarray(state, dtype=np.float32)
        if self.mode is NormalizationMode.NONE:
            return array
        if array.shape[-1:] != (len(self.scale),):
            raise ObservationError(
                f'expected states (..., {len(self.scale)}), got {array.shape}; use statistics of this spec'
            )
        offset, scale = (np.array(numbers, dtype=np.float32) for numbers in (self.offset, self.scale))
        return (array - offset) / scale

    def warnings(self, states: npt.ArrayLike, names: Iterable[str]) -> list[str]:
        """Return one line per entry of recorded states (N, D) of which over 1 % come out beyond +-1.5."""
        if self.mode is NormalizationMode.NONE:
            return []
        shares = (np.abs(self.apply(states)) > OUTLIER).reshape(-1, len(self.scale)).mean(axis=0)
        return [
            f'{name}: {share:.1%} of the recorded states are outside +-{OUTLIER} after normalisation, '
            f'expected at most {OUTLIER_SHARE:.0%}; compute the statistics from this data'
            for name, share in zip(names, shares, strict=True)
            if share > OUTLIER_SHARE
        ]
