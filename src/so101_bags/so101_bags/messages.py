# SPDX-License-Identifier: Apache-2.0
"""Serialised messages (CDR, XCDR1 of the OMG's DDS-XTypes 1.3), read as what live nodes get: objects with their fields.

What a message means is said in `so101_contract.messages`; the bytes of a bag take the same way through there.

A reader is compiled from the definition that the bag itself carries, so a bag of another version is read by the names
of its fields. It goes through the bytes once, up to the last field that is asked for, and copies no arrays.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import struct
from types import SimpleNamespace
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores, TypesysError
from rosbags.typesys.store import Typestore

from so101_bags.storage import BagError, DecodeError, TopicInfo
from so101_contract.messages import (
    action_record,
    EpisodeEventRecord,
    event_record,
    ExecutedAction,
    step_record,
    StepRecord,
)

Value = TypeVar('Value')
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

_LIVE: Mapping[str, str] = {**_KNOWN, EVENT: f'{_KNOWN[EVENT]}\nstring task_hash'}
"""What the messages of a running graph are."""

_NUMBERS = {'bool': '?', 'byte': 'B', 'octet': 'B', 'char': 'B', 'float32': 'f', 'float64': 'd'}
_NUMBERS |= {'int8': 'b', 'int16': 'h', 'int32': 'i', 'int64': 'q'}
_NUMBERS |= {f'u{name}': code.upper() for name, code in _NUMBERS.items() if name.startswith('int')}
_BYTE_ORDER = {0: '>', 1: '<'}
"""By the second byte of a message, as OMG's CDR says it."""

MOST_CHARACTERS = 200_000
"""Of the definition of a type, those of its parts included; the longest of ROS 2 has a tenth of that."""

_STAMP = struct.Struct('<iI')
_BAD_BYTES = (struct.error, ValueError, IndexError, KeyError, OverflowError)


class Decoder(Generic[Value]):
    """Decodes the messages of one type; `to_value` makes something of them."""

    def __init__(
        self,
        store: Typestore,
        msgtype: str,
        wanted: Sequence[str],
        to_value: Callable[[Any], Value],
        optional: Sequence[str] = (),
    ) -> None:
        """Compile a reader.

        Args:
            store: knows the type's definition.
            msgtype: e.g. `sensor_msgs/msg/Image`.
            wanted: the fields that are needed, such as `header`.
            to_value: makes the result of a message, which has fields up to the last of these as attributes.
            optional: fields that a bag may lack.

        Raises:
            BagError: the type has no such fields, or is not known.
        """
        fields = store.fielddefs[msgtype][1] if msgtype in store.fielddefs else ()
        names = [name for name, _ in fields]
        missing = sorted(set(wanted) - set(names))
        if missing:
            raise BagError(
                f'expected the fields {missing} in {msgtype}, but this bag was recorded without them; use the '
                f'version of so101_interfaces that recorded it'
            )
        last = max(names.index(name) for name in (*wanted, *optional) if name in names)
        self._msgtype, self._to_value = msgtype, to_value
        self._readers = {
            flag: _struct_reader(store.fielddefs, fields[: last + 1], order)
            for flag, order in _BYTE_ORDER.items()
        }

    def __call__(self, data: bytes) -> Value:
        """Decode a message.

        Raises:
            DecodeError: its bytes do not fit its type.
            ContractError: they do, and say what cannot be.
        """
        try:
            message, _ = self._readers[data[1]](data, 4)
        except _BAD_BYTES as error:
            raise DecodeError(
                f'expected a whole {self._msgtype}, got {len(data)} bytes that are none ({error}); '
                f'the message is skipped'
            ) from error
        return self._to_value(message)


