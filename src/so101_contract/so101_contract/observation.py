# SPDX-License-Identifier: Apache-2.0
"""Building an observation: samples that wait, state vector, frame stack, and the shapes that networks are fed with."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
import hashlib
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from so101_contract.errors import AssemblyError, ObservationError
from so101_contract.joints import gripper_rad_to_opening, JOINT_NAMES, limits_arrays, NUM_JOINTS
from so101_contract.observation_spec import ObservationSpec
from so101_contract.orientation import orientation_entries, OrientationKind

FloatArray: TypeAlias = npt.NDArray[np.float64]
Float32Array: TypeAlias = npt.NDArray[np.float32]
UInt8Array: TypeAlias = npt.NDArray[np.uint8]
TcpPose: TypeAlias = Callable[[FloatArray], tuple[npt.ArrayLike, npt.ArrayLike]]
Item = TypeVar('Item')
Sample = TypeVar('Sample')
Key = TypeVar('Key', bound=Hashable)

JOINT_MARGIN_RAD = 0.2
"""How far beyond the model's limits a reading may lie [rad]: real stops and calibrations differ that much."""

MAX_REACH_M = 1.0
"""No part of the arm gets further from its base than half of this [m]; more is a unit mistake."""


@dataclass(frozen=True, eq=False)
class Observation:
    """What a network sees at one step.

    Attributes:
        state: (T, D) float32, raw SI units, oldest first.
        images: (T, 3, S, S) uint8 RGB per camera, oldest first, in the order of the spec.
    """

    state: Float32Array
    images: Mapping[str, UInt8Array]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What was measured at one step; every observation and transition that needs it refers to this object.

    Attributes:
        episode: number of the episode.
        index: number of the step.
        stamp_ns: the tick [ns].
        state: (D,) float32, read-only.
        images: (3, S, S) uint8 RGB per camera, in the order of the spec, read-only.
    """

    episode: int
    index: int
    stamp_ns: int
    state: npt.NDArray[np.float32]
    images: Mapping[str, npt.NDArray[np.uint8]]


def observation_of(frames: tuple[Frame, ...]) -> Observation:
    """Stack frames, oldest first, into an observation; this copies them."""
    return Observation(
        state=np.stack([frame.state for frame in frames]),
        images={camera: np.stack([frame.images[camera] for frame in frames]) for camera in frames[0].images},
    )


def observation_digest(observation: Observation) -> str:
    """Return the SHA-256 of the bytes of state and images, cameras in order, as hex.

    Whoever rebuilds an observation elsewhere can tell by it that it is the same.
    """
    digest = hashlib.sha256(observation.state.tobytes())
    for name, images in observation.images.items():
        digest.update(name.encode())
        digest.update(images.tobytes())
    return digest.hexdigest()


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
        episodes: episodes kept open for late messages; the oldest closes when there are more.
        labels: closed episodes whose last transition is kept for late labels; of one camera 0.1 MB each.
    """

    joints: int = 3000
    images: int = 900
    steps: int = 2000
    episodes: int = 2
    labels: int = 256

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could be assembled."""
        if min(self.joints, self.images, self.episodes, self.labels) < 1 or self.steps < 2:
            raise AssemblyError(f'expected limits of at least 1 (steps: 2), got {self}; raise them')


def build_state(
    spec: ObservationSpec,
    *,
    joint_pos: npt.ArrayLike,
    joint_vel: npt.ArrayLike | None = None,
    tcp_pos: npt.ArrayLike | None = None,
    tcp_rotation: npt.ArrayLike | None = None,
    extras: Mapping[str, npt.ArrayLike] | None = None,
    joint_margin: float = JOINT_MARGIN_RAD,
) -> Float32Array:
    """Put together the state vector of one step.

    Args:
        spec: which blocks, in which order.
        joint_pos: (6,) in `JOINT_NAMES` order [rad].
        joint_vel: (6,) [rad/s].
        tcp_pos: TCP of the spec's preset in the base frame (3,) [m].
        tcp_rotation: its orientation as (3, 3) matrix or quaternion wxyz (4,).
        extras: values of the blocks that cannot be computed from the arm, by block name.
        joint_margin: how far beyond a joint's limits a position may lie [rad].

    Returns:
        (D,) float32, not normalised.

    Raises:
        ObservationError: an input is missing, has the wrong shape, is not finite, or cannot be in SI units.
    """
    position = _vector('joint_pos', joint_pos, NUM_JOINTS)
    check_joint_units(position, joint_margin)
    values: dict[str, npt.ArrayLike | None] = {
        **(extras or {}),
        'joint_pos': position,
        'joint_vel': joint_vel,
        'tcp_pos': tcp_pos,
        'gripper_opening': [gripper_rad_to_opening(float(position[-1]))],
    }
    for kind in OrientationKind:
        if tcp_rotation is not None and kind.value in spec.block_names:
            values[kind.value] = orientation_entries(kind, tcp_rotation, position)
    parts = []
    for block in spec.state:
        value = values.get(block.name)
        if value is None:
            raise ObservationError(
                f'expected a value for the state block {block.name!r}, got none; '
                f'pass it to build_state (blocks without an argument of their own go into extras)'
            )
        parts.append(_vector(block.name, value, block.size))
        if block.name == 'tcp_pos' and np.abs(parts[-1]).max() > MAX_REACH_M:
            raise ObservationError(
                f'expected tcp_pos within {MAX_REACH_M} m of the base, got {parts[-1].tolist()}; '
                f'convert it to metres'
            )
    return np.concatenate(parts).astype(np.float32)


def state_builder(
    spec: ObservationSpec, tcp_pose: TcpPose
) -> Callable[[FloatArray, FloatArray], Float32Array]:
    """Return the function that turns joint positions and velocities into the state vector.

    Args:
        spec: which blocks, in which order.
        tcp_pose: forward kinematics of the spec's TCP: (6,) [rad] to position (3,) [m] and rotation.

    Raises:
        ObservationError: the spec has blocks that the arm alone does not tell, such as the cube's position.
    """
    spec.require_deployable()
    unknown = [block.name for block in spec.state if not block.from_joints]
    if unknown:
        raise ObservationError(
            f'expected state blocks that follow from the joints, got {unknown}; build these states yourself '
            f'with build_state and extras'
        )

    def build(position: FloatArray, velocity: FloatArray) -> Float32Array:
        tcp_pos, tcp_rotation = tcp_pose(position)
        return build_state(
            spec, joint_pos=position, joint_vel=velocity, tcp_pos=tcp_pos, tcp_rotation=tcp_rotation
        )

    return build


def check_joint_units(position: FloatArray, margin: float = JOINT_MARGIN_RAD) -> None:
    """Refuse joint positions (6,) [rad] that lie out of range, as degrees or percent would."""
    low, high = limits_arrays()
    for name, value, lower, upper in zip(JOINT_NAMES, position, low, high, strict=True):
        if not lower - margin <= value <= upper + margin:
            raise ObservationError(
                f'expected {name} within {lower:.4f}..{upper:.4f} rad (+- {margin} rad), got {value:.6g}; '
                f'convert degrees or percent to rad, or calibrate the arm'
            )


def check_state(spec: ObservationSpec, state: npt.NDArray[np.generic], *, stacked: bool = True) -> None:
    """Refuse a state array whose last axes are not what the spec says.

    Args:
        spec: the spec that the array is used with.
        state: (..., T, D), or (..., D) where not stacked.
        stacked: whether the axis before the last one is the frame stack.
    """
    expected = (spec.frame_stack, spec.state_size) if stacked else (spec.state_size,)
    if state.shape[-len(expected) :] != expected:
        blocks = ', '.join(f'{block.name} {block.size}' for block in spec.state)
        raise ObservationError(
            f'expected a state of shape (..., {", ".join(map(str, expected))}) ({blocks}), '
            f'got {state.shape}; use data that was recorded with this observation spec'
        )


def stack_window(frames: Sequence[Item], frame_stack: int) -> tuple[Item, ...]:
    """Return the last `frame_stack` frames of an episode, the first one repeated where there are fewer.

    Args:
        frames: the frames since the episode's first one, or the last ones of them; newest last; at least one.
        frame_stack: T.
    """
    if not frames or frame_stack < 1:
        raise ObservationError(
            f'expected at least one frame and a stack of at least one, got {len(frames)} and {frame_stack}; '
            f'reset with the first frame of the episode'
        )
    last = tuple(frames[-frame_stack:])
    return (last[0],) * (frame_stack - len(last)) + last


def canonical_images(images: npt.NDArray[np.uint8], spec: ObservationSpec, *, batched: bool) -> UInt8Array:
    """Return images of one camera as (T, 3, S, S), or (B, T, 3, S, S) where batched.

    Frames that were folded into channels already, (3T, S, S), come out the same as those that were not, since
    the fold keeps the order in time. Any other shape or type is refused.
    """
    if images.dtype != np.uint8:
        raise ObservationError(f'expected uint8 images 0..255, got {images.dtype}; do not scale them')
    size, stack = spec.image_size, spec.frame_stack
    shape = images.shape[1:] if batched else images.shape
    if shape not in {(stack, 3, size, size), (3 * stack, size, size)}:
        batch = 'B, ' if batched else ''
        raise ObservationError(
            f'expected images ({batch}{stack}, 3, {size}, {size}) or folded '
            f'({batch}{3 * stack}, {size}, {size}), got {images.shape}; stack single RGB frames, oldest first'
        )
    return images.reshape(*images.shape[: int(batched)], stack, 3, size, size)


def canonical_state(state: npt.NDArray[np.floating], spec: ObservationSpec, *, batched: bool) -> Float32Array:
    """Return states as (T, D), or (B, T, D) where batched, from that shape or from the folded (T * D,)."""
    folded = (spec.frame_stack * spec.state_size,)
    head = state.shape[: int(batched)]
    if state.shape[int(batched) :] == folded:
        state = state.reshape(*head, spec.frame_stack, spec.state_size)
    check_state(spec, state)
    if state.ndim != 2 + int(batched):
        raise ObservationError(
            f'expected {2 + int(batched)} axes of states, got shape {state.shape}; unstack them'
        )
    return state.astype(np.float32, copy=False)


def _vector(name: str, value: npt.ArrayLike, size: int) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise ObservationError(
            f'expected {name} as {size} finite numbers, got {array.tolist()} of shape {array.shape}; '
            f'drop the sample or repair its source'
        )
    return array
