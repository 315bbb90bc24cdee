# SPDX-License-Identifier: Apache-2.0
"""The records of an MCAP file (https://mcap.dev/spec), as far as bags of ROS 2 use them: bytes and back.

A file is MAGIC, a header, the data (chunks with messages, metadata, attachments), a summary that points into
the data, a footer that points to the summary, and MAGIC. Everything is little endian; a record is an opcode,
its length, and that many bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
import struct
from typing import NamedTuple, TypeAlias
import zlib

MAGIC = b'\x89MCAP0\r\n'
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
ATTACHMENT, ATTACHMENT_INDEX, STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = range(9, 16)
RECORD_HEAD = 9

Buffer: TypeAlias = 'bytes | bytearray | memoryview'

_RECORD = struct.Struct('<BQ')
_MESSAGE = struct.Struct('<HIQQ')
_MESSAGE_RECORD = struct.Struct('<BQHIQQ')


class Span(NamedTuple):
    """Where a record lies: its opcode, where it begins, and where its content begins and ends."""

    opcode: int
    start: int
    body: int
    end: int


@dataclass(frozen=True)
class Schema:
    """A message type: its name, and its text as `ros2msg` or `ros2idl`."""

    name: str
    encoding: str
    text: bytes


@dataclass(frozen=True)
class Channel:
    """A topic: its name, the id of its schema, and what rosbag2 says about it (QoS, type hash)."""

    schema_id: int
    topic: str
    encoding: str = 'cdr'
    metadata: Mapping[str, str] = field(default_factory=dict)


class Stamps(NamedTuple):
    """Which message of a chunk lies where."""

    log_ns: int
    offset: int


def record(opcode: int, *parts: Buffer) -> bytes:
    """Return a record with the parts as its content."""
    return b''.join((_RECORD.pack(opcode, sum(map(len, parts))), *parts))


def text(value: str | bytes) -> bytes:
    """Return a string, or bytes, behind its length."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack('<I', len(data)) + data


def mapping(values: Mapping[str, str]) -> bytes:
    """Return a map of strings behind its length in bytes."""
    return text(b''.join(text(key) + text(value) for key, value in values.items()))


def header(library: str) -> bytes:
    """Return the beginning of a file."""
    return MAGIC + record(HEADER, text('ros2'), text(library))


def schema_record(number: int, schema: Schema) -> bytes:
    """Return a schema record; ids begin at 1."""
    return record(
        SCHEMA, struct.pack('<H', number), text(schema.name), text(schema.encoding), text(schema.text)
    )


def channel_record(number: int, channel: Channel) -> bytes:
    """Return a channel record."""
    return record(
        CHANNEL,
        struct.pack('<HH', number, channel.schema_id),
        text(channel.topic),
        text(channel.encoding),
        mapping(channel.metadata),
    )


def message_head(channel_id: int, log_ns: int, publish_ns: int, size: int) -> bytes:
    """Return what stands in front of a message's bytes."""
    return _MESSAGE_RECORD.pack(MESSAGE, _MESSAGE.size + size, channel_id, 0, log_ns, publish_ns)


def metadata_record(name: str, values: Mapping[str, str]) -> bytes:
    """Return named pairs of strings."""
    return record(METADATA, text(name), mapping(values))


def attachment_record(name: str, media_type: str, stamp_ns: int, data: bytes) -> bytes:
    """Return a file that travels with the bag."""
    body = struct.pack('<QQ', stamp_ns, stamp_ns) + text(name) + text(media_type)
    body += struct.pack('<Q', len(data)) + data
    return record(ATTACHMENT, body, struct.pack('<I', zlib.crc32(body)))


def message_index_record(channel_id: int, stamps: Iterable[Stamps]) -> bytes:
    """Return where the messages of one channel lie in the chunk before it."""
    entries = b''.join(struct.pack('<QQ', *stamp) for stamp in stamps)
    return record(MESSAGE_INDEX, struct.pack('<H', channel_id), text(entries))


def spans(data: Buffer, start: int, end: int) -> Iterator[Span]:
    """Yield the records from `start` on, as long as they are whole and end by `end`."""
    while start + RECORD_HEAD <= end:
        opcode, size = _RECORD.unpack_from(data, start)
        body = start + RECORD_HEAD
        if not HEADER <= opcode <= 0xFF or body + size > end:
            return
        yield Span(opcode, start, body, body + size)
        start = body + size


def read_text(data: Buffer, at: int) -> tuple[bytes, int]:
    """Return the string at an offset, and where the next field begins.

    Raises:
        ValueError: it does not end within the data.
    """
    if at + 4 > len(data):
        raise ValueError(f'no string at byte {at} of {len(data)}')
    (size,) = struct.unpack_from('<I', data, at)
    if at + 4 + size > len(data):
        raise ValueError(f'a string of {size} bytes at byte {at} of {len(data)}')
    return bytes(data[at + 4 : at + 4 + size]), at + 4 + size


def read_mapping(data: Buffer, at: int) -> tuple[dict[str, str], int]:
    """Return the map of strings at an offset, and where the next field begins."""
    body, after = read_text(data, at)
    values: dict[str, str] = {}
    at = 0
    while at < len(body):
        key, at = read_text(body, at)
        value, at = read_text(body, at)
        values[key.decode()] = value.decode()
    return values, after


def read_schema(body: Buffer) -> tuple[int, Schema]:
    """Return a schema and its id from a record's content."""
    (number,) = struct.unpack_from('<H', body, 0)
    name, at = read_text(body, 2)
    encoding, at = read_text(body, at)
    return number, Schema(name.decode(), encoding.decode(), read_text(body, at)[0])


def read_channel(body: Buffer) -> tuple[int, Channel]:
    """Return a channel and its id from a record's content."""
    number, schema_id = struct.unpack_from('<HH', body, 0)
    topic, at = read_text(body, 4)
    encoding, at = read_text(body, at)
    return number, Channel(schema_id, topic.decode(), encoding.decode(), read_mapping(body, at)[0])


def read_message_head(data: Buffer, body: int) -> tuple[int, int, int]:
    """Return channel id, log time and publish time [ns] of the message whose content begins at `body`."""
    channel_id, _, log_ns, publish_ns = _MESSAGE.unpack_from(data, body)
    return channel_id, log_ns, publish_ns


MESSAGE_HEAD = _MESSAGE.size
