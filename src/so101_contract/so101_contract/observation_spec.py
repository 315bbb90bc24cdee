# SPDX-License-Identifier: Apache-2.0
"""What an observation consists of. Bags, buffers, weights and checkpoints carry the hash of this."""

from dataclasses import dataclass, field
from typing import ClassVar

from so101_contract.errors import ObservationError, SpecMismatchError
from so101_contract.frames import BASE_FRAME
from so101_contract.image import IMAGE_PIPELINE
from so101_contract.normalization import Normalization, NormalizationMode
from so101_contract.orientation import OrientationKind
from so101_contract.record import Record
from so101_contract.state_block import DEFAULT_STATE, StateBlock


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
    def entry_names(self) -> tuple[str, ...]:
        """A name for each state entry, e.g. `joint_vel[2]`."""
        return tuple(f'{block.name}[{i}]' for block in self.state for i in range(block.size))

    @property
    def continuous(self) -> bool:
        """Whether a small movement of the joints is a small change of the state, in every pose."""
        return OrientationKind.EULER.value not in self.block_names

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
