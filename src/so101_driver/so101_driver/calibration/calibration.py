# SPDX-License-Identifier: Apache-2.0
"""From servo ticks to joint angles and back, for one arm.

A calibration says which ticks each joint can reach, and therefore where its zero is. The zero of an arm
joint is the middle of its recorded range, as in LeRobot's degrees mode; the gripper is anchored at its closed
end, see `GripperMap`. Angles are in rad, with the zeros and signs of the vendor's "new calibration" model;
`ArmReading` is what is known of the six joints in these units.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
import hashlib
import json
import math
from types import MappingProxyType
from typing import Any, get_args, Literal

import numpy as np
import numpy.typing as npt

from so101_contract.joints import GRIPPER, GRIPPER_CLOSED_RAD, GRIPPER_OPEN_RAD, JOINT_NAMES, NUM_JOINTS
from so101_driver.bus.registers import TICKS_PER_TURN

Vector = npt.NDArray[np.float64]

MAX_TICK = TICKS_PER_TURN - 1
RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN

MAX_HOMING_OFFSET = 2047
"""The servo keeps the offset as 11 bits and a sign."""

SERVO_IDS: Mapping[str, int] = MappingProxyType({name: i + 1 for i, name in enumerate(JOINT_NAMES)})
"""The ID that each joint's servo has on every SO-101."""


class CalibrationError(ValueError):
    """A calibration cannot be right; the message says what is wrong with it and what to do."""


@dataclass(frozen=True)
class JointCalibration:
    """What one servo and its joint need to know about each other.

    Attributes:
        id: servo ID on the bus.
        drive_mode: 1 when the gripper closes towards higher ticks (its horn is mounted mirrored), else 0.
        homing_offset: what the servo subtracts from its encoder [ticks], -2047..2047.
        range_min: lowest tick that the joint reaches, 0..4095.
        range_max: highest tick that the joint reaches, 0..4095.
        sign: -1 when the joint turns against the model, else +1.
        offset_rad: added to the angle [rad]; what a zero check measured.
    """

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int
    sign: int = 1
    offset_rad: float = 0.0

    def __post_init__(self) -> None:
        for name in ('id', 'drive_mode', 'homing_offset', 'range_min', 'range_max', 'sign'):
            _check_whole(name, getattr(self, name))
        if not 0 <= self.id <= 252:
            raise CalibrationError(f'id must be 0 to 252, got {self.id}; run setup-motors')
        if self.drive_mode not in (0, 1):
            raise CalibrationError(f'drive_mode must be 0 or 1, got {self.drive_mode}; calibrate again')
        if abs(self.homing_offset) > MAX_HOMING_OFFSET:
            raise CalibrationError(
                f'homing_offset must be -2047 to 2047, got {self.homing_offset}: the servo was read outside '
                f'one turn; switch the arm off and on and calibrate again'
            )
        self._check_range()
        if self.sign not in (-1, 1):
            raise CalibrationError(f'sign must be 1 or -1, got {self.sign}; correct it or leave it out')
        if not (isinstance(self.offset_rad, int | float) and abs(self.offset_rad) <= math.pi):
            raise CalibrationError(
                f'offset_rad must be -3.1416 to 3.1416, got {self.offset_rad!r}; say it in rad, not degrees'
            )
        object.__setattr__(self, 'offset_rad', float(self.offset_rad) + 0.0)  # no -0.0: it hashes apart

    def _check_range(self) -> None:
        for name, tick in (('range_min', self.range_min), ('range_max', self.range_max)):
            if not 0 <= tick <= MAX_TICK:
                raise CalibrationError(
                    f'{name} must be 0 to {MAX_TICK} ticks, got {tick}: the servo was read outside one turn; '
                    f'switch the arm off and on and calibrate again'
                )
        if self.range_min == self.range_max:
            raise CalibrationError(
                f'range_min and range_max are both {self.range_min}: the joint was not moved while its '
                f'range was recorded; calibrate again and move every joint from stop to stop'
            )
        if self.range_min > self.range_max:
            raise CalibrationError(
                f'range_min must be below range_max, got {self.range_min} and {self.range_max}: the range '
                f"wraps around the encoder's seam (4095 to 0); calibrate again"
            )

    @property
    def middle(self) -> float:
        """Middle of the recorded range [ticks]; may end in .5."""
        return (self.range_min + self.range_max) / 2

    @property
    def travel_rad(self) -> float:
        """Length of the recorded range [rad]."""
        return (self.range_max - self.range_min) * RAD_PER_TICK


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise CalibrationError(f'{name} must be a whole number, got {value!r}; calibrate again')


FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GripperMap = Literal['angle', 'linear']
"""How gripper ticks become an angle.

`angle`: the closed end of the recorded range is the model's closed angle, and from there a tick is a tick of
true jaw angle. Real grippers open 109 to 140 degrees where the model has 110, so spreading the recorded range
over the model's would put the jaw up to a quarter off. An opening of 1 is the model's open jaw; a real jaw
that opens wider reads more than 1.

`linear`: the recorded range is spread over the model's. This is for a leader arm, whose trigger has another
geometry than a jaw: trigger released means gripper open.
"""


@dataclass(frozen=True)
class ArmCalibration:
    """The calibration of the six joints of one arm.

    It converts joint vectors of shape (..., 6) in `JOINT_NAMES` order.

    Attributes:
        joints: one `JointCalibration` for each name in `JOINT_NAMES`.
        gripper_map: see `GripperMap`.
    """

    joints: Mapping[str, JointCalibration]
    gripper_map: GripperMap = 'angle'

    def __post_init__(self) -> None:
        _check_names(self.joints)
        _check_ids({name: self.joints[name].id for name in JOINT_NAMES})
        for name in JOINT_NAMES[:-1]:
            if self.joints[name].drive_mode:
                raise CalibrationError(
                    f'{name}: drive_mode must be 0 for an arm joint, got 1, which LeRobot ignores in degrees '
                    f'and obeys in percent; set it to 0, and the sign to -1 if the joint turns the wrong way'
                )
        if self.gripper_map not in get_args(GripperMap):
            raise CalibrationError(f"gripper_map must be 'angle' or 'linear', got {self.gripper_map!r}")
        joints = MappingProxyType({name: self.joints[name] for name in JOINT_NAMES})
        object.__setattr__(self, 'joints', joints)

    def __getitem__(self, name: str) -> JointCalibration:
        """Return the calibration of one joint."""
        return self.joints[name]

    @cached_property
    def calibration_id(self) -> str:
        """Twelve hex digits that change when, and only when, a number of this calibration changes."""
        rows = [[name, *asdict(self.joints[name]).values()] for name in JOINT_NAMES]
        text = json.dumps([rows, self.gripper_map], separators=(',', ':'))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def range_min(self) -> IntArray:
        """Lowest ticks (6,)."""
        return self._column('range_min').astype(np.int64)

    @cached_property
    def range_max(self) -> IntArray:
        """Highest ticks (6,)."""
        return self._column('range_max').astype(np.int64)

    def ticks_to_rad(self, ticks: npt.ArrayLike) -> FloatArray:
        """Turn positions that the servos report into joint angles.

        A position outside 0..4095, which a servo in multi-turn mode can report, is taken modulo one turn. The
        angle is the one within half a turn of the middle of the joint's range, so a joint that is pushed a
        little past tick 0 reads a little past its limit and not a turn away. Nothing is clamped: a real joint
        can stand beyond the model's limits.

        Args:
            ticks: positions (..., 6) [ticks].

        Returns:
            Angles (..., 6) [rad].

        Raises:
            ValueError: the shape is wrong or a value is not finite.
        """
        half = TICKS_PER_TURN / 2
        from_middle = (_vector(ticks, 'ticks') - self._middle + half) % TICKS_PER_TURN - half
        return from_middle * self._gain + self._bias

    def rad_to_ticks(self, rad: npt.ArrayLike) -> IntArray:
        """Turn joint angles into goal positions, clamped to the range that was recorded.

        This is the direction for commands. An angle beyond the recorded range becomes the nearer end of that
        range; it never wraps, for a wrapped goal would send the joint the long way round.

        Args:
            rad: angles (..., 6) [rad].

        Returns:
            Goal positions (..., 6) [ticks], each within its range_min..range_max.

        Raises:
            ValueError: the shape is wrong or a value is not finite.
        """
        return np.clip(self._nearest_tick(rad), self.range_min, self.range_max)

    def rad_to_encoder_ticks(self, rad: npt.ArrayLike) -> IntArray:
        """Turn joint angles into what the servos would report there: `ticks_to_rad` backwards, in 0..4095.

        This is for emulators and comparisons. Do not send the result as a goal; that is `rad_to_ticks`.
        """
        return self._nearest_tick(rad) % TICKS_PER_TURN

    def rad_to_exact_ticks(self, rad: npt.ArrayLike) -> FloatArray:
        """Turn joint angles into ticks and fractions of one, beyond the range too: for other units, not for servos."""
        return (_vector(rad, 'rad') - self._bias) / self._gain + self._middle

    def velocity_to_rad_s(self, ticks_s: npt.ArrayLike) -> FloatArray:
        """Turn velocities (..., 6) [ticks/s] into [rad/s]."""
        return _vector(ticks_s, 'ticks_s') * self._gain

    @cached_property
    def _middle(self) -> FloatArray:
        return self._column('middle')

    @cached_property
    def _gain(self) -> FloatArray:
        """Angle per tick, with its sign [rad]."""
        gain = RAD_PER_TICK * self._column('sign')
        gripper = self.joints[GRIPPER]
        if self.gripper_map == 'linear':
            gain[-1] *= (GRIPPER_OPEN_RAD - GRIPPER_CLOSED_RAD) / gripper.travel_rad
        gain[-1] *= -1 if gripper.drive_mode else 1
        return gain

    @cached_property
    def _bias(self) -> FloatArray:
        """Angle at the middle of the range [rad]."""
        linear = self.gripper_map == 'linear'
        travel = GRIPPER_OPEN_RAD - GRIPPER_CLOSED_RAD if linear else self.joints[GRIPPER].travel_rad
        bias = self._column('offset_rad')
        bias[-1] += GRIPPER_CLOSED_RAD + travel / 2
        return bias

    def _column(self, field: str) -> FloatArray:
        return np.array([getattr(self.joints[name], field) for name in JOINT_NAMES], dtype=np.float64)

    def _nearest_tick(self, rad: npt.ArrayLike) -> IntArray:
        return np.rint(self.rad_to_exact_ticks(rad)).astype(np.int64)


