# SPDX-License-Identifier: Apache-2.0
"""Demonstrations whose recorded actions are all zero although the arm moved, and how to give them actions.

That happens where a recorder runs without kinematics. The displacement of the TCP between two steps says what
the action did; it is what a policy would have to say to get the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hilserl_learner.errors import IngestError
from so101_contract.action import ActionSpec, AXES, ClipCounter, EeDeltaValue
from so101_contract.joints import gripper_rad_to_opening
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import Frame, Transition
from so101_kinematics.fk import ForwardKinematics

FloatArray = npt.NDArray[np.float64]

MOVED_M = 0.01
"""A TCP that got this far from where it began has moved [m]."""

ZERO_M = 1e-6
"""Displacements below this are none [m]."""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done to the actions of some episodes.

    Attributes:
        episodes: their numbers.
        transitions: how many actions were replaced.
        clipped: share of them that had to be clipped to what a network can say, by axis, 0..1.
    """

    episodes: tuple[int, ...]
    transitions: int
    clipped: dict[str, float]


class FkRepair:
    """Finds and repairs zero actions of one observation spec; counts what it had to clip."""

    def __init__(self, observation: ObservationSpec, action: ActionSpec) -> None:
        """Prepare.

        Raises:
            IngestError: the state says neither where the TCP is nor how the joints stand.
        """
        self._action = action
        self._counter = ClipCounter()
        self._episodes: list[int] = []
        blocks = observation.block_names
        if 'joint_pos' not in blocks:
            raise IngestError(
                f'expected joint_pos in the state to look for zero actions, got {list(blocks)}; '
                f'ingest with an observation that has it'
            )
        self._joints = observation.slice_of('joint_pos')
        self._fk = ForwardKinematics(observation.tcp)

    @property
    def report(self) -> Repair:
        """What was done so far."""
        fraction = {axis: round(self._counter.fraction[axis], 6) for axis in AXES}
        return Repair(episodes=tuple(self._episodes), transitions=self._counter.total, clipped=fraction)

    def tcp(self, frame: Frame) -> FloatArray:
        """Return where the TCP was [m] (3,)."""
        return self._fk.pose(frame.state[self._joints].astype(np.float64)).position

    def opening(self, frame: Frame) -> float:
        """Return how far the gripper was open, 0..1."""
        return float(gripper_rad_to_opening(float(frame.state[self._joints][-1])))

    def is_zero(self, episode: Sequence[Transition]) -> bool:
        """Whether an episode has no displacement in any action although the TCP moved."""
        if any(np.abs(transition.action.translation).max() > ZERO_M for transition in episode):
            return False
        places = np.array([self.tcp(f) for t in episode for f in (t.frames[-1], t.next_frame)])
        return bool(len(places)) and bool(np.linalg.norm(places - places[0], axis=1).max() > MOVED_M)

    def repair(self, episode: Sequence[Transition]) -> list[Transition]:
        """Return the episode with actions from the displacement and the gripper of the next step."""
        repaired = []
        for transition in episode:
            before, after = transition.frames[-1], transition.next_frame
            moved = EeDeltaValue(self.tcp(after) - self.tcp(before), self.opening(after))
            value = self._action.limit(moved)
            self._counter.add(value)
            action = replace(transition.action, translation=value.translation, opening=value.opening)
            repaired.append(replace(transition, action=action))
        self._episodes += sorted({transition.episode for transition in episode})
        return repaired
