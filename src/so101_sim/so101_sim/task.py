# SPDX-License-Identifier: Apache-2.0
"""What the arm shall do with the cube, and when that is done, or lost.

Lifting: the cube is held by both fingers above a height. Placing: the cube lies in the tray, let go of. Both have to
last for some steps, so that a cube that is thrown does not count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from so101_contract.joints import gripper_opening_to_rad
from so101_contract.task_report import Status
from so101_sim.errors import PresetError
from so101_sim.scene import TRAY_HALF_SIZE
from so101_sim.truth import Truth

__all__ = ['TASKS', 'Judge', 'Lift', 'Place', 'Status', 'Task', 'over_tray', 'within_reach']

REACH_LOW, REACH_HIGH = (0.06, -0.30, -0.05), (0.46, 0.30, 0.45)
"""Box of the base frame beyond which the arm cannot get the cube back [m]."""


class Task(Protocol):
    """A task. Its instances are descriptions; `Judge` keeps what changes during an episode."""

    @property
    def name(self) -> str:
        """Short name."""

    @property
    def hold_steps(self) -> int:
        """For how many steps the goal must stay reached."""

    def reached(self, truth: Truth) -> bool:
        """Whether the goal is reached at this moment."""

    def holds(self, truth: Truth) -> bool:
        """Whether the cube counts as held."""


@dataclass(frozen=True, kw_only=True)
class Lift:
    """Lift the cube.

    Attributes:
        height_m: height of its centre above the table that counts. A gripper that points 65 degrees down lifts
            to more than 10 cm everywhere in our presets, a vertical one to 9 cm at most.
        hold_steps: for how many steps it must stay there.
        max_gripper_rad: with a gripper more open than this nothing counts as held [rad].
    """

    name: str = 'lift'
    height_m: float = 0.06
    hold_steps: int = 3
    max_gripper_rad: float = 10.0

    def reached(self, truth: Truth) -> bool:
        """Whether the cube is held above the height."""
        return self.holds(truth) and truth.cube_position[2] > self.height_m

    def holds(self, truth: Truth) -> bool:
        """Whether both fingers touch the cube."""
        return truth.held and gripper_opening_to_rad(truth.opening) < self.max_gripper_rad


@dataclass(frozen=True, kw_only=True)
class Place:
    """Put the cube into the tray.

    Attributes:
        hold_steps: for how many steps it must lie there, untouched by the gripper.
        max_speed: speed below which it lies [m/s].
    """

    name: str = 'place'
    hold_steps: int = 3
    max_speed: float = 0.02

    def reached(self, truth: Truth) -> bool:
        """Whether the cube lies in the tray, let go of."""
        if truth.tray_position is None:
            raise PresetError(
                'expected a scene with a tray for the task place, got one without; set tray_position'
            )
        touched = truth.touches_static or truth.touches_moving
        inside = over_tray(truth, TRAY_HALF_SIZE)
        return inside and truth.in_tray and not touched and truth.cube_speed < self.max_speed

    def holds(self, truth: Truth) -> bool:
        """Whether both fingers touch the cube."""
        return truth.held


TASKS: Mapping[str, type[Lift] | type[Place]] = MappingProxyType({'lift': Lift, 'place': Place})
"""Tasks by name."""


class Judge:
    """Follows one episode of a task, step by step."""

    def __init__(self, task: Task) -> None:
        """Judge by this task; call `reset` at the start of each episode."""
        self.task = task
        self.reset()

    def reset(self) -> None:
        """Begin another episode."""
        self._good_steps = 0
        self._held_high = False

    def judge(self, truth: Truth) -> Status:
        """Return where the episode stands after one more step."""
        held_high = self.task.holds(truth) and not truth.on_table
        dropped = self._held_high and not self.task.holds(truth)
        self._held_high = held_high
        if not truth.finite:
            return Status(failure=True, dropped=dropped, reason='the physics diverged')
        self._good_steps = self._good_steps + 1 if self.task.reached(truth) else 0
        if self._good_steps >= self.task.hold_steps:
            return Status(success=True, good_steps=self._good_steps)
        if not within_reach(truth):
            return Status(failure=True, dropped=dropped, reason='the cube is out of reach')
        return Status(good_steps=self._good_steps, dropped=dropped)


def within_reach(truth: Truth) -> bool:
    """Whether the arm can still get at the cube."""
    return all(
        low <= value <= high
        for low, value, high in zip(REACH_LOW, truth.cube_position, REACH_HIGH, strict=True)
    )


def over_tray(truth: Truth, margin: float) -> bool:
    """Whether the cube's centre is above the tray, within a distance of its centre along x and y [m]."""
    if truth.tray_position is None:
        return False
    dx, dy = (truth.cube_position[i] - truth.tray_position[i] for i in range(2))
    return max(abs(dx), abs(dy)) < margin
