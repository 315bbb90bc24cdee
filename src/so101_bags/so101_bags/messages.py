# SPDX-License-Identifier: Apache-2.0
"""Serialised messages (CDR, XCDR1 of the OMG's DDS-XTypes 1.3) and the values that learning needs from them.

A reader is compiled from the definition that the bag itself carries, so a bag of another version is read by the names
of its fields. It goes through the bytes once, up to the last field that is asked for, and copies no arrays.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
import struct
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores, TypesysError
from rosbags.typesys.store import Typestore

from so101_bags.storage import BagError, DecodeError, TopicInfo
from so101_contract.messages import StepRecord

Message = TypeVar('Message')
Fields: TypeAlias = Mapping[str, Any]
_Read: TypeAlias = Callable[[bytes, int], tuple[Any, int]]
_Leaf: TypeAlias = tuple[str, Nodetype, Any]

NANOSECONDS = 1_000_000_000
STEP, DELTA = 'so101_interfaces/msg/Step', 'so101_interfaces/msg/EeDelta'
EVENT, STRING = 'so101_interfaces/msg/EpisodeEvent', 'std_msgs/msg/String'
JOINTS, IMAGE = 'sensor_msgs/msg/JointState', 'sensor_msgs/msg/Image'

_KNOWN: Mapping[str, str] = {
    STEP: 'std_msgs/Header header\nuint32 episode\nuint32 index\nbuiltin_interfaces/Time joint_stamp\n'
    'builtin_interfaces/Time[] image_stamps\nfloat32 reward\nbool terminated\nbool truncated',
    EVENT: 'std_msgs/Header header\nuint32 episode\nuint32 index\nuint8 kind\nstring reason\n'
    'string observation_hash\nstring action_hash\nstring calibration_id',
    DELTA: 'std_msgs/Header header\nuint32 episode\nuint32 index\ngeometry_msgs/Vector3 translation\n'
    'float64 gripper\nuint8 source',
}
"""What a bag means that says nothing about these types, such as an sqlite3 one of before Iron."""

_NUMBERS = {'bool': '?', 'byte': 'B', 'octet': 'B', 'char': 'B', 'float32': 'f', 'float64': 'd'}
_NUMBERS |= {'int8': 'b', 'int16': 'h', 'int32': 'i', 'int64': 'q'}
_NUMBERS |= {f'u{name}': code.upper() for name, code in _NUMBERS.items() if name.startswith('int')}
_BYTE_ORDER = {0: '>', 1: '<'}
"""By the second byte of a message, as OMG's CDR says it."""

_STAMP = struct.Struct('<iI')
_BAD_BYTES = (struct.error, ValueError, IndexError, KeyError, OverflowError)


@dataclass(frozen=True, slots=True)
class DeltaMessage:
    """`so101_interfaces/msg/EeDelta`; the translation is in metres, the gripper 0 closed .. 1 open."""

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
    """`sensor_msgs/msg/JointState`, without the efforts; radians, and radians per second."""

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


class Decoder(Generic[Message]):
    """Decodes the messages of one type; `to_value` makes something of its fields."""

    def __init__(
        self,
        store: Typestore,
        msgtype: str,
        wanted: Sequence[str],
        to_value: Callable[[Fields], Message],
        optional: Sequence[str] = (),
    ) -> None:
        """Compile a reader.

        Args:
            store: knows the type's definition.
            msgtype: e.g. `sensor_msgs/msg/Image`.
            wanted: paths of the fields that are needed, such as `header.stamp.sec`.
            to_value: makes the result out of the fields by their path.
            optional: paths of fields that a bag may lack.

        Raises:
            BagError: the type has no such fields, or is not known.
        """
        leaves = list(_leaves(store.fielddefs, msgtype))
        paths = [path for path, _, _ in leaves]
        missing = sorted(set(wanted) - set(paths))
        if missing:
            raise BagError(
                f'expected the fields {missing} in {msgtype}, but this bag was recorded without them; use the '
                f'version of so101_interfaces that recorded it'
            )
        last = max(paths.index(path) for path in (*wanted, *optional) if path in paths)
        self._msgtype, self._to_value = msgtype, to_value
        self._readers = {
            flag: [
                (path, _reader(store.fielddefs, kind, detail, order))
                for path, kind, detail in leaves[: last + 1]
            ]
            for flag, order in _BYTE_ORDER.items()
        }

    def __call__(self, data: bytes) -> Message:
        """Decode a message.

        Raises:
            DecodeError: its bytes do not fit its type.
        """
        fields, at = {}, 4
        try:
            for path, read in self._readers[data[1]]:
                fields[path], at = read(data, at)
        except _BAD_BYTES as error:
            raise DecodeError(
                f'expected a whole {self._msgtype}, got {len(data)} bytes that are none ({error}); '
                f'the message is skipped'
            ) from error
        return self._to_value(fields)


