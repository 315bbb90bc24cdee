# SPDX-License-Identifier: Apache-2.0
"""An episode whose messages still come: what of them is complete gives transitions."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
import logging
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.base import BaseAction, BaseRecord
from so101_contract.messages import (
    EpisodeEventRecord,
    ExecutedAction,
    StepRecord,
)
from so101_contract.observation import Frame
from so101_contract.session import EventKind, Outcome, Source
from so101_contract.transition import EpisodeReport, Reason, Transition

_log = logging.getLogger(__name__)

_ACTORS = (Source.POLICY, Source.TELEOP)

FloatArray: TypeAlias = npt.NDArray[np.float64]
StateOf: TypeAlias = Callable[[FloatArray, FloatArray], npt.NDArray[np.float32]]


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
        self._bases: dict[int, BaseAction] = {}
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

    def add_action(self, action: ExecutedAction | BaseRecord) -> bool:
        """Take an action, or what a base policy said; return False where one is known, or it is too old.

        A base's word comes a step before the transition is complete, which does not wait for it.
        """
        held: dict[int, Any] = self._bases if isinstance(action, BaseRecord) else self._actions
        if action.index < self._forgotten or action.index in held:
            return False
        held[action.index] = action.base if isinstance(action, BaseRecord) else action
        if len(held) > 2 * self._horizon:  # actions without steps: keep the newest
            del held[min(held)]
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

    @property
    def outcome(self) -> Outcome | None:
        """Its latest label, or None where none came."""
        return None if self._label is None else self._label[1]

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

    def ended(self) -> 'OpenEpisode':
        """Return what is left of an episode that is closed: enough for a late label to revise its last transition."""
        last = [index for index, transition in self._given.items() if transition is not None]
        for held, kept in (
            (self._given, last),
            (self._steps, [index + 1 for index in last]),
            (self._frames, []),
            (self._actions, []),
        ):
            for old in set(held) - set(kept):
                del held[old]
        return self

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
        action = replace(action, base=self._bases.get(k))
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
            (self._bases, index),
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
