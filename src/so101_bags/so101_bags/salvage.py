# SPDX-License-Identifier: Apache-2.0
"""Copies what is whole of a damaged file into a new one: of MCAP every record, of sqlite3 what its journal adds."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
import io
import mmap
from pathlib import Path
import shutil
import sqlite3
import struct
from typing import NamedTuple
import zlib

from backports import zstd
import lz4.frame  # type: ignore[import-untyped]
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Chunk, Footer, Message, Metadata, Schema
from mcap.writer import MCAP0_MAGIC

from so101_bags.storage import BagError, Progress
from so101_bags.write import McapFile

_FLUSH_BYTES = 4_000_000
_HEAD = struct.Struct('<BQ')  # of every record: what it is, and how long
_FOOTER_BYTES = _HEAD.size + 20 + len(MCAP0_MAGIC)
_SIDE_FILES = ('-wal', '-journal')


@dataclass
class Salvage:
    """How many messages of a file were copied, and its damage in words."""

    messages: int = 0
    notes: list[str] = field(default_factory=list)


class _Span(NamedTuple):
    """Where a record lies: what it is, and where it begins, where its content does, and where that ends."""

    opcode: int
    start: int
    body: int
    end: int


def is_whole(path: Path) -> bool:
    """Whether a file has an end that agrees with its beginning, so that nothing need be repaired.

    Messages outside of chunks have no index; readers that want them in the order of time refuse them.
    """
    size = path.stat().st_size
    if size < len(MCAP0_MAGIC) + _FOOTER_BYTES:
        return False
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:8] != MCAP0_MAGIC or data[-8:] != MCAP0_MAGIC:
            return False
        at = size - _FOOTER_BYTES
        footer = Footer.read(_stream(data[at + _HEAD.size :]))
        start, crc = footer.summary_start, footer.summary_crc
        if _HEAD.unpack_from(data, at) != (Opcode.FOOTER, 20) or not 0 < start <= at:
            return False
        if crc and zlib.crc32(data[start : size - 12]) != crc:
            return False
        # The data must reach up to the summary without a gap.
        end = len(MCAP0_MAGIC)
        for span in _spans(data, end, start):
            if span.opcode == Opcode.MESSAGE:
                return False
            end = span.end
        return bool(end == start)


def salvage(source: Path, target: Path, *, progress: Progress | None = None) -> Salvage:
    """Copy everything that is whole; the target is a closed file.

    Args:
        source: the damaged file.
        target: where its whole form goes; nothing may be there.
        progress: called now and then with bytes read and bytes in all.

    Raises:
        BagError: the source is no MCAP file at all.
    """
    found = Salvage()
    with source.open('rb') as file:
        if source.stat().st_size < len(MCAP0_MAGIC) or file.read(8) != MCAP0_MAGIC:
            raise BagError(f'expected an MCAP file at {source}, its beginning is none; it cannot be repaired')
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            writer = McapFile(target)
            _Copier(writer, found).copy(data, progress)
            writer.close()
    return found


class _Copier:
    """Carries schemas, channels and messages over; ids are given anew."""

    def __init__(self, writer: McapFile, found: Salvage) -> None:
        self._writer, self._found = writer, found
        self._schemas: dict[int, int] = {}
        self._channels: dict[int, int] = {}

    def copy(self, data: mmap.mmap, progress: Progress | None) -> None:
        end, size = len(MCAP0_MAGIC), len(data)
        for span in _spans(data, end, size):
            if span.opcode in (Opcode.DATA_END, Opcode.FOOTER):
                return
            try:
                self._take(span.opcode, data[span.body : span.end])
            except (McapError, ValueError, struct.error, IndexError, KeyError) as error:
                self._found.notes.append(f'a record at byte {span.start} is damaged: {error}')
            end = span.end
            if progress is not None:
                progress(end, size)
        if size - end >= _HEAD.size and data[end] == Opcode.CHUNK:  # cut off in the middle
            self._chunk(data[end + _HEAD.size :])
        if size > end:
            self._found.notes.append(f'the last {size - end} bytes are no whole record')

    def _take(self, opcode: int, body: bytes) -> None:
        stream = _stream(body)
        if opcode == Opcode.CHUNK:
            self._chunk(body)
        elif opcode == Opcode.METADATA:
            metadata = Metadata.read(stream)
            if metadata.name != 'rosbag2':
                self._writer.add_metadata(metadata.name, metadata.metadata)
        elif opcode == Opcode.ATTACHMENT:
            file = Attachment.read(stream)
            self._writer.add_attachment(file.name, file.media_type, file.log_time, file.data)
        elif opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            self._schemas[schema.id] = self._writer.add_schema(schema.name, schema.encoding, schema.data)
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            if channel.id not in self._channels:
                schema_id, encoding = self._schemas[channel.schema_id], channel.message_encoding
                new = self._writer.add_channel(schema_id, channel.topic, encoding, channel.metadata)
                self._channels[channel.id] = new
        elif opcode == Opcode.MESSAGE:
            message = Message.read(stream, len(body))
            channel_id = self._channels[message.channel_id]
            self._writer.write(channel_id, message.log_time, message.publish_time, message.data)
            self._found.messages += 1
            if self._writer.waiting > _FLUSH_BYTES:
                self._writer.flush()

    def _chunk(self, body: bytes) -> None:
        """Take what there is of a chunk, which may be cut off."""
        try:
            chunk = Chunk.read(_stream(body))
        except (McapError, struct.error, ValueError):
            return
        content = b''.join(_unpacked(chunk))
        size = chunk.uncompressed_size
        if len(content) < size or (chunk.uncompressed_crc and zlib.crc32(content) != chunk.uncompressed_crc):
            self._found.notes.append(
                f'a chunk of {size} bytes is damaged, {len(content)} bytes of it were there'
            )
            if len(content) == size:
                return  # the length is right and the content is not: nothing in it can be trusted
        for span in _spans(content, 0, len(content)):
            self._take(span.opcode, content[span.body : span.end])


def _spans(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[_Span]:
    """Yield the records from `start` on, as long as they are whole and end by `end`."""
    while start + _HEAD.size <= end:
        opcode, size = _HEAD.unpack_from(data, start)
        body = start + _HEAD.size
        if opcode == 0 or body + size > end:
            return
        yield _Span(opcode, start, body, body + size)
        start = body + size


def _stream(body: bytes) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(body))


def _unpacked(chunk: Chunk) -> Iterator[bytes]:
    """Decompress piece by piece, so that what lies before a cut comes out."""
    if chunk.compression == '':
        yield chunk.data[: chunk.uncompressed_size]
        return
    if chunk.compression not in ('zstd', 'lz4'):
        return
    packed = zstd.ZstdDecompressor() if chunk.compression == 'zstd' else lz4.frame.LZ4FrameDecompressor()
    for at in range(0, len(chunk.data), 4096):
        try:
            if packed.eof:
                return
            yield packed.decompress(chunk.data[at : at + 4096])
        except (zstd.ZstdError, RuntimeError, EOFError):
            return


def is_closed(path: Path) -> bool:
    """Whether nothing waits in a journal beside a file, and the file itself is sound."""
    if any(_beside(path, suffix).exists() and _beside(path, suffix).stat().st_size for suffix in _SIDE_FILES):
        return False
    try:
        with closing(sqlite3.connect(f'file:{path}?mode=ro&immutable=1', uri=True)) as database:
            return bool(database.execute('PRAGMA quick_check(1)').fetchone() == ('ok',))
    except sqlite3.Error:
        return False


def salvage_sqlite(source: Path, target: Path) -> int:
    """Copy a file with what its journal adds; return how many messages there are.

    Raises:
        BagError: it is damaged beyond that.
    """
    shutil.copyfile(source, target)
    for suffix in _SIDE_FILES:
        if _beside(source, suffix).exists():
            shutil.copyfile(_beside(source, suffix), _beside(target, suffix))
    try:
        with closing(sqlite3.connect(target)) as database:
            database.execute('PRAGMA journal_mode=DELETE').fetchone()
            if database.execute('PRAGMA quick_check(1)').fetchone() != ('ok',):
                _copy_rows(source, target)
        with closing(sqlite3.connect(target)) as database:
            return int(database.execute('SELECT count(*) FROM messages').fetchone()[0])
    except sqlite3.Error as error:
        raise BagError(f'expected an sqlite3 bag at {source}, got {error}; it cannot be repaired') from error


def _copy_rows(source: Path, target: Path) -> None:
    """Rebuild a file row by row, up to the first one that cannot be read."""
    target.unlink()
    with (
        closing(sqlite3.connect(f'file:{source}?mode=ro', uri=True)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        for (statement,) in old.execute('SELECT sql FROM sqlite_master WHERE sql IS NOT NULL').fetchall():
            new.execute(statement)
        for (table,) in old.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
            try:
                for row in old.execute(f'SELECT * FROM "{table}"'):
                    new.execute(f'INSERT INTO "{table}" VALUES ({",".join("?" * len(row))})', row)
            except sqlite3.DatabaseError:
                pass  # the rows before it are there
        new.commit()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
