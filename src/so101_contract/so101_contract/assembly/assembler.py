# SPDX-License-Identifier: Apache-2.0
"""The assembler: sorts messages into episodes, and lets out what each of them completes."""

from collections import Counter
from dataclasses import replace
import logging
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.assembly.episode import OpenEpisode, StateOf
from so101_contract.base import BaseRecord
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
from so101_contract.session import NO_EPISODE, Outcome
from so101_contract.transition import EpisodeReport, Output, Reason

_log = logging.getLogger(__name__)

_REMEMBERED = 4096  # closed episodes whose late messages are told from those of a new one

FloatArray: TypeAlias = npt.NDArray[np.float64]


class Assembler:
    """Puts the messages of one arm's session together; several arms need one each.

    `push` returns what a message completes. A transition comes out as soon as it is complete, so they are not
    always in order, and again with a higher `revision` if a later label changes its reward or flags. An
    episode closes when `limits.episodes` later ones are open, when it is discarded, and on `close` and
    `flush`; its report comes out then. A label that comes later still, for as many episodes as `limits.labels`, gives
    a revision and another report. `settle` reduces all this to a plain list.
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
        self._ended: dict[int, tuple[OpenEpisode, EpisodeReport]] = {}
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
        if episode is None and isinstance(record, EpisodeEventRecord) and record.episode in self._ended:
            outputs += self._correct(record)
        elif episode is None:
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
            elif isinstance(record, ExecutedAction):
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
        report = opened.report()
        if not report.discarded:
            self._ended[episode] = opened.ended(), report
        if len(self._ended) > self._limits.labels:
            del self._ended[next(iter(self._ended))]
        self._closed[episode] = opened.first_stamp_ns
        if len(self._closed) > _REMEMBERED:
            del self._closed[next(iter(self._closed))]
        return [report]

    def flush(self) -> list[Output]:
        """Close every open episode and return their reports."""
        return [output for episode in self.open_episodes for output in self.close(episode)]

    def _correct(self, event: EpisodeEventRecord) -> list[Output]:
        """Return what a late label changes of a closed episode: its last transition, or all of it, and its report."""
        episode, report = self._ended[event.episode]
        if event.kind.outcome is None:
            self.stats['late'] += 1
            return []
        revised = episode.add_event(event)
        outcome = Outcome.DISCARD if episode.discarded else episode.outcome
        if outcome is None or outcome is report.outcome:
            return []
        report = replace(report, outcome=outcome, discarded=episode.discarded, revision=report.revision + 1)
        self._ended[event.episode] = episode, report
        if report.discarded:
            del self._ended[event.episode]
        return [*revised, report]

    def _episode(
        self, record: StepRecord | ExecutedAction | BaseRecord | EpisodeEventRecord, outputs: list[Output]
    ) -> OpenEpisode | None:
        """Return the open episode that a record belongs to; None where that is closed."""
        number = record.episode
        if isinstance(record, StepRecord) and self._begins_again(record):
            _log.warning('episode %d begins again: the session was restarted', number)
            outputs += self.flush()
            self._closed.clear()
            self._ended.clear()
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
