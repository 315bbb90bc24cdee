# SPDX-License-Identifier: Apache-2.0
"""Writes a rosbag2 folder that `ros2 bag` reads: MCAP files that are whole after every flush, and metadata.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass, field
import logging
import os
from pathlib import Path
import time

from so101_bags.definitions import Definition
from so101_bags.errors import BagError
from so101_bags.mcap_format import Buffer, Channel, Schema
from so101_bags.mcap_writer import McapWriter
from so101_bags.metadata import BagMetadata, FileMetadata, OfferedQos, TopicMetadata

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
