# SPDX-License-Identifier: Apache-2.0
"""From serialised messages to the few message types that learning needs, whatever version recorded them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
import re
import struct
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores, TypesysError
from rosbags.typesys.store import Typestore

from so101_bags.storage import BagError, DecodeError, TopicInfo

_HEADER = 'header.stamp.sec:int32 header.stamp.nanosec:uint32 header.frame_id:string '
LAYOUTS: Mapping[str, str] = {
    'so101_interfaces/msg/Step': _HEADER
    + 'episode:uint32 index:uint32 joint_stamp.sec:int32 joint_stamp.nanosec:uint32 '
    'image_stamps:(sec:int32 nanosec:uint32)[] reward:float32 terminated:bool truncated:bool',
    'so101_interfaces/msg/EpisodeEvent': _HEADER
    + 'episode:uint32 index:uint32 kind:uint8 reason:string observation_hash:string action_hash:string '
    'calibration_id:string',
    'so101_interfaces/msg/EeDelta': _HEADER
    + 'episode:uint32 index:uint32 translation.x:float64 translation.y:float64 translation.z:float64 '
    'gripper:float64 source:uint8',
    'sensor_msgs/msg/JointState': _HEADER
    + 'name:string[] position:float64[] velocity:float64[] effort:float64[]',
    'sensor_msgs/msg/Image': _HEADER
    + 'height:uint32 width:uint32 encoding:string is_bigendian:uint8 step:uint32 data:uint8[]',
}
"""What the quick decoders expect. A bag that says nothing about a type is taken to mean this."""


OPTIONAL = frozenset(
    [
        'header.frame_id',
        'reason',
        'observation_hash',
        'action_hash',
        'calibration_id',
        'effort',
        'is_bigendian',
    ]
)
"""Fields that a bag may lack: nothing that is learned depends on them."""


def missing_fields(layout: str, msgtype: str) -> list[str]:
    """Return the fields that a bag's type lacks and learning needs."""
    found = _names(layout) | OPTIONAL
    return sorted(_names(LAYOUTS[msgtype]) - found)


def _names(layout: str) -> set[str]:
    flat = re.sub(r'\([^()]*\)', '', layout)
    return {field.split(':')[0] for field in flat.split(' ')}


def typestore_of(topics: Iterable[TopicInfo]) -> Typestore:
    """Return a typestore with the definitions of a bag, on top of those of ROS 2 Jazzy.

    Raises:
        BagError: a definition cannot be parsed, or two bags mean different things by one type.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    standard = dict(store.fielddefs)
    known: dict[str, str] = {}
    for info in topics:
        for definition in info.definitions:
            types = _parse(info.msgtype, definition)
            layout = _flatten({**standard, **types}, info.msgtype)
            if known.setdefault(info.msgtype, layout) != layout:
                raise BagError(
                    f'expected one meaning of {info.msgtype} in all bags, got {layout!r} beside '
                    f'{known[info.msgtype]!r}; read these bags one at a time'
                )
            # The bag's own words win: it may be older or newer than this program.
            for name in types:
                store.fielddefs.pop(name, None)
            store.register(types)
    return store


def layout_of(store: Typestore, msgtype: str) -> str:
    """Return a type's fields in order, nested ones by their path; empty where the store lacks it."""
    return _flatten(store.fielddefs, msgtype) if msgtype in store.fielddefs else ''


def _parse(msgtype: str, definition: MessageDefinition) -> dict[str, Any]:
    try:
        if definition.format is MessageDefinitionFormat.MSG:
            return dict(get_types_from_msg(definition.data, msgtype))
        types: dict[str, Any] = {}
        for part in definition.data.split('=' * 80 + '\n'):
            if part.strip():
                types.update(get_types_from_idl(part.split('\n', 1)[1] if part.startswith('IDL: ') else part))
        return types
    except (TypesysError, ValueError, KeyError, IndexError) as error:
        raise BagError(
            f'expected a definition of {msgtype} in the bag that can be read, got {error}; record it again'
        ) from error


def _flatten(fields: Mapping[str, Any], msgtype: str) -> str:
    return ' '.join(_flat_fields(fields, msgtype, ''))


def _flat_fields(fields: Mapping[str, Any], msgtype: str, prefix: str) -> Iterable[str]:
    if msgtype not in fields:
        yield f'{prefix}:{msgtype}'
        return
    for name, (kind, detail) in fields[msgtype][1]:
        if kind is Nodetype.NAME:
            yield from _flat_fields(fields, detail, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}:{_flat_type(fields, kind, detail)}'


def _flat_type(fields: Mapping[str, Any], kind: Nodetype, detail: Any) -> str:
    if kind is Nodetype.BASE:
        return str(detail[0])
    if kind is Nodetype.NAME:
        return f'({" ".join(_flat_fields(fields, detail, ""))})'
    (inner_kind, inner), length = detail
    size = '' if kind is Nodetype.SEQUENCE else str(length)
    return f'{_flat_type(fields, inner_kind, inner)}[{size}]'


