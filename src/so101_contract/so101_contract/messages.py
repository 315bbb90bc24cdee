# SPDX-License-Identifier: Apache-2.0
"""The messages that learning is made of, as plain records: the one place where either becomes the other.

    record = step_record(message)      # any object with the fields of the message: from rclpy, or from a bag
    message = step_message(record)     # a message of rclpy; only this half needs ROS

The records hold no ROS types, so policy, learner and bag reader see the same. Stamps are header stamps in nanoseconds;
they identify messages, and a step names its joint and image messages by them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import functools
import math
from typing import Any, TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.action import Displacement, EeDeltaValue
from so101_contract.errors import AssemblyError, JointError
from so101_contract.image import message_to_rgb, preprocess
from so101_contract.joints import BASE_FRAME, JOINT_NAMES, NUM_JOINTS, VelocityEstimator
from so101_contract.observation_spec import CameraSpec
from so101_contract.session import EventKind, NO_EPISODE, Source
from so101_interfaces_py.conversions import array_to_image, joint_state, ns_to_stamp, stamp_to_ns

if TYPE_CHECKING:
    from sensor_msgs.msg import Image, JointState
    from so101_interfaces.msg import EeDelta, EpisodeEvent, Step

FloatArray: TypeAlias = npt.NDArray[np.float64]
UInt8Array: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One tick of the control clock (`Step`).

    Attributes:
        episode: number of the episode; 0 between episodes.
        index: number of the step within it, from 0.
        stamp_ns: the tick [ns].
        joint_stamp_ns: which joint message was observed [ns].
        image_stamps_ns: which image of each camera, in the order of the spec [ns].
        reward: earned by the step before this one.
        terminated: success or failure: nothing follows.
        truncated: cut short, e.g. by a time limit.
    """

    episode: int
    index: int
    stamp_ns: int
    joint_stamp_ns: int
    image_stamps_ns: tuple[int, ...]
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no session sends."""
        if self.episode < 0 or self.index < 0 or not math.isfinite(self.reward):
            raise AssemblyError(
                f'expected a step with episode >= 0, index >= 0 and a finite reward, got {self}; '
                f'repair its sender'
            )

    @property
    def ends(self) -> bool:
        """Whether it is its episode's last one."""
        return self.terminated or self.truncated


