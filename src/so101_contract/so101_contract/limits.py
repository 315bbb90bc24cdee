# SPDX-License-Identifier: Apache-2.0
"""Bounds on the memory of an assembler."""

from dataclasses import dataclass

from so101_contract.errors import AssemblyError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an assembler keeps, which bounds its memory.

    An image of S px takes 3 S^2 bytes: 21 kB at 84 px. With the defaults and one such camera the pool of
    images stays under 20 MB, and each open episode under 44 MB, whatever comes in.

    Attributes:
        joints: joint messages kept for steps that name them later; 30 s at 100 Hz.
        images: images kept per camera; 30 s at 30 Hz.
        steps: steps kept per open episode; the transitions of older ones are out, or counted as dropped.
        episodes: episodes kept open for late messages and labels; the oldest closes when there are more.
    """

    joints: int = 3000
    images: int = 900
    steps: int = 2000
    episodes: int = 2

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could be assembled."""
        if min(self.joints, self.images, self.episodes) < 1 or self.steps < 2:
            raise AssemblyError(f'expected limits of at least 1 (steps: 2), got {self}; raise them')
