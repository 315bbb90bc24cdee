# SPDX-License-Identifier: Apache-2.0
"""Reading the few messages that learning needs straight from their CDR bytes (little endian), without copies.

Offsets count from the start of the data; the first four bytes say the encoding, and alignment counts from
behind them. Every function raises `struct.error`, `ValueError` or `IndexError` on bytes that do not fit.
"""

from dataclasses import dataclass
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

NANOSECONDS = 1_000_000_000
LITTLE_ENDIAN = b'\x00\x01'

_STAMP = struct.Struct('<iI')
_HEADER = struct.Struct('<iII')
_U32 = struct.Struct('<I')
_STEP = struct.Struct('<IIiII')
_STEP_END = struct.Struct('<f??')
_TWO_U32 = struct.Struct('<II')
_DELTA = struct.Struct('<ddddB')


@dataclass(frozen=True, slots=True)
class StepMessage:
    """`so101_interfaces/msg/Step`; stamps in ns."""

    stamp_ns: int
    episode: int
    index: int
    joint_stamp_ns: int
    image_stamps_ns: tuple[int, ...]
    reward: float
    terminated: bool
    truncated: bool


@dataclass(frozen=True, slots=True)
class DeltaMessage:
    """`so101_interfaces/msg/EeDelta`."""

    stamp_ns: int
    episode: int
    index: int
    translation: tuple[float, float, float]
    gripper: float
    source: int


@dataclass(frozen=True, slots=True)
class EventMessage:
    """`so101_interfaces/msg/EpisodeEvent`."""

    stamp_ns: int
    episode: int
    index: int
    kind: int
    reason: str
    observation_hash: str
    action_hash: str
    calibration_id: str


class JointMessage(NamedTuple):
    """`sensor_msgs/msg/JointState`, without the efforts."""

    stamp_ns: int
    names: tuple[str, ...]
    position: npt.NDArray[np.float64]
    velocity: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class ImageMessage:
    """`sensor_msgs/msg/Image`; `data` is a view of the message's own bytes."""

    stamp_ns: int
    height: int
    width: int
    encoding: str
    step: int
    data: npt.NDArray[np.uint8]


def read_stamp(data: bytes) -> int:
    """Return the header's stamp [ns] of any message that begins with a header."""
    sec, nanosec = _STAMP.unpack_from(data, 4)
    return int(sec) * NANOSECONDS + int(nanosec)


def read_step(data: bytes) -> StepMessage:
    """Read a Step."""
    stamp_ns, at = _header(data)
    episode, index, sec, nanosec, count = _STEP.unpack_from(data, at)
    at += _STEP.size
    if count * 8 > len(data) - at:
        raise ValueError(f'{count} image stamps in {len(data)} bytes')
    flat = struct.unpack_from('<' + 'iI' * count, data, at)
    images = tuple(flat[i] * NANOSECONDS + flat[i + 1] for i in range(0, 2 * count, 2))
    reward, terminated, truncated = _STEP_END.unpack_from(data, at + 8 * count)
    joint_ns = sec * NANOSECONDS + nanosec
    return StepMessage(stamp_ns, episode, index, joint_ns, images, reward, terminated, truncated)


def read_delta(data: bytes) -> DeltaMessage:
    """Read an EeDelta."""
    stamp_ns, at = _header(data)
    episode, index = _TWO_U32.unpack_from(data, at)
    x, y, z, gripper, source = _DELTA.unpack_from(data, _align(at + 8, 8))
    return DeltaMessage(stamp_ns, episode, index, (x, y, z), gripper, source)


def read_event(data: bytes) -> EventMessage:
    """Read an EpisodeEvent."""
    stamp_ns, at = _header(data)
    episode, index = _TWO_U32.unpack_from(data, at)
    kind = data[at + 8]
    at, texts = at + 9, []
    for _ in range(4):
        text, at = _string(data, _align(at, 4))
        texts.append(text)
    return EventMessage(stamp_ns, episode, index, kind, texts[0], texts[1], texts[2], texts[3])


def read_image(data: bytes) -> ImageMessage:
    """Read an Image; its pixels are not copied."""
    stamp_ns, at = _header(data)
    height, width = _TWO_U32.unpack_from(data, at)
    encoding, at = _string(data, at + 8)
    step, size = _TWO_U32.unpack_from(data, _align(at + 1, 4))
    at = _align(at + 1, 4) + 8
    pixels = np.frombuffer(data, np.uint8, size, at)
    return ImageMessage(stamp_ns, height, width, encoding, step, pixels)


def read_string_message(data: bytes) -> str:
    """Read a `std_msgs/msg/String`."""
    return _string(data, 4)[0]


def read_calibration_id(data: bytes) -> str:
    """Return the calibration id of an ArmStatus."""
    _, _, length = _HEADER.unpack_from(data, 4)
    state = 16 + length  # one byte, so it follows the frame's name without a gap
    _, at = _string(data, _align(state + 1, 4))
    return _string(data, _align(at, 4))[0]


class JointReader:
    """Reads JointState messages; remembers the names, which are the same in every message of a topic."""

    def __init__(self) -> None:
        self._prefix = b''
        self._names: tuple[str, ...] = ()

    def read(self, data: bytes) -> JointMessage:
        """Read a JointState."""
        stamp_ns, at = _header(data)
        start = at
        if self._prefix and data.startswith(self._prefix, at):
            at += len(self._prefix)
        else:
            (count,) = _U32.unpack_from(data, at)
            if count > len(data):
                raise ValueError(f'{count} names in {len(data)} bytes')
            names, at = [], at + 4
            for _ in range(count):
                name, at = _string(data, _align(at, 4))
                names.append(name)
            self._prefix, self._names = data[start:at], tuple(names)
        position, at = _doubles(data, _align(at, 4))
        velocity, at = _doubles(data, _align(at, 4))
        return JointMessage(stamp_ns, self._names, position, velocity)


def _header(data: bytes) -> tuple[int, int]:
    """Return the stamp [ns], and where the next field of four bytes begins."""
    sec, nanosec, length = _HEADER.unpack_from(data, 4)
    return sec * NANOSECONDS + nanosec, (16 + length + 3) & ~3


def _align(at: int, size: int) -> int:
    return ((at - 4 + size - 1) & -size) + 4


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _U32.unpack_from(data, at)
    end = at + 4 + length
    if end > len(data):
        raise ValueError(f'a text of {length} bytes in {len(data)} bytes')
    return data[at + 4 : max(end - 1, at + 4)].decode(), end


def _doubles(data: bytes, at: int) -> tuple[npt.NDArray[np.float64], int]:
    (count,) = _U32.unpack_from(data, at)
    at += 4
    if count == 0:
        return np.empty(0), at
    at = _align(at, 8)
    return np.frombuffer(data, '<f8', count, at), at + 8 * count
