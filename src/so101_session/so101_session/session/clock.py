# SPDX-License-Identifier: Apache-2.0
"""The control clock: what each tick observes, how fresh, of an arm that was on all the time; how regular ticks are.

Beside a simulated arm it goes with simulated time: what is slow there is not late here.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import math
import struct
import time

import numpy as np

from so101_contract.errors import ContractError

_STAMP = {True: struct.Struct('<iI'), False: struct.Struct('>iI')}
HEADER_BYTES = 4
NANOSECONDS = 1_000_000_000


def stamp_of(serialized: bytes) -> int:
    """Return the stamp [ns] of a serialized message that begins with a header, without reading the rest.

    An image has a million bytes of which the session wants eight.

    Raises:
        ContractError: it is too short to begin with one.
    """
    if len(serialized) < HEADER_BYTES + _STAMP[True].size:
        raise ContractError(f'expected a message that begins with a stamp, got {len(serialized)} bytes')
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
        lacking: what the messages that come do not say, so that they do not count.
    """

    name: str
    timeout_s: float
    stamp_ns: int = 0
    heard_s: float = -math.inf
    lacking: str = ''

    def heard(self, stamp_ns: int, now_s: float) -> None:
        """Take a message."""
        if stamp_ns != self.stamp_ns:
            self.stamp_ns, self.heard_s, self.lacking = stamp_ns, now_s, ''

    def silent(self, now_s: float) -> Problem | None:
        """Return that it is silent, or nothing."""
        if now_s - self.heard_s <= self.timeout_s:
            return None
        what = f'{self.name} with {self.lacking}' if self.lacking else self.name
        return Problem(what, now_s - self.heard_s) if self.stamp_ns else Problem(f'{what} yet')


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


START_S = 3.0
"""An arm that switches its motors on by itself as it starts has done so within this time."""

STOPPED = 'the arm was stopped'
NEW_SESSION = 'this session is new beside an arm that has moved'
STARTED_AGAIN = 'arm_node was started again'
CONNECTED_AGAIN = 'the arm was connected again'


class ArmWatch:
    """Follows `arm/status`: whether the arm can be driven, and whether it has been so without a break."""

    def __init__(self) -> None:
        self._cycles: int | None = None
        self._reconnects = 0
        self._was_on = False
        self._first_s = 0.0

    def hear(
        self,
        problem: Problem | None,
        *,
        latched: bool,
        moved: bool,
        cycles: int,
        reconnects: int,
        now_s: float,
    ) -> str:
        """Take a status, and return why Start is needed again, as a clause; or nothing.

        Args:
            problem: why the arm cannot be driven, or None.
            latched: it is stopped, or at fault: somebody has to do something.
            moved: it has followed a command since arm_node was started.
            cycles: of arm_node since it was started; fewer than before: it was started again.
            reconnects: times that the port was opened again.
            now_s: monotonic time [s].
        """
        first, before, ports = self._cycles is None, self._cycles or 0, self._reconnects
        self._cycles, self._reconnects = cycles, reconnects
        if first:
            self._first_s = now_s
        was_on, self._was_on = self._was_on, problem is None
        if not first and cycles < before:
            return STARTED_AGAIN
        if not first and reconnects != ports:
            return CONNECTED_AGAIN
        if problem is not None:
            # Off at first is usual: an arm that starts by itself is on in a moment.
            usual = not (was_on or latched or moved) and now_s - self._first_s <= START_S
            return '' if usual else STOPPED
        return NEW_SESSION if first and moved else ''


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


AHEAD_S = 0.1
"""So far the clock goes on without the twin, which catches up with no more than that after a pause [s]."""
GONE_S = 20.0
"""A twin that has said nothing for so long is not slow but gone, and time passes again [s]."""


class SimulatedClock:
    """Time as it passes for a simulated arm, in place of the monotonic one, which it goes on from.

    A machine that is too slow for the simulation, or leaves it without a processor for a second, stretches all of it:
    physics, bus, and by this clock also steps, and how long anything may be silent. So an episode is in simulated time
    what it is on a machine that keeps up.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Prepare; until the twin says a word, time is that of the machine."""
        self._monotonic = monotonic
        self._simulated_s = self._heard_s = self._offset_s = math.nan
        self._last_s = -math.inf

    def heard(self, simulated_s: float) -> None:
        """Take what the twin says: the time that it has simulated [s]."""
        present = self.now()
        if not simulated_s >= self._simulated_s:  # its first word, or it has begun anew
            self._offset_s = present - simulated_s
        self._simulated_s, self._heard_s = simulated_s, self._monotonic()

    def now(self) -> float:
        """Return the time [s], which never goes back."""
        monotonic = self._monotonic()
        now = monotonic
        if math.isfinite(self._heard_s):
            silent_s = monotonic - self._heard_s
            now = self._offset_s + self._simulated_s + min(silent_s, AHEAD_S) + max(0.0, silent_s - GONE_S)
        self._last_s = max(self._last_s, now)
        return self._last_s
