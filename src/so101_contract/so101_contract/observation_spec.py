# SPDX-License-Identifier: Apache-2.0
"""What an observation consists of: state blocks, cameras, normalisation, and the observations that have a name.

Bags, buffers, weights and checkpoints carry the hash of an `ObservationSpec`. Session, policy, learner and environment
are told the word that stands for one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from so101_contract.errors import ObservationError, SpecMismatchError
from so101_contract.image import IMAGE_PIPELINE
from so101_contract.joints import BASE_FRAME
from so101_contract.record import Record
from so101_interfaces_py.topics import CAMERAS

CONTROL_RATE_HZ = 10.0
"""Steps per second where nothing else is said [Hz]."""

DEFAULT_OBSERVATION = 'compact'


def camera_word(topic: str) -> str:
    """Return what people call the camera whose topics begin with a word."""
    return next((word for word, one in CAMERAS.items() if one == topic), topic)


BLOCK_SIZES = {
    'joint_pos': 6,
    'joint_vel': 6,
    'tcp_pos': 3,
    'tcp_euler': 3,
    'tcp_rot6d': 6,
    'tcp_quat': 4,
    'gripper_opening': 1,
    'cube_pos': 3,
    'cube_quat': 4,
}
"""Entries of the state blocks whose meaning is fixed. Other names are free and need values of their own."""

PRIVILEGED_BLOCKS = frozenset({'cube_pos', 'cube_quat'})
"""Blocks that a simulator knows and an arm does not."""


@dataclass(frozen=True)
class StateBlock(Record):
    """A named run of entries of the state vector.

    Attributes:
        name: what the entries are; see `BLOCK_SIZES`.
        size: how many there are.
        privileged: whether only a simulator can know them.
    """

    KIND: ClassVar[str] = 'so101_contract/state_block/1'
    ERROR = ObservationError

    name: str
    size: int
    privileged: bool = False

    def __post_init__(self) -> None:
        """Check the name, and the size where the name fixes it."""
        super().__post_init__()
        if not self.name.isidentifier() or self.size < 1:
            raise ObservationError(
                f'expected a state block with a snake_case name and at least one entry, '
                f'got {self.name!r} with {self.size}; correct the observation spec'
            )
        fixed = BLOCK_SIZES.get(self.name, self.size)
        if self.size != fixed:
            raise ObservationError(f'expected {fixed} entries in {self.name}, got {self.size}; rename it')
        if self.name in BLOCK_SIZES and self.privileged != (self.name in PRIVILEGED_BLOCKS):
            raise ObservationError(
                f'expected privileged={not self.privileged} for {self.name}, got {self.privileged}; '
                f'say what it is, or rename it'
            )

    @classmethod
    def named(cls, name: str) -> 'StateBlock':
        """Return the block with that fixed name."""
        if name not in BLOCK_SIZES:
            raise ObservationError(
                f'expected one of the state blocks {sorted(BLOCK_SIZES)}, got {name!r}; '
                f'give other blocks a size: StateBlock(name, size)'
            )
        return cls(name, BLOCK_SIZES[name], name in PRIVILEGED_BLOCKS)

    @property
    def from_joints(self) -> bool:
        """Whether joint positions and velocities are all that is needed to compute it."""
        return self.name in BLOCK_SIZES and not self.privileged


DEFAULT_STATE = tuple(StateBlock.named(name) for name in ('joint_pos', 'joint_vel', 'tcp_pos', 'tcp_euler'))
"""18 entries in the order of RoboBase policies for this arm."""

MIN_RANGE = 1e-3
"""Smallest half range of a state entry that normalisation accepts; a smaller one blows noise up."""


class NormalizationMode(Enum):
    """What happens to the state between replay and network."""

    NONE = 'none'
    AFFINE = 'affine'


@dataclass(frozen=True, kw_only=True)
class Normalization(Record):
    """How the state is scaled before a network sees it: not at all (RoboBase), or (x - offset) / scale.

    Attributes:
        mode: none or affine.
        offset: per entry of the state, in its unit; empty with mode none.
        scale: per entry, in its unit; empty with mode none.
    """

    KIND: ClassVar[str] = 'so101_contract/normalization/1'
    ERROR = ObservationError

    mode: NormalizationMode = NormalizationMode.NONE
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse statistics that would blow up an entry."""
        super().__post_init__()
        if self.mode is NormalizationMode.NONE and (self.offset or self.scale):
            raise ObservationError(
                'expected no statistics with mode none, got some; remove them or use affine'
            )
        if len(self.offset) != len(self.scale):
            raise ObservationError(
                f'expected as many offsets as scales, got {len(self.offset)} and {len(self.scale)}; '
                f'correct them'
            )
        narrow = [i for i, scale in enumerate(self.scale) if scale < MIN_RANGE]
        if narrow:
            raise ObservationError(
                f'expected statistics with a half range of at least {MIN_RANGE}, got '
                f'{[self.scale[i] for i in narrow]} in the state entries {narrow}; record data in which they '
                f'move, or set their range by hand'
            )

    @classmethod
    def from_range(cls, low: npt.ArrayLike, high: npt.ArrayLike) -> 'Normalization':
        """Map low..high of each entry onto -1..1."""
        lower, upper = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        if lower.shape != upper.shape or lower.ndim != 1:
            raise ObservationError(
                f'expected one low and one high per entry, got {lower.shape} and {upper.shape}; correct them'
            )
        return cls(
            mode=NormalizationMode.AFFINE,
            offset=tuple(((lower + upper) / 2).tolist()),
            scale=tuple(((upper - lower) / 2).tolist()),
        )

    def apply(self, state: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return states (..., D) as a network sees them."""
        array = np.asarray(state, dtype=np.float32)
        if self.mode is NormalizationMode.NONE:
            return array
        if array.shape[-1:] != (len(self.scale),):
            raise ObservationError(
                f'expected states (..., {len(self.scale)}), got {array.shape}; use statistics of this spec'
            )
        offset, scale = (np.array(numbers, dtype=np.float32) for numbers in (self.offset, self.scale))
        return (array - offset) / scale


@dataclass(frozen=True)
class Crop(Record):
    """A rectangle of a camera image [px]."""

    KIND: ClassVar[str] = 'so101_contract/crop/1'
    ERROR = ObservationError

    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Check that it is one."""
        super().__post_init__()
        if self.top < 0 or self.left < 0 or self.height < 1 or self.width < 1:
            raise ObservationError(
                f'expected a crop of at least one pixel inside the image, got {self}; correct it'
            )

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Return top, left, height, width as `preprocess` takes them."""
        return self.top, self.left, self.height, self.width


@dataclass(frozen=True)
class CameraSpec(Record):
    """A camera of the observation.

    Attributes:
        name: its topic's namespace, e.g. `gripper_cam`.
        size: edge of the square image that the network sees [px].
        crop: which part of the camera's image becomes it; None for the centre square.
    """

    KIND: ClassVar[str] = 'so101_contract/camera/1'
    ERROR = ObservationError

    name: str
    size: int = 84
    crop: Crop | None = None

    def __post_init__(self) -> None:
        """Check name and size."""
        super().__post_init__()
        if not self.name or self.size < 1:
            raise ObservationError(
                f'expected a camera name and a size of at least 1 px, got {self.name!r} and {self.size}; '
                f'correct the observation spec'
            )

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Return the crop as `preprocess` takes it."""
        return None if self.crop is None else self.crop.box


@dataclass(frozen=True, kw_only=True)
class ObservationSpec(Record):
    """Everything that decides the numbers of an observation.

    Attributes:
        state: blocks of the state vector, in order.
        frame_stack: T, how many steps a network sees at once, the present one included.
        cameras: in the order of every array that has a camera axis.
        normalization: what happens to the state in front of the network.
        tcp: name of the TCP preset whose pose is in the state.
        camera_preset: name of the preset that says where the wrist camera sits.
        frame_id: the frame of positions and orientations.
        image_pipeline: name of what `preprocess` does to the pixels.
    """

    KIND: ClassVar[str] = 'so101_contract/observation/1'
    ERROR = ObservationError

    state: tuple[StateBlock, ...] = DEFAULT_STATE
    frame_stack: int = 3
    cameras: tuple[CameraSpec, ...] = (CameraSpec('gripper_cam'),)
    normalization: Normalization = field(default_factory=Normalization)
    tcp: str = 'so101'
    camera_preset: str = 'nexus'
    frame_id: str = BASE_FRAME
    image_pipeline: str = IMAGE_PIPELINE

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        super().__post_init__()
        for what, names in (('state block', self.block_names), ('camera', self.camera_names)):
            if len(set(names)) != len(names):
                raise ObservationError(
                    f'expected each {what} once, got {list(names)}; remove the repeated one'
                )
        if self.frame_stack < 1 or not self.state:
            raise ObservationError(
                f'expected a frame stack of at least 1 and at least one state block, got {self.frame_stack} '
                f'and {list(self.block_names)}; correct the observation spec'
            )
        if len({camera.size for camera in self.cameras}) > 1:
            raise ObservationError(
                f'expected cameras of one size, got {[(c.name, c.size) for c in self.cameras]}; '
                f'networks take all views as one array'
            )
        affine = self.normalization.mode is NormalizationMode.AFFINE
        if affine and len(self.normalization.scale) != self.state_size:
            raise ObservationError(
                f'expected statistics for {self.state_size} state entries, got '
                f'{len(self.normalization.scale)}; compute them for this observation spec'
            )
        if self.image_pipeline != IMAGE_PIPELINE:
            raise ObservationError(
                f'expected the image pipeline {IMAGE_PIPELINE!r}, got {self.image_pipeline!r}; '
                f'use the version of so101_contract that this was recorded with'
            )

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the state blocks, in order."""
        return tuple(block.name for block in self.state)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras, in order."""
        return tuple(camera.name for camera in self.cameras)

    @property
    def state_size(self) -> int:
        """D, the number of state entries of one step."""
        return sum(block.size for block in self.state)

    @property
    def image_size(self) -> int:
        """S, the edge of every image [px]; 0 without cameras."""
        return self.cameras[0].size if self.cameras else 0

    @property
    def privileged(self) -> tuple[str, ...]:
        """Names of the blocks that only a simulator can know."""
        return tuple(block.name for block in self.state if block.privileged)

    def slice_of(self, name: str) -> slice:
        """Return where a block lies in the state vector."""
        if name not in self.block_names:
            raise ObservationError(
                f'expected one of the blocks {list(self.block_names)}, got {name!r}; correct it'
            )
        start = sum(block.size for block in self.state[: self.block_names.index(name)])
        return slice(start, start + self.state[self.block_names.index(name)].size)

    def require_deployable(self) -> None:
        """Refuse a spec that a real arm cannot fill."""
        if self.privileged:
            raise ObservationError(
                f'expected a state that the arm itself can measure, got the privileged blocks '
                f'{list(self.privileged)}; use a policy trained without them, or supply their values'
            )

    def require_same(self, other: 'ObservationSpec', names: tuple[str, str] = ('here', 'there')) -> None:
        """Refuse another spec unless it means the same.

        Raises:
            SpecMismatchError: the message lists every field that differs, with both values.
        """
        lines = self.diff(other, names)
        if lines:
            raise SpecMismatchError(
                'expected the same observation spec on both sides, got the differences below; '
                'use matching files:\n  ' + '\n  '.join(lines)
            )


def robobase_spec(*, privileged: bool = False, size: int = 84, frame_stack: int = 3) -> ObservationSpec:
    """Return the spec of RoboBase policies for this arm: 18 raw entries, or 21 with the cube's position."""
    cube = (StateBlock.named('cube_pos'),) if privileged else ()
    return ObservationSpec(
        state=DEFAULT_STATE + cube,
        frame_stack=frame_stack,
        cameras=(CameraSpec('gripper_cam', size),),
        tcp='pick101',
        camera_preset='pick101',
    )


def compact_spec() -> ObservationSpec:
    """Return what a laptop learns from in real time: 64 px, three frames, and 15 numbers without an orientation.

    Five joints determine the orientation, so the joint positions say it already, without the jumps of Euler angles.
    """
    blocks = ('joint_pos', 'joint_vel', 'tcp_pos')
    return ObservationSpec(
        state=tuple(StateBlock.named(name) for name in blocks), cameras=(CameraSpec('gripper_cam', 64),)
    )


OBSERVATIONS: Mapping[str, Callable[[], ObservationSpec]] = {
    'compact': compact_spec,
    'full': ObservationSpec,
    'robobase': robobase_spec,
}


def get_observation(
    name: str,
    *,
    tcp: str | None = None,
    camera_preset: str | None = None,
    cameras: Sequence[str] = (),
) -> ObservationSpec:
    """Return the observation of that name, with another TCP, camera preset or cameras where they are given.

    Args:
        name: one of `OBSERVATIONS`.
        tcp: TCP preset.
        camera_preset: where the wrist camera is mounted.
        cameras: names such as `wrist` and `front`, in order; empty ones do not count.

    Raises:
        ObservationError: there is none of that name.
    """
    if name not in OBSERVATIONS:
        raise ObservationError(
            f'expected one of the observations {sorted(OBSERVATIONS)}, got {name!r}; correct the parameter'
        )
    spec = OBSERVATIONS[name]()
    named = tuple(CameraSpec(CAMERAS.get(one, one), spec.image_size) for one in cameras if one)
    return replace(
        spec,
        tcp=tcp or spec.tcp,
        camera_preset=camera_preset or spec.camera_preset,
        cameras=named or spec.cameras,
    )
