# SPDX-License-Identifier: Apache-2.0
"""The simulated person in a session: which steps it answers, and when it takes over and gives back.

Pure: it is told each event and each step of the session, and says what the person does. Episodes begin and end by the
session's events; the scene and the way home are the session's business.
"""

from dataclasses import dataclass, field

import numpy as np

from so101_contract.action import EeDeltaValue
from so101_contract.episodes import EventKind
from so101_sim.human.expert import Expert
from so101_sim.human.operator import Operator
from so101_sim.scene.ground_truth import Truth

ENDS = frozenset(
    {EventKind.SUCCESS, EventKind.FAILURE, EventKind.DISCARD, EventKind.TIME_LIMIT, EventKind.ABORT}
)
"""Events after which nothing of an episode follows; a late label names an episode that is over already."""


@dataclass(frozen=True)
class Turn:
    """What the person does.

    Attributes:
        action: answers the step; None leaves it to the policy.
        intervene: True takes over before the action, False gives back after it, None leaves it as it is.
        why: for the log, where control changes hands.
    """

    action: EeDeltaValue | None = None
    intervene: bool | None = None
    why: str = ''


NOTHING = Turn()


@dataclass
class Account:
    """What came of the episodes that the person took part in: how many there were, and how many succeeded."""

    episodes: int = 0
    successes: int = 0
    interventions: list[int] = field(default_factory=list)
    """Number of interventions in each."""

    def __str__(self) -> str:
        return (
            f'{self.successes} of {self.episodes} episodes succeeded, {sum(self.interventions)} interventions'
        )


class Participant:
    """Watches and helps with an `Operator`, or does everything itself with an `Expert`."""

    def __init__(self, person: Operator | Expert, rng: np.random.Generator) -> None:
        """Prepare.

        Args:
            person: an operator intervenes, an expert demonstrates.
            rng: everything that is left to chance.
        """
        self.account = Account()
        self._person, self._rng = person, rng
        self._episode: int | None = None
        self._unannounced = False
        self._other = False
        self._interventions = 0

    @property
    def acting(self) -> bool:
        """Whether the person drives now."""
        if self._episode is None:
            return False
        return self._person.intervening if isinstance(self._person, Operator) else True

    def event(self, kind: EventKind, episode: int) -> Turn:
        """Take note of an event of the session."""
        if kind is EventKind.START:
            late, self._unannounced = self._unannounced and episode == self._episode, False
            return NOTHING if late else self._begin(episode)
        if kind in ENDS:
            return self._end(episode, kind) if episode == self._episode else NOTHING
        if kind is EventKind.INTERVENTION_START:
            self._other = not self.acting  # somebody else helps: two people at one arm are one too many
        elif kind is EventKind.INTERVENTION_END:
            self._other = False
        return NOTHING

    def step(self, episode: int, over: bool, truth: Truth) -> Turn:
        """Answer a step.

        Args:
            episode: of the step.
            over: it is the last one of its episode, which nobody answers.
            truth: the scene.
        """
        begun = NOTHING
        if episode != self._episode:  # it came while one was running, or a step has overtaken the event
            begun, self._unannounced = self._begin(episode), True
        if over:
            return NOTHING
        if isinstance(self._person, Expert):
            return Turn(self._person.act(truth), begun.intervene, begun.why)
        if self._other:
            self._person.expert.observe(truth)
            return NOTHING
        decision = self._person.update(truth)
        if decision.started:
            self._interventions += 1
            assert decision.reason is not None
            return Turn(decision.action, True, f'takes over: {decision.reason.value}')
        if decision.ended:
            return Turn(decision.action, False, 'hands back: it is right again')
        return Turn(decision.action)

    def _begin(self, episode: int) -> Turn:
        self._episode, self._other, self._interventions = episode, False, 0
        self._person.reset(self._rng)
        if isinstance(self._person, Operator):
            return NOTHING
        self._interventions = 1
        return Turn(intervene=True, why=f'demonstrates episode {episode}')

    def _end(self, episode: int, kind: EventKind) -> Turn:
        acted = self.acting
        if isinstance(self._person, Operator):
            self._person.end_episode()
        self._episode = None
        self.account.episodes += kind in (EventKind.SUCCESS, EventKind.FAILURE, EventKind.TIME_LIMIT)
        self.account.successes += kind is EventKind.SUCCESS
        self.account.interventions.append(self._interventions)
        return Turn(intervene=False, why=f'lets go: episode {episode} is over') if acted else NOTHING
