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
from collections.abc import Callable, Hashable
from dataclasses import dataclass
import logging
from typing import Generic, TypeAlias, TypeVar

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
from so101_contract.observation import check_state, Frame, Observation, observation_of
from so101_contract.observation_spec import ObservationSpec
from so101_contract.session import NO_EPISODE
from so101_contract.transition import OpenEpisode, Output, Reason

_log = logging.getLogger(__name__)

_REMEMBERED = 4096  # closed episodes whose late messages are told from those of a new one

Sample = TypeVar('Sample')
Key = TypeVar('Key', bound=Hashable)
FloatArray: TypeAlias = npt.NDArray[np.float64]
StateOf: TypeAlias = Callable[[FloatArray, FloatArray], npt.NDArray[np.float32]]


class SamplePool(Generic[Sample, Key]):
    """Keeps the samples that came last, and remembers who asked for one that has not come yet."""

    def __init__(self, limit: int, waiting_limit: int) -> None:
        """Make a pool for so many samples, and so many keys that wait; what came first leaves first."""
        self._limit = limit
        self._waiting_limit = waiting_limit
        self._waiting_count = 0
        self._samples: dict[int, Sample] = {}
        self._waiting: dict[int, list[Key]] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, stamp_ns: int, sample: Sample) -> tuple[bool, list[Key]]:
        """Store a sample; it replaces one with the same stamp, which is its copy or of a clock set back.

        Returns:
            Whether its stamp was new, and who waited for it.
        """
        new = self._samples.pop(stamp_ns, None) is None
        self._samples[stamp_ns] = sample
        if len(self._samples) > self._limit:
            del self._samples[next(iter(self._samples))]
        waited = self._waiting.pop(stamp_ns, [])
        self._waiting_count -= len(waited)
        return new, waited

    def get(self, stamp_ns: int) -> Sample | None:
        """Return the sample with that stamp, or None where it has not come or has left."""
        return self._samples.get(stamp_ns)

    def wait(self, stamp_ns: int, key: Key) -> None:
        """Remember that `key` needs the sample with that stamp."""
        self._waiting.setdefault(stamp_ns, []).append(key)
        self._waiting_count += 1
        while self._waiting_count > self._waiting_limit:
            self._waiting_count -= len(self._waiting.pop(next(iter(self._waiting))))

    def forget(self, condition: Callable[[Key], bool]) -> None:
        """Stop waiting on behalf of the keys for which the condition holds."""
        kept = {stamp: [key for key in keys if not condition(key)] for stamp, keys in self._waiting.items()}
        self._waiting = {stamp: keys for stamp, keys in kept.items() if keys}
        self._waiting_count = sum(map(len, self._waiting.values()))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an assembler keeps, which bounds its memory.

    An image of S px takes 3 S^2 bytes: 21 kB at 84 px. With the defaults and one such camera the pool of
    images stays under 20 MB, and each open episode under 44 MB, whatever comes in.

    Attributes:
        joints: joint messages kept for steps that name them later; 30 s at 100 Hz.
        images: images kept per camera; 30 s at 30 Hz.
        steps: steps kept per open episode; the transitions of older ones are out, or counted as dropped.
        episodes: episodes kept open for late messages and labels; the oldest closes when there are more.
    """

    joints: int = 3000
    images: int = 900
    steps: int = 2000
    episodes: int = 2

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could be assembled."""
        if min(self.joints, self.images, self.episodes) < 1 or self.steps < 2:
            raise AssemblyError(f'expected limits of at least 1 (steps: 2), got {self}; raise them')


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
