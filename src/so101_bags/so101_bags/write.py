# SPDX-License-Identifier: Apache-2.0
"""Writes a rosbag2 folder that `ros2 bag` reads: MCAP files that are whole after every flush, and metadata.yaml."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
import functools
import json
import logging
import os
from pathlib import Path
import re
import struct
import time
from typing import TypeAlias
import zlib

from backports import zstd

from so101_bags import mcap_format as mcap
from so101_bags.mcap_format import Buffer, Channel, Schema, Stamps
from so101_bags.metadata import BagMetadata, FileMetadata, OfferedQos, TopicMetadata
from so101_bags.storage import BagError

_RULE = '=' * 80
_FIELD = re.compile(
    r'^\s*(?P<type>[A-Za-z]\w*(?:/\w+){0,2})(?:<=\d+)?(?:\[(?:<=)?\d*\])?\s+[a-z]\w*\b(?!\s*=\s*\S+\s*$|=)'
)
_BUILT_IN = frozenset(
    [
        'bool',
        'byte',
        'char',
        'float32',
        'float64',
        'int8',
        'uint8',
        'int16',
        'uint16',
        'int32',
        'uint32',
        'int64',
        'uint64',
        'string',
        'wstring',
    ]
)


@dataclass(frozen=True)
class Definition:
    """A type: its name, its text as rosbag2 embeds it, and the hash of its description."""

    msgtype: str
    text: str
    type_hash: str = ''


@functools.cache
def definition_of(msgtype: str) -> Definition:
    """Return the definition of a type such as `sensor_msgs/msg/Image`.

    Raises:
        BagError: the package that has it is not installed.
    """
    main = _read(msgtype)
    parts, seen, todo = [main], {msgtype}, list(_parts_of(msgtype, main))
    while todo:
        inner = todo.pop(0)
        if inner in seen:
            continue
        seen.add(inner)
        content = _read(inner)
        package, _, name = inner.split('/')
        parts.append(f'{_RULE}\nMSG: {package}/{name}\n{content}')
        todo += _parts_of(inner, content)
    return Definition(msgtype, '\n'.join(parts), _hash_of(msgtype))


def _parts_of(msgtype: str, content: str) -> Iterator[str]:
    """Yield the full names of the types that a definition mentions, in order."""
    package = msgtype.split('/', maxsplit=1)[0]
    for line in content.splitlines():
        match = _FIELD.match(line.split('#')[0])
        name = match['type'] if match else ''
        if not name or name in _BUILT_IN:
            continue
        parts = name.split('/')
        yield f'{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}'


def _read(msgtype: str) -> str:
    path = _find(msgtype, '.msg')
    if path is None:
        raise BagError(
            f'expected the definition of {msgtype} in share/{msgtype}.msg of an installed package, found none; '
            f'install {msgtype.split("/", maxsplit=1)[0]}, or leave the topic out'
        )
    return path.read_text()


def _hash_of(msgtype: str) -> str:
    path = _find(msgtype, '.json')
    if path is None:
        return ''
    hashes = json.loads(path.read_text()).get('type_hashes', [])
    return next((str(entry['hash_string']) for entry in hashes if entry['type_name'] == msgtype), '')


def _find(msgtype: str, suffix: str) -> Path | None:
    package, _, name = msgtype.partition('/')
    folders = [
        Path(prefix) / 'share' / package
        for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(':')
        if prefix
    ]
    # Beside the Python packages where ROS itself is not sourced: <prefix>/lib/python3.x/site-packages.
    folders += [parent / 'share' / package for parent in Path(__file__).resolve().parents]
    folders += [parent / package for parent in Path(__file__).resolve().parents]
    paths = [folder / f'{name}{suffix}' for folder in folders]
    return next((path for path in paths if path.is_file()), None)


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


_log = logging.getLogger(__name__)
_SYNC_S = 5.0


@dataclass
class _Topic:
    """A topic of the bag: its type, what is offered, its number in the present file, its latest message."""

    definition: Definition
    qos: str
    latched: bool
    channel: int = 0
    closed_count: int = 0
    latest: tuple[int, bytes] | None = None

    def metadata(self, name: str, count: int) -> TopicMetadata:
        """Return what metadata say about it."""
        return TopicMetadata(name, self.definition.msgtype, self.definition.type_hash, self.qos, count)


@dataclass(frozen=True)
class Extras:
    """What a bag carries beside messages; it is repeated in each of its files.

    Attributes:
        records: named maps of strings, as MCAP metadata.
        attachments: files by name, as MCAP attachments.
        custom: short facts for `custom_data` of metadata.yaml.
    """

    records: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    custom: Mapping[str, str] = field(default_factory=dict)


class BagWriter:
    """One bag. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        folder: Path,
        *,
        compression: str = 'none',
        split_bytes: int = 0,
        extras: Extras | None = None,
        distro: str = 'jazzy',
    ) -> None:
        """Create a bag.

        Args:
            folder: where; nothing may be there. Its name is the bag's.
            compression: of the chunks: `none` or `zstd`.
            split_bytes: begin another file at this size [B]; 0 never does.
            extras: what it carries beside messages.
            distro: ROS distribution, for the metadata.

        Raises:
            BagError: it exists, or cannot be created.
        """
        self.folder = folder
        self._compression, self._split_bytes, self._distro = compression, split_bytes, distro
        self._extras = extras or Extras()
        self._records = {name: dict(values) for name, values in self._extras.records.items()}
        self._custom = dict(self._extras.custom)
        self._topics: dict[str, _Topic] = {}
        self._closed: list[FileMetadata] = []
        self._synced_s, self._topics_changed = time.monotonic(), False
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise BagError(
                f'expected a new folder at {folder}, got {error.strerror}; choose another one'
            ) from error
        try:
            self._file = self._begin_file()
            self._write_metadata()
        except OSError as error:
            raise self._complaint(error) from error

    @property
    def topics(self) -> tuple[str, ...]:
        """Absolute names of the topics so far."""
        return tuple(self._topics)

    @property
    def count(self) -> int:
        """Messages that are written."""
        return sum(file.count for file in self._closed) + sum(self._file.counts.values())

    @property
    def size(self) -> int:
        """Bytes of the present file, waiting ones included."""
        return self._file.size

    def add_topic(
        self,
        topic: str,
        definition: Definition,
        qos: list[OfferedQos] | None = None,
        *,
        latched: bool = False,
    ) -> None:
        """Make a topic known before its first message.

        Args:
            topic: absolute name.
            definition: its type.
            qos: what its publishers offer.
            latched: repeat its latest message in each further file, so that each can be read alone.

        Raises:
            BagError: it is known with another type.
        """
        known = self._topics.get(topic)
        if known is not None:
            if known.definition.msgtype != definition.msgtype:
                raise BagError(
                    f'expected {known.definition.msgtype} on {topic}, got {definition.msgtype}; '
                    f'one topic of a bag has one type'
                )
            return
        text = '\n'.join(line for profile in qos or [] for line in profile.lines())
        self._topics[topic] = _Topic(definition, text, latched)
        self._announce(topic)
        self._topics_changed = True

    def write(self, topic: str, log_ns: int, publish_ns: int, data: Buffer) -> None:
        """Take a message; it is in memory until the next flush."""
        known = self._topics[topic]
        if known.latched:
            known.latest = (publish_ns, bytes(data))
        self._file.write(known.channel, log_ns, publish_ns, data)

    def note(self, name: str, values: Mapping[str, str]) -> None:
        """Write a named map of strings, in this file and in those that follow."""
        self._records[name] = dict(values)
        try:
            self._file.add_metadata(name, values)
        except OSError as error:
            raise self._complaint(error) from error

    def say(self, key: str, value: str) -> None:
        """Put a short fact into `custom_data` of metadata.yaml."""
        self._custom[key] = value

    def flush(self) -> None:
        """Write what came since the last flush; begin another file where this one is long enough.

        Raises:
            BagError: the disk is full, say; the bag is whole up to the flush before.
        """
        try:
            self._file.flush()
            late = time.monotonic() - self._synced_s > _SYNC_S
            if late:
                self._file.sync()
                self._synced_s = time.monotonic()
            if late or self._topics_changed:
                self._write_metadata()
        except OSError as error:
            raise self._complaint(error) from error
        if self._split_bytes and self._file.size >= self._split_bytes:
            self.split()

    def split(self) -> None:
        """End the present file and begin another one; nothing is lost in between.

        Raises:
            BagError: the disk is full, say.
        """
        try:
            last_ns = self._file.last_ns
            self._end_file()
            self._file = self._begin_file()
            for topic, known in self._topics.items():
                self._announce(topic)
                if known.latest is not None and last_ns is not None:
                    self._file.write(known.channel, last_ns, *known.latest)
            self._write_metadata()
        except OSError as error:
            raise self._complaint(error) from error

    def close(self) -> None:
        """Flush, end the file, write the metadata.

        Raises:
            BagError: the disk is full, say; the bag is whole up to the flush before.
        """
        if not self._file.open:
            return
        try:
            self._end_file()
            self._write_metadata()
        except OSError as error:
            raise self._complaint(error) from error

    def _begin_file(self) -> McapWriter:
        path = self.folder / f'{self.folder.name}_{len(self._closed)}.mcap'
        file = McapWriter(path, compression=self._compression, trailer=self._trailer)
        for name, values in self._records.items():
            file.add_metadata(name, values)
        for name, data in self._extras.attachments.items():
            file.add_attachment(name, 'text/plain', time.time_ns(), data)
        return file

    def _end_file(self) -> None:
        try:
            self._file.close()
        finally:
            self._closed.append(self._present())
            for topic in self._topics.values():
                topic.closed_count += self._file.counts.get(topic.channel, 0)
                topic.channel = 0

    def _announce(self, topic: str) -> None:
        known = self._topics[topic]
        definition = known.definition
        schema = self._file.add_schema(Schema(definition.msgtype, 'ros2msg', definition.text.encode()))
        metadata = {'offered_qos_profiles': known.qos, 'topic_type_hash': definition.type_hash}
        known.channel = self._file.add_channel(Channel(schema, topic, 'cdr', metadata))

    def _present(self) -> FileMetadata:
        file = self._file
        return FileMetadata(file.path.name, file.first_ns, file.last_ns, sum(file.counts.values()))

    def _metadata(self) -> BagMetadata:
        counts = self._file.counts if self._file.open else {}
        topics = [
            known.metadata(name, known.closed_count + counts.get(known.channel, 0))
            for name, known in self._topics.items()
        ]
        files = [*self._closed, self._present()] if self._file.open else self._closed
        return BagMetadata(topics, files, distro=self._distro, custom=self._custom)

    def _write_metadata(self) -> None:
        self._metadata().write(self.folder)
        self._topics_changed = False

    def _trailer(self) -> dict[str, str]:
        """What rosbag2 stores at the end of an MCAP file: the metadata of that file alone."""
        if not hasattr(self, '_file'):
            return {'serialized_metadata': BagMetadata([], [], distro=self._distro).body()}
        counts = self._file.counts
        topics = [known.metadata(name, counts.get(known.channel, 0)) for name, known in self._topics.items()]
        return {'serialized_metadata': BagMetadata(topics, [self._present()], distro=self._distro).body()}

    def _complaint(self, error: OSError) -> BagError:
        return BagError(
            f'expected to write to {self.folder}, got {error.strerror or os.strerror(error.errno or 0)}; the bag is '
            f'whole up to here: free the disk and record again'
        )
