# SPDX-License-Identifier: Apache-2.0
"""Arbitration: which action answers a step. Every step gets exactly one, and it is decided in one place.

The policy's answer to a step is executed as soon as it comes. While the human drives, the step is answered by
what the human says: the newest message if it is at most half a step old at the tick, else the first one that
comes, else, half a step later, the newest again as long as the human counts as present. A step without an answer
ends with an action of nothing (`Source.NONE`): the arm holds, and the step is not learned from. So does one whose
answer comes in its last fifth.

When a device says that its human is gone, the arm stops at once: what is left of the running motion is given up
(`Stop`). The action of that step was then not executed as it was said, so the step is `aborted`: it gets no successor,
and nothing is learned from it.

Control changes hands between two answers only, so that an action has one source and flags have clean edges.
A message on `teleop/ee_delta` says what the human wants for a whole step, however often it is sent.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
import math

import numpy as np

from so101_contract.action import ActionSpec, ClipCounter
from so101_contract.messages import ExecutedAction, StepRecord
from so101_contract.session import Driver, EventKind, NO_EPISODE, Source
from so101_session.session.config import SessionConfig
from so101_session.session.episode import Episode, Event
from so101_session.session.takeover import GripperRamp, Takeover, TakeoverRules

LATEST = 0.8
"""Share of a step after which no action begins: the next step's would overtake it before it is carried out."""

HALF = 0.5
"""Share of a step after which the human's last word counts again."""


@dataclass(frozen=True)
class HandOver:
    """Control changes hands with the step of this index."""

    index: int
    to_human: bool

    @property
    def kind(self) -> EventKind:
        """Its event."""
        return EventKind.INTERVENTION_START if self.to_human else EventKind.INTERVENTION_END


@dataclass(frozen=True)
class Stop:
    """Have the arm stay where it is commanded at this moment."""


Answer = ExecutedAction | HandOver | Stop


