# SPDX-License-Identifier: Apache-2.0
"""Transitions that share their frames, and the episode whose messages complete them one by one."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from typing import TypeAlias

from so101_contract.messages import EpisodeEventRecord, ExecutedAction, StepRecord
from so101_contract.observation import Frame, Observation, observation_of
from so101_contract.session import EventKind, Outcome, Source

_ACTORS = (Source.POLICY, Source.TELEOP)


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
    """

    episode: int
    outcome: Outcome | None
    steps: int
    transitions: int
    intervened: int
    dropped: Mapping[Reason, int]
    discarded: bool


Output: TypeAlias = Transition | EpisodeReport


def settle(outputs: Iterable[Output]) -> list[Transition]:
    """Reduce everything that an assembler put out to what is left of it at the end.

    Later revisions replace earlier ones and discarded episodes are dropped. Episodes come in the order in
    which they closed, each in the order of its steps; episodes without a report come last.
    """
    pending: dict[int, dict[int, Transition]] = {}
    settled: list[Transition] = []
    for output in outputs:
        if isinstance(output, Transition):
            pending.setdefault(output.episode, {})[output.index] = output
        else:
            episode = pending.pop(output.episode, {})
            settled += [] if output.discarded else [episode[index] for index in sorted(episode)]
    for number in sorted(pending):
        settled += [pending[number][index] for index in sorted(pending[number])]
    return settled


