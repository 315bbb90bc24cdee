# SPDX-License-Identifier: Apache-2.0
"""Record how far each joint turns, from a stream of raw ticks, wherever the encoder's seam lies.

A servo counts 4095, 0, 1 when it turns through its seam, so the least and the greatest tick say nothing when
the seam lies inside the travel. Here steps are summed up instead, each taken the short way round.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import math

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.registers import TICKS_PER_TURN
from so101_driver.calibration.checks import FULL_TURN_JOINTS, MOST_TRAVEL, travel_of_model
from so101_driver.calibration.joint_calibration import RAD_PER_TICK

MAX_STEP = 512
"""A step of an eighth of a turn between two samples is first taken for a misreading [ticks]."""

AMBIGUOUS_STEP = 1536
"""Beyond this a step might as well have gone the other way round; the joint starts anew [ticks]."""

STOP_TOLERANCE = 34
"""Two visits of an end stop agree when they are within 3 degrees [ticks]."""

LEAVE_DISTANCE = 114
"""An end stop is left when the joint is 10 degrees away from it [ticks]."""

VISITS = 2
"""How often each end stop must be visited."""

FULL_TRAVEL = 0.9
"""A joint is swept when it covered this share of the model's travel. Real arms have 0.95 to 1.27."""


class _Stop:
    """One end of a joint's travel; `direction` is +1 for the high end and -1 for the low one."""

    def __init__(self, direction: int, position: int) -> None:
        self._direction = direction
        self.extreme = position
        self.visits = 0
        self._visited_at: int | None = None
        self._inside = False

    def update(self, position: int, previous: int) -> None:
        d = self._direction
        # The nearer of two samples: one misread sample cannot move the end.
        settled = min(d * position, d * previous)
        if settled > d * self.extreme:
            self.extreme = d * settled
        distance = d * (self.extreme - position)
        if distance <= STOP_TOLERANCE:
            self._inside = True
        elif distance > LEAVE_DISTANCE and self._inside:
            self._inside = False
            confirmed = (
                self._visited_at is not None and abs(self.extreme - self._visited_at) <= STOP_TOLERANCE
            )
            self.visits = self.visits + 1 if confirmed else 1
            self._visited_at = self.extreme


class JointSweep:
    """Travel of one joint, seen so far.

    Attributes:
        target: travel of the model [ticks].
        restarts: how often the recording began anew since the joint jumped.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.restarts = 0
        self._position: int | None = None
        self._suspect: int | None = None
        self._low = _Stop(-1, 0)
        self._high = _Stop(+1, 0)

    def update(self, tick: int) -> None:
        """Take the next raw position [ticks], of any turn."""
        raw = tick % TICKS_PER_TURN
        if self._position is None:
            self._start(raw)
            return
        step = _short_way(raw - self._position)
        if abs(step) > MAX_STEP:
            confirmed = self._suspect is not None and abs(_short_way(raw - self._suspect)) <= MAX_STEP
            if not confirmed:
                self._suspect = raw
                return
            if abs(step) > AMBIGUOUS_STEP:
                self.restarts += 1
                self._start(raw)
                return
        self._suspect = None
        previous, self._position = self._position, self._position + step
        self._low.update(self._position, previous)
        self._high.update(self._position, previous)

    @property
    def started(self) -> bool:
        """Whether any position came."""
        return self._position is not None

    @property
    def position(self) -> int:
        """Where the joint is [ticks], counted on through the seam; the first sample was in 0..4095."""
        return 0 if self._position is None else self._position

    @property
    def low(self) -> int:
        """Lowest position [ticks], counted like `position`: below 0 when the seam lies inside the travel."""
        return self._low.extreme

    @property
    def high(self) -> int:
        """Highest position [ticks], counted like `position`: above 4095 when the seam lies inside."""
        return self._high.extreme

    @property
    def travel(self) -> int:
        """Distance covered from end to end [ticks]."""
        return self.high - self.low

    @property
    def visits(self) -> tuple[int, int]:
        """How often the low and the high end stop were visited and left again."""
        return self._low.visits, self._high.visits

    @property
    def seam_inside(self) -> bool:
        """Whether the encoder's seam lies inside the travel."""
        return self.low // TICKS_PER_TURN != self.high // TICKS_PER_TURN

    @property
    def done(self) -> bool:
        """Whether the joint went all the way, to both ends, often enough."""
        far_enough = FULL_TRAVEL * self.target <= self.travel <= MOST_TRAVEL * self.target
        return far_enough and min(self.visits) >= VISITS

    @property
    def advice(self) -> str:
        """What is missing, in a few words; empty when nothing is."""
        if self.done:
            return ''
        if self.travel > MOST_TRAVEL * self.target:
            return 'turns too far'
        if self.travel < FULL_TRAVEL * self.target:
            return 'go stop to stop'
        low, high = self.visits
        return 'both stops again' if low < VISITS and high < VISITS else 'other stop again'

    def _start(self, raw: int) -> None:
        self._position, self._suspect = raw, None
        self._low, self._high = _Stop(-1, raw), _Stop(+1, raw)


@dataclass(frozen=True)
class JointProgress:
    """What a display shows of one joint.

    Attributes:
        name: of the joint.
        low: lowest position [deg], from the middle of what was covered.
        position: where it is [deg], from the same middle.
        high: highest position [deg], from the same middle.
        travel: covered so far [deg].
        target: travel of the model [deg].
        done: whether the joint needs no more moving.
        advice: what is missing, in a few words.
    """

    name: str
    low: float
    position: float
    high: float
    travel: float
    target: float
    done: bool
    advice: str


class ArmSweep:
    """The sweeps of all joints that have stops to be found."""

    def __init__(
        self, names: Iterable[str] = JOINT_NAMES, *, full_turn: Iterable[str] = FULL_TURN_JOINTS
    ) -> None:
        skip = tuple(full_turn)
        self.joints = {
            name: JointSweep(travel_of_model(name) / RAD_PER_TICK) for name in names if name not in skip
        }

    def update(self, ticks: Mapping[str, int]) -> None:
        """Take raw positions [ticks]; joints that are missing, and those that are not swept, do no harm."""
        for name, sweep in self.joints.items():
            if name in ticks:
                sweep.update(ticks[name])

    @property
    def done(self) -> bool:
        """Whether every joint went all the way."""
        return all(sweep.done for sweep in self.joints.values())

    def progress(self) -> tuple[JointProgress, ...]:
        """Return what a display shows."""
        return tuple(_progress(name, sweep) for name, sweep in self.joints.items())


def _progress(name: str, sweep: JointSweep) -> JointProgress:
    middle = (sweep.low + sweep.high) / 2
    degrees = math.degrees(RAD_PER_TICK)
    return JointProgress(
        name=name,
        low=(sweep.low - middle) * degrees,
        position=(sweep.position - middle) * degrees,
        high=(sweep.high - middle) * degrees,
        travel=sweep.travel * degrees,
        target=sweep.target * degrees,
        done=sweep.done,
        advice=sweep.advice,
    )


def _short_way(step: int) -> int:
    half = TICKS_PER_TURN // 2
    return (step + half) % TICKS_PER_TURN - half