class Decoders:
    """Decoders for the types of an open bag, or of live messages where no topics are given."""

    def __init__(self, topics: Iterable[TopicInfo] = ()) -> None:
        self.store = _typestore_of(topics)

    @classmethod
    def of(cls, msgtype: str, text: str) -> 'Decoders':
        """Return those for a type as its `.msg` text defines it."""
        return cls([TopicInfo('', msgtype, 0, [MessageDefinition(MessageDefinitionFormat.MSG, text)])])

    def step(self) -> Decoder[StepRecord]:
        """Return a decoder of steps."""
        wanted = ('episode', 'index', 'joint_stamp.sec', 'joint_stamp.nanosec', 'image_stamps')
        outcome = ('reward', 'terminated', 'truncated')
        return Decoder(self.store, STEP, (*_STAMPED, *wanted, *outcome), _step)

    def delta(self) -> Decoder[DeltaMessage]:
        """Return a decoder of actions."""
        axes = ('translation.x', 'translation.y', 'translation.z')
        return Decoder(self.store, DELTA, (*_STAMPED, 'episode', 'index', *axes, 'gripper', 'source'), _delta)

    def event(self) -> Decoder[EventMessage]:
        """Return a decoder of episode events."""
        return Decoder(self.store, EVENT, (*_STAMPED, 'episode', 'index', 'kind'), _event, _EVENT_TEXTS)

    def joints(self) -> Decoder[JointMessage]:
        """Return a decoder of joint states."""
        return Decoder(self.store, JOINTS, (*_STAMPED, 'name', 'position', 'velocity'), _joints)

    def image(self) -> Decoder[ImageMessage]:
        """Return a decoder of images."""
        return Decoder(self.store, IMAGE, (*_STAMPED, 'height', 'width', 'encoding', 'step', 'data'), _image)

    def fields(self, msgtype: str, wanted: Sequence[str]) -> Decoder[Fields]:
        """Return a decoder of some fields of any type whose definition is known."""
        return Decoder(self.store, msgtype, wanted, lambda fields: fields)

    def whole(self, msgtype: str, data: bytes) -> Any:
        """Return a whole message of any type whose definition is known.

        Raises:
            DecodeError: the bytes are no such message.
        """
        try:
            return self.store.deserialize_cdr(data, msgtype)
        except (*_BAD_BYTES, SerdeError) as error:
            raise DecodeError(
                f'expected a whole {msgtype}, got {len(data)} bytes that are none ({error}); record again'
            ) from error

    def is_stamped(self, msgtype: str) -> bool:
        """Whether a type begins with a header."""
        return next((path for path, _, _ in _leaves(self.store.fielddefs, msgtype)), '') == _STAMPED[0]


def stamp_of(data: bytes) -> int | None:
    """Return the header's stamp [ns] of any message that begins with a header, where it is little endian."""
    if data[:2] != b'\x00\x01' or len(data) < 12:
        return None
    sec, nanosec = _STAMP.unpack_from(data, 4)
    return int(sec) * NANOSECONDS + int(nanosec)


_STAMPED = ('header.stamp.sec', 'header.stamp.nanosec')
_EVENT_TEXTS = ('reason', 'observation_hash', 'action_hash', 'calibration_id')


def _ns(fields: Fields, path: str = 'header.stamp.') -> int:
    return int(fields[f'{path}sec'] * NANOSECONDS + fields[f'{path}nanosec'])


def _step(fields: Fields) -> StepRecord:
    return StepRecord(
        fields['episode'],
        fields['index'],
        _ns(fields),
        _ns(fields, 'joint_stamp.'),
        tuple(_ns(stamp, '') for stamp in fields['image_stamps']),
        fields['reward'],
        fields['terminated'],
        fields['truncated'],
    )


def _delta(fields: Fields) -> DeltaMessage:
    translation = (fields['translation.x'], fields['translation.y'], fields['translation.z'])
    return DeltaMessage(
        _ns(fields), fields['episode'], fields['index'], translation, fields['gripper'], fields['source']
    )


def _event(fields: Fields) -> EventMessage:
    texts = [fields.get(name, '') for name in _EVENT_TEXTS]
    return EventMessage(_ns(fields), fields['episode'], fields['index'], fields['kind'], *texts)


def _joints(fields: Fields) -> JointMessage:
    return JointMessage(_ns(fields), tuple(fields['name']), fields['position'], fields['velocity'])


def _image(fields: Fields) -> ImageMessage:
    return ImageMessage(
        _ns(fields), fields['height'], fields['width'], fields['encoding'], fields['step'], fields['data']
    )


