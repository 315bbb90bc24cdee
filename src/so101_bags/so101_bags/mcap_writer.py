# SPDX-License-Identifier: Apache-2.0
"""Writes one MCAP file that is whole after every flush.

Each flush writes a chunk and, behind it, the summary and footer that close the file; the next chunk takes
their place. So whoever kills the writer finds a closed file, except in the instant of a write or where the
summary has grown so long that it is written less often; what then lacks its end is repaired by `bag-fix`.
"""

from collections.abc import Callable, Mapping
import os
from pathlib import Path
import struct
from typing import TypeAlias
import zlib

from backports import zstd

from so101_bags import mcap_format as mcap
from so101_bags.errors import BagError
from so101_bags.mcap_format import Channel, Schema, Stamps

LIBRARY = 'so101_session 1'
COMPRESSIONS = ('none', 'zstd')
_ZSTD_LEVEL = 1
_SHORT_TAIL = 65536  # a summary up to this size [B] is written with every flush

_Closed: TypeAlias = tuple[int, int, dict[int, int], tuple[int, int] | None, dict[int, int]]


class McapWriter:
    """One file: topics, messages, named pairs and attachments; `flush` makes what came so far permanent."""

    def __init__(
        self, path: Path, *, compression: str = 'none', trailer: Callable[[], Mapping[str, str]] | None = None
    ) -> None:
        """Create a file.

        Args:
            path: where; nothing may be there.
            compression: of the chunks, one of `COMPRESSIONS`.
            trailer: returns what to write as metadata `rosbag2` at the end of the file.

        Raises:
            BagError: it cannot be created.
        """
        if compression not in COMPRESSIONS:
            raise BagError(
                f'expected the compression {" or ".join(COMPRESSIONS)}, got {compression!r}; choose one'
            )
        self.path, self._compression, self._trailer = path, compression, trailer
        self._schemas: list[Schema] = []
        self._channels: list[Channel] = []
        self._counts: dict[int, int] = {}
        self._span: tuple[int, int] | None = None
        self._index: list[bytes] = []
        self._index_of: dict[int, list[bytes]] = {mcap.METADATA_INDEX: [], mcap.ATTACHMENT_INDEX: []}
        self._since_tail = 0
        self._tail_size = 0
        self._parts: list[mcap.Buffer] = []
        self._pending_size = 0
        self._stamps: dict[int, list[Stamps]] = {}
        self._chunk_span: tuple[int, int] | None = None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            raise BagError(
                f'expected to create {path}, got {error.strerror}; choose another folder'
            ) from error
        self._end = 0
        self._closed: _Closed = (0, 0, {}, None, dict.fromkeys(self._index_of, 0))
        try:
            self._append(mcap.header(LIBRARY))
            self._write_tail()
        except OSError as error:
            os.close(self._file)
            raise BagError(f'expected to write to {path}, got {error.strerror}; free the disk') from error

    @property
    def size(self) -> int:
        """Bytes in the file and waiting for it."""
        return self._end + self._pending_size

    @property
    def open(self) -> bool:
        """Whether it takes messages."""
        return self._file >= 0

    @property
    def waiting(self) -> int:
        """Bytes that wait for `flush`."""
        return self._pending_size

    @property
    def counts(self) -> Mapping[int, int]:
        """How many messages of each channel are written."""
        return self._counts

    @property
    def first_ns(self) -> int | None:
        """Earliest log time [ns]; None before the first message."""
        return None if self._span is None else self._span[0]

    @property
    def last_ns(self) -> int | None:
        """Latest log time [ns]."""
        return None if self._span is None else self._span[1]

    def add_schema(self, schema: Schema) -> int:
        """Return the id of a schema, new or known."""
        if schema not in self._schemas:
            self._schemas.append(schema)
            self._put(mcap.schema_record(len(self._schemas), schema))
        return self._schemas.index(schema) + 1

    def add_channel(self, channel: Channel) -> int:
        """Return the id of a new channel."""
        self._channels.append(channel)
        number = len(self._channels)
        self._put(mcap.channel_record(number, channel))
        self._counts[number] = 0
        return number

    def write(self, channel_id: int, log_ns: int, publish_ns: int, data: mcap.Buffer) -> None:
        """Take a message; it is in memory until the next flush."""
        self._stamps.setdefault(channel_id, []).append(Stamps(log_ns, self._pending_size))
        self._put(mcap.message_head(channel_id, log_ns, publish_ns, len(data)))
        self._put(data)
        self._chunk_span = _widen(self._chunk_span, log_ns)

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Write named pairs of strings."""
        self._place(mcap.METADATA_INDEX, mcap.metadata_record(name, values), mcap.text(name))

    def add_attachment(self, name: str, media_type: str, stamp_ns: int, data: bytes) -> None:
        """Write a file that travels with the bag."""
        stamps = struct.pack('<QQQ', stamp_ns, stamp_ns, len(data))
        where = stamps + mcap.text(name) + mcap.text(media_type)
        self._place(mcap.ATTACHMENT_INDEX, mcap.attachment_record(name, media_type, stamp_ns, data), where)

    def flush(self) -> None:
        """Write what came since the last flush, and what closes the file.

        Raises:
            OSError: the disk is full, say; the file is whole again, without what this flush was to add.
        """
        if self._stamps:
            self._write_chunk()
        if self._tail_size < _SHORT_TAIL or self._since_tail >= self._tail_size:
            self._close_or_recover()

    def sync(self) -> None:
        """Have the operating system bring it to the disk."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Flush, and end the file."""
        if self._file < 0:
            return
        try:
            if self._stamps:
                self._write_chunk()
            self._close_or_recover()
        finally:
            os.close(self._file)
            self._file = -1

    def _put(self, part: mcap.Buffer) -> None:
        self._parts.append(part)
        self._pending_size += len(part)

    def _place(self, opcode: int, data: bytes, where: bytes) -> None:
        """Write a record between chunks, and note in the index where it is."""
        if self._stamps:
            self._write_chunk()
        self._index_of[opcode].append(mcap.record(opcode, struct.pack('<QQ', self._end, len(data)), where))
        self._append(data)
        self._close_or_recover()

    def _write_chunk(self) -> None:
        content, stamps, span = b''.join(self._parts), self._stamps, self._chunk_span or (0, 0)
        self._parts, self._pending_size, self._stamps, self._chunk_span = [], 0, {}, None
        packed = zstd.compress(content, _ZSTD_LEVEL) if self._compression == 'zstd' else content
        form = mcap.text('zstd' if self._compression == 'zstd' else '')
        head = struct.pack('<QQQI', *span, len(content), zlib.crc32(content)) + form
        head += struct.pack('<Q', len(packed))
        head = struct.pack('<BQ', mcap.CHUNK, len(head) + len(packed)) + head
        at, offsets, indexes = self._end, b'', b''
        size = len(head) + len(packed)
        for channel_id, entries in stamps.items():
            offsets += struct.pack('<HQ', channel_id, at + size + len(indexes))
            indexes += mcap.message_index_record(channel_id, entries)
        self._append(head, packed, indexes)
        place = struct.pack('<QQQQ', *span, at, size)
        sizes = struct.pack('<QQ', len(packed), len(content))
        lengths = struct.pack('<Q', len(indexes)), form, sizes
        self._index.append(mcap.record(mcap.CHUNK_INDEX, place, mcap.text(offsets), *lengths))
        for channel_id, entries in stamps.items():
            self._counts[channel_id] += len(entries)
        self._span = _widen(_widen(self._span, span[0]), span[1])

    def _append(self, *parts: bytes) -> None:
        """Write behind the data, over the old end of the file."""
        at = self._end
        try:
            for part in parts:
                self._pwrite(part, at)
                at += len(part)
        except OSError:
            self._recover()
            raise
        self._since_tail += at - self._end
        self._end = at

    def _close_or_recover(self) -> None:
        try:
            self._write_tail()
        except OSError:
            self._recover()
            raise

    def _recover(self) -> None:
        """Make the file whole again on a disk that is full: with all of its data, else as it was closed last."""
        try:
            os.ftruncate(self._file, self._end)
            self._write_tail()
        except OSError:
            self._end, chunks, self._counts, self._span, named = self._closed
            del self._index[chunks:]
            for opcode, count in named.items():
                del self._index_of[opcode][count:]
            os.ftruncate(self._file, self._end)
            self._write_tail()

    def _write_tail(self) -> None:
        tail = self._tail()
        self._pwrite(tail, self._end)
        os.ftruncate(self._file, self._end + len(tail))
        self._since_tail, self._tail_size = 0, len(tail)
        named = {opcode: len(places) for opcode, places in self._index_of.items()}
        self._closed = (self._end, len(self._index), dict(self._counts), self._span, named)

    def _pwrite(self, data: bytes, at: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def _tail(self) -> bytes:
        """Return what closes the file: the last words of rosbag2, the summary, the footer."""
        closing, metadata = b'', list(self._index_of[mcap.METADATA_INDEX])
        if self._trailer is not None:
            closing = mcap.metadata_record('rosbag2', self._trailer())
            where = struct.pack('<QQ', self._end, len(closing)) + mcap.text('rosbag2')
            metadata.append(mcap.record(mcap.METADATA_INDEX, where))
        closing += mcap.record(mcap.DATA_END, struct.pack('<I', 0))
        attachments = self._index_of[mcap.ATTACHMENT_INDEX]
        groups = (
            (mcap.SCHEMA, [mcap.schema_record(i, schema) for i, schema in enumerate(self._schemas, 1)]),
            (mcap.CHANNEL, [mcap.channel_record(i, channel) for i, channel in enumerate(self._channels, 1)]),
            (mcap.STATISTICS, [self._statistics(len(attachments), len(metadata))]),
            (mcap.CHUNK_INDEX, self._index),
            (mcap.ATTACHMENT_INDEX, attachments),
            (mcap.METADATA_INDEX, metadata),
        )
        start = at = self._end + len(closing)
        offsets = []
        for opcode, records in groups:
            size = sum(map(len, records))
            if records:
                offsets.append(mcap.record(mcap.SUMMARY_OFFSET, struct.pack('<BQQ', opcode, at, size)))
            at += size
        summary = b''.join([*(one for _, records in groups for one in records), *offsets])
        summary += struct.pack('<BQQQ', mcap.FOOTER, 20, start, at)
        return closing + summary + struct.pack('<I', zlib.crc32(summary)) + mcap.MAGIC

    def _statistics(self, attachments: int, metadata: int) -> bytes:
        counts = {channel: count for channel, count in self._counts.items() if count}
        sizes = len(self._schemas), len(self._channels), attachments, metadata, len(self._index)
        return mcap.record(
            mcap.STATISTICS,
            struct.pack('<QHIIII', sum(counts.values()), *sizes),
            struct.pack('<QQ', *(self._span or (0, 0))),
            mcap.text(b''.join(struct.pack('<HQ', *item) for item in counts.items())),
        )


def _widen(span: tuple[int, int] | None, stamp_ns: int) -> tuple[int, int]:
    return (stamp_ns, stamp_ns) if span is None else (min(span[0], stamp_ns), max(span[1], stamp_ns))
