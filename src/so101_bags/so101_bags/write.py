# SPDX-License-Identifier: Apache-2.0
"""Writes a rosbag2 folder that `ros2 bag` reads: MCAP files that only grow, and metadata.yaml.

Each flush appends whole records, and the end of a recording what closes the file. So `storage` reads a file that grows
up to its last whole chunk, and loses no more of one whose recorder was killed; `bag-fix` closes it for other readers.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
import io
import os
from pathlib import Path
import time
from typing import Any, TypeAlias

from mcap.writer import CompressionType, Writer

from so101_bags.metadata import BagMetadata, Definition, dump_yaml, FileMetadata, OfferedQos, TopicMetadata
from so101_bags.storage import BagError

Buffer: TypeAlias = 'bytes | bytearray | memoryview'
_Flushed: TypeAlias = tuple[int, dict[int, int], tuple[int, int] | None]
"""What is in the file: its size, counts and span."""

LIBRARY = 'so101_bags 1'
COMPRESSIONS = ('none', 'zstd')
_FORMS = {'none': CompressionType.NONE, 'zstd': CompressionType.ZSTD}
_CHUNK_BYTES = 2**40  # nothing but a flush ends a chunk
_SYNC_S = 5.0


class McapFile:
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
        self.path, self._trailer = path, trailer
        self.counts: dict[int, int] = {}
        """How many messages of each channel there are."""
        self.span_ns: tuple[int, int] | None = None
        """Earliest and latest log time [ns]; None before the first message."""
        self.waiting = 0
        """Bytes of messages that wait for `flush`."""
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            raise BagError(
                f'expected to create {path}, got {error.strerror}; choose another folder'
            ) from error
        self._flushed: _Flushed = (0, {}, None)
        self._ready = _Ready()
        output: Any = self._ready
        self._writer = Writer(output, chunk_size=_CHUNK_BYTES, compression=_FORMS[compression])
        try:
            self._writer.start('ros2', LIBRARY)
            self._append()
        except OSError as error:
            os.close(self._file)
            raise BagError(f'expected to write to {path}, got {error.strerror}; free the disk') from error

    @property
    def size(self) -> int:
        """Bytes in the file and waiting for it."""
        return self._ready.tell() + self.waiting

    @property
    def open(self) -> bool:
        """Whether it takes messages."""
        return self._file >= 0

    def add_schema(self, name: str, encoding: str, text: bytes) -> int:
        """Return the id of a message type, new or known."""
        key = name, encoding, text
        if key not in self._schemas:
            self._schemas[key] = self._writer.register_schema(name, encoding, text)
        return self._schemas[key]

    def add_channel(self, schema: int, topic: str, encoding: str, metadata: Mapping[str, str]) -> int:
        """Return the id of a new topic."""
        number = self._writer.register_channel(topic, encoding, schema, dict(metadata))
        self.counts[number] = 0
        return number

    def write(self, channel: int, log_ns: int, publish_ns: int, data: Buffer) -> None:
        """Take a message; it is in memory until the next flush."""
        self._writer.add_message(channel, log_ns, bytes(data), publish_ns)
        self.counts[channel] += 1
        self.waiting += len(data)
        first_ns, last_ns = self.span_ns or (log_ns, log_ns)
        self.span_ns = min(first_ns, log_ns), max(last_ns, log_ns)

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Write named pairs of strings."""
        self._flush(lambda: self._writer.add_metadata(name, dict(values)))

    def add_attachment(self, name: str, media_type: str, stamp_ns: int, data: bytes) -> None:
        """Write a file that travels with the bag."""
        self._flush(lambda: self._writer.add_attachment(stamp_ns, stamp_ns, name, media_type, data))

    def flush(self) -> None:
        """Write what came since the last flush.

        Raises:
            OSError: the disk is full, say; the file ends with what was written before, and takes nothing more.
        """
        self._flush()

    def sync(self) -> None:
        """Have the operating system bring it to the disk."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Flush, and end the file.

        Raises:
            OSError: as of `flush`.
        """
        if self.open:
            self._flush(self._finish)
            self._end()

    def _flush(self, then: Callable[[], None] = lambda: None) -> None:
        try:
            self._writer.flush()  # type: ignore[no-untyped-call]
            then()
            self._append()
        except OSError:
            end, self.counts, self.span_ns = self._flushed
            with suppress(OSError):  # half a record at the end is no harm: whoever reads leaves it out
                os.ftruncate(self._file, end)
            self._end()
            raise

    def _finish(self) -> None:
        if self._trailer is not None:
            self._writer.add_metadata('rosbag2', dict(self._trailer()))
        self._writer.finish()  # type: ignore[no-untyped-call]

    def _append(self) -> None:
        content = memoryview(self._ready.take())
        while content:
            content = content[os.write(self._file, content) :]
        self.waiting = 0
        self._flushed = self._ready.tell(), dict(self.counts), self.span_ns

    def _end(self) -> None:
        os.close(self._file)
        self._file = -1


