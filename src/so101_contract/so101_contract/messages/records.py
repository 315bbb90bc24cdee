# SPDX-License-Identifier: Apache-2.0
"""The messages that learning is made of, as plain records that hold no ROS types."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.action import EeDeltaValue
from so101_contract.base import BaseAction, BaseRecord
from so101_contract.errors import AssemblyError
from so101_contract.image import preprocess
from so101_contract.joints import NUM_JOINTS
from so101_contract.messages.joint_order import order_by_name
from so101_contract.observation_spec import CameraSpec
from so101_contract.session import EventKind, Source
from so101_interfaces_py.conversions import LARGEST_RAD

LARGEST_REWARD = 1e4
"""Rewards of a step are at most a few thousand, by the bounds of the session's parameters."""

LARGEST_RAD_PER_S = 1e3
"""No joint turns faster [rad/s]."""

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
        if self.episode < 0 or self.index < 0 or not abs(self.reward) <= LARGEST_REWARD:
            raise AssemblyError(
                f'expected a step with episode >= 0, index >= 0 and a reward within {LARGEST_REWARD:.0f}, got {self}; '
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
        for name, most in (('position', LARGEST_RAD), ('velocity', LARGEST_RAD_PER_S)):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (NUM_JOINTS,) or not all(-most <= value <= most for value in array.tolist()):
                raise AssemblyError(
                    f'expected {NUM_JOINTS} finite joint values within {most:.2f} as {name}, got {array.tolist()}; '
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
        base: what the base policy said at this step; None where there is none, or it said nothing.
    """

    episode: int
    index: int
    translation: FloatArray
    opening: float
    source: Source
    stamp_ns: int = 0
    base: BaseAction | None = None

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
        observation_hash: of the observation spec in force; of a START only, like the next three.
        action_hash: of the action spec in force.
        calibration_id: calibration of the arm in force.
        task_hash: of the task in force; empty where there is none.
        by_human: a human has said so: a label.
    """

    episode: int
    kind: EventKind
    stamp_ns: int
    index: int = 0
    reason: str = ''
    observation_hash: str = ''
    action_hash: str = ''
    calibration_id: str = ''
    task_hash: str = ''
    by_human: bool = False

    def __post_init__(self) -> None:
        """Accept the message's plain number as kind, where there is such a kind."""
        try:
            object.__setattr__(self, 'kind', EventKind(self.kind))
        except ValueError:
            raise AssemblyError(
                f'expected a known kind of event, got {self.kind}; use a newer version'
            ) from None


AnyRecord: TypeAlias = (
    StepRecord | JointSample | ImageSample | ExecutedAction | BaseRecord | EpisodeEventRecord
)
