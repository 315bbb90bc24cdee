# SPDX-License-Identifier: Apache-2.0
"""What an action means: the one conversion between a network's numbers and an `EeDelta` message.

A network action has four entries: displacement along x, y, z of the base frame in [-1, 1], and the gripper in
the units of a `GripperConvention`. On the wire the displacement is in metres and the gripper is a target
opening. The scale is applied here and nowhere else.

There is a second kind, for arms that are moved joint by joint: an increment of each joint in [-1, 1] and the gripper;
behind the scale the increments are in rad. A spec has one kind, and an `EeDelta` message carries the first only.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.errors import ActionError
from so101_contract.joints import BASE_FRAME, gripper_opening_to_rad
from so101_contract.record import Record

FloatArray: TypeAlias = npt.NDArray[np.float64]

ACTION_SIZE = 4
AXES = ('x', 'y', 'z', 'gripper')
FEWEST_JOINTS, MOST_JOINTS = 5, 16
"""Joints that an action of the second kind may move."""

_ROUNDING = 1e-6  # an excess this small comes from float32 and is cut without being counted


class GripperConvention(Enum):
    """How a network says the gripper's target; absolute, never a difference.

    | convention | closed (-0.1745 rad) | half open (0.7854 rad) | open (1.7453 rad) | used by |
    |---|---|---|---|---|
    | SIGNED | -1 | 0 | 1 | pick-101, RoboBase |
    | OPENING | 0 | 0.5 | 1 | the wire |
    | PERCENT | 0 | 50 | 100 | LeRobot's motors |
    | DISCRETE | 0 (close) | - | 2 (open) | grasp critics (HIL-SERL, LeRobot); 1 stays |
    """

    SIGNED = 'signed'
    OPENING = 'opening'
    PERCENT = 'percent'
    DISCRETE = 'discrete'

    @property
    def range(self) -> tuple[float, float]:
        """The numbers for closed and for open."""
        return {
            'signed': (-1.0, 1.0),
            'opening': (0.0, 1.0),
            'percent': (0.0, 100.0),
            'discrete': (0.0, 2.0),
        }[self.value]

    def to_opening(self, value: float) -> float:
        """Turn a number of this convention into an opening (0 closed .. 1 open), without clipping."""
        self._refuse_discrete()
        low, high = self.range
        return (value - low) / (high - low)

    def from_opening(self, opening: float) -> float:
        """Turn an opening (0 closed .. 1 open) into a number of this convention, without clipping."""
        self._refuse_discrete()
        low, high = self.range
        return low + opening * (high - low)

    def to_rad(self, value: float) -> float:
        """Turn a number of this convention into a gripper joint position [rad], without clipping."""
        return gripper_opening_to_rad(self.to_opening(value))

    def _refuse_discrete(self) -> None:
        if self is GripperConvention.DISCRETE:
            raise ActionError(
                'expected a continuous gripper convention, got DISCRETE, whose middle means "stay"; '
                'convert with ActionSpec.to_wire and from_wire, which know the present opening'
            )


class DiscreteGripper(IntEnum):
    """The three choices of the DISCRETE convention."""

    CLOSE = 0
    STAY = 1
    OPEN = 2


class Displacement(Protocol):
    """What an action says: `EeDeltaValue`, and `ExecutedAction` that also says for which step and by whom."""

    @property
    def translation(self) -> FloatArray:
        """Displacement of the TCP (3,) [m], or increments of the joints (n,) [rad]."""

    @property
    def opening(self) -> float:
        """Target opening of the gripper."""


@dataclass(frozen=True, eq=False)
class EeDeltaValue:
    """The content of an `EeDelta` message, or of an action that moves joints.

    Attributes:
        translation: displacement of the TCP during the step in the spec's frame (3,) [m], read-only; or the increments
            of the joints (n,) [rad].
        opening: target opening of the gripper, 0 closed .. 1 open.
        clipped: which of x, y, z, gripper were cut to their range on the way (4,), or which joints (n + 1,).
    """

    translation: FloatArray
    opening: float
    clipped: tuple[bool, ...] = (False, False, False, False)

    def __post_init__(self) -> None:
        """Check the shape and refuse NaN; keep a copy that nobody can change."""
        translation = np.array(self.translation, dtype=np.float64)
        opening = float(self.opening)
        known = translation.ndim == 1 and (
            len(translation) == 3 or FEWEST_JOINTS <= len(translation) <= MOST_JOINTS
        )
        if not known or not np.isfinite(translation).all() or not np.isfinite(opening):
            raise ActionError(
                f'expected three finite displacements [m], or one increment for each joint, and a finite opening, got '
                f'{translation.tolist()} and {opening}; hold instead of sending this'
            )
        translation.setflags(write=False)
        object.__setattr__(self, 'translation', translation)
        object.__setattr__(self, 'opening', opening)


@dataclass(frozen=True, eq=False)
class NetworkAction:
    """An action in a network's units.

    Attributes:
        values: x, y, z, or the joints, in [-1, 1] and the gripper in the spec's convention (4,) or (n + 1,).
        clipped: which of them were cut to their range on the way.
    """

    values: FloatArray
    clipped: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class ActionSpec(Record):
    """What the numbers of a network's action mean, four where it moves the TCP.

    Attributes:
        translation_scale_m: displacement for 1.0 along x, y, z [m]; one number stands for all three.
        gripper: how the fourth number says the gripper's target.
        frame_id: the frame of the displacement. Nothing is rotated on the way: the frame of the network is
            the frame on the wire.
        joint_scale_rad: increment of each joint for 1.0 [rad], for an action that moves joints; None for one that moves
            the TCP.
    """

    KIND: ClassVar[str] = 'so101_contract/action/1'
    ERROR = ActionError
    OPTIONAL = frozenset({'joint_scale_rad'})

    translation_scale_m: tuple[float, float, float] = (0.02, 0.02, 0.02)
    gripper: GripperConvention = GripperConvention.SIGNED
    frame_id: str = BASE_FRAME
    joint_scale_rad: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Spread a single scale over the axes and check it."""
        given = vars(self)['translation_scale_m']
        if isinstance(given, int | float | np.number):
            object.__setattr__(self, 'translation_scale_m', (given, given, given))
        super().__post_init__()
        if not all(scale > 0 for scale in self.translation_scale_m):
            raise ActionError(
                f'expected translation scales above 0 m, got {self.translation_scale_m}; correct the spec'
            )
        if not self.frame_id:
            raise ActionError(f'expected the name of a frame, got none; name it, e.g. {BASE_FRAME!r}')
        joints = self.joint_scale_rad
        if joints is not None and not (
            FEWEST_JOINTS <= len(joints) <= MOST_JOINTS and all(scale > 0 for scale in joints)
        ):
            raise ActionError(
                f'expected scales above 0 rad for {FEWEST_JOINTS} to {MOST_JOINTS} joints, got {joints}; correct '
                f'the spec'
            )

    @property
    def scale(self) -> FloatArray:
        """What 1.0 stands for in each entry but the gripper's (3,) [m], or (n,) [rad]."""
        return np.array(self.translation_scale_m if self.joint_scale_rad is None else self.joint_scale_rad)

    @property
    def size(self) -> int:
        """Entries of a network action."""
        return len(self.scale) + 1

    @property
    def low(self) -> FloatArray:
        """Smallest network action (4,), or (n + 1,)."""
        return np.append(-np.ones(self.size - 1), self.gripper.range[0])

    @property
    def high(self) -> FloatArray:
        """Largest network action (4,), or (n + 1,)."""
        return np.append(np.ones(self.size - 1), self.gripper.range[1])

    def to_wire(self, action: npt.ArrayLike, *, present_opening: float | None = None) -> EeDeltaValue:
        """Turn a network action into what an `EeDelta` message carries.

        Args:
            action: (4,) or (n + 1,) in network units; what lies outside is clipped and reported.
            present_opening: the opening now commanded; DISCRETE needs it to stay there.

        Raises:
            ActionError: wrong shape, NaN or infinity, or a discrete gripper value that is none.
        """
        values = np.array(action, dtype=np.float64)
        if values.shape != (self.size,) or not np.isfinite(values).all():
            raise ActionError(
                f'expected a network action of {self.size} finite numbers, got {values.tolist()}; '
                f'hold instead of sending this'
            )
        discrete = self.gripper is GripperConvention.DISCRETE
        if discrete and values[-1] not in (0.0, 1.0, 2.0):
            raise ActionError(
                f'expected a discrete gripper value of 0 (close), 1 (stay) or 2 (open), got {values[-1]}; '
                f'use the index of the chosen action'
            )
        inside, clipped = _clip(values, self.low, self.high)
        if not discrete:
            opening = self.gripper.to_opening(float(inside[-1]))
        elif inside[-1] == DiscreteGripper.STAY:
            opening = _known(present_opening)
        else:
            opening = float(inside[-1] == DiscreteGripper.OPEN)
        return EeDeltaValue(inside[:-1] * self.scale, opening, clipped)

    def from_wire(
        self,
        translation: npt.ArrayLike,
        opening: float,
        *,
        present_opening: float | None = None,
        stay_within: float = 0.02,
    ) -> NetworkAction:
        """Turn the content of an `EeDelta` message into a network action.

        Args:
            translation: displacement in `frame_id` (3,) [m], or increments (n,) [rad]; what lies beyond the scale is
                clipped and reported.
            opening: target opening, 0 closed .. 1 open.
            present_opening: the opening commanded before this action; DISCRETE compares with it.
            stay_within: DISCRETE calls a change of opening up to this "stay".

        Raises:
            ActionError: wrong shape, NaN or infinity.
        """
        wire = self._own(translation, opening)
        # The gripper is clipped as an opening, so that its excess is counted alike in every convention.
        entries = np.append(wire.translation / self.scale, wire.opening)
        inside, clipped = _clip(entries, np.append(-np.ones(self.size - 1), 0.0), np.ones(self.size))
        if self.gripper is GripperConvention.DISCRETE:
            change = float(inside[-1]) - _known(present_opening)
            if abs(change) <= stay_within:
                inside[-1] = DiscreteGripper.STAY
            else:
                inside[-1] = DiscreteGripper.OPEN if change > 0 else DiscreteGripper.CLOSE
        else:
            inside[-1] = self.gripper.from_opening(float(inside[-1]))
        return NetworkAction(inside, clipped)

    def limit(self, value: Displacement) -> EeDeltaValue:
        """Return the value cut to what a network of this spec can say, for commands of a human.

        What comes out is executed and recorded, so that the stored action is the one that the arm was told.
        """
        wire = self._own(value.translation, value.opening)
        most = np.append(self.scale, 1.0)
        inside, clipped = _clip(np.append(wire.translation, wire.opening), np.append(-self.scale, 0.0), most)
        return EeDeltaValue(inside[:-1], float(inside[-1]), clipped)

    def _own(self, translation: npt.ArrayLike, opening: float) -> EeDeltaValue:
        """Return a value, refused where it is of the other kind."""
        wire = EeDeltaValue(np.asarray(translation, dtype=np.float64), opening)
        if len(wire.translation) != self.size - 1:
            raise ActionError(
                f'expected an action of {self.size - 1} entries and the gripper, got {len(wire.translation)} and the '
                f'gripper; one that moves the TCP cannot move joints, nor the other way round'
            )
        return wire


class ClipCounter:
    """Counts how often conversions had to clip, per entry."""

    def __init__(self) -> None:
        self.total = 0
        self.clipped = dict.fromkeys(AXES, 0)

    def add(self, value: EeDeltaValue | NetworkAction) -> None:
        """Count one conversion."""
        self.total += 1
        for axis, clipped in zip(AXES, value.clipped, strict=True):
            self.clipped[axis] += clipped

    @property
    def fraction(self) -> dict[str, float]:
        """Share of the conversions in which each entry was clipped, 0..1."""
        return {axis: count / max(self.total, 1) for axis, count in self.clipped.items()}


def _clip(values: FloatArray, low: FloatArray, high: FloatArray) -> tuple[FloatArray, tuple[bool, ...]]:
    inside = np.clip(values, low, high)
    return inside, tuple((np.abs(values - inside) > _ROUNDING * (high - low)).tolist())


def _known(present_opening: float | None) -> float:
    if present_opening is None or not np.isfinite(present_opening):
        raise ActionError(
            f'expected the present opening for the discrete gripper convention, got {present_opening}; '
            f'pass the opening of the command before'
        )
    return float(present_opening)
