# SPDX-License-Identifier: Apache-2.0
"""The four tasks of Plappert et al. 2018 (arXiv:1802.09464): what lies where, where the goal is, when it is reached.

All of them have one shape: something, the hand itself or an object, shall come within 5 cm of a goal. The numbers are
those of Gymnasium-Robotics 1.4.2, so that results can be laid beside published ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from so101_fetch.errors import FetchError

FloatArray = npt.NDArray[np.float64]

REACHED_M = 0.05
"""Distance from the goal that counts as there [m]."""

MAX_STEPS, RATE_HZ = 50, 25.0
"""Length of an episode [steps], and steps a second [Hz]."""

NEAREST_M = 0.1
"""Horizontal distance of hand and object in the beginning, at least [m]."""


@dataclass(frozen=True, kw_only=True)
class FetchTask:
    """What is to be done.

    Attributes:
        name: as in the id of the environment.
        mjcf: file of the model.
        instruction: what a vision-language-action model is told.
        base: where the robot stands, x and y [m].
        object_start: where the object lies before it is moved aside (3,) [m]; None where there is none.
        hand_height: of the hand above where the model's own start puts it [m].
        object_range: how far the object lies from under the hand, at most, along x and y [m].
        goal_offset: middle of the goals, seen from the hand (3,) [m].
        goal_range: how far a goal is from there, at most, along each axis [m].
        highest_goal: of half of the goals above the table [m]; 0 for goals on the table.
        keeps_closed: the fingers do not move.
    """

    name: str
    mjcf: str
    instruction: str
    base: tuple[float, float] = (0.405, 0.48)
    object_start: tuple[float, float, float] | None = (1.25, 0.53, 0.42469)
    hand_height: float = 0.0
    object_range: float = 0.15
    goal_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    goal_range: float = 0.15
    highest_goal: float = 0.0
    keeps_closed: bool = True

    @property
    def has_object(self) -> bool:
        """Whether there is something to move."""
        return self.object_start is not None

    def object_place(self, rng: np.random.Generator, hand: FloatArray) -> FloatArray:
        """Return where the object lies in the beginning, x and y (2,) [m].

        Args:
            rng: source of chance.
            hand: where the hand begins (3,) [m].
        """
        while True:
            place: FloatArray = hand[:2] + rng.uniform(-self.object_range, self.object_range, 2)
            if np.linalg.norm(place - hand[:2]) >= NEAREST_M:
                return place

    def goal(self, rng: np.random.Generator, hand: FloatArray) -> FloatArray:
        """Return the goal of an episode (3,) [m]."""
        goal = hand + self.goal_offset + rng.uniform(-self.goal_range, self.goal_range, 3)
        if self.object_start is None:
            return np.asarray(goal)
        goal[2] = self.object_start[2]
        if self.highest_goal and rng.random() < 0.5:
            goal[2] += rng.uniform(0.0, self.highest_goal)
        return np.asarray(goal)


TASKS: Mapping[str, FetchTask] = MappingProxyType(
    {
        task.name: task
        for task in (
            FetchTask(
                name='PickAndPlace',
                mjcf='pick_and_place.xml',
                instruction='pick up the cube and bring it to the red mark',
                hand_height=0.2,
                highest_goal=0.45,
                keeps_closed=False,
            ),
            FetchTask(name='Push', mjcf='push.xml', instruction='push the cube onto the red mark'),
            FetchTask(
                name='Slide',
                mjcf='slide.xml',
                instruction='hit the puck so that it slides to the red mark',
                base=(0.05, 0.48),
                object_start=(1.7, 1.1, 0.41402),
                hand_height=-0.02,
                object_range=0.1,
                goal_offset=(0.4, 0.0, 0.0),
                goal_range=0.3,
            ),
            FetchTask(
                name='Reach',
                mjcf='reach.xml',
                instruction='bring the hand to the red mark',
                object_start=None,
                hand_height=0.2,
            ),
        )
    }
)
"""Tasks by name."""


def get_task(name: str) -> FetchTask:
    """Return the task of that name.

    Raises:
        FetchError: there is none.
    """
    if name not in TASKS:
        raise FetchError(f'expected one of the tasks {list(TASKS)}, got {name!r}; name one of them')
    return TASKS[name]
