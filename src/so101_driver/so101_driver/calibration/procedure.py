# SPDX-License-Identifier: Apache-2.0
"""The calibration of an arm, step by step, without a screen and without a keyboard.

Everything is measured first: the travel of each joint, wherever its seam lies, then the pose that defines the
zero of the joint without stops. The servos' EEPROM is written once, at the end, after the result proved
plausible. So the user may stop at any time before, and the arm is as it was.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
import math
from pathlib import Path
from typing import TypeVar

from so101_contract.joints import GRIPPER, JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import ServoTimeout
from so101_driver.bus.registers import MODEL_STS3215, Reg, TICKS_PER_TURN
from so101_driver.calibration.calibration import (
    ArmCalibration,
    CalibrationError,
    GripperMap,
    JointCalibration,
    RAD_PER_TICK,
    SERVO_IDS,
)
from so101_driver.calibration.checks import FULL_TURN_JOINTS, MOST_TRAVEL, require_plausible, travel_of_model
from so101_driver.calibration.files import load, save, sidecar_path
from so101_driver.calibration.servo import (
    full_turn_joint,
    read_joints,
    swept_joint,
    torque_off,
    write_servo_values,
)

_Ticks = TypeVar('_Ticks', int, float)

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


SILENT_S = 1.0
"""A servo that gives no answer for this long ends the calibration [s]."""

STEADY_SAMPLES = 25
STEADY_TICKS = 12
"""The arm is held still when no joint moved by more than a degree over the last samples [ticks]."""

POSE_LIMIT_DEG = 30.0
"""Nobody who holds the arm in its middle pose is off by more [deg]."""

ACCEPT_TRAVEL = 0.8
"""Share of the model's travel that a joint must have covered when the user ends the sweep early."""


@dataclass(frozen=True)
class PoseReading:
    """How well the arm is held in its middle pose.

    Attributes:
        from_middle_deg: distance of each arm joint with stops from the middle of its travel [deg].
        steady: whether the arm is held still.
        problems: one sentence for each thing that is wrong; empty when the pose may be taken.
    """

    from_middle_deg: Mapping[str, float]
    steady: bool
    problems: tuple[str, ...]


