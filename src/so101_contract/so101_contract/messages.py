# SPDX-License-Identifier: Apache-2.0
"""What the assembler is fed with: plain copies of the messages that matter to learning.

They hold no ROS types, so a live node and a bag reader make the same ones. Stamps are header stamps in
nanoseconds; they identify messages, and a step names its joint and image messages by them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.action import EeDeltaValue
from so101_contract.episodes import EventKind, Source
from so101_contract.errors import AssemblyError
from so101_contract.image import preprocess
from so101_contract.joints import NUM_JOINTS, order_by_name
from so101_contract.observation_spec import CameraSpec

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
    """

    episode: int
    index: int
    translation: FloatArray
    opening: float
    source: Source

    def __post_init__(self) -> None:
        """Refuse NaN; keep a copy that nobody can change."""
        value = EeDeltaValue(self.translation, self.opening)
        object.__setattr__(self, 'translation', value.translation)
        object.__setattr__(self, 'opening', value.opening)
        object.__setattr__(self, 'source', Source(self.source))


@dataclass(frozen=True, slots=True)
class EpisodeEventRecord:
    """Something that happened to an episode (`EpisodeEvent`); also a label that comes later.

    Attributes:
        episode: the episode that it is about.
        kind: what happened.
        stamp_ns: when it was said [ns]; the latest label of an episode counts.
    """

    episode: int
    kind: EventKind
    stamp_ns: int

    def __post_init__(self) -> None:
        """Accept the message's plain number as kind."""
        object.__setattr__(self, 'kind', EventKind(self.kind))


AnyRecord: TypeAlias = StepRecord | JointSample | ImageSample | ExecutedAction | EpisodeEventRecord