def _typestore_of(topics: Iterable[TopicInfo]) -> Typestore:
    """Return a typestore with the definitions of a bag, on top of those of ROS 2 Jazzy.

    Raises:
        BagError: a definition cannot be parsed, or two bags mean different things by one type.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    for msgtype, text in _KNOWN.items():
        store.register({msgtype: get_types_from_msg(text, msgtype)[msgtype]})
    standard = dict(store.fielddefs)
    known: dict[str, list[_Leaf]] = {}
    for info in topics:
        for definition in info.definitions:
            types = _parse(info.msgtype, definition)
            leaves = list(_leaves({**standard, **types}, info.msgtype))
            if known.setdefault(info.msgtype, leaves) != leaves:
                raise BagError(
                    f'expected one meaning of {info.msgtype} in all bags, got {leaves!r} beside '
                    f'{known[info.msgtype]!r}; read these bags one at a time'
                )
            # The bag's own words win: it may be older or newer than this program.
            for name in types:
                store.fielddefs.pop(name, None)
            store.register(types)
    return store


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


def _leaves(fields: Mapping[str, Any], msgtype: str, prefix: str = '') -> Iterable[_Leaf]:
    """Yield path and kind of a type's fields in the order of their bytes; none where the type is not known."""
    for name, (kind, detail) in fields[msgtype][1] if msgtype in fields else ():
        if kind is Nodetype.NAME:
            yield from _leaves(fields, detail, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', kind, detail


def _reader(fields: Mapping[str, Any], kind: Nodetype, detail: Any, order: str) -> _Read:
    """Return a function from bytes and an offset to a value and the offset behind it."""
    if kind is Nodetype.NAME:
        return _struct_reader([(p, _reader(fields, k, d, order)) for p, k, d in _leaves(fields, detail)])
    if kind is Nodetype.BASE:
        return (
            _text_reader(order) if detail[0] not in _NUMBERS else _number_reader(order + _NUMBERS[detail[0]])
        )
    (inner_kind, inner), length = detail
    fixed = length if kind is Nodetype.ARRAY else None
    if inner_kind is Nodetype.BASE and inner[0] in _NUMBERS:
        return _array_reader(np.dtype(order + _NUMBERS[inner[0]]), fixed, order)
    items = _list_reader(_reader(fields, inner_kind, inner, order), fixed, order)
    return _remembering(items) if inner_kind is Nodetype.BASE else items


def _struct_reader(parts: list[tuple[str, _Read]]) -> _Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        values = {}
        for path, part in parts:
            values[path], at = part(data, at)
        return values, at

    return read


def _number_reader(code: str) -> _Read:
    form = struct.Struct(code)
    unpack, size = form.unpack_from, form.size

    def read(data: bytes, at: int) -> tuple[Any, int]:
        at = ((at + size - 5) & -size) + 4  # counts from behind the four bytes that say the encoding
        return unpack(data, at)[0], at + size

    return read


def _text_reader(order: str) -> _Read:
    unpack = struct.Struct(f'{order}I').unpack_from

    def read(data: bytes, at: int) -> tuple[Any, int]:
        at = (at + 3) & -4
        (length,) = unpack(data, at)
        end = at + 4 + length
        if end > len(data):
            raise ValueError(f'a text of {length} bytes in {len(data)} bytes')
        return data[at + 4 : max(end - 1, at + 4)].decode(), end

    return read


def _array_reader(dtype: np.dtype[Any], fixed: int | None, order: str) -> _Read:
    count_of, size = _number_reader(f'{order}I'), dtype.itemsize

    def read(data: bytes, at: int) -> tuple[Any, int]:
        count, at = (fixed, at) if fixed is not None else count_of(data, at)
        if count == 0:
            return np.empty(0, dtype), at
        at = ((at + size - 5) & -size) + 4
        return np.frombuffer(data, dtype, count, at), at + size * count

    return read


def _list_reader(item: _Read, fixed: int | None, order: str) -> _Read:
    count_of = _number_reader(f'{order}I')

    def read(data: bytes, at: int) -> tuple[Any, int]:
        count, at = (fixed, at) if fixed is not None else count_of(data, at)
        if count > len(data):
            raise ValueError(f'{count} items in {len(data)} bytes')
        items = []
        for _ in range(count):
            value, at = item(data, at)
            items.append(value)
        return items, at

    return read


def _remembering(read_texts: _Read) -> _Read:
    """Return a reader of a list of texts that reads the same bytes once: joint names, a hundred times a second."""
    known: tuple[bytes, Any] = b'', None

    def read(data: bytes, at: int) -> tuple[Any, int]:
        nonlocal known
        at = (at + 3) & -4
        if known[0] and data.startswith(known[0], at):
            return known[1], at + len(known[0])
        texts, end = read_texts(data, at)
        known = data[at:end], texts
        return texts, end

    return read