@dataclass(frozen=True, slots=True, eq=False)
class JointSample:
    """Positions and velocities of the joints (`JointState`).

    Attributes:
        stamp_ns: its stamp [ns].
        position: (6,) in `JOINT_NAMES` order [rad].
        velocity: (6,) [rad/s].
    """

    stamp_ns: int
    position: FloatArray
    velocity: FloatArray

    def __post_init__(self) -> None:
        """Check the shapes; keep copies that nobody can change."""
        for name in ('position', 'velocity'):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (NUM_JOINTS,) or not all(map(math.isfinite, array.tolist())):
                raise AssemblyError(
                    f'expected {NUM_JOINTS} finite joint values as {name}, got {array.tolist()}; '
                    f'drop the message or estimate what it lacks (VelocityEstimator)'
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def from_message(
        cls, stamp_ns: int, names: Sequence[str], position: npt.ArrayLike, velocity: npt.ArrayLike
    ) -> 'JointSample':
        """Make a sample from arrays that come with joint names in any order."""
        return cls(stamp_ns, order_by_name(names, position), order_by_name(names, velocity))


@dataclass(frozen=True, slots=True, eq=False)
class ImageSample:
    """One image of one camera, as the network sees it.

    Attributes:
        camera: its name in the observation spec.
        stamp_ns: its stamp [ns].
        image: (3, S, S) uint8 RGB, what `preprocess` returns.
    """

    camera: str
    stamp_ns: int
    image: UInt8Array

    def __post_init__(self) -> None:
        """Check the type; keep a copy that nobody can change."""
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[0] != 3:
            raise AssemblyError(
                f'expected a preprocessed (3, S, S) uint8 image of {self.camera}, got {self.image.dtype} '
                f'{self.image.shape}; use ImageSample.from_raw'
            )
        image = self.image.copy()
        image.setflags(write=False)
        object.__setattr__(self, 'image', image)

    @classmethod
    def from_raw(
        cls, camera: CameraSpec, stamp_ns: int, image: npt.NDArray[np.uint8], encoding: str = 'rgb8'
    ) -> 'ImageSample':
        """Make a sample from a camera's image (height, width, channels)."""
        pixels = preprocess(image, encoding, size=camera.size, crop=camera.box)
        return cls(camera.name, stamp_ns, pixels)


@dataclass(frozen=True, slots=True, eq=False)
class ExecutedAction:
    """What the arm was told during a step (`EeDelta` on the command topic).

    Attributes:
        episode: number of the episode.
        index: number of the step that it answers.
        translation: displacement of the TCP (3,) [m].
        opening: target opening of the gripper, 0 closed .. 1 open.
        source: who decided it.
        stamp_ns: when it was decided [ns]; 0 where nobody asks.
    """

    episode: int
    index: int
    translation: FloatArray
    opening: float
    source: Source
    stamp_ns: int = 0

    def __post_init__(self) -> None:
        """Refuse NaN and an unknown source; keep a copy that nobody can change."""
        value = EeDeltaValue(self.translation, self.opening)
        object.__setattr__(self, 'translation', value.translation)
        object.__setattr__(self, 'opening', value.opening)
        try:
            object.__setattr__(self, 'source', Source(self.source))
        except ValueError:
            raise AssemblyError(
                f'expected a source 0..3 of an action, got {self.source}; repair its sender'
            ) from None


@dataclass(frozen=True, slots=True)
class EpisodeEventRecord:
    """Something that happened to an episode (`EpisodeEvent`); also a label that comes later.

    Attributes:
        episode: the episode that it is about.
        kind: what happened.
        stamp_ns: when it was said [ns]; the latest label of an episode counts.
        index: step at which it happened.
        reason: for people, one sentence; may be empty.
        observation_hash: of the observation spec in force; of a START only, like the next two.
        action_hash: of the action spec in force.
        calibration_id: calibration of the arm in force.
    """

    episode: int
    kind: EventKind
    stamp_ns: int
    index: int = 0
    reason: str = ''
    observation_hash: str = ''
    action_hash: str = ''
    calibration_id: str = ''

    def __post_init__(self) -> None:
        """Accept the message's plain number as kind, where there is such a kind."""
        try:
            object.__setattr__(self, 'kind', EventKind(self.kind))
        except ValueError:
            raise AssemblyError(
                f'expected a known kind of event, got {self.kind}; use a newer version'
            ) from None


AnyRecord: TypeAlias = StepRecord | JointSample | ImageSample | ExecutedAction | EpisodeEventRecord


# --- Step ---


def step_record(message: Any) -> StepRecord:
    """Return what a `Step` says."""
    return StepRecord(
        episode=int(message.episode),
        index=int(message.index),
        stamp_ns=stamp_to_ns(message.header.stamp),
        joint_stamp_ns=stamp_to_ns(message.joint_stamp),
        image_stamps_ns=tuple(stamp_to_ns(stamp) for stamp in message.image_stamps),
        reward=float(message.reward),
        terminated=bool(message.terminated),
        truncated=bool(message.truncated),
    )


def step_message(step: StepRecord) -> 'Step':
    """Return the `Step` that says this."""
    from so101_interfaces.msg import Step

    message = Step(
        episode=step.episode,
        index=step.index,
        joint_stamp=ns_to_stamp(step.joint_stamp_ns),
        image_stamps=[ns_to_stamp(stamp_ns) for stamp_ns in step.image_stamps_ns],
        reward=step.reward,
        terminated=step.terminated,
        truncated=step.truncated,
    )
    message.header.stamp = ns_to_stamp(step.stamp_ns)
    return message


# --- EpisodeEvent ---


def event_record(message: Any) -> EpisodeEventRecord:
    """Return what an `EpisodeEvent` says; what the bags of old versions do not have is empty."""
    said = {
        name: str(getattr(message, name, ''))
        for name in ('reason', 'observation_hash', 'action_hash', 'calibration_id')
    }
    return EpisodeEventRecord(
        int(message.episode), message.kind, stamp_to_ns(message.header.stamp), int(message.index), **said
    )


def event_message(event: EpisodeEventRecord) -> 'EpisodeEvent':
    """Return the `EpisodeEvent` that says this."""
    from so101_interfaces.msg import EpisodeEvent

    message = EpisodeEvent(
        episode=event.episode,
        index=event.index,
        kind=event.kind.value,
        reason=event.reason,
        observation_hash=event.observation_hash,
        action_hash=event.action_hash,
        calibration_id=event.calibration_id,
    )
    message.header.stamp = ns_to_stamp(event.stamp_ns)
    return message


# --- EeDelta ---


def action_record(message: Any) -> ExecutedAction:
    """Return what an `EeDelta` says.

    Raises:
        ContractError: it is not finite, or nobody knows its source.
    """
    move = message.translation
    return ExecutedAction(
        int(message.episode),
        int(message.index),
        np.array([move.x, move.y, move.z]),
        float(message.gripper),
        message.source,
        stamp_to_ns(message.header.stamp),
    )


def action_message(
    action: Displacement,
    source: Source,
    stamp_ns: int,
    *,
    episode: int = NO_EPISODE,
    index: int = 0,
    frame_id: str = BASE_FRAME,
) -> 'EeDelta':
    """Return the `EeDelta` that says this.

    Args:
        action: displacement and opening.
        source: who decided it.
        stamp_ns: when it was decided [ns].
        episode: that it belongs to.
        index: step that it answers.
        frame_id: frame of the displacement.
    """
    from so101_interfaces.msg import EeDelta

    message = EeDelta(episode=episode, index=index, gripper=action.opening, source=source.value)
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = frame_id
    vector = message.translation
    vector.x, vector.y, vector.z = action.translation.tolist()
    return message


# --- JointState ---


class MissingJointError(JointError, KeyError):
    """A joint of this arm is not among the names that came."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


def order_by_name(names: Iterable[str], values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Put values that come with joint names into `JOINT_NAMES` order.

    Args:
        names: joint names as they came, in any order; names of other joints are ignored.
        values: one value per name (n,), any unit.

    Returns:
        The (6,) values of this arm's joints, as a new array.

    Raises:
        JointError: a joint is named twice, or the lengths differ.
        MissingJointError: a joint is missing; it is a `KeyError` as well.
    """
    given = tuple(names)
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(given),):
        raise JointError(
            f'expected one value per joint name, got {len(given)} names and values of shape {array.shape}; '
            f'fill both lists of the message'
        )
    return array[_places(given)]


