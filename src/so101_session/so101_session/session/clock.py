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


@dataclass(frozen=True)
class Problem:
    """Why no episode can run.

    Attributes:
        what: for people, without the time; it stays the same while the problem does.
        for_s: for how long [s]; None where that says nothing.
    """

    what: str
    for_s: float | None = None

    def __str__(self) -> str:
        return self.what if self.for_s is None else f'{self.what} for {self.for_s:.1f} s'


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

    def silent(self, now_s: float) -> Problem | None:
        """Return that it is silent, or nothing."""
        if now_s - self.heard_s <= self.timeout_s:
            return None
        return Problem(self.name, now_s - self.heard_s) if self.stamp_ns else Problem(f'{self.name} yet')


@dataclass
class Senses:
    """What a step observes.

    Attributes:
        joints: of joint_states.
        cameras: in the order of the observation spec.
        kinematics: of the node that executes actions.
        arm: why the arm cannot be driven, or None.
    """

    joints: Source
    cameras: Sequence[Source]
    kinematics: Source
    arm: Problem | None = Problem('arm_node has not said a word yet')

    @classmethod
    def of(cls, cameras: Sequence[str], *, joint_timeout_s: float, camera_timeout_s: float) -> 'Senses':
        """Return what a step with these cameras observes, and after how long each counts as silent [s]."""
        return cls(
            joints=Source('the arm has sent no joint_states', joint_timeout_s),
            cameras=[Source(f'the camera {name} has sent no image', camera_timeout_s) for name in cameras],
            kinematics=Source('kinematics_node has sent no tcp_pose', joint_timeout_s),
        )

    def problem(self, now_s: float) -> Problem | None:
        """Return why no episode can run, or nothing."""
        cameras = (camera.silent(now_s) for camera in self.cameras)
        found = (self.joints.silent(now_s), self.arm, self.kinematics.silent(now_s), *cameras)
        return next((problem for problem in found if problem is not None), None)

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

    def quantile(self, share: float) -> float:
        """Return the deviation from the period [s] that this share of the ticks stays below; 0 before two ticks."""
        if not self._gaps:
            return 0.0
        return float(np.quantile(np.abs(np.array(self._gaps) - self.period_s), share))
