# SPDX-License-Identifier: Apache-2.0
"""From the messages of one arm to the records that the assembler is fed with, from a bag or live. No ROS needed."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
import functools
from pathlib import Path
from typing import Any

from so101_bags import messages
from so101_bags.messages import Decoders
from so101_bags.storage import BagError, DecodeError, open_bags, Progress, RawBag, RawMessage, TopicInfo
from so101_contract.base import BaseAction, BaseRecord
from so101_contract.errors import AssemblyError, ContractError
from so101_contract.joints import VelocityEstimator
from so101_contract.messages import (
    AnyRecord,
    EpisodeEventRecord,
    ExecutedAction,
    image_sample,
    ImageSample,
    joint_sample,
)
from so101_contract.observation_spec import CameraSpec, ObservationSpec
from so101_contract.session import EventKind, Source
from so101_interfaces_py import topics
from so101_interfaces_py.conversions import stamp_to_ns

HELD_IMAGES = 60
"""Images per camera that wait for a step to name them: two seconds at 30 Hz, 55 MB at 640 x 480."""

_REMEMBERED_STAMPS = 600

_MARKS = (topics.STEP, topics.EE_DELTA_CMD, topics.JOINT_STATES)


@dataclass(frozen=True)
class ArmTopics:
    """The topics of one arm, by absolute name.

    Attributes:
        namespace: empty, or e.g. `/left`.
        step: the control clock.
        event: what happened to episodes.
        command: the executed actions.
        base: what a base policy says.
        joints: joint states.
        images: topic of each camera of the spec, by the camera's name.
    """

    namespace: str
    step: str
    event: str
    command: str
    base: str
    joints: str
    images: Mapping[str, str]

    @classmethod
    def of(cls, namespace: str, spec: ObservationSpec) -> 'ArmTopics':
        """Return the names under a namespace."""
        prefix = normal_namespace(namespace)
        camera_topic = topics.IMAGE.split('/', 1)[1]
        return cls(
            prefix,
            f'{prefix}/{topics.STEP}',
            f'{prefix}/{topics.EPISODE_EVENT}',
            f'{prefix}/{topics.EE_DELTA_CMD}',
            f'{prefix}/{topics.POLICY_BASE}',
            f'{prefix}/{topics.JOINT_STATES}',
            {camera: f'{prefix}/{camera}/{camera_topic}' for camera in spec.camera_names},
        )

    @property
    def needed(self) -> Mapping[str, str]:
        """Type of each topic that learning cannot do without."""
        return {
            self.step: messages.STEP,
            self.command: messages.DELTA,
            self.joints: messages.JOINTS,
            **dict.fromkeys(self.images.values(), messages.IMAGE),
        }

    @property
    def optional(self) -> Mapping[str, str]:
        """Type of each topic that learning can do without."""
        return {self.event: messages.EVENT, self.base: messages.DELTA}

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic that records come from."""
        return (*self.needed, *self.optional)

    def missing(self, found: Mapping[str, TopicInfo]) -> list[str]:
        """Return the needed topics that a bag does not have, or has without a message."""
        return [topic for topic in self.needed if topic not in found or found[topic].count == 0]

    def require(self, found: Mapping[str, TopicInfo], where: str) -> None:
        """Refuse a bag that lacks something.

        Raises:
            BagError: naming every topic that is missing, empty, or of another type.
        """
        missing = self.missing(found)
        if missing:
            hints = [f'{topic} has {found[topic].count} messages' for topic in missing if topic in found]
            compressed = [topic for topic in missing if f'{topic}/compressed' in found]
            if compressed:
                hints.append(f'{compressed[0]}/compressed cannot stand in for it: JPEG changes the pixels')
            raise BagError(
                f'expected messages on {", ".join(self.needed)} in {where}, missing: {", ".join(missing)}'
                f'{" (" + "; ".join(hints) + ")" if hints else ""}; record these topics too'
            )
        for topic, msgtype in {**self.needed, **self.optional}.items():
            if topic in found and found[topic].msgtype != msgtype:
                raise BagError(
                    f'expected {msgtype} on {topic} in {where}, got {found[topic].msgtype}; read another bag'
                )


def normal_namespace(namespace: str) -> str:
    """Return a namespace as a prefix: empty, or with a slash in front and none behind."""
    inner = namespace.strip('/')
    return f'/{inner}' if inner else ''


def arms_of(found: Iterable[str]) -> list[str]:
    """Return the namespaces of the arms whose topics are given, by the first mark that any of them has."""
    names = list(found)
    for mark in _MARKS:
        arms = sorted({name[: -len(mark) - 1] for name in names if name.endswith(f'/{mark}')})
        if arms:
            return arms
    return []