@functools.lru_cache(maxsize=16)
def _places(given: tuple[str, ...]) -> npt.NDArray[np.intp]:
    """Return where the joints of this arm stand among the names; they are the same in every message of a topic."""
    index = {name: i for i, name in enumerate(given)}
    if len(index) != len(given):
        twice = sorted({name for name in given if given.count(name) > 1})
        raise JointError(
            f'expected each joint once, got {twice} more than once in {list(given)}; rename them'
        )
    missing = [name for name in JOINT_NAMES if name not in index]
    if missing:
        raise MissingJointError(
            f'expected the joints {list(JOINT_NAMES)}, got {list(given)} without {missing}; '
            f'publish every joint in each message'
        )
    places = np.array([index[name] for name in JOINT_NAMES], dtype=np.intp)
    places.setflags(write=False)
    return places


def joint_sample(message: Any, estimator: VelocityEstimator) -> JointSample:
    """Return what a `JointState` says; where it carries no velocities, those of the estimator.

    Raises:
        ContractError: a joint is missing, named twice, or not finite.
    """
    stamp_ns = stamp_to_ns(message.header.stamp)
    position = order_by_name(message.name, message.position)
    given = len(message.velocity) > 0
    velocity = (
        order_by_name(message.name, message.velocity) if given else estimator.update(stamp_ns, position)
    )
    return JointSample(stamp_ns, position, velocity)


def joint_message(sample: JointSample, frame_id: str = '') -> 'JointState':
    """Return the `JointState` that says this, with positions and velocities as they are: nothing is clamped."""
    message = joint_state(JOINT_NAMES, sample.position.tolist(), ns_to_stamp(sample.stamp_ns))
    message.header.frame_id = frame_id
    message.velocity = sample.velocity.tolist()
    return message


# --- Image ---


def image_sample(message: Any, camera: CameraSpec) -> ImageSample:
    """Return an `Image` as networks see it.

    Raises:
        ContractError: its encoding or its size make no sense.
    """
    return ImageSample.from_raw(camera, stamp_to_ns(message.header.stamp), image_pixels(message))


def image_pixels(message: Any) -> UInt8Array:
    """Return the pixels of an `Image` (height, width, 3) uint8 RGB, whatever its encoding.

    Raises:
        ContractError: its encoding or its size make no sense.
    """
    return message_to_rgb(message.height, message.width, message.encoding, message.step, message.data)


def image_message(pixels: UInt8Array, stamp_ns: int, frame_id: str) -> 'Image':
    """Return the `Image` of RGB pixels (height, width, 3) uint8."""
    return array_to_image(pixels, 'rgb8', ns_to_stamp(stamp_ns), frame_id)
