# SPDX-License-Identifier: Apache-2.0
"""Making records out of the messages of one arm, one message at a time."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
import functools
from typing import TypeAlias

import numpy as np

from so101_bags.arms import ArmTopics
from so101_bags.cdr import EventMessage, ImageMessage
from so101_bags.errors import DecodeError
from so101_bags.messages import Decoders
from so101_bags.raw import RawMessage
from so101_contract.episodes import EventKind, Source
from so101_contract.errors import AssemblyError, ContractError
from so101_contract.image import message_to_rgb
from so101_contract.observation_spec import CameraSpec, ObservationSpec
from so101_contract.records import (
    AnyRecord,
    EpisodeEventRecord,
    ExecutedAction,
    ImageSample,
    JointSample,
    StepRecord,
)
from so101_contract.velocity import VelocityEstimator

Made: TypeAlias = tuple[str, int, AnyRecord]
Held: TypeAlias = tuple[int, ImageMessage]

HELD_IMAGES = 60
"""Images per camera that wait for a step to name them: two seconds at 30 Hz, 55 MB at 640 x 480."""

_REMEMBERED_STAMPS = 600


@dataclass(frozen=True)
class EpisodeStart:
    """What an episode began with, as its START event says.

    Attributes:
        episode: its number.
        stamp_ns: when [ns].
        observation_hash: hash of the observation spec.
        action_hash: hash of the action spec.
        calibration_id: the arm's calibration.
    """

    episode: int
    stamp_ns: int
    observation_hash: str
    action_hash: str
    calibration_id: str


class RecordMaker:
    """Decodes messages; holds images back until a step names them."""

    def __init__(
        self, arm: ArmTopics, spec: ObservationSpec, decoders: Decoders, *, all_images: bool = False
    ) -> None:
        self.starts: list[EpisodeStart] = []
        self.skipped: Counter[str] = Counter()
        """Messages that gave no record, by topic and reason."""
        self._step, self._delta, self._event = decoders.step(), decoders.delta(), decoders.event()
        self._joints, self._image = decoders.joints(), decoders.image()
        self._velocity = VelocityEstimator()
        self._cameras = [
            _Camera(topic, next(c for c in spec.cameras if c.name == name), all_images)
            for name, topic in arm.images.items()
        ]
        self._makers: dict[str, Callable[[RawMessage], list[Made]]] = {
            arm.step: self._make_step,
            arm.event: self._make_event,
            arm.command: self._make_action,
            arm.joints: self._make_joints,
        }
        for camera in self._cameras:
            self._makers[camera.topic] = functools.partial(self._make_image, camera)

    @property
    def unnamed_images(self) -> int:
        """Images that came and were not named by any step so far."""
        return sum(camera.came - camera.given for camera in self._cameras)

    def push(self, raw: RawMessage) -> list[Made]:
        """Return the records that a message gives, with topic and time; none where it is unusable."""
        try:
            return self._makers[raw.topic](raw)
        except (ContractError, DecodeError) as error:
            self.skipped[f'{raw.topic}: {error}'] += 1
            return []

    def _make_image(self, camera: '_Camera', raw: RawMessage) -> list[Made]:
        wanted = camera.push(raw.log_ns, self._image(raw.data))
        return [] if wanted is None else [camera.make(*wanted)]

    def _make_step(self, raw: RawMessage) -> list[Made]:
        step = self._step(raw.data)
        record = StepRecord(
            step.episode,
            step.index,
            step.stamp_ns,
            step.joint_stamp_ns,
            step.image_stamps_ns,
            step.reward,
            step.terminated,
            step.truncated,
        )
        if len(record.image_stamps_ns) != len(self._cameras):
            raise AssemblyError(
                f'expected a step with an image stamp for each of {[c.spec.name for c in self._cameras]}, got '
                f'{len(record.image_stamps_ns)}; read the bag with the observation that it was recorded with'
            )
        made: list[Made] = []
        for camera, stamp in zip(self._cameras, record.image_stamps_ns, strict=True):
            held = camera.name(stamp)
            try:
                made += [] if held is None else [camera.make(*held)]
            except ContractError as error:  # the image is lost, the step is not
                self.skipped[f'{camera.topic}: {error}'] += 1
        return [*made, (raw.topic, raw.log_ns, record)]

    def _make_event(self, raw: RawMessage) -> list[Made]:
        event = self._event(raw.data)
        record = EpisodeEventRecord(event.episode, _kind(event), event.stamp_ns)
        if record.kind is EventKind.START:
            contract = (event.observation_hash, event.action_hash, event.calibration_id)
            self.starts.append(EpisodeStart(event.episode, event.stamp_ns, *contract))
        return [(raw.topic, raw.log_ns, record)]

    def _make_action(self, raw: RawMessage) -> list[Made]:
        delta = self._delta(raw.data)
        if delta.source not in {source.value for source in Source}:
            raise AssemblyError(f'expected a source 0..3 of an action, got {delta.source}; repair its sender')
        record = ExecutedAction(
            delta.episode, delta.index, np.array(delta.translation), delta.gripper, Source(delta.source)
        )
        return [(raw.topic, raw.log_ns, record)]

    def _make_joints(self, raw: RawMessage) -> list[Made]:
        joints = self._joints(raw.data)
        if joints.velocity.size or not joints.names:
            record = JointSample.from_message(joints.stamp_ns, joints.names, joints.position, joints.velocity)
        else:
            still = JointSample.from_message(
                joints.stamp_ns, joints.names, joints.position, 0.0 * joints.position
            )
            velocity = self._velocity.update(joints.stamp_ns, still.position)
            record = JointSample(joints.stamp_ns, still.position, velocity)
        return [(raw.topic, raw.log_ns, record)]


class _Camera:
    """The images of one camera that no step has named yet, and the stamps whose image has not come yet."""

    def __init__(self, topic: str, spec: CameraSpec, give_all: bool) -> None:
        self.topic, self.spec, self._give_all = topic, spec, give_all
        self.came = self.given = 0
        self._held: deque[Held] = deque(maxlen=HELD_IMAGES)
        self._awaited: dict[int, None] = {}
        self._named: dict[int, None] = {}

    def push(self, log_ns: int, image: ImageMessage) -> Held | None:
        """Take an image; return it where it is wanted already."""
        self.came += 1
        self._named.pop(image.stamp_ns, None)  # a clock that was set back brings old stamps with new pictures
        if self._give_all or image.stamp_ns in self._awaited:
            self._awaited.pop(image.stamp_ns, None)
            return log_ns, image
        self._held.append((log_ns, image))
        return None

    def name(self, stamp_ns: int) -> Held | None:
        """Return the image that a step names, if it is here; else remember that it is wanted."""
        if self._give_all or stamp_ns in self._named:
            return None
        _remember(self._named, stamp_ns)
        for held in self._held:
            if held[1].stamp_ns == stamp_ns:
                return held
        _remember(self._awaited, stamp_ns)
        return None

    def make(self, log_ns: int, image: ImageMessage) -> Made:
        """Scale an image down.

        Raises:
            ContractError: its encoding or size make no sense.
        """
        self.given += 1
        pixels = message_to_rgb(image.height, image.width, image.encoding, image.step, image.data)
        return self.topic, log_ns, ImageSample.from_raw(self.spec, image.stamp_ns, pixels)


def _remember(stamps: dict[int, None], stamp_ns: int) -> None:
    stamps[stamp_ns] = None
    if len(stamps) > _REMEMBERED_STAMPS:
        del stamps[next(iter(stamps))]


def _kind(event: EventMessage) -> EventKind:
    if event.kind not in {kind.value for kind in EventKind}:
        raise AssemblyError(f'expected a known kind of event, got {event.kind}; use a newer version')
    return EventKind(event.kind)
