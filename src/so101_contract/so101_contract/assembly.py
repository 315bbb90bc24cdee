# SPDX-License-Identifier: Apache-2.0
"""From messages to transitions: the same assembler runs in the live learner, in the policy and over bags.

Transition k is the observation of step k, the action executed for step k, the reward and flags that step
k + 1 carries, and the observation of step k + 1. The observation of a step is made of exactly the joint and
image messages whose stamps the steps k-T+1 .. k of the same episode name, so it is bit-identical wherever it
is rebuilt.

Messages may come in any order, twice, late or never; the outcome is the same for every order, as long as no
message is later than the limits on memory allow. A step whose inputs are missing gives no transition and is
counted by reason. A frame that is lost takes with it the transitions whose stacks need it, no more: T + 1 of
them at most in the middle of an episode.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
import logging
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.errors import AssemblyError, ObservationError
from so101_contract.messages import (
    AnyRecord,
    EpisodeEventRecord,
    ExecutedAction,
    ImageSample,
    JointSample,
    StepRecord,
)
from so101_contract.observation import check_state, Frame, Limits, Observation, observation_of, SamplePool
from so101_contract.observation_spec import ObservationSpec
from so101_contract.session import EventKind, NO_EPISODE, Outcome, Source
from so101_contract.transition import EpisodeReport, Output, Reason, Transition

_log = logging.getLogger(__name__)

_ACTORS = (Source.POLICY, Source.TELEOP)
_REMEMBERED = 4096  # closed episodes whose late messages are told from those of a new one

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


class Assembler:
    """Puts the messages of one arm's session together; several arms need one each.

    `push` returns what a message completes. A transition comes out as soon as it is complete, so they are not
    always in order, and again with a higher `revision` if a later label changes its reward or flags. An
    episode closes when `limits.episodes` later ones are open, when it is discarded, and on `close` and
    `flush`; its report comes out then. `settle` reduces all this to a plain list.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        state_of: StateOf,
        *,
        limits: Limits | None = None,
        success_reward: float = 1.0,
        failure_reward: float = 0.0,
    ) -> None:
        """Make an assembler.

        Args:
            spec: what an observation consists of.
            state_of: turns joint positions and velocities into the state vector, see `state_builder`.
            limits: bounds on memory.
            success_reward: what a success adds to the reward of the last step. A late label that turns a
                failure or a time limit into a success adds it, the reverse takes it away.
            failure_reward: the same for a failure.
        """
        self.spec = spec
        self.stats: Counter[str] = Counter()
        """Messages that were set aside: `between_episodes`, `repeated`, `late`."""
        self._state_of = state_of
        self._limits = limits or Limits()
        self._rewards = (success_reward, failure_reward)
        waiting = (self._limits.steps + 1) * (self._limits.episodes + 1)
        self._joints: SamplePool[JointSample, StepRecord] = SamplePool(self._limits.joints, waiting)
        self._images: dict[str, SamplePool[ImageSample, StepRecord]] = {
            camera: SamplePool(self._limits.images, waiting) for camera in spec.camera_names
        }
        self._open: dict[int, OpenEpisode] = {}
        self._closed: dict[int, int | None] = {}

    @property
    def open_episodes(self) -> tuple[int, ...]:
        """Numbers of the episodes that are still open, the one opened first first."""
        return tuple(self._open)

    def push(self, record: AnyRecord) -> list[Output]:
        """Take a message and return what it completes.

        Raises:
            AssemblyError: the message does not fit the observation spec; nothing was changed.
        """
        if isinstance(record, JointSample):
            return self._resolve(self._joints, record)
        if isinstance(record, ImageSample):
            return self._resolve(self._pool_of(record), record)
        if isinstance(record, StepRecord) and len(record.image_stamps_ns) != len(self.spec.cameras):
            raise AssemblyError(
                f'expected a step with an image stamp for each of {list(self.spec.camera_names)}, '
                f'got {len(record.image_stamps_ns)}; give session and learner the same observation spec'
            )
        if record.episode == NO_EPISODE:
            self.stats['between_episodes'] += 1
            return []
        outputs: list[Output] = []
        episode = self._episode(record, outputs)
        if episode is None:
            self.stats['late'] += 1
        elif isinstance(record, EpisodeEventRecord):
            outputs += episode.add_event(record)
            if episode.discarded:
                outputs += self.close(episode.number)
        else:
            known = episode.add_step(record) if isinstance(record, StepRecord) else episode.add_action(record)
            if not known:
                self.stats['repeated'] += 1
            elif isinstance(record, StepRecord):
                outputs += self._measure(record)
            else:
                outputs += episode.complete_around(record.index)
        return outputs

    def observation(self, episode: int, index: int) -> Observation:
        """Return the observation of a step whose messages have come.

        Raises:
            AssemblyError: the message says what is missing.
        """
        opened = self._open.get(episode)
        frames = Reason.STEP if opened is None else opened.window(index)
        if isinstance(frames, Reason):
            raise AssemblyError(
                f'expected every message of step {index} of episode {episode}, but {frames.value}; '
                f'hold until a complete step comes'
            )
        return observation_of(frames)

    def ready(self, episode: int, index: int) -> bool:
        """Whether `observation` would return one."""
        opened = self._open.get(episode)
        return opened is not None and not isinstance(opened.window(index), Reason)

    def close(self, episode: int) -> list[Output]:
        """Close an episode and return its report; nothing where it is not open."""
        opened = self._open.pop(episode, None)
        if opened is None:
            return []
        self._joints.forget(lambda step: step.episode == episode)
        for images in self._images.values():
            images.forget(lambda step: step.episode == episode)
        self._closed[episode] = opened.first_stamp_ns
        if len(self._closed) > _REMEMBERED:
            del self._closed[next(iter(self._closed))]
        return [opened.report()]

    def flush(self) -> list[Output]:
        """Close every open episode and return their reports."""
        return [output for episode in self.open_episodes for output in self.close(episode)]

    def _episode(
        self, record: StepRecord | ExecutedAction | EpisodeEventRecord, outputs: list[Output]
    ) -> OpenEpisode | None:
        """Return the open episode that a record belongs to; None where that is closed."""
        number = record.episode
        if isinstance(record, StepRecord) and self._begins_again(record):
            _log.warning('episode %d begins again: the session was restarted', number)
            outputs += self.flush()
            self._closed.clear()
        if number in self._closed:
            return None
        if number not in self._open:
            self._open[number] = OpenEpisode(
                number,
                frame_stack=self.spec.frame_stack,
                horizon=self._limits.steps,
                success_reward=self._rewards[0],
                failure_reward=self._rewards[1],
            )
            if len(self._open) > self._limits.episodes:
                outputs += self.close(self.open_episodes[0])
        return self._open[number]

    def _begins_again(self, step: StepRecord) -> bool:
        """Whether a first step shows that a restarted session counts its episodes from the beginning."""
        if step.episode in self._open:
            return self._open[step.episode].begins_again_with(step)
        closed_ns = self._closed.get(step.episode)
        return step.index == 0 and closed_ns is not None and step.stamp_ns != closed_ns

    def _pool_of(self, image: ImageSample) -> SamplePool[ImageSample, StepRecord]:
        size = self.spec.image_size
        if image.camera not in self._images or image.image.shape != (3, size, size):
            raise AssemblyError(
                f'expected images (3, {size}, {size}) of {list(self._images)}, got {image.image.shape} of '
                f'{image.camera!r}; preprocess them with the camera spec of this observation spec'
            )
        return self._images[image.camera]

    def _resolve(
        self,
        pool: 'SamplePool[JointSample, StepRecord] | SamplePool[ImageSample, StepRecord]',
        sample: JointSample | ImageSample,
    ) -> list[Output]:
        """Store a sample and complete the steps that waited for it."""
        new, waiting = pool.add(sample.stamp_ns, sample)  # type: ignore[arg-type]
        if not new:
            self.stats['repeated'] += 1
        return [output for step in waiting for output in self._measure(step)]

    def _measure(self, step: StepRecord) -> list[Output]:
        """Make the frame of a step if its samples have come; return the transitions that this completes."""
        episode = self._open[step.episode]
        episode.add_frame(step.index, self._frame(step))
        return list(episode.complete_around(step.index))

    def _frame(self, step: StepRecord) -> Frame | Reason:
        """Return the frame of a step; where a sample is missing, wait for it and return the reason."""
        joints = self._joints.get(step.joint_stamp_ns)
        if joints is None:
            self._joints.wait(step.joint_stamp_ns, step)
            return Reason.JOINT
        images = {}
        for camera, stamp_ns in zip(self.spec.camera_names, step.image_stamps_ns, strict=True):
            sample = self._images[camera].get(stamp_ns)
            if sample is None:
                self._images[camera].wait(stamp_ns, step)
                return Reason.IMAGE
            images[camera] = sample.image
        try:
            state = np.array(self._state_of(joints.position, joints.velocity), dtype=np.float32)
            check_state(self.spec, state, stacked=False)
        except ObservationError as error:
            _log.warning('step %d of episode %d gives no state: %s', step.index, step.episode, error)
            return Reason.STATE
        state.setflags(write=False)
        return Frame(step.episode, step.index, step.stamp_ns, state, images)