Message = TypeVar('Message')
BAD_BYTES = (struct.error, ValueError, IndexError, KeyError, TypeError, AssertionError, SerdeError)
"""What decoding raises where bytes do not fit."""


class Decoder(Generic[Message]):
    """Decodes the messages of one topic: quickly where they are laid out as here, by their names elsewhere."""

    def __init__(
        self,
        msgtype: str,
        store: Typestore,
        quick: Callable[[bytes], Message],
        by_name: Callable[[Any], Message],
    ) -> None:
        found = layout_of(store, msgtype)
        self._msgtype, self._store = msgtype, store
        self._quick = quick if found in ('', LAYOUTS[msgtype]) else None
        self._by_name = by_name
        missing = missing_fields(found, msgtype) if found else []
        if missing:
            raise BagError(
                f'expected the fields {missing} in {msgtype}, but this bag was recorded without them; use the '
                f'version of so101_interfaces that recorded it'
            )

    def __call__(self, data: bytes) -> Message:
        """Decode a message.

        Raises:
            DecodeError: its bytes do not fit its type.
        """
        try:
            if self._quick is not None and data[:2] == LITTLE_ENDIAN:
                return self._quick(data)
            return self._by_name(self._store.deserialize_cdr(data, self._msgtype))
        except BAD_BYTES as error:
            raise DecodeError(
                f'expected a whole {self._msgtype}, got {len(data)} bytes that are none ({error}); '
                f'the message is skipped'
            ) from error


class Decoders:
    """One decoder per type and topic of an open bag."""

    def __init__(self, topics: Iterable[TopicInfo]) -> None:
        self.store = typestore_of(topics)

    def step(self) -> Decoder[StepMessage]:
        """Return a decoder of steps."""
        return Decoder('so101_interfaces/msg/Step', self.store, read_step, _step)

    def delta(self) -> Decoder[DeltaMessage]:
        """Return a decoder of actions."""
        return Decoder('so101_interfaces/msg/EeDelta', self.store, read_delta, _delta)

    def event(self) -> Decoder[EventMessage]:
        """Return a decoder of episode events."""
        return Decoder('so101_interfaces/msg/EpisodeEvent', self.store, read_event, _event)

    def joints(self) -> Decoder[JointMessage]:
        """Return a decoder of joint states; each topic needs its own."""
        return Decoder('sensor_msgs/msg/JointState', self.store, JointReader().read, _joints)

    def image(self) -> Decoder[ImageMessage]:
        """Return a decoder of images."""
        return Decoder('sensor_msgs/msg/Image', self.store, read_image, _image)

    def any(self, msgtype: str, data: bytes) -> Any:
        """Decode a message of any type whose definition is known.

        Raises:
            DecodeError: it is not, or the bytes do not fit.
        """
        try:
            return self.store.deserialize_cdr(data, msgtype)
        except BAD_BYTES as error:
            raise DecodeError(f'expected a whole {msgtype}, got bytes that are none ({error})') from error


def require_type(info: TopicInfo, msgtype: str) -> None:
    """Refuse a topic of another type than the contract says."""
    if info.msgtype != msgtype:
        raise BagError(f'expected {msgtype} on {info.topic}, got {info.msgtype}; read another bag')


def _ns(stamp: Any) -> int:
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def _step(message: Any) -> StepMessage:
    return StepMessage(
        _ns(message.header.stamp),
        int(message.episode),
        int(message.index),
        _ns(message.joint_stamp),
        tuple(_ns(stamp) for stamp in message.image_stamps),
        float(message.reward),
        bool(message.terminated),
        bool(message.truncated),
    )


def _delta(message: Any) -> DeltaMessage:
    move = message.translation
    return DeltaMessage(
        _ns(message.header.stamp),
        int(message.episode),
        int(message.index),
        (float(move.x), float(move.y), float(move.z)),
        float(message.gripper),
        int(message.source),
    )


def _event(message: Any) -> EventMessage:
    return EventMessage(
        _ns(message.header.stamp),
        int(message.episode),
        int(message.index),
        int(message.kind),
        str(getattr(message, 'reason', '')),
        str(getattr(message, 'observation_hash', '')),
        str(getattr(message, 'action_hash', '')),
        str(getattr(message, 'calibration_id', '')),
    )


def _joints(message: Any) -> JointMessage:
    return JointMessage(
        _ns(message.header.stamp),
        tuple(message.name),
        np.asarray(message.position, dtype=np.float64),
        np.asarray(message.velocity, dtype=np.float64),
    )


def _image(message: Any) -> ImageMessage:
    return ImageMessage(
        _ns(message.header.stamp),
        int(message.height),
        int(message.width),
        str(message.encoding),
        int(message.step),
        np.asarray(message.data, dtype=np.uint8),
    )


NANOSECONDS = 1_000_000_000
LITTLE_ENDIAN = b'\x00\x01'

_STAMP = struct.Struct('<iI')
_STAMP_AND_FRAME = struct.Struct('<iII')
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
    _, _, length = _STAMP_AND_FRAME.unpack_from(data, 4)
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
    sec, nanosec, length = _STAMP_AND_FRAME.unpack_from(data, 4)
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
