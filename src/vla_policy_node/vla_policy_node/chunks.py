# SPDX-License-Identifier: Apache-2.0
"""Chunks on the control clock: which target counts at a time, when the next chunk is asked for, and which are refused.

Entry i of a chunk is where the joints shall be i periods after the observation that it answers. So what has passed by
the time that it comes is skipped. The chunk before goes on until then, and the two are blended (temporal ensembling,
Zhao et al. 2023, for two chunks). Past its last entry there is no target: the arm holds. While it holds nothing passes:
a chunk that comes then goes on from the entry at which the arm has stopped, as it does with a client that always waits.
"""

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.errors import ContractError
from so101_contract.joints import JOINT_NAMES, limits_arrays
from so101_driver.calibration.lerobot_units import JointScale, UNITS

FloatArray: TypeAlias = npt.NDArray[np.float64]

MOST_BLENDED = 4
ROUNDING = 1e-3
"""Of a time, in entries: periods are whole nanoseconds."""

WINDOW = 100
"""Answers that the figures are of."""


class ChunkError(ContractError):
    """A chunk would move the arm where no good policy moves it."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Targets of a server for some time from an observation on.

    Attributes:
        number: counts up.
        stamp_ns: of the observation that it answers [ns].
        period_ns: from one entry to the next [ns].
        targets: joint positions (n, 6) [rad], within the limits.
    """

    number: int
    stamp_ns: int
    period_ns: int
    targets: FloatArray

    def at(self, time_ns: int) -> FloatArray | None:
        """Return the target (6,) [rad] at a time; None where it has none, before its observation or past its end."""
        place = (time_ns - self.stamp_ns) / self.period_ns
        last = len(self.targets) - 1
        if not 0.0 <= place <= last + ROUNDING:
            return None
        low = min(int(place), last - 1) if last else 0
        part = min(place - low, 1.0)
        target: FloatArray = (1.0 - part) * self.targets[low] + part * self.targets[min(low + 1, last)]
        return target

    def left(self, time_ns: int) -> int:
        """Return how many entries are still to come."""
        return max(0, len(self.targets) - 1 - (time_ns - self.stamp_ns) // self.period_ns)


@dataclass(frozen=True, kw_only=True)
class Plausibility:
    """What a chunk may ask for.

    Attributes:
        scale: of the server's numbers.
        first_rad: largest distance of a joint's first target from where the joint was [rad].
        jump_rad: largest distance of a joint's targets in two entries that follow each other [rad].
        beyond_rad: how far a target may lie beyond the limits of a joint, to which it is cut then [rad].
    """

    scale: JointScale
    first_rad: float
    jump_rad: float
    beyond_rad: float = 0.4

    def targets(self, said: FloatArray, measured: FloatArray) -> FloatArray:
        """Return a server's targets (n, 6) in rad within the limits; measured: joints (6,) that it was shown [rad].

        Raises:
            ChunkError: they are implausible; the sentence says which, and which units would be plausible.
        """
        rad = self.scale.to_rad(said)
        low, high = limits_arrays()
        beyond = np.maximum(low - rad, rad - high).max(axis=0)
        steps = np.abs(np.diff(rad, axis=0)).max(axis=0, initial=0.0)
        beyond[-1] = steps[-1] = 0.0  # jaws open wider than the model's, and snap
        for excess, limit, what in (
            (self.distances(said, measured), self.first_rad, 'from the arm with the first target of a chunk'),
            (steps, self.jump_rad, 'in a single entry of a chunk'),
            (beyond, self.beyond_rad, 'beyond the end of its range'),
        ):
            joint = int(np.argmax(excess))
            if not excess[joint] <= limit:
                raise ChunkError(
                    self._sentence(JOINT_NAMES[joint], float(excess[joint]), what, said, measured)
                )
        return np.minimum(np.maximum(rad, low), high)

    def distances(self, said: FloatArray, measured: FloatArray) -> FloatArray:
        """Return how far each joint (6,) is from the first target [rad]; the gripper may be anywhere."""
        distance: FloatArray = np.abs(self.scale.to_rad(said[:1])[0] - measured)
        distance[-1] = 0.0
        return distance

    def _sentence(self, joint: str, rad: float, what: str, said: FloatArray, measured: FloatArray) -> str:
        others = [JointScale(units, self.scale.calibration) for units in UNITS if units != self.scale.units]
        # The server was shown the arm in the units that were asked for, and answers in its own.
        near = [
            o.units for o in others if np.abs(o.to_rad(said[:1])[0] - measured)[:-1].max() <= self.first_rad
        ]
        hint = f'; in {" or ".join(near)} they would be near: units:={near[0]}' if near else ''
        return (
            f'expected targets near the arm in {self.scale.units}, got {joint} {np.degrees(rad):.0f} degrees {what}; '
            f'the units may be others, or the model may not be for this arm{hint}'
        )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How chunks are used.

    Attributes:
        period_ns: from one entry to the next [ns].
        replan: entries after which the next chunk shall be in use.
        use: entries of a chunk that may be used; those after `replan` are a reserve for late answers.
        blend_ns: time in which a new chunk takes over [ns].
        step_ns: of the control clock [ns].
    """

    period_ns: int
    replan: int
    use: int
    blend_ns: int
    step_ns: int


class Timeline:
    """The chunks in use."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.latest: Chunk | None = None
        """The newest chunk."""
        self.late_share = 0.0
        """Share of the last answers that came when the chunk before them was used up, 0..1."""
        self._blended: list[tuple[Chunk, int]] = []  # with the time from which on each counts
        self._late: deque[bool] = deque(maxlen=WINDOW)
        self._reached_ns = 0  # the latest time that a target was given for

    def add(self, chunk: Chunk, now_ns: int) -> None:
        """Take a chunk that has come; it takes over from now on."""
        held_ns = now_ns - max(self._reached_ns, chunk.stamp_ns)
        held_ns = held_ns if held_ns >= self.pace.step_ns else 0
        stamp_ns, targets = chunk.stamp_ns + held_ns, chunk.targets[: self.pace.use]
        used = Chunk(chunk.number, stamp_ns, chunk.period_ns, targets)
        if self._blended:
            self.took(late=held_ns > 0)
        self._blended = [*self._blended[-MOST_BLENDED + 1 :], (used, now_ns)]
        self.latest = used

    def took(self, *, late: bool) -> None:
        """Take note of an answer, or of one that never came."""
        self._late.append(late)
        self.late_share = sum(self._late) / len(self._late)

    def target(self, now_ns: int, time_ns: int) -> FloatArray | None:
        """Return the target (6,) [rad] for a time a little ahead of now; None where no chunk has one."""
        target: FloatArray | None = None
        for chunk, since_ns in self._blended:
            other = chunk.at(time_ns)
            if target is None or other is None:
                target = other if target is None else target
                continue
            share = 1.0 if self.pace.blend_ns <= 0 else min(1.0, (now_ns - since_ns) / self.pace.blend_ns)
            target = (1.0 - share) * target + share * other
        if target is not None:
            self._reached_ns = max(self._reached_ns, time_ns)
        return target

    def wants(self, now_ns: int, latency_s: float) -> bool:
        """Whether the next chunk has to be asked for, if its answer takes so long [s]."""
        if self.latest is None:
            return True
        due_ns = self.latest.stamp_ns + self.pace.replan * self.pace.period_ns
        return now_ns + latency_s * 1e9 >= due_ns

    def forget_older(self) -> None:
        """Keep the newest chunk alone: another one has moved the arm."""
        self._blended = self._blended[-1:]

    def clear(self) -> None:
        """Forget every chunk: another episode begins."""
        self._blended, self.latest, self._reached_ns = [], None, 0
