# SPDX-License-Identifier: Apache-2.0
"""Hindsight experience replay: an episode is told again as if what it reached had been its goal.

After Andrychowicz et al. 2017 (arXiv:1707.01495), for tasks whose state says the goal. A told episode has the rewards
of ours: 1 where it first comes within reach of the goal, and ends there. An episode in which nothing moved would tell
that every action succeeds, so it is not told. Pictures show the goal that was meant, so with cameras there is none.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hilserl_learner.errors import LearnerError
from so101_contract.observation import Frame
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import Transition
from so101_fetch.tasks import REACHED_M

GOAL, WAY = 'goal_pos', 'goal_rel'
MOVERS = ('object_pos', 'hand_pos')
"""Blocks of what shall come to the goal; the first that there is counts."""


class Hindsight:
    """Listens to transitions and tells each episode again, some times, when it is over."""

    def __init__(self, observation: ObservationSpec, times: int, rng: np.random.Generator) -> None:
        """Prepare.

        Args:
            observation: says where goal and mover are in the state.
            times: how often an episode is told again; 0 for not at all.
            rng: draws the goals.

        Raises:
            LearnerError: the observation has no goal, or cameras that show it.
        """
        self.times, self._rng = times, rng
        self._episode: list[Transition] = []
        if not times:
            return
        movers = [name for name in MOVERS if name in observation.block_names]
        if observation.cameras or not movers or not {GOAL, WAY} <= set(observation.block_names):
            raise LearnerError(
                f'expected an observation without cameras and with the blocks {GOAL} and {WAY} for hindsight, got '
                f'{list(observation.block_names)} and the cameras {list(observation.camera_names)}; leave hindsight '
                f'at 0, or learn from --observation state of a Fetch environment'
            )
        self._mover = observation.slice_of(movers[0])
        self._goal, self._way = observation.slice_of(GOAL), observation.slice_of(WAY)

    def heard(self, transition: Transition) -> Iterator[tuple[int, Transition]]:
        """Take a transition; after the last one of an episode, yield what is told, each with its telling's number."""
        if not self.times or transition.revision:
            return
        if self._episode and self._episode[-1].episode != transition.episode:
            self._episode = []
        self._episode.append(transition)
        if not transition.ends:
            return
        episode, self._episode = self._episode, []
        for number in range(self.times):
            reached = episode[int(self._rng.integers(len(episode)))].next_frame.state[self._mover]
            for told in self._told(episode, reached):
                yield number, told

    def _told(self, episode: list[Transition], goal: npt.NDArray[np.float32]) -> Iterator[Transition]:
        if self._near(episode[0].frames[-1], goal):
            return
        seen: dict[int, Frame] = {}

        def retold(frame: Frame) -> Frame:
            if id(frame) not in seen:
                state = frame.state.copy()
                state[self._goal], state[self._way] = goal, goal - state[self._mover]
                seen[id(frame)] = replace(frame, state=state)
            return seen[id(frame)]

        for transition in episode:
            success = self._near(transition.next_frame, goal)
            yield replace(
                transition,
                frames=tuple(retold(frame) for frame in transition.frames),
                next_frame=retold(transition.next_frame),
                reward=float(success),
                terminated=success,
                truncated=False,
            )
            if success:
                return

    def _near(self, frame: Frame, goal: npt.NDArray[np.float32]) -> bool:
        return bool(np.linalg.norm(frame.state[self._mover] - goal) < REACHED_M)