class Decoders:
    """Decoders for the types of an open bag, or of live messages where no topics are given.

    A definition that cannot be read hurts only whoever asks for its type: `ros2 bag record -a` stores some that nobody
    needs.
    """

    def __init__(self, topics: Iterable[TopicInfo] = ()) -> None:
        found = list(topics)
        self.store, self._unreadable = _typestore_of(found, _KNOWN if found else _LIVE)

    @classmethod
    def of(cls, msgtype: str, text: str) -> 'Decoders':
        """Return those for a type as its `.msg` text defines it."""
        return cls([TopicInfo('', msgtype, 0, [MessageDefinition(MessageDefinitionFormat.MSG, text)])])

    def step(self) -> Decoder[StepRecord]:
        """Return a decoder of steps."""
        wanted = ('header', 'episode', 'index', 'joint_stamp', 'image_stamps')
        return self._decoder(STEP, (*wanted, 'reward', 'terminated', 'truncated'), step_record)

    def action(self) -> Decoder[ExecutedAction]:
        """Return a decoder of actions."""
        wanted = ('header', 'episode', 'index', 'translation', 'gripper', 'source')
        return self._decoder(DELTA, wanted, action_record)

    def event(self) -> Decoder[EpisodeEventRecord]:
        """Return a decoder of episode events."""
        newer = ('reason', 'observation_hash', 'action_hash', 'calibration_id', 'task_hash', 'by_human')
        return self._decoder(EVENT, ('header', 'episode', 'index', 'kind'), event_record, newer)

    def joints(self) -> Decoder[Any]:
        """Return a decoder of joint states, without the efforts."""
        return self.fields(JOINTS, ('header', 'name', 'position', 'velocity'))

    def image(self) -> Decoder[Any]:
        """Return a decoder of images, whose `data` are a view of the message's own bytes."""
        return self.fields(IMAGE, ('header', 'height', 'width', 'encoding', 'step', 'data'))

    def fields(self, msgtype: str, wanted: Sequence[str]) -> Decoder[Any]:
        """Return a decoder of some fields of any type whose definition is known."""
        return self._decoder(msgtype, wanted, lambda message: message)

    def _decoder(
        self,
        msgtype: str,
        wanted: Sequence[str],
        to_value: Callable[[Any], Value],
        optional: Sequence[str] = (),
    ) -> Decoder[Value]:
        self._require(msgtype)
        return Decoder(self.store, msgtype, wanted, to_value, optional)

    def _require(self, msgtype: str) -> None:
        if msgtype in self._unreadable:
            raise self._unreadable[msgtype]

    def whole(self, msgtype: str, data: bytes) -> Any:
        """Return a whole message of any type whose definition is known.

        Raises:
            DecodeError: the bytes are no such message.
            BagError: its definition cannot be read.
        """
        self._require(msgtype)
        try:
            return self.store.deserialize_cdr(data, msgtype)
        except (*_BAD_BYTES, SerdeError) as error:
            raise DecodeError(
                f'expected a whole {msgtype}, got {len(data)} bytes that are none ({error}); record again'
            ) from error

    def is_stamped(self, msgtype: str) -> bool:
        """Whether a type begins with a header."""
        return next((path for path, _, _ in _leaves(self.store.fielddefs, msgtype)), '') == 'header.stamp.sec'


def stamp_of(data: bytes) -> int | None:
    """Return the header's stamp [ns] of any message that begins with a header, where it is little endian."""
    if data[:2] != b'\x00\x01' or len(data) < 12:
        return None
    sec, nanosec = _STAMP.unpack_from(data, 4)
    return int(sec) * NANOSECONDS + int(nanosec)


def _typestore_of(
    topics: Iterable[TopicInfo], usual: Mapping[str, str]
) -> tuple[Typestore, dict[str, BagError]]:
    """Return a typestore with the definitions of a bag, on top of those of ROS 2 Jazzy, and what cannot be read.

    That is, by the name of the type, a definition that cannot be parsed, or two bags that mean different things by it.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    for msgtype, text in usual.items():
        store.register({msgtype: get_types_from_msg(text, msgtype)[msgtype]})
    standard = dict(store.fielddefs)
    known: dict[str, list[_Leaf]] = {}
    unreadable: dict[str, BagError] = {}
    for info in topics:
        for definition in info.definitions:
            try:
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
            except (TypesysError, RecursionError) as error:
                unreadable[info.msgtype] = _unreadable(info.msgtype, error)
            except BagError as error:
                unreadable[info.msgtype] = error
    return store, unreadable


def _parse(msgtype: str, definition: MessageDefinition) -> dict[str, Any]:
    try:
        if len(definition.data) > MOST_CHARACTERS:
            raise ValueError(f'{len(definition.data)} characters')
        if definition.format is MessageDefinitionFormat.MSG:
            return dict(get_types_from_msg(definition.data, msgtype))
        types: dict[str, Any] = {}
        for part in definition.data.split('=' * 80 + '\n'):
            if part.strip():
                types.update(get_types_from_idl(part.split('\n', 1)[1] if part.startswith('IDL: ') else part))
        return types
    except (TypesysError, ValueError, KeyError, IndexError) as error:
        raise _unreadable(msgtype, error) from error


def _unreadable(msgtype: str, error: Exception) -> BagError:
    return BagError(
        f'expected a definition of {msgtype} in the bag that can be read, got {" ".join(str(error).split())[:200]}; '
        f'record it again'
    )


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
        return _struct_reader(fields, fields[detail][1], order)
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


def _struct_reader(
    known: Mapping[str, Any], fields: Iterable[tuple[str, tuple[Nodetype, Any]]], order: str
) -> _Read:
    parts = [(name, _reader(known, kind, detail, order)) for name, (kind, detail) in fields]

    def read(data: bytes, at: int) -> tuple[Any, int]:
        values = {}
        for name, part in parts:
            values[name], at = part(data, at)
        return SimpleNamespace(**values), at

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