def choose_arm(found: Mapping[str, TopicInfo], namespace: str | None, where: str) -> str:
    """Return the namespace to read.

    Raises:
        BagError: there are several and none was chosen, or the chosen one is not there.
    """
    arms = arms_of(found)
    if namespace is None:
        if len(arms) > 1:
            raise BagError(
                f'expected one arm in {where}, got the namespaces {[arm or "/" for arm in arms]}; '
                f'choose one of them'
            )
        return arms[0] if arms else ''
    chosen = normal_namespace(namespace)
    if arms and chosen not in arms:
        raise BagError(
            f'expected an arm in the namespace {chosen or "/"} of {where}, got {[arm or "/" for arm in arms]}; '
            f'choose one of them'
        )
    return chosen


class RecordMaker:
    """Makes records, one message at a time; holds images back until a step names them."""

    def __init__(
        self, arm: ArmTopics, spec: ObservationSpec, decoders: Decoders, *, all_images: bool = False
    ) -> None:
        self.starts: list[EpisodeEventRecord] = []
        """With the contract and calibration that each episode began with."""
        self.skipped: Counter[str] = Counter()
        """Messages that gave no record, by topic and reason."""
        self._step, self._event = decoders.step(), decoders.event()
        self._joints, self._image = decoders.joints(), decoders.image()
        self._velocity = VelocityEstimator()
        self._cameras = [
            _Camera(topic, next(c for c in spec.cameras if c.name == name), all_images)
            for name, topic in arm.images.items()
        ]
        action = decoders.action()
        self._makers: dict[str, Callable[[bytes], list[AnyRecord]]] = {
            arm.step: self._on_step,
            arm.event: self._on_event,
            arm.command: lambda data: [action(data)],
            arm.base: lambda data: [_base_record(action(data))],
            arm.joints: lambda data: [joint_sample(self._joints(data), self._velocity)],
        }
        for camera in self._cameras:
            self._makers[camera.topic] = functools.partial(self._on_image, camera)

    @property
    def unnamed_images(self) -> int:
        """Images that came and were not named by any step so far."""
        return sum(camera.came - camera.given for camera in self._cameras)

    def push(self, raw: RawMessage) -> list[AnyRecord]:
        """Return the records that a message gives; none where it is unusable."""
        try:
            return self._makers[raw.topic](raw.data)
        except (ContractError, DecodeError) as error:
            self.skipped[f'{raw.topic}: {error}'] += 1
            return []

    def _on_image(self, camera: '_Camera', data: bytes) -> list[AnyRecord]:
        wanted = camera.push(self._image(data))
        return [] if wanted is None else [camera.make(wanted)]

    def _on_step(self, data: bytes) -> list[AnyRecord]:
        step = self._step(data)
        if len(step.image_stamps_ns) != len(self._cameras):
            raise AssemblyError(
                f'expected a step with an image stamp for each of {[c.spec.name for c in self._cameras]}, got '
                f'{len(step.image_stamps_ns)}; read the bag with the observation that it was recorded with'
            )
        made: list[AnyRecord] = []
        for camera, stamp in zip(self._cameras, step.image_stamps_ns, strict=True):
            held = camera.name(stamp)
            try:
                made += [] if held is None else [camera.make(held)]
            except ContractError as error:  # the image is lost, the step is not
                self.skipped[f'{camera.topic}: {error}'] += 1
        return [*made, step]

    def _on_event(self, data: bytes) -> list[AnyRecord]:
        event = self._event(data)
        if event.kind is EventKind.START:
            self.starts.append(event)
        return [event]


class _Camera:
    """The images of one camera that no step has named yet, and the stamps whose image has not come yet."""

    def __init__(self, topic: str, spec: CameraSpec, give_all: bool) -> None:
        self.topic, self.spec, self._give_all = topic, spec, give_all
        self.came = self.given = 0
        self._held: deque[tuple[int, Any]] = deque(maxlen=HELD_IMAGES)
        self._awaited: dict[int, None] = {}
        self._named: dict[int, None] = {}

    def push(self, image: Any) -> Any | None:
        """Take an image; return it where it is wanted already."""
        self.came += 1
        stamp_ns = stamp_to_ns(image.header.stamp)
        self._named.pop(stamp_ns, None)  # a clock that was set back brings old stamps with new pictures
        if self._give_all or stamp_ns in self._awaited:
            self._awaited.pop(stamp_ns, None)
            return image
        self._held.append((stamp_ns, image))
        return None

    def name(self, stamp_ns: int) -> Any | None:
        """Return the image that a step names, if it is here; else remember that it is wanted."""
        if self._give_all or stamp_ns in self._named:
            return None
        _remember(self._named, stamp_ns)
        for held_ns, image in self._held:
            if held_ns == stamp_ns:
                return image
        _remember(self._awaited, stamp_ns)
        return None

    def make(self, image: Any) -> ImageSample:
        """Scale an image down.

        Raises:
            ContractError: its encoding or size make no sense.
        """
        self.given += 1
        return image_sample(image, self.spec)


