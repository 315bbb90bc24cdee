# SPDX-License-Identifier: Apache-2.0
"""Rewards: named terms, each with a weight, so that a log shows what an agent earns its reward with.

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

import numpy as np
import numpy.typing as npt

from so101_sim.errors import PresetError
from so101_sim.scene.ground_truth import Truth
from so101_sim.tasks import Lift, Status, Task

FloatArray = npt.NDArray[np.float64]
Terms = dict[str, float]

REACH_SCALE = 10.0  # a tenth of a metre away is worth a quarter of touching


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

    truth: Truth
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


def near(truth: Truth) -> float:
    """Return how close the grip is to the cube, 0 far .. 1 there."""
    distance = math.dist(truth.grip_position, truth.cube_position)
    return 1.0 - math.tanh(REACH_SCALE * max(0.0, distance - 0.02))


def progress(truth: Truth, task: Task) -> float:
    """Return how far the cube is on its way, 0..1."""
    if isinstance(task, Lift):
        return (
            min(max(truth.cube_position[2] - 0.016, 0.0) / (task.height_m - 0.016), 1.0)
            if truth.held
            else 0.0
        )
    if truth.tray_position is None:
        return 0.0
    distance = math.dist(truth.cube_position[:2], truth.tray_position[:2])
    carried = 1.0 - math.tanh(REACH_SCALE * distance)
    return carried if truth.held or truth.in_tray else 0.0


def _pick101_reach(truth: Truth, gripper_command: float) -> float:
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
