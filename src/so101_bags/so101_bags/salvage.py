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
from typing import BinaryIO
import zlib

from backports import zstd
import lz4.frame  # type: ignore[import-untyped]
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Attachment, Channel, Chunk, Footer, Message, Metadata, Schema
from mcap.writer import MCAP0_MAGIC

from so101_bags.storage import BagError, Progress
from so101_bags.unfinished import RECORD_HEAD, Span, spans
from so101_bags.untrusted import BAD_BYTES, MOST_BYTES
from so101_bags.write import McapFile
from so101_interfaces_py.files import open_file

_FLUSH_BYTES = 4_000_000
_FOOTER_BYTES = RECORD_HEAD.size + 20 + len(MCAP0_MAGIC)
MOST_NOTES = 100
_SIDE_FILES = ('-wal', '-journal')


@dataclass
class Salvage:
    """How many messages of a file were copied, and its damage in words."""

    messages: int = 0
    notes: list[str] = field(default_factory=list)


def is_whole(path: Path) -> bool:
    """Whether a file has an end that agrees with its beginning, so that nothing need be repaired.

    Messages outside of chunks have no index; readers that want them in the order of time refuse them.
    """
    size = path.stat().st_size
    if size < len(MCAP0_MAGIC) + _FOOTER_BYTES:
        return False
    with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:8] != MCAP0_MAGIC or data[-8:] != MCAP0_MAGIC:
            return False
        at = size - _FOOTER_BYTES
        footer = Footer.read(_stream(data[at + RECORD_HEAD.size :]))
        start, crc = footer.summary_start, footer.summary_crc
        if RECORD_HEAD.unpack_from(data, at) != (Opcode.FOOTER, 20) or not 0 < start <= at:
            return False
        if crc and zlib.crc32(data[start : size - 12]) != crc:
            return False
        # The data must reach up to the summary without a gap.
        end = len(MCAP0_MAGIC)
        for span in spans(file, end, start):
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
    with open_file(source) as file:
        if source.stat().st_size < len(MCAP0_MAGIC) or file.read(8) != MCAP0_MAGIC:
            raise BagError(f'expected an MCAP file at {source}, its beginning is none; it cannot be repaired')
        writer = McapFile(target)
        _Copier(writer, found).copy(file, progress)
        writer.close()
    return found


class _Copier:
    """Carries schemas, channels and messages over; ids are given anew."""

    def __init__(self, writer: McapFile, found: Salvage) -> None:
        self._writer, self._found = writer, found
        self._schemas: dict[int, int] = {}
        self._channels: dict[int, int] = {}

    def copy(self, file: BinaryIO, progress: Progress | None) -> None:
        end, size = len(MCAP0_MAGIC), file.seek(0, io.SEEK_END)
        for span in spans(file, end, size):
            if span.opcode in (Opcode.DATA_END, Opcode.FOOTER):
                return
            self._try(span, file)
            end = span.end
            if progress is not None:
                progress(end, size)
        file.seek(end)
        rest = file.read(size - end)
        if len(rest) >= RECORD_HEAD.size and rest[0] == Opcode.CHUNK:  # cut off in the middle
            self._chunk(rest[RECORD_HEAD.size :])
        if size > end:
            self._found.notes.append(f'the last {size - end} bytes are no whole record')

    def _try(self, span: Span, file: BinaryIO) -> None:
        """Take a record; note where it makes no sense."""
        try:
            self._take(span.opcode, span.read(file))
        except BAD_BYTES as error:
            if len(self._found.notes) < MOST_NOTES:
                said = f'a record at byte {span.start} is damaged: {type(error).__name__} ({error})'
                self._found.notes.append(said)

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
        except BAD_BYTES:
            return
        content = b''.join(_unpacked(chunk))
        size = chunk.uncompressed_size
        if len(content) < size or (chunk.uncompressed_crc and zlib.crc32(content) != chunk.uncompressed_crc):
            self._found.notes.append(
                f'a chunk of {size} bytes is damaged, {len(content)} bytes of it were there'
            )
            if len(content) == size:
                return  # the length is right and the content is not: nothing in it can be trusted
        inside = io.BytesIO(content)
        for span in spans(inside, 0, len(content)):
            self._try(span, inside)


def _stream(body: bytes) -> ReadDataStream:
    return ReadDataStream(io.BytesIO(body))


def _unpacked(chunk: Chunk) -> Iterator[bytes]:
    """Decompress piece by piece, so that what lies before a cut comes out; never further than the chunk declares."""
    left = min(chunk.uncompressed_size, MOST_BYTES)
    if chunk.compression == '':
        yield chunk.data[:left]
        return
    if chunk.compression not in ('zstd', 'lz4'):
        return
    machine = zstd.ZstdDecompressor() if chunk.compression == 'zstd' else lz4.frame.LZ4FrameDecompressor()
    for at in range(0, len(chunk.data), 4096):
        try:
            if machine.eof or not left:
                return
            piece = machine.decompress(chunk.data[at : at + 4096], max_length=left)
        except (zstd.ZstdError, RuntimeError, EOFError):
            return
        left -= len(piece)
        yield piece


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
