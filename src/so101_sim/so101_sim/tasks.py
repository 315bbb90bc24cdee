# SPDX-License-Identifier: Apache-2.0
"""Tasks and rewards: what the arm shall do with the cube, when that is done or lost, and what a step is worth.

Lifting: the cube is held by both fingers above a height. Placing: the cube lies in the tray, let go of. Pushing: the
object stands on the mark. Each has to last for some steps, so that a cube that is thrown does not count.

A reward is made of named terms, so that a log shows what an agent earns it with:

| reward | terms | for |
|---|---|---|
| sparse | success 1, failure 0 | HIL-SERL, demonstrations |
| dense | reach, hold, progress (together at most 0.02 a step), success 1, a price on jerky actions | learning alone |
| pick101 | those of pick-101's configuration v19 | its policies |
| minus_one | -1 a step, 0 at success | pick-101's sparse mode |

In the dense reward, doing nothing forever beside the goal is worth less than success at any discount up to 0.98.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import math
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from so101_contract.joints import gripper_opening_to_rad
from so101_contract.task.spec import Goal, TaskSpec
from so101_contract.task_report import Status
from so101_sim.errors import PresetError
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.scene.scene import TRAY_HALF_SIZE

__all__ = ['Judge', 'Lift', 'Place', 'Push', 'Status', 'Task', 'over_tray', 'task_of', 'within_reach']

REACH_LOW, REACH_HIGH = (0.06, -0.30, -0.05), (0.46, 0.30, 0.45)
"""Box of the base frame beyond which the arm cannot get the cube back [m]."""

FloatArray = npt.NDArray[np.float64]
Terms = dict[str, float]
FALLEN = 0.7  # cosine of the tilt at which an object does not stand any more
REACH_SCALE = 10.0  # a tenth of a metre away is worth a quarter of touching


class Task(Protocol):
    """A task. Its instances are descriptions; `Judge` keeps what changes during an episode."""

    @property
    def name(self) -> str:
        """Short name."""

    @property
    def hold_steps(self) -> int:
        """For how many steps the goal must stay reached."""

    def reached(self, truth: GroundTruth) -> bool:
        """Whether the goal is reached at this moment."""

    def holds(self, truth: GroundTruth) -> bool:
        """Whether the cube counts as held."""

    def lost(self, truth: GroundTruth) -> str:
        """Why the task can no longer be done, as a clause; empty where it can."""


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

    def reached(self, truth: GroundTruth) -> bool:
        """Whether the cube is held above the height."""
        return self.holds(truth) and truth.cube_position[2] > self.height_m

    def holds(self, truth: GroundTruth) -> bool:
        """Whether both fingers touch the cube."""
        return truth.held and gripper_opening_to_rad(truth.opening) < self.max_gripper_rad

    def lost(self, truth: GroundTruth) -> str:
        """Why it can no longer be done."""
        return out_of_reach(truth)


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

    def reached(self, truth: GroundTruth) -> bool:
        """Whether the cube lies in the tray, let go of."""
        if truth.tray_position is None:
            raise PresetError(
                'expected a scene with a tray for the task place, got one without; set tray_position'
            )
        touched = truth.touches_static or truth.touches_moving
        inside = over_tray(truth, TRAY_HALF_SIZE)
        return inside and truth.in_tray and not touched and truth.cube_speed < self.max_speed

    def holds(self, truth: GroundTruth) -> bool:
        """Whether both fingers touch the cube."""
        return truth.held

    def lost(self, truth: GroundTruth) -> str:
        """Why it can no longer be done."""
        return out_of_reach(truth)


@dataclass(frozen=True, kw_only=True)
class Push:
    """Push the object onto the mark.

    Attributes:
        radius_m: how far its centre may be from that of the mark [m].
        hold_steps: for how many steps it must stay there.
        max_speed: speed below which it stands [m/s].
    """

    name: str = 'push'
    radius_m: float = 0.03
    hold_steps: int = 3
    max_speed: float = 0.02

    def reached(self, truth: GroundTruth) -> bool:
        """Whether it stands on the mark."""
        return to_mark(truth) < self.radius_m and truth.cube_speed < self.max_speed

    def holds(self, truth: GroundTruth) -> bool:
        """Nothing is held."""
        del truth
        return False

    def lost(self, truth: GroundTruth) -> str:
        """Why it can no longer be done."""
        _, x, y, _ = truth.cube_quat_wxyz
        upright = 1.0 - 2.0 * (x * x + y * y)
        return out_of_reach(truth) or ('the object has fallen over' if upright < FALLEN else '')


def to_mark(truth: GroundTruth) -> float:
    """Return the distance of the object from the mark on the table [m]."""
    if truth.tray_position is None:
        raise PresetError(
            'expected a scene with a mark for the task push, got one without; set mark_position'
        )
    return math.dist(truth.cube_position[:2], truth.tray_position[:2])


def task_of(spec: TaskSpec, rate_hz: float) -> Task:
    """Return what is judged in a task, at so many control steps per second [Hz]."""
    scene, steps = spec.simulation, spec.hold_steps(rate_hz)
    if scene.goal is Goal.LIFT:
        return Lift(name=spec.name, height_m=scene.height_m, hold_steps=steps)
    if scene.goal is Goal.PLACE:
        return Place(name=spec.name, hold_steps=steps)
    return Push(name=spec.name, radius_m=scene.radius_m, hold_steps=steps)


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

    def judge(self, truth: GroundTruth) -> Status:
        """Return where the episode stands after one more step."""
        held_high = self.task.holds(truth) and not truth.on_table
        dropped = self._held_high and not self.task.holds(truth)
        self._held_high = held_high
        if not truth.finite:
            return Status(failure=True, dropped=dropped, reason='the physics diverged')
        self._good_steps = self._good_steps + 1 if self.task.reached(truth) else 0
        if self._good_steps >= self.task.hold_steps:
            return Status(success=True, good_steps=self._good_steps)
        if why := self.task.lost(truth):
            return Status(failure=True, dropped=dropped, reason=why)
        return Status(good_steps=self._good_steps, dropped=dropped)


def within_reach(truth: GroundTruth) -> bool:
    """Whether the arm can still get at the cube."""
    return all(
        low <= value <= high
        for low, value, high in zip(REACH_LOW, truth.cube_position, REACH_HIGH, strict=True)
    )


def out_of_reach(truth: GroundTruth) -> str:
    """Return that the arm cannot get at the cube, as a clause; empty where it can."""
    return '' if within_reach(truth) else 'the cube is out of reach'


def over_tray(truth: GroundTruth, margin: float) -> bool:
    """Whether the cube's centre is above the tray, within a distance of its centre along x and y [m]."""
    if truth.tray_position is None:
        return False
    dx, dy = (truth.cube_position[i] - truth.tray_position[i] for i in range(2))
    return max(abs(dx), abs(dy)) < margin


