# SPDX-License-Identifier: Apache-2.0
"""Copies what is whole of a damaged MCAP file into a new one."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
import mmap
from pathlib import Path
import shutil
import sqlite3
import struct
import zlib

from backports import zstd
import lz4.frame  # type: ignore[import-untyped]

from so101_bags import mcap_format as mcap
from so101_bags.storage import BagError, Progress
from so101_bags.write import McapWriter

_FLUSH_BYTES = 4_000_000


@dataclass
class Salvage:
    """What was found in a file.

    Attributes:
        messages: messages that were copied.
        lost_bytes: bytes at its end that hold no whole record.
        damaged_chunks: chunks of which a part was lost, or all of it.
        notes: the damage, in words.
    """

    messages: int = 0
    lost_bytes: int = 0
    damaged_chunks: int = 0
    notes: list[str] = field(default_factory=list)


def is_whole(path: Path) -> bool:
    """Whether a file has an end that agrees with its beginning, so that nothing need be repaired.

    Messages outside of chunks have no index; readers that want them in the order of time refuse them.
    """
    size = path.stat().st_size
    if size < len(mcap.MAGIC) * 2 + 29:
        return False
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:8] != mcap.MAGIC or data[-8:] != mcap.MAGIC:
            return False
        footer = size - 37
        opcode, length = struct.unpack_from('<BQ', data, footer)
        start, _, crc = struct.unpack_from('<QQI', data, footer + 9)
        if opcode != mcap.FOOTER or length != 20 or not 0 < start <= footer:
            return False
        if crc and zlib.crc32(data[start : footer + 25]) != crc:
            return False
        # The data must reach up to the summary without a gap.
        end = len(mcap.MAGIC)
        with memoryview(data) as view:
            for span in mcap.spans(view, end, start):
                if span.opcode == mcap.MESSAGE:
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
        if source.stat().st_size < len(mcap.MAGIC) or file.read(8) != mcap.MAGIC:
            raise BagError(f'expected an MCAP file at {source}, its beginning is none; it cannot be repaired')
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            writer = McapWriter(target)
            copier = _Copier(writer, found)
            copier.copy(data, source.stat().st_size, progress)
            writer.close()
    return found


class _Copier:
    """Carries schemas, channels and messages over; ids are given anew."""

    def __init__(self, writer: McapWriter, found: Salvage) -> None:
        self._writer, self._found = writer, found
        self._schemas: dict[int, int] = {}
        self._channels: dict[int, int] = {}

    def copy(self, data: mmap.mmap, size: int, progress: Progress | None) -> None:
        end = len(mcap.MAGIC)
        with memoryview(data) as view:
            for span in mcap.spans(view, end, size):
                if span.opcode in (mcap.DATA_END, mcap.FOOTER):
                    return
                self._take(view, span)
                end = span.end
                if progress is not None:
                    progress(end, size)
            self._cut(view, end, size)

    def _take(self, view: memoryview, span: mcap.Span) -> None:
        body = view[span.body : span.end]
        try:
            if span.opcode == mcap.CHUNK:
                self._chunk(body)
            elif span.opcode == mcap.METADATA:
                name, at = mcap.read_text(body, 0)
                if name != b'rosbag2':
                    self._writer.add_metadata(name.decode(), mcap.read_mapping(body, at)[0])
            elif span.opcode == mcap.ATTACHMENT:
                self._attachment(body)
            else:
                self._record(view, span)
        except (ValueError, struct.error, IndexError, UnicodeDecodeError, KeyError) as error:
            self._found.notes.append(f'a record at byte {span.start} is damaged: {error}')
        finally:
            body.release()

    def _cut(self, view: memoryview, end: int, size: int) -> None:
        """Take what there is of a chunk that was cut off in the middle."""
        lost = size - end
        self._found.lost_bytes = lost
        if lost >= mcap.RECORD_HEAD and view[end] == mcap.CHUNK:
            with view[end + mcap.RECORD_HEAD : size] as body:
                self._chunk(body)
        if lost:
            self._found.notes.append(f'the last {lost} bytes are no whole record')

    def _chunk(self, body: memoryview) -> None:
        if len(body) < 32:
            return
        _, _, size, crc = struct.unpack_from('<QQQI', body, 0)
        form, at = mcap.read_text(body, 28)
        content = _unpacked(bytes(form), body[at + 8 :], size)
        if len(content) < size or (crc and zlib.crc32(content) != crc):
            self._found.damaged_chunks += 1
            self._found.notes.append(
                f'a chunk of {size} bytes is damaged, {len(content)} bytes of it were there'
            )
            if len(content) == size:
                return  # the length is right and the content is not: nothing in it can be trusted
        for span in mcap.spans(content, 0, len(content)):
            self._record(content, span)

    def _record(self, data: mcap.Buffer, span: mcap.Span) -> None:
        if span.opcode == mcap.SCHEMA:
            number, schema = mcap.read_schema(data[span.body : span.end])
            self._schemas[number] = self._writer.add_schema(schema)
        elif span.opcode == mcap.CHANNEL:
            number, channel = mcap.read_channel(data[span.body : span.end])
            if number not in self._channels:
                new = mcap.Channel(
                    self._schemas[channel.schema_id], channel.topic, channel.encoding, channel.metadata
                )
                self._channels[number] = self._writer.add_channel(new)
        elif span.opcode == mcap.MESSAGE:
            channel_id, log_ns, publish_ns = mcap.read_message_head(data, span.body)
            message = bytes(data[span.body + mcap.MESSAGE_HEAD : span.end])
            self._writer.write(self._channels[channel_id], log_ns, publish_ns, message)
            self._found.messages += 1
            if self._writer.waiting > _FLUSH_BYTES:
                self._writer.flush()

    def _attachment(self, body: memoryview) -> None:
        stamp_ns, _ = struct.unpack_from('<QQ', body, 0)
        name, at = mcap.read_text(body, 16)
        media_type, at = mcap.read_text(body, at)
        (size,) = struct.unpack_from('<Q', body, at)
        content = bytes(body[at + 8 : at + 8 + size])
        self._writer.add_attachment(name.decode(), media_type.decode(), stamp_ns, content)


def _unpacked(form: bytes, packed: memoryview, size: int) -> bytes:
    """Return as much of a chunk's content as its bytes give."""
    if form == b'':
        return bytes(packed[:size])
    return b''.join(_steps(form, packed))


def _steps(form: bytes, packed: memoryview) -> Iterator[bytes]:
    """Decompress piece by piece, so that what lies before a cut comes out."""
    if form not in (b'zstd', b'lz4'):
        return
    step = 4096
    zstd_stream, lz4_stream = zstd.ZstdDecompressor(), lz4.frame.LZ4FrameDecompressor()
    for at in range(0, len(packed), step):
        piece = bytes(packed[at : at + step])
        try:
            if form == b'zstd':
                if zstd_stream.eof:
                    return
                yield zstd_stream.decompress(piece)
            else:
                if lz4_stream.eof:
                    return
                yield lz4_stream.decompress(piece)
        except (zstd.ZstdError, RuntimeError, EOFError):
            return


def topics_of(path: Path) -> Iterator[mcap.Channel]:
    """Yield the topics of a closed file from its summary."""
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = len(data)
        (start,) = struct.unpack_from('<Q', data, size - 28)
        summary = data[start : size - 37]
    for span in mcap.spans(summary, 0, len(summary)):
        if span.opcode == mcap.CHANNEL:
            yield mcap.read_channel(summary[span.body : span.end])[1]


_SIDE_FILES = ('-wal', '-journal')


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