class Arbiter:
    """Chooses the action of each step; one instance serves one arm. Times are of any one clock [s]."""

    def __init__(
        self,
        spec: ActionSpec,
        takeover: Takeover,
        ramp: GripperRamp,
        period_s: float,
        *,
        closed: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Steps by who answered (`policy`, `human`, `unanswered`), and what was thrown away: `late`, `repeated`,
        `foreign` (of another episode), `overruled` (the human drives), `refused` (NaN, wrong frame)."""
        self.clips = ClipCounter()
        self.unanswered = 0
        """Steps without an answer in a row, up to now."""
        self.takeover = takeover
        self.ramp = ramp
        self._spec = spec
        self._period_s = period_s
        self._closed = closed
        self._open: tuple[int, int] | None = None
        self._opened_s = -math.inf
        self._answered = self._moves = self._aborted = False
        self._said: ExecutedAction | None = None
        self._said_s = -math.inf
        self._said_used = True

    def open_step(self, episode: int, index: int, now_s: float) -> list[Answer]:
        """Begin a step; the one before must have been closed."""
        assert self._open is None
        self._open, self._opened_s, self._answered = (episode, index), now_s, False
        self._moves = self._aborted = False
        self.takeover.next_step(now_s)
        answers = self._apply_handover()
        if not self._said_used and now_s - self._said_s <= HALF * self._period_s:
            answers += self._by_human(now_s)
        return answers

    @property
    def aborted(self) -> bool:
        """Whether the motion of the newest step was given up before its end."""
        return self._aborted

    def open_held(self, episode: int, index: int) -> list[Answer]:
        """Begin and end a step in which the arm holds, on purpose."""
        assert self._open is None
        return [self._hold(episode, index)]

    def close_step(self) -> list[Answer]:
        """End the step; without an answer, hold."""
        if self._open is None:
            return []
        answers: list[Answer] = []
        if not self._answered:
            self.counts['unanswered'] += 1
            self.unanswered += 1
            answers.append(self._hold(*self._open))
        self._open = None
        return answers

    def refuse(self) -> None:
        """Count a message that says nothing that can be executed."""
        self.counts['refused'] += 1

    def policy(self, action: ExecutedAction, now_s: float) -> list[Answer]:
        """Take what the policy says."""
        if self._open is None or action.episode != self._open[0] or action.index > self._open[1]:
            self.counts['foreign'] += 1
            return []
        if action.index < self._open[1] or self._too_late(now_s):
            self.counts['late'] += 1
            return []
        if self._answered:
            self.counts['repeated'] += 1
            return []
        answers = self._apply_handover()
        if self.takeover.driver(now_s) is not Driver.POLICY:
            self.counts['overruled'] += 1
            return answers
        answers.append(self._answer(self._limited(action), Source.POLICY))
        return answers

    def teleop(self, action: ExecutedAction, now_s: float) -> list[Answer]:
        """Take what the human says; nothing, said by nobody, means that the human is gone."""
        if action.source is Source.NONE and not action.translation.any():
            return self._leave()
        self.takeover.heard(now_s)
        self._said, self._said_s, self._said_used = self._limited(action), now_s, False
        if self._open is None or self._answered:
            return []
        return self._apply_handover() + self._by_human(now_s)

    def intervene(self, wanted: bool, now_s: float) -> list[Answer]:
        """Take what the human asked for by the service."""
        self.takeover.request(wanted, now_s)
        self._said, self._said_used = None, True  # what was said before is not meant for now
        return self._apply_handover()

    def poll(self, now_s: float) -> list[Answer]:
        """Look whether half of the step has passed without a word of the human that drives."""
        if self._open is None or self._answered or now_s - self._opened_s < HALF * self._period_s:
            return []
        return self._by_human(now_s)

    def forget(self) -> None:
        """Forget what the human said: another episode begins."""
        self._said, self._said_used, self.unanswered = None, True, 0

    def _leave(self) -> list[Answer]:
        if not self.takeover.leave():
            return []
        self._said, self._said_used = None, True
        self._aborted = self._open is not None and self._moves
        return [Stop()]

    def _apply_handover(self) -> list[Answer]:
        if self._open is None or self._answered:
            return []
        changed = self.takeover.apply_handover()
        if changed is None:
            return []
        self.ramp.hand_over()
        return [HandOver(self._open[1], changed)]

    def _by_human(self, now_s: float) -> list[Answer]:
        if self._said is None or self.takeover.driver(now_s) is not Driver.HUMAN or self._too_late(now_s):
            return []
        self._said_used = True
        return [self._answer(self._said, Source.TELEOP)]

    def _too_late(self, now_s: float) -> bool:
        return now_s - self._opened_s > LATEST * self._period_s

    def _hold(self, episode: int, index: int) -> ExecutedAction:
        return ExecutedAction(episode, index, np.zeros(3), self.ramp.opening, Source.NONE)

    def _answer(self, action: ExecutedAction, source: Source) -> ExecutedAction:
        assert self._open is not None
        self._answered = True
        self.unanswered = 0
        self.counts['policy' if source is Source.POLICY else 'human'] += 1
        before = self.ramp.opening
        opening = self.ramp.next(action.opening)
        self._moves = bool(action.translation.any()) or opening != before
        episode, index = self._open
        return replace(action, episode=episode, index=index, opening=opening, source=source, stamp_ns=0)

    def _limited(self, action: ExecutedAction) -> ExecutedAction:
        """Return what is executed of an action: no more than a network could say."""
        inside = self._spec.limit(action)
        self.clips.add(inside)
        # A gripper that the task keeps closed: what is executed, and so what is learned from, says so too.
        opening = 0.0 if self._closed else inside.opening
        return replace(action, translation=inside.translation, opening=opening)


def arbiter_of(config: SessionConfig, spec: ActionSpec, *, closed: bool) -> Arbiter:
    """Return the arbiter of a session; `closed`: its task keeps the gripper closed."""
    rules = TakeoverRules(
        auto_takeover=config.auto_takeover,
        give_back_s=config.give_back_s,
        timeout_s=config.teleop_timeout_s,
        dwell_steps=config.dwell_steps,
    )
    ramp = GripperRamp(config.gripper_ramp, config.gripper_ramp_steps)
    return Arbiter(spec, Takeover(rules), ramp, config.period_s, closed=closed)


def events_of(
    answers: Sequence[Answer | StepRecord], episode: Episode | None
) -> list[Event | Stop | ExecutedAction | StepRecord]:
    """Turn a change of hands into its event; steps and actions stay what they are, and the episode notes actions."""
    said: list[Event | Stop | ExecutedAction | StepRecord] = []
    for answer in answers:
        if isinstance(answer, ExecutedAction) and episode is not None:
            episode.note(answer.source)
        if isinstance(answer, HandOver):
            said.append(Event(answer.kind, NO_EPISODE if episode is None else episode.number, answer.index))
        else:
            said.append(answer)
    return said
