# SPDX-License-Identifier: Apache-2.0
"""MCAP files record by record, and a reader for one that has no end because its recorder still runs or was killed.

Nothing here believes a length: a record that would reach past the end of its file or chunk ends the reading.
"""

from collections import Counter
from collections.abc import Iterator
import io
import os
from pathlib import Path
import struct
from typing import BinaryIO, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Schema
from mcap.writer import MCAP0_MAGIC
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2.storage_mcap import ChunkInfo, decompress, McapReader

from so101_interfaces_py.files import open_file

RECORD_HEAD = struct.Struct('<BQ')
"""Of every record: what it is, and how long."""


def begins_as_mcap(path: Path) -> bool:
    """Whether a file is one by its first bytes."""
    with open_file(path) as file:
        return file.read(len(MCAP0_MAGIC)) == MCAP0_MAGIC


class Span(NamedTuple):
    """Where a record of an MCAP file lies: what it is, where it begins, where its content does, and where that ends."""

    opcode: int
    start: int
    body: int
    end: int

    def read(self, file: BinaryIO, most: int = -1) -> bytes:
        """Return its content, or the beginning of it."""
        file.seek(self.body)
        size = self.end - self.body
        return file.read(size if most < 0 else min(most, size))


def spans(file: BinaryIO, start: int, end: int) -> Iterator[Span]:
    """Yield the records from `start` on, as long as they are whole and end by `end`."""
    while start + RECORD_HEAD.size <= end:
        file.seek(start)
        head = file.read(RECORD_HEAD.size)
        if len(head) < RECORD_HEAD.size:  # cut off meanwhile
            return
        opcode, size = RECORD_HEAD.unpack(head)
        body = start + RECORD_HEAD.size
        if opcode == 0 or body + size > end:
            return
        yield Span(opcode, start, body, body + size)
        start = body + size


class UnfinishedReader(McapReader):
    """Reads a file that has no end: what would stand there, types, topics and places, is gathered from the chunks."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.types: dict[int, Schema] = {}

    def _open(self) -> None:
        assert self.bio is not None
        chunks: list[tuple[Span, dict[int, int]]] = []
        for span in spans(self.bio, len(MCAP0_MAGIC), self.bio.seek(0, os.SEEK_END)):
            if span.opcode in (Opcode.MESSAGE, Opcode.DATA_END, Opcode.FOOTER):
                break
            if span.opcode == Opcode.CHUNK:
                chunks.append((span, {}))
            elif span.opcode == Opcode.MESSAGE_INDEX and chunks:
                channel, size = struct.unpack('<HI', span.read(self.bio, 6))
                chunks[-1][1][channel] = size // 16
        for number, (span, counts) in enumerate(chunks, 1):
            # The index behind the last one may be there in part.
            self._add(span, counts, look_inside=number == len(chunks))
        counts = sum((Counter(chunk.channel_count) for chunk in self.chunks), Counter[int]())
        self.connections = [one._replace(msgcount=counts[one.id]) for one in self.connections]
        first = min((chunk.message_start_time for chunk in self.chunks), default=2**63 - 1)
        last = max((chunk.message_end_time + 1 for chunk in self.chunks), default=0)
        self.metadata = self.metadata._replace(
            duration=max(last - first, 0), start_time=first, end_time=last, message_count=counts.total()
        )

    def _add(self, span: Span, counts: dict[int, int], look_inside: bool) -> None:
        assert self.bio is not None
        first, last, size, crc, length = struct.unpack('<QQQII', (head := span.read(self.bio, 4096))[:32])
        form = head[32 : 32 + length].decode()
        (packed,) = struct.unpack_from('<Q', head, 32 + length)
        if look_inside or not counts.keys() <= {connection.id for connection in self.connections}:
            self.bio.seek(span.body + 40 + length)
            content = decompress(self.bio.read(min(packed, span.end - span.body)), form, size, crc)
            counts = self._read_chunk(io.BytesIO(content), size)
        place = span.start, span.end - span.start
        self.chunks.append(ChunkInfo(first, last, *place, {}, 0, form, packed, size, counts))

    def _read_chunk(self, content: BinaryIO, size: int) -> dict[int, int]:
        """Note the types and topics that a chunk makes known; count its messages."""
        counts: Counter[int] = Counter()
        for span in spans(content, 0, size):
            if span.opcode == Opcode.MESSAGE:
                counts[struct.unpack('<H', span.read(content, 2))[0]] += 1
            elif span.opcode == Opcode.SCHEMA:
                schema = Schema.read(ReadDataStream(io.BytesIO(span.read(content))))
                self.types[schema.id] = schema
            elif span.opcode == Opcode.CHANNEL:
                self._note(Channel.read(ReadDataStream(io.BytesIO(span.read(content)))))
        return counts

    def _note(self, channel: Channel) -> None:
        schema = self.types[channel.schema_id]
        form = MessageDefinitionFormat.MSG if schema.encoding == 'ros2msg' else MessageDefinitionFormat.NONE
        definition = MessageDefinition(form, schema.data.decode() if form else '')
        extra = ConnectionExtRosbag2(channel.message_encoding, [])
        self.connections.append(
            Connection(channel.id, channel.topic, schema.name, definition, '', 0, extra, self)
        )