class OpenEpisode:
    """The steps, frames, actions and labels of an episode, in whatever order they came.

    Whether step k gives a transition depends on what is known about steps k-T+1 .. k+1 alone. More knowledge
    only ever adds transitions, so the order in which messages come does not matter.
    """

    def __init__(
        self, number: int, *, frame_stack: int, horizon: int, success_reward: float, failure_reward: float
    ) -> None:
        self.number = number
        self._frame_stack = frame_stack
        self._horizon = horizon
        self._bonus = {Outcome.SUCCESS: success_reward, Outcome.FAILURE: failure_reward}
        self._steps: dict[int, StepRecord] = {}
        self._actions: dict[int, ExecutedAction] = {}
        self._frames: dict[int, Frame | Reason] = {}
        self._given: dict[int, Transition | None] = {}
        self._label: tuple[int, Outcome] | None = None
        self._dropped: Counter[Reason] = Counter()
        self._forgotten = 0  # steps below this index are accounted for and gone
        self._steps_seen = self._transitions = self._intervened = 0
        self._last_step: StepRecord | None = None
        self.first_stamp_ns: int | None = None
        self.discarded = False

    def begins_again_with(self, step: StepRecord) -> bool:
        """Whether the step is another first one than the one known: a restarted session reuses the number."""
        if step.index != 0 or not self._steps:
            return False
        if self.first_stamp_ns is not None:
            return step.stamp_ns != self.first_stamp_ns
        return step.stamp_ns > min(known.stamp_ns for known in self._steps.values())

    def add_step(self, step: StepRecord) -> bool:
        """Take a step; return False where it is known, or too old."""
        if step.index < self._forgotten or step.index in self._steps:
            return False
        self._steps[step.index] = step
        self._steps_seen += 1
        if step.index == 0:
            self.first_stamp_ns = step.stamp_ns
        if self._last_step is None or step.index > self._last_step.index:
            self._last_step = step
        self._forget_before(self._last_step.index - self._horizon)
        return True

    def add_action(self, action: ExecutedAction) -> bool:
        """Take an action; return False where one is known, or it is too old."""
        if action.index < self._forgotten or action.index in self._actions:
            return False
        self._actions[action.index] = action
        if len(self._actions) > 2 * self._horizon:  # actions without steps: keep the newest
            del self._actions[min(self._actions)]
        return True

    def add_frame(self, index: int, frame: Frame | Reason) -> None:
        """Take what was measured at a step that is known, or the reason why that cannot be used."""
        if index in self._steps:
            self._frames[index] = frame

    def add_event(self, event: EpisodeEventRecord) -> list[Transition]:
        """Take an event; return the transitions that a new label changes."""
        outcome = event.kind.outcome
        if event.kind is EventKind.DISCARD or outcome is None or self.discarded:
            self.discarded |= event.kind is EventKind.DISCARD
            return []
        label = (event.stamp_ns, outcome)
        if self._label is not None and label <= self._label:
            return []
        self._label = label
        revised = []
        for index, old in self._given.items():
            if old is None:
                continue
            reward, terminated, truncated = self._labelled(self._steps[index + 1])
            new = replace(old, reward=reward, terminated=terminated, truncated=truncated)
            if (new.reward, new.terminated) != (old.reward, old.terminated):
                revised.append(replace(new, revision=old.revision + 1))
        self._given.update({transition.index: transition for transition in revised})
        return revised

    def complete_around(self, index: int) -> list[Transition]:
        """Return the transitions that became complete through something new about a step."""
        new = []
        for k in range(max(index - 1, self._forgotten), index + self._frame_stack):
            if k in self._given or self.discarded:
                continue
            transition = self._transition(k)
            if isinstance(transition, Transition):
                # Only those into a last step can be revised later; of the others the number is enough.
                self._given[k] = transition if transition.ends else None
                self._transitions += 1
                self._intervened += transition.intervened
                new.append(transition)
        return new

    def window(self, index: int) -> tuple[Frame, ...] | Reason:
        """Return the T frames of the observation at a step, oldest first, or why there is none."""
        indices = [max(i, 0) for i in range(index - self._frame_stack + 1, index + 1)]
        known = [i for i in dict.fromkeys(indices) if i in self._steps]
        if index not in known:
            return Reason.STEP
        newest = self._frames.get(index, Reason.JOINT)
        if isinstance(newest, Reason):
            return newest
        frames = [self._frames.get(i, Reason.STACK) for i in indices]
        whole = [frame for frame in frames if isinstance(frame, Frame)]
        steps = [self._steps[i] for i in known]
        in_order = all(a.stamp_ns < b.stamp_ns and not a.ends for a, b in pairwise(steps))
        return tuple(whole) if len(whole) == len(frames) and in_order else Reason.STACK

    def report(self) -> EpisodeReport:
        """Return the account of the episode as it stands now."""
        dropped = self._dropped.copy()
        last = self._last_step
        if last is not None:
            self._count_dropped(dropped, last.index if last.ends else last.index + 1)
        outcome = None if self._label is None else self._label[1]
        if outcome is None and last is not None and last.ends:
            outcome = self._own_outcome(last)
        return EpisodeReport(
            episode=self.number,
            outcome=Outcome.DISCARD if self.discarded else outcome,
            steps=self._steps_seen,
            transitions=self._transitions,
            intervened=self._intervened,
            dropped={reason: dropped[reason] for reason in Reason if dropped[reason]},
            discarded=self.discarded,
        )

    def _transition(self, k: int) -> Transition | Reason:
        found = self._step_and_action(k)
        if isinstance(found, Reason):
            return found
        after, action = found
        pair = [self._frames.get(i, Reason.JOINT) for i in (k, k + 1)]
        for reason in (Reason.JOINT, Reason.IMAGE, Reason.STATE):
            if reason in pair:
                return reason
        frames, next_frame = self.window(k), pair[1]
        if isinstance(frames, Reason) or isinstance(next_frame, Reason):
            return Reason.STACK
        return Transition(frames, next_frame, action, *self._labelled(after))

    def _step_and_action(self, k: int) -> tuple[StepRecord, ExecutedAction] | Reason:
        """Return the step after k and the action of k, or why they belong to no transition."""
        step, after, action = self._steps.get(k), self._steps.get(k + 1), self._actions.get(k)
        if step is None or after is None:
            return Reason.STEP if step is None else Reason.NEXT_STEP
        if step.ends or after.stamp_ns <= step.stamp_ns:
            return Reason.AFTER_END if step.ends else Reason.OUT_OF_ORDER
        if action is None:
            return Reason.ACTION
        return (after, action) if action.source in _ACTORS else Reason.SOURCE

    def _labelled(self, step: StepRecord) -> tuple[float, bool, bool]:
        """Return reward, terminated and truncated of a step as the latest label has them."""
        if not step.ends or self._label is None:
            return step.reward, step.terminated, step.truncated and not step.terminated
        own, said = self._own_outcome(step), self._label[1]
        reward = step.reward + (self._bonus.get(said, 0.0) - self._bonus.get(own, 0.0))
        return reward, said.terminal, not said.terminal

    def _own_outcome(self, step: StepRecord) -> Outcome:
        """Return the outcome that a last step itself tells by its flags and its reward."""
        if not step.terminated:
            return Outcome.TIME_LIMIT
        distance = {outcome: abs(step.reward - bonus) for outcome, bonus in self._bonus.items()}
        return min(distance, key=lambda outcome: (distance[outcome], outcome))

    def _forget_before(self, index: int) -> None:
        """Account for the steps below an index and forget them, so that a long episode stays bounded."""
        if index <= self._forgotten:
            return
        self._count_dropped(self._dropped, index)
        self._forgotten = index
        keep = index - self._frame_stack
        for held, first in (
            (self._steps, keep),
            (self._frames, keep),
            (self._actions, index),
            (self._given, index),
        ):
            for old in [i for i in held if i < first]:
                del held[old]

    def _count_dropped(self, counter: Counter[Reason], end: int) -> None:
        """Count why steps from the first one not accounted for up to `end` gave no transition."""
        known = [k for k in self._steps if self._forgotten <= k < end]
        for k in known:
            if k not in self._given:
                reason = self._transition(k)
                assert isinstance(reason, Reason)
                counter[reason] += 1
        counter[Reason.STEP] += end - self._forgotten - len(known)
