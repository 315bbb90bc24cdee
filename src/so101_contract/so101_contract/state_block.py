# SPDX-License-Identifier: Apache-2.0
"""The named parts of the state vector."""

from dataclasses import dataclass
from typing import ClassVar

from so101_contract.errors import ObservationError
from so101_contract.record import Record

BLOCK_SIZES = {
    'joint_pos': 6,
    'joint_vel': 6,
    'tcp_pos': 3,
    'tcp_euler': 3,
    'tcp_rot6d': 6,
    'tcp_quat': 4,
    'gripper_opening': 1,
    'cube_pos': 3,
    'cube_quat': 4,
}
"""Entries of the state blocks whose meaning is fixed. Other names are free and need values of their own."""

PRIVILEGED_BLOCKS = frozenset({'cube_pos', 'cube_quat'})
"""Blocks that a simulator knows and an arm does not."""


@dataclass(frozen=True)
class StateBlock(Record):
    """A named run of entries of the state vector.

    Attributes:
        name: what the entries are; see `BLOCK_SIZES`.
        size: how many there are.
        privileged: whether only a simulator can know them.
    """

    KIND: ClassVar[str] = 'so101_contract/state_block/1'
    ERROR = ObservationError

    name: str
    size: int
    privileged: bool = False

    def __post_init__(self) -> None:
        """Check the name, and the size where the name fixes it."""
        super().__post_init__()
        if not self.name.isidentifier() or self.size < 1:
            raise ObservationError(
                f'expected a state block with a snake_case name and at least one entry, '
                f'got {self.name!r} with {self.size}; correct the observation spec'
            )
        fixed = BLOCK_SIZES.get(self.name, self.size)
        if self.size != fixed:
            raise ObservationError(f'expected {fixed} entries in {self.name}, got {self.size}; rename it')
        if self.name in BLOCK_SIZES and self.privileged != (self.name in PRIVILEGED_BLOCKS):
            raise ObservationError(
                f'expected privileged={not self.privileged} for {self.name}, got {self.privileged}; '
                f'say what it is, or rename it'
            )

    @classmethod
    def named(cls, name: str) -> 'StateBlock':
        """Return the block with that fixed name."""
        if name not in BLOCK_SIZES:
            raise ObservationError(
                f'expected one of the state blocks {sorted(BLOCK_SIZES)}, got {name!r}; '
                f'give other blocks a size: StateBlock(name, size)'
            )
        return cls(name, BLOCK_SIZES[name], name in PRIVILEGED_BLOCKS)

    @property
    def from_joints(self) -> bool:
        """Whether joint positions and velocities are all that is needed to compute it."""
        return self.name in BLOCK_SIZES and not self.privileged


DEFAULT_STATE = tuple(StateBlock.named(name) for name in ('joint_pos', 'joint_vel', 'tcp_pos', 'tcp_euler'))
"""18 entries in the order of RoboBase policies for this arm."""