class Calibrator:
    """Calibrates an arm: `start`, `sample` until `sweep.done`, `take_pose`, `plan`, then `commit`."""

    def __init__(
        self, bus: ServoBus, *, gripper_map: GripperMap = 'angle', mirrored_gripper: bool = False
    ) -> None:
        self._bus = bus
        self._gripper_map: GripperMap = gripper_map
        self._mirrored_gripper = mirrored_gripper
        self._offsets: dict[str, int] = {}
        self._recent: deque[dict[str, int]] = deque(maxlen=STEADY_SAMPLES)
        self._zero_ticks: dict[str, int] = {}
        self._sweep_ended = False
        self.sweep = ArmSweep()

    def start(self) -> None:
        """Check the servos and make the arm limp. Writes nothing but the torque switch.

        Raises:
            BusError: a servo does not answer.
            CalibrationError: a servo is of another model, reports a fault or stays stiff.
        """
        for name, model in read_joints(self._bus, Reg.MODEL_NUMBER).items():
            if model != MODEL_STS3215:
                raise CalibrationError(
                    f'{name}: expected a servo of model {MODEL_STS3215} (STS3215), got {model}; '
                    f'this is not an SO-101'
                )
        torque_off(self._bus)
        self._offsets = read_joints(self._bus, Reg.HOMING_OFFSET)
        for reading in self._bus.cycle_read().servos:
            if reading.faults:
                raise CalibrationError(
                    f'{JOINT_NAMES[reading.servo_id - 1]}: expected no fault, got {reading.faults.sentence}; '
                    f'switch the arm off and on and try again'
                )

    def sample(self) -> None:
        """Read all positions once and take them into the sweep, until that is done.

        Raises:
            ServoTimeout: a servo has been silent for a second.
            PortError: the port is gone.
        """
        ticks = {}
        for name, reading in zip(JOINT_NAMES, self._bus.cycle_read().servos, strict=True):
            if reading.ok:
                ticks[name] = reading.wrapped_ticks
            elif reading.age_s > SILENT_S:
                raise ServoTimeout(SERVO_IDS[name], Reg.PRESENT_POSITION.name)
        if not self._sweep_ended:
            self.sweep.update(ticks)
            self._sweep_ended = self.sweep.done
        if len(ticks) == len(JOINT_NAMES):
            self._recent.append(ticks)

    def end_sweep(self) -> None:
        """End the sweep early, on the user's word.

        Raises:
            CalibrationError: a joint has not covered enough; the sweep goes on.
        """
        least = 0.0 if self._gripper_map == 'linear' else ACCEPT_TRAVEL
        short = [
            f'{p.name} {p.travel:.0f} of {p.target:.0f} degrees'
            for p in self.sweep.progress()
            if p.travel < p.target * (least if p.name == GRIPPER else ACCEPT_TRAVEL)
        ]
        if short:
            raise CalibrationError(
                f'expected every joint to go from stop to stop, got {", ".join(short)}; move these on'
            )
        self._sweep_ended = True

    def pose(self) -> PoseReading:
        """Say how well the arm is held in its middle pose, from the latest samples."""
        # Nobody looks between the sweep and the pose, so the steps in between cannot be summed up; but within
        # a turn there is only one distance from the middle.
        latest = self._recent[-1] if self._recent else {}
        distance = {
            name: _short_way(latest[name] - (sweep.low + sweep.high) / 2) * math.degrees(RAD_PER_TICK)
            for name, sweep in self.sweep.joints.items()
            if name != GRIPPER and name in latest
        }
        steady = len(self._recent) == STEADY_SAMPLES and all(
            _spread([sample[name] for sample in self._recent]) <= STEADY_TICKS for name in JOINT_NAMES
        )
        problems = [
            f'{name} is {degrees:+.0f} degrees from the middle of its travel'
            for name, degrees in distance.items()
            if abs(degrees) > POSE_LIMIT_DEG
        ]
        if not steady:
            problems.append('the arm is not held still')
        return PoseReading(distance, steady, tuple(problems))

    def take_pose(self) -> None:
        """Take the present pose as the zero of the joints without stops.

        Raises:
            CalibrationError: the arm is not held in its middle pose; nothing was written.
        """
        problems = self.pose().problems
        if problems:
            raise CalibrationError(
                f'expected the arm to be held still in its middle pose, but {", ".join(problems)}; '
                f'nothing was written, hold it again'
            )
        self._zero_ticks = {name: self._recent[-1][name] for name in FULL_TURN_JOINTS}

    def plan(self, *, signs: Mapping[str, int] | None = None) -> ArmCalibration:
        """Work out the calibration. Writes nothing.

        Args:
            signs: sign of each joint that does not turn like the model, kept from an earlier calibration.

        Raises:
            CalibrationError: the pose was not taken, or what was recorded cannot be right.
        """
        if not self._zero_ticks:
            raise CalibrationError('expected the middle pose to be taken first; call take_pose')
        joints = {name: replace(self._joint(name), sign=(signs or {}).get(name, 1)) for name in JOINT_NAMES}
        return require_plausible(ArmCalibration(joints, self._gripper_map))

    def commit(self, calibration: ArmCalibration, path: Path) -> None:
        """Write the calibration into the servos, prove it, and save the file.

        The calibration is first put aside in a folder `pending`, so that `resume` can finish the work when
        the program or the arm's power ends in the middle.

        Raises:
            BusError: a servo does not answer or does not take a value.
            CalibrationError: the servos do not hold what was written.
        """
        commit(self._bus, calibration, path)

    def _joint(self, name: str) -> JointCalibration:
        if name in self._zero_ticks:
            return full_turn_joint(name, self._zero_ticks[name], old_offset=self._offsets[name])
        sweep = self.sweep.joints[name]
        mirrored = int(name == GRIPPER and self._mirrored_gripper)
        return swept_joint(name, sweep.low, sweep.high, old_offset=self._offsets[name], drive_mode=mirrored)


def commit(bus: ServoBus, calibration: ArmCalibration, path: Path) -> None:
    """Write a calibration into the servos, prove it, and save it; see `Calibrator.commit`."""
    pending = save(calibration, pending_path(path))
    write_servo_values(bus, calibration)
    save(calibration, path)
    for leftover in (pending, sidecar_path(pending)):
        leftover.unlink(missing_ok=True)


def resume(bus: ServoBus, path: Path) -> ArmCalibration:
    """Finish a `commit` that was interrupted, and return its calibration.

    Raises:
        CalibrationNotFoundError: none was interrupted.
    """
    calibration = load(pending_path(path))
    commit(bus, calibration, path)
    return calibration


def pending_path(path: Path) -> Path:
    """Where a calibration lies while it is being written into the servos."""
    return path.parent / 'pending' / path.name


def _spread(ticks: list[int]) -> float:
    around = [_short_way(tick - ticks[0]) for tick in ticks]
    return max(around) - min(around)


def _short_way(ticks: _Ticks) -> _Ticks:
    """The same step the short way round [ticks]."""
    half = TICKS_PER_TURN // 2
    return (ticks + half) % TICKS_PER_TURN - half