def _base_record(action: ExecutedAction) -> BaseRecord:
    """Return what an `EeDelta` on `policy/base` says; the policy left the step to the base where it is the source."""
    acts = action.source is Source.POLICY
    return BaseRecord(action.episode, action.index, BaseAction(action.translation, action.opening, acts))


def _remember(stamps: dict[int, None], stamp_ns: int) -> None:
    stamps[stamp_ns] = None
    if len(stamps) > _REMEMBERED_STAMPS:
        del stamps[next(iter(stamps))]


@dataclass
class ReadReport:
    """What a reader came across; it fills while the records are taken.

    Attributes:
        messages: messages read.
        records: records made, by the name of their type.
        skipped: messages that gave none, by the reason.
        unnamed_images: images that no step names; they are not even scaled down.
        starts: the contract and calibration that each episode began with.
    """

    messages: int = 0
    records: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    unnamed_images: int = 0
    starts: list[EpisodeEventRecord] = field(default_factory=list)


def read_records(
    paths: Iterable[Path | str] | Path | str,
    spec: ObservationSpec,
    *,
    namespace: str | None = None,
    any_spec: bool = False,
    all_images: bool = False,
    progress: Progress | None = None,
    report: ReadReport | None = None,
) -> Iterator[AnyRecord]:
    """Yield the records of one arm in the order in which the recorder received the messages.

    Scaling images down costs most, and a camera gives more frames than there are steps. So an image comes out
    only when a step names it: right before that step, or when it comes later than that.

    Args:
        paths: bag folders, bare `.mcap` or `.db3` files (also `.zstd`), or folders of bags; bags that overlap
            in time are merged.
        spec: what an observation consists of; its cameras decide which images are read.
        namespace: which arm; None for the only one.
        any_spec: read a bag that was recorded with another observation spec all the same.
        all_images: yield the images that no step names too, each in its own place.
        progress: called now and then with messages read and messages in all.
        report: filled while the records are taken.

    Raises:
        BagError: a bag is damaged, lacks a topic that learning needs, or was recorded with another contract.
    """
    account = ReadReport() if report is None else report
    with open_bags(paths) as bag:
        arm = _arm(bag, spec, namespace)
        maker = RecordMaker(arm, spec, Decoders(bag.topics.values()), all_images=all_images)
        account.starts, account.skipped = maker.starts, maker.skipped
        checked = 0
        for message in bag.messages(arm.all, progress):
            account.messages += 1
            made = maker.push(message)
            if len(maker.starts) > checked:
                checked = len(maker.starts)
                if not any_spec:
                    _check_spec(maker.starts[-1], spec, bag)
            account.records.update(type(record).__name__ for record in made)
            yield from made
        account.unnamed_images = maker.unnamed_images
        _require_records(account, arm)


def _arm(bag: RawBag, spec: ObservationSpec, namespace: str | None) -> ArmTopics:
    where = ', '.join(str(path) for path in bag.paths)
    arm = ArmTopics.of(choose_arm(bag.topics, namespace, where), spec)
    arm.require(bag.topics, where)
    return arm


def _check_spec(start: EpisodeEventRecord, spec: ObservationSpec, bag: RawBag) -> None:
    if start.observation_hash and start.observation_hash != spec.hash:
        raise BagError(
            f'expected episodes with the observation {spec.hash[:12]}, but episode {start.episode} of '
            f'{bag.paths[0]} began with {start.observation_hash[:12]}; name the observation that it was recorded '
            f'with, or allow another one where the cameras are the same'
        )


def _require_records(account: ReadReport, arm: ArmTopics) -> None:
    """Refuse a bag of which some kind of message cannot be used at all: that is no loss, it is another bag."""
    used = {'StepRecord': arm.step, 'JointSample': arm.joints, 'ExecutedAction': arm.command}
    for name, topic in used.items():
        reasons = [reason for reason in account.skipped if reason.startswith(f'{topic}: ')]
        if not account.records[name] and reasons:
            raise BagError(f'expected usable messages on {topic}, got none: {reasons[0]}')
