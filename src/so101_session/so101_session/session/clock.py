# SPDX-License-Identifier: Apache-2.0
"""The control clock: what each tick observes, whether that is fresh, and how regular the ticks are."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
import math
import struct

import numpy as np

_STAMP = {True: struct.Struct('<iI'), False: struct.Struct('>iI')}
HEADER_BYTES = 4
NANOSECONDS = 1_000_000_000


def stamp_of(serialized: bytes) -> int:
    """Return the stamp [ns] of a serialized message that begins with a header, without reading the rest.

    An image has a million bytes of which the session wants eight.
    """
    little_endian = bool(serialized[1] & 1)
    seconds, nanoseconds = _STAMP[little_endian].unpack_from(serialized, HEADER_BYTES)
    return int(seconds) * NANOSECONDS + int(nanoseconds)


@dataclass
class Source:
    """The newest message of a topic.

    Attributes:
        name: for people, with its verb: 'the arm has sent no joint_states'.
        timeout_s: when it counts as silent [s].
        stamp_ns: its stamp [ns]; 0 before the first.
        heard_s: when its stamp changed last [s]; a picture that is sent again and again is no new one.
    """

    name: str
    timeout_s: float
    stamp_ns: int = 0
    heard_s: float = -math.inf

    def heard(self, stamp_ns: int, now_s: float) -> None:
        """Take a message."""
        if stamp_ns != self.stamp_ns:
            self.stamp_ns, self.heard_s = stamp_ns, now_s

    def silent(self, now_s: float) -> str:
        """Say that it is silent, or nothing."""
        if now_s - self.heard_s <= self.timeout_s:
            return ''
        return f'{self.name} yet' if not self.stamp_ns else f'{self.name} for {now_s - self.heard_s:.1f} s'


@dataclass
class Senses:
    """What a step observes.

    Attributes:
        joints: of joint_states.
        cameras: in the order of the observation spec.
        kinematics: of the node that executes actions.
        arm: why the arm cannot be driven, or an empty string.
    """

    joints: Source
    cameras: Sequence[Source]
    kinematics: Source
    arm: str = 'arm_node has not said a word yet'

    def problem(self, now_s: float) -> str:
        """Say in one sentence why no episode can run, or nothing."""
        for said in (self.joints.silent(now_s), self.arm, self.kinematics.silent(now_s)):
            if said:
                return said
        return next((said for camera in self.cameras if (said := camera.silent(now_s))), '')

    def newer_than(self, stamp_ns: int) -> bool:
        """Whether everything that is observed was measured after a moment [ns]."""
        return min(self.joints.stamp_ns, *(camera.stamp_ns for camera in self.cameras)) > stamp_ns


@dataclass
class Jitter:
    """How much the distances of the last ticks differ from the period.

    Attributes:
        period_s: the nominal period [s].
    """

    period_s: float
    _gaps: deque[float] = field(default_factory=lambda: deque(maxlen=600))
    _last_s: float | None = None

    def tick(self, now_s: float) -> None:
        """Take note of a tick."""
        if self._last_s is not None:
            self._gaps.append(now_s - self._last_s)
        self._last_s = now_s

    def skip(self) -> None:
        """Begin again: the clock was stopped on purpose."""
        self._last_s = None

    def quantile(self, share: float) -> float:
        """Return the deviation from the period [s] that this share of the ticks stays below; 0 before two ticks."""
        if not self._gaps:
            return 0.0
        return float(np.quantile(np.abs(np.array(self._gaps) - self.period_s), share))