@dataclass(frozen=True)
class Moment:
    """What a reward may look at.

    Attributes:
        truth: the scene after the step.
        status: where the episode stands after it.
        action: (4,) the action of the step in network units.
        last_action: (4,) that of the step before; the same at the first step.
        gripper_command: opening that the step asked for, 0 closed .. 1 open.
    """

    truth: GroundTruth
    status: Status
    action: FloatArray
    last_action: FloatArray
    gripper_command: float


RewardFunction = Callable[[Moment, Task], Terms]


def sparse(moment: Moment, task: Task) -> Terms:
    """Return 1 at success."""
    del task
    return {'success': float(moment.status.success)}


def minus_one(moment: Moment, task: Task) -> Terms:
    """Return -1 for each step without success."""
    del task
    return {'time': float(moment.status.success) - 1.0}


def dense(moment: Moment, task: Task) -> Terms:
    """Return small rewards on the way to success."""
    truth = moment.truth
    held = float(task.holds(truth))
    return {
        'reach': 0.004 * max(held, near(truth)),
        'hold': 0.004 * held,
        'progress': 0.012 * progress(truth, task),
        'jerk': -0.0005 * float(np.sum((moment.action - moment.last_action) ** 2)),
        'success': float(moment.status.success),
    }


def pick101(moment: Moment, task: Task) -> Terms:
    """Return the reward of pick-101's v19, which its policies were trained on."""
    truth, status = moment.truth, moment.status
    height, held = truth.cube_position[2], task.holds(truth)
    goal = task.height_m if isinstance(task, Lift) else 0.08
    terms = {
        'reach': _pick101_reach(truth, moment.gripper_command),
        'push_down': -50.0 * max(0.0, 0.01 - height),
        'drop': -2.0 * status.dropped,
        'grasp': 1.5 * held,
        'lift': 4.0 * max(0.0, height - 0.015) / 0.065 if held else 0.0,
        'off_table': float(held and height > 0.02),
        'ramp': 2.0 * min(max((height - 0.04) / 0.04, 0.0), 1.0) if held else 0.0,
        'target': 1.0 if height > goal else 0.0,
        'hold': 0.5 * status.good_steps,
        'success': 10.0 * status.success,
    }
    jerk = float(np.sum((moment.action - moment.last_action) ** 2))
    terms['jerk'] = -0.02 * jerk if status.good_steps else 0.0
    return terms


REWARDS: Mapping[str, RewardFunction] = MappingProxyType(
    {'sparse': sparse, 'dense': dense, 'pick101': pick101, 'minus_one': minus_one}
)
"""Rewards by name."""


def get_reward(reward: str | RewardFunction) -> RewardFunction:
    """Return the reward of that name; a function is returned as it is."""
    if callable(reward):
        return reward
    if reward not in REWARDS:
        raise PresetError(
            f'expected one of the rewards {list(REWARDS)}, got {reward!r}; name one or pass a function'
        )
    return REWARDS[reward]


def near(truth: GroundTruth) -> float:
    """Return how close the grip is to the cube, 0 far .. 1 there."""
    distance = math.dist(truth.grip_position, truth.cube_position)
    return 1.0 - math.tanh(REACH_SCALE * max(0.0, distance - 0.02))


def progress(truth: GroundTruth, task: Task) -> float:
    """Return how far the cube is on its way, 0..1."""
    if isinstance(task, Lift):
        return (
            min(max(truth.cube_position[2] - 0.016, 0.0) / (task.height_m - 0.016), 1.0)
            if truth.held
            else 0.0
        )
    if isinstance(task, Push):
        return 1.0 - math.tanh(REACH_SCALE * to_mark(truth))
    if truth.tray_position is None:
        return 0.0
    distance = math.dist(truth.cube_position[:2], truth.tray_position[:2])
    carried = 1.0 - math.tanh(REACH_SCALE * distance)
    return carried if truth.held or truth.in_tray else 0.0


def _pick101_reach(truth: GroundTruth, gripper_command: float) -> float:
    reach = 1.0 - math.tanh(REACH_SCALE * math.dist(truth.tcp_position, truth.cube_position))
    if reach < 0.7:
        return reach
    closed = 2.0 * gripper_command - 1.0 < -0.5
    finger = (
        1.0
        if closed
        else 1.0 - math.tanh(REACH_SCALE * math.dist(truth.finger_position, truth.cube_position))
    )
    return 0.5 * (reach + finger)
