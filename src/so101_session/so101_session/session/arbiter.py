# SPDX-License-Identifier: Apache-2.0
"""Arbitration: which action answers a step. Every step gets exactly one, and it is decided in one place.

The policy's answer to a step is executed as soon as it comes. While the person drives, the step is answered by
what the person says: the newest message if it is at most half a step old at the tick, else the first one that
comes, else, half a step later, the newest again as long as the person counts as present. A step without an answer
ends with an action of nothing (`Source.NONE`): the arm holds, and the step is not learned from. So does one whose
answer comes in its last fifth.

When a device says that its person is gone, the arm stops at once: what is left of the running motion is given up
(`Stop`). The action of that step was then not executed as it was said, so the step is `cut`: it gets no successor,
and nothing is learned from it.

Control changes hands between two answers only, so that an action has one source and flags have clean edges.
A message on `teleop/ee_delta` says what the person wants for a whole step, however often it is sent.
"""

from collections import Counter
from dataclasses import dataclass
import math

import numpy as np

from so101_contract.action import ActionSpec, ClipCounter, EeDeltaValue
from so101_contract.episodes import EventKind, Source
from so101_contract.errors import ActionError
from so101_session.session.takeover import Driver, GripperRamp, Takeover

LATEST = 0.8
"""Share of a step after which no action begins: the next step's would overtake it before it is carried out."""

HALF = 0.5
"""Share of a step after which the person's last word counts again."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a policy or a person wants, as it came.

    Attributes:
        translation: displacement of the TCP (3,) [m].
        opening: target opening of the gripper.
        frame_id: frame of the displacement.
        episode: episode that it answers; a person's message may leave this and `index` out.
        index: step that it answers.
        gone: nobody says it: the person's device is gone, or the person has left it.
    """

    translation: tuple[float, float, float]
    opening: float
    frame_id: str
    episode: int = 0
    index: int = 0
    gone: bool = False


@dataclass(frozen=True, eq=False)
class Execute:
    """The one action of a step.

    Attributes:
        episode: episode.
        index: step that it answers.
        value: what the arm is told.
        source: who decided it.
    """

    episode: int
    index: int
    value: EeDeltaValue
    source: Source


@dataclass(frozen=True)
class HandOver:
    """Control changes hands with the step of this index."""

    index: int
    to_person: bool

    @property
    def kind(self) -> EventKind:
        """Its event."""
        return EventKind.INTERVENTION_START if self.to_person else EventKind.INTERVENTION_END


@dataclass(frozen=True)
class Stop:
    """Have the arm stay where it is commanded at this moment."""


Answer = Execute | HandOver | Stop