class _Ready(io.BytesIO):
    """Whole records on their way into a file; `tell` says where in it they end."""

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0

    def tell(self) -> int:
        return self._taken + super().tell()

    def take(self) -> bytes:
        """Return what came since the last call."""
        content = self.getvalue()
        self._taken += len(content)
        self.seek(0)
        self.truncate()
        return content


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
        custom: short values for `custom_data` of metadata.yaml.
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
        with self._complaints():
            self._file = self._begin_file()
            self._write_metadata()

    @property
    def topics(self) -> tuple[str, ...]:
        """Absolute names of the topics so far."""
        return tuple(self._topics)

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
        text = dump_yaml([profile.profile() for profile in qos]).strip() if qos else ''
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
        with self._complaints():
            self._file.add_metadata(name, values)

    def say(self, key: str, value: str) -> None:
        """Put a short fact into `custom_data` of metadata.yaml."""
        self._custom[key] = value

    def flush(self) -> None:
        """Write what came since the last flush; begin another file where this one is long enough.

        Raises:
            BagError: the disk is full, say; what was flushed before is there.
        """
        with self._complaints():
            self._file.flush()
            late = time.monotonic() - self._synced_s > _SYNC_S
            if late:
                self._file.sync()
                self._synced_s = time.monotonic()
            if late or self._topics_changed:
                self._write_metadata()
        if self._split_bytes and self._file.size >= self._split_bytes:
            self.split()

    def split(self) -> None:
        """End the present file and begin another one; nothing is lost in between.

        Raises:
            BagError: the disk is full, say.
        """
        with self._complaints():
            span_ns = self._file.span_ns
            self._end_file()
            self._file = self._begin_file()
            for topic, known in self._topics.items():
                self._announce(topic)
                if known.latest is not None and span_ns is not None:
                    self._file.write(known.channel, span_ns[1], *known.latest)
            self._write_metadata()

    def close(self) -> None:
        """Flush, end the file, write the metadata.

        Raises:
            BagError: the disk is full, say; what was flushed before is there.
        """
        if not self._file.open:
            return
        with self._complaints():
            self._end_file()
            self._write_metadata()

    def _begin_file(self) -> McapFile:
        path = self.folder / f'{self.folder.name}_{len(self._closed)}.mcap'
        file = McapFile(path, compression=self._compression, trailer=self._trailer)
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
        schema = self._file.add_schema(definition.msgtype, 'ros2msg', definition.text.encode())
        metadata = {'offered_qos_profiles': known.qos, 'topic_type_hash': definition.type_hash}
        known.channel = self._file.add_channel(schema, topic, 'cdr', metadata)

    def _present(self) -> FileMetadata:
        file = self._file
        first_ns, last_ns = file.span_ns or (None, None)
        return FileMetadata(file.path.name, first_ns, last_ns, sum(file.counts.values()))

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
        counts = self._file.counts
        topics = [known.metadata(name, counts.get(known.channel, 0)) for name, known in self._topics.items()]
        return {
            'serialized_metadata': dump_yaml(
                BagMetadata(topics, [self._present()], distro=self._distro).content()
            )
        }

    @contextmanager
    def _complaints(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BagError(
                f'expected to write to {self.folder}, got {error.strerror or os.strerror(error.errno or 0)}; the bag '
                f'is whole up to here: free the disk and record again'
            ) from error
