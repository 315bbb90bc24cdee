# SPDX-License-Identifier: Apache-2.0
"""What comes out of an assembler: transitions that share their frames, and the account of each episode."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from so101_contract.messages import ExecutedAction
from so101_contract.observation import Frame, Observation, observation_of
from so101_contract.session import Outcome, Source


class Reason(Enum):
    """Why a step gave no transition. The first one that applies is counted, in this order."""

    STEP = 'the step itself is missing'
    NEXT_STEP = 'the next step is missing'
    AFTER_END = 'the step ends its episode, yet another one follows'
    OUT_OF_ORDER = 'the next step has no later stamp'
    ACTION = 'the executed action is missing'
    SOURCE = 'the action came from neither policy nor human'
    JOINT = 'the joint message of this or the next step is missing'
    IMAGE = 'an image of this or the next step is missing'
    STATE = 'the joint message of this or the next step was refused'
    STACK = 'an earlier frame of the stack is missing or unusable'


@dataclass(frozen=True, slots=True, eq=False)
class Transition:
    """One step of experience.

    Attributes:
        frames: the T frames of the observation before the action, oldest first, the episode's first one
            repeated where there are fewer.
        next_frame: the newest frame of the observation after it.
        action: what the arm was told in between, and who decided it.
        reward: earned by it.
        terminated: success or failure was reached: the value of the next observation is zero.
        truncated: the episode was cut short here: the next observation still has a value.
        revision: 0; counts up where a late label changed reward or flags. The higher one replaces the lower.
    """

    frames: tuple[Frame, ...]
    next_frame: Frame
    action: ExecutedAction
    reward: float
    terminated: bool
    truncated: bool
    revision: int = 0

    @property
    def episode(self) -> int:
        """Number of the episode."""
        return self.next_frame.episode

    @property
    def index(self) -> int:
        """Number of the step whose action this is."""
        return self.action.index

    @property
    def intervened(self) -> bool:
        """Whether a human decided the action."""
        return self.action.source is Source.TELEOP

    @property
    def ends(self) -> bool:
        """Whether it is the last one of its episode."""
        return self.terminated or self.truncated

    def observation(self) -> Observation:
        """Return a copy of what was seen before the action."""
        return observation_of(self.frames)

    def next_observation(self) -> Observation:
        """Return a copy of what was seen after it."""
        return observation_of((*self.frames[1:], self.next_frame))


@dataclass(frozen=True, kw_only=True)
class EpisodeReport:
    """The account of an episode that is closed.

    Attributes:
        episode: its number.
        outcome: its latest label, else what its last step says; None where neither came.
        steps: steps that came.
        transitions: transitions that they gave.
        intervened: how many of them a human decided.
        dropped: how many steps gave none, by reason.
        discarded: the human threw it away: forget every transition of it.
        revision: how often a late label has corrected it since it was closed.
    """

    episode: int
    outcome: Outcome | None
    steps: int
    transitions: int
    intervened: int
    dropped: Mapping[Reason, int]
    discarded: bool
    revision: int = 0


Output: TypeAlias = Transition | EpisodeReport


def settle(outputs: Iterable[Output]) -> list[Transition]:
    """Reduce everything that an assembler put out to what is left of it at the end.

    Later revisions replace earlier ones and discarded episodes are dropped. Episodes come in the order in
    which they closed, each in the order of its steps; episodes without a report come last.
    """
    pending: dict[int, dict[int, Transition]] = {}
    closed: list[dict[int, Transition]] = []
    places: dict[int, dict[int, Transition]] = {}
    for output in outputs:
        if isinstance(output, Transition):
            pending.setdefault(output.episode, {})[output.index] = output
        elif output.revision:  # of an episode that was closed before
            known, revised = places[output.episode], pending.pop(output.episode, {})
            known.update(revised)
            if output.discarded:
                known.clear()
        else:
            episode = places[output.episode] = pending.pop(output.episode, {})
            closed.append({} if output.discarded else episode)
    settled = [episode[index] for episode in closed for index in sorted(episode)]
    for number in sorted(pending):
        settled += [pending[number][index] for index in sorted(pending[number])]
    return settled