class Arbiter:
    """Chooses the action of each step; one instance serves one arm. Times are of any one clock [s]."""

    def __init__(self, spec: ActionSpec, takeover: Takeover, ramp: GripperRamp, period_s: float) -> None:
        self.counts: Counter[str] = Counter()
        """Steps by who answered (`policy`, `person`, `unanswered`), and what was thrown away: `late`, `repeated`,
        `foreign` (of another episode), `overruled` (the person drives), `refused` (NaN, wrong frame)."""
        self.clips = ClipCounter()
        self.unanswered = 0
        """Steps without an answer in a row, up to now."""
        self.takeover = takeover
        self.ramp = ramp
        self._spec = spec
        self._period_s = period_s
        self._open: tuple[int, int] | None = None
        self._opened_s = -math.inf
        self._answered = self._moves = self._cut = False
        self._said: EeDeltaValue | None = None
        self._said_s = -math.inf
        self._said_used = True

    def open_step(self, episode: int, index: int, now_s: float) -> list[Answer]:
        """Begin a step; the one before must have been closed."""
        assert self._open is None
        self._open, self._opened_s, self._answered = (episode, index), now_s, False
        self._moves = self._cut = False
        self.takeover.next_step(now_s)
        answers = self._settle()
        if not self._said_used and now_s - self._said_s <= HALF * self._period_s:
            answers += self._by_person(now_s)
        return answers

    @property
    def cut(self) -> bool:
        """Whether the motion of the newest step was given up before its end."""
        return self._cut

    def open_held(self, episode: int, index: int) -> list[Answer]:
        """Begin and end a step in which the arm holds, on purpose."""
        assert self._open is None
        return [Execute(episode, index, EeDeltaValue(np.zeros(3), self.ramp.opening), Source.NONE)]

    def close_step(self) -> list[Answer]:
        """End the step; without an answer, hold."""
        if self._open is None:
            return []
        answers: list[Answer] = []
        if not self._answered:
            self.counts['unanswered'] += 1
            self.unanswered += 1
            answers.append(Execute(*self._open, EeDeltaValue(np.zeros(3), self.ramp.opening), Source.NONE))
        self._open = None
        return answers

    def policy(self, proposal: Proposal, now_s: float) -> list[Answer]:
        """Take what the policy says."""
        if self._open is None or proposal.episode != self._open[0] or proposal.index > self._open[1]:
            self.counts['foreign'] += 1
            return []
        if proposal.index < self._open[1] or self._too_late(now_s):
            self.counts['late'] += 1
            return []
        if self._answered:
            self.counts['repeated'] += 1
            return []
        answers = self._settle()
        if self.takeover.driver(now_s) is not Driver.POLICY:
            self.counts['overruled'] += 1
            return answers
        value = self._value(proposal)
        if value is not None:
            answers.append(self._answer(value, Source.POLICY))
        return answers

    def teleop(self, proposal: Proposal, now_s: float) -> list[Answer]:
        """Take what the person says."""
        if proposal.gone:
            return self._leave()
        value = self._value(proposal)
        if value is None:
            return []
        self.takeover.heard(now_s)
        self._said, self._said_s, self._said_used = value, now_s, False
        if self._open is None or self._answered:
            return []
        return self._settle() + self._by_person(now_s)

    def intervene(self, wanted: bool, now_s: float) -> list[Answer]:
        """Take what the person asked for by the service."""
        self.takeover.request(wanted, now_s)
        self._said, self._said_used = None, True  # what was said before is not meant for now
        return self._settle()

    def poll(self, now_s: float) -> list[Answer]:
        """Look whether half of the step has passed without a word of the person that drives."""
        if self._open is None or self._answered or now_s - self._opened_s < HALF * self._period_s:
            return []
        return self._by_person(now_s)

    def forget(self) -> None:
        """Forget what the person said: another episode begins."""
        self._said, self._said_used, self.unanswered = None, True, 0

    def _leave(self) -> list[Answer]:
        if not self.takeover.leave():
            return []
        self._said, self._said_used = None, True
        self._cut = self._open is not None and self._moves
        return [Stop()]

    def _settle(self) -> list[Answer]:
        if self._open is None or self._answered:
            return []
        changed = self.takeover.settle()
        if changed is None:
            return []
        self.ramp.hand_over()
        return [HandOver(self._open[1], changed)]

    def _by_person(self, now_s: float) -> list[Answer]:
        if self._said is None or self.takeover.driver(now_s) is not Driver.PERSON or self._too_late(now_s):
            return []
        self._said_used = True
        return [self._answer(self._said, Source.TELEOP)]

    def _too_late(self, now_s: float) -> bool:
        return now_s - self._opened_s > LATEST * self._period_s

    def _answer(self, value: EeDeltaValue, source: Source) -> Execute:
        assert self._open is not None
        self._answered = True
        self.unanswered = 0
        self.counts['policy' if source is Source.POLICY else 'person'] += 1
        before = self.ramp.opening
        value = EeDeltaValue(value.translation, self.ramp.next(value.opening), value.clipped)
        self._moves = bool(value.translation.any()) or value.opening != before
        return Execute(*self._open, value, source)

    def _value(self, proposal: Proposal) -> EeDeltaValue | None:
        """Return what can be executed of a proposal, or None where that is nothing."""
        if proposal.frame_id != self._spec.frame_id:
            self.counts['refused'] += 1
            return None
        try:
            value = self._spec.limit(EeDeltaValue(np.array(proposal.translation), proposal.opening))
        except ActionError:
            self.counts['refused'] += 1
            return None
        self.clips.add(value)
        return value
