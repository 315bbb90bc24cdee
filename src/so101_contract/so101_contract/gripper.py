# SPDX-License-Identifier: Apache-2.0
"""The ways in which networks and vendors say where the gripper should go."""

from collections.abc import Mapping
from enum import Enum, IntEnum
from types import MappingProxyType

from so101_contract.errors import ActionError
from so101_contract.joints import gripper_opening_to_rad

_RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {'signed': (-1.0, 1.0), 'opening': (0.0, 1.0), 'percent': (0.0, 100.0), 'discrete': (0.0, 2.0)}
)


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
    """The three choices of the DISCRETE convention; `command` is their -1, 0, 1 form."""

    CLOSE = 0
    STAY = 1
    OPEN = 2

    @property
    def command(self) -> int:
        """-1 close, 0 stay, 1 open, as HIL-SERL counts."""
        return self.value - 1

    @classmethod
    def from_command(cls, command: int) -> 'DiscreteGripper':
        """Return the choice for -1, 0 or 1."""
        if command not in (-1, 0, 1):
            raise ActionError(f'expected a gripper command of -1, 0 or 1, got {command!r}; correct it')
        return cls(int(command) + 1)