def _check_names(joints: Mapping[str, JointCalibration]) -> None:
    missing = [name for name in JOINT_NAMES if name not in joints]
    extra = [str(name) for name in joints if name not in JOINT_NAMES]
    if missing or extra:
        found = f'without {", ".join(missing)}' if missing else ''
        found += ' and ' if missing and extra else ''
        found += f'with {", ".join(extra)}' if extra else ''
        raise CalibrationError(
            f'expected exactly the joints {", ".join(JOINT_NAMES)}, got a calibration {found}; '
            f'take the file of this arm, or calibrate it'
        )


def _check_ids(ids: Mapping[str, int]) -> None:
    for name, servo_id in ids.items():
        twins = [other for other in ids if other != name and ids[other] == servo_id]
        if twins:
            raise CalibrationError(
                f'expected a servo ID of its own for each joint, got {servo_id} for {name} and {twins[0]}; '
                f'run setup-motors, then calibrate'
            )
        if servo_id != SERVO_IDS[name]:
            raise CalibrationError(
                f'{name}: expected servo ID {SERVO_IDS[name]}, got {servo_id}; '
                f'run setup-motors, then calibrate'
            )


def _vector(values: npt.ArrayLike, what: str) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    if array.shape[-1:] != (len(JOINT_NAMES),):
        raise ValueError(f'expected {what} of shape (..., 6) in JOINT_NAMES order, got {array.shape}')
    if not np.isfinite(array).all():
        raise ValueError(f'expected finite {what}, got {array.tolist()}; hold the arm where it is')
    return array


@dataclass(frozen=True)
class ArmReading:
    """What is known of the six joints now, in the order of `JOINT_NAMES`; every array is (6,).

    A joint that did not answer keeps its last values, a growing age and `fresh` False.

    Attributes:
        position_rad: joint positions [rad]; they may lie outside the limits.
        velocity_rad_s: joint velocities [rad/s].
        temperature_c: servo temperatures [degC].
        voltage_v: supply voltages at the servos [V].
        current_a: motor currents [A].
        load: motor output as a signed fraction of full output, -1..1.
        error: error bits of each servo (`registers.ServoError`).
        age_s: time since each joint answered [s]; infinite where it never did.
        fresh: whether the joint answered in this cycle.
        stamp_s: when the joints were read, monotonic [s]; NaN where that does not matter.
    """

    position_rad: Vector
    velocity_rad_s: Vector
    temperature_c: Vector
    voltage_v: Vector
    current_a: Vector
    load: Vector
    error: npt.NDArray[np.int64]
    age_s: Vector
    fresh: npt.NDArray[np.bool_]
    stamp_s: float = math.nan

    def __post_init__(self) -> None:
        """Check shapes and make read-only copies."""
        for name in list(self.__dataclass_fields__)[:-1]:
            dtype = {'error': np.int64, 'fresh': np.bool_}.get(name, np.float64)
            array: npt.NDArray[Any] = np.array(getattr(self, name), dtype=dtype)
            if array.shape != (NUM_JOINTS,):
                raise ValueError(
                    f'{name} needs one value per joint, shape ({NUM_JOINTS},), got shape {array.shape}.'
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def nothing(cls, stamp_s: float = math.nan) -> 'ArmReading':
        """Return the reading of an arm that does not answer."""
        unknown = np.full(NUM_JOINTS, np.nan)
        return cls(
            position_rad=unknown,
            velocity_rad_s=unknown,
            temperature_c=unknown,
            voltage_v=unknown,
            current_a=unknown,
            load=unknown,
            error=np.zeros(NUM_JOINTS, dtype=np.int64),
            age_s=np.full(NUM_JOINTS, np.inf),
            fresh=np.zeros(NUM_JOINTS, dtype=np.bool_),
            stamp_s=stamp_s,
        )

    @property
    def complete(self) -> bool:
        """Whether every joint was read in this cycle."""
        return bool(self.fresh.all())
