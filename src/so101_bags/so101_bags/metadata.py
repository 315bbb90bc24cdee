# SPDX-License-Identifier: Apache-2.0
"""The text of a bag's `metadata.yaml`, version 9, as rosbag2 of Jazzy writes and reads it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import struct
from typing import BinaryIO

from so101_bags import mcap_format as mcap
from so101_bags.storage import BagError, METADATA, read_metadata, storage_files
from so101_contract.errors import ContractError
from so101_contract.observation_spec import ObservationSpec
from so101_contract.presets import OBSERVATIONS

EMPTY_NS = 9223372036854775807
"""What rosbag2 says for the start of a bag without messages."""

_FOREVER = ('9223372036', '854775807')


@dataclass(frozen=True)
class OfferedQos:
    """What a publisher offers, in rosbag2's words. Discovery tells neither history nor depth."""

    reliability: str = 'reliable'
    durability: str = 'volatile'
    lifespan: tuple[str, str] = _FOREVER

    def lines(self) -> list[str]:
        """Return it as YAML."""
        forever = [f'    sec: {_FOREVER[0]}', f'    nsec: {_FOREVER[1]}']
        return [
            '- history: unknown',
            '  depth: 0',
            f'  reliability: {self.reliability}',
            f'  durability: {self.durability}',
            '  deadline:',
            *forever,
            '  lifespan:',
            f'    sec: {self.lifespan[0]}',
            f'    nsec: {self.lifespan[1]}',
            '  liveliness: automatic',
            '  liveliness_lease_duration:',
            *forever,
            '  avoid_ros_namespace_conventions: false',
        ]


@dataclass(frozen=True)
class TopicMetadata:
    """What metadata say about a topic.

    Attributes:
        name: absolute.
        msgtype: e.g. `sensor_msgs/msg/Image`.
        type_hash: `RIHS01_...`, or empty.
        qos: the profiles that were offered, as the YAML list of the channel's metadata.
        count: messages.
    """

    name: str
    msgtype: str
    type_hash: str = ''
    qos: str = ''
    count: int = 0


@dataclass(frozen=True)
class FileMetadata:
    """What metadata say about one file; a stamp of None means no messages."""

    name: str
    first_ns: int | None
    last_ns: int | None
    count: int


@dataclass(frozen=True)
class BagMetadata:
    """What `metadata.yaml` says."""

    topics: Sequence[TopicMetadata]
    files: Sequence[FileMetadata]
    storage: str = 'mcap'
    distro: str = 'jazzy'
    custom: Mapping[str, str] = field(default_factory=dict)
    compression_mode: str = ''

    def body(self) -> str:
        """Return the text without the outermost key, as rosbag2 stores it inside MCAP files."""
        firsts = [file.first_ns for file in self.files if file.first_ns is not None]
        lasts = [file.last_ns for file in self.files if file.last_ns is not None]
        lines = [
            'version: 9',
            f'storage_identifier: {self.storage}',
            *_span(min(firsts, default=None), max(lasts, default=None)),
            f'message_count: {sum(file.count for file in self.files)}',
            f'topics_with_message_count:{"" if self.topics else " []"}',
        ]
        for topic in self.topics:
            lines += _topic(topic)
        compressed = 'zstd' if self.compression_mode else '""'
        lines += [
            f'compression_format: {compressed}',
            f'compression_mode: {self.compression_mode or chr(34) * 2}',
        ]
        lines += ['relative_file_paths:', *(f'  - {_quoted(file.name)}' for file in self.files), 'files:']
        for file in self.files:
            span = _span(file.first_ns, file.last_ns)
            lines.append(f'  - path: {_quoted(file.name)}')
            lines += [f'    {line}' for line in (*span[2:], *span[:2], f'message_count: {file.count}')]
        if self.custom:
            lines += ['custom_data:', *(f'  {key}: {_quoted(value)}' for key, value in self.custom.items())]
        else:
            lines.append('custom_data: ~')
        return '\n'.join([*lines, f'ros_distro: {self.distro}'])

    def write(self, folder: Path) -> None:
        """Write the file: aside, then renamed.

        Raises:
            OSError: the disk is full, say; what was there stays.
        """
        indented = '\n'.join(f'  {line}' for line in self.body().splitlines())
        aside = folder / f'.{METADATA}.{os.getpid()}'
        try:
            aside.write_text(f'rosbag2_bagfile_information:\n{indented}\n')
            os.replace(aside, folder / METADATA)
        finally:
            aside.unlink(missing_ok=True)


def _span(first_ns: int | None, last_ns: int | None) -> list[str]:
    duration = 0 if first_ns is None or last_ns is None else last_ns - first_ns
    return [
        'duration:',
        f'  nanoseconds: {duration}',
        'starting_time:',
        f'  nanoseconds_since_epoch: {EMPTY_NS if first_ns is None else first_ns}',
    ]


def _topic(topic: TopicMetadata) -> list[str]:
    qos = [f'        {line}' for line in topic.qos.strip().splitlines()]
    return [
        '  - topic_metadata:',
        f'      name: {topic.name}',
        f'      type: {topic.msgtype}',
        '      serialization_format: cdr',
        f'      offered_qos_profiles:{"" if qos else " []"}',
        *qos,
        f'      type_description_hash: {topic.type_hash or chr(34) * 2}',
        f'    message_count: {topic.count}',
    ]


def _quoted(value: str) -> str:
    """Return a plain scalar where that is safe, else a quoted one; JSON strings are YAML."""
    plain = value and all(c.isalnum() or c in '_-./' for c in value) and not value[0].isdigit()
    return value if plain else json.dumps(value)


def read_facts(bag: Path) -> dict[str, str]:
    """Return what the recorder stored about contract and calibration; empty for a foreign bag."""
    facts: dict[str, str] = {}
    with suppress(BagError):
        if bag.is_dir():
            custom = read_metadata(bag).get('custom_data') or {}
            facts.update({str(key): str(value) for key, value in custom.items()})
    for file in storage_files(bag):
        if file.storage == '.mcap' and not file.zipped:
            for name, values in read_named(file.path):
                if name == 'so101':
                    facts.update(values)
    return facts


def read_named(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the named maps of strings of a closed MCAP file, in the order in which they were written."""
    with suppress(ValueError, struct.error, OSError, UnicodeDecodeError), path.open('rb') as file:
        for place, size in _places(file, mcap.METADATA_INDEX):
            file.seek(place + mcap.RECORD_HEAD)
            body = file.read(size - mcap.RECORD_HEAD)
            name, at = mcap.read_text(body, 0)
            yield name.decode(), mcap.read_mapping(body, at)[0]


def read_attachments(path: Path) -> dict[str, bytes]:
    """Return the files that a closed MCAP file carries."""
    found: dict[str, bytes] = {}
    with path.open('rb') as file:
        for place, size in _places(file, mcap.ATTACHMENT_INDEX):
            file.seek(place + mcap.RECORD_HEAD)
            body = file.read(size - mcap.RECORD_HEAD)
            name, at = mcap.read_text(body, 16)
            _, at = mcap.read_text(body, at)
            (length,) = struct.unpack_from('<Q', body, at)
            found[name.decode()] = body[at + 8 : at + 8 + length]
    return found


def observation_of_bag(hashes: Iterable[str], facts: dict[str, str]) -> ObservationSpec | None:
    """Return the observation spec whose hash a bag names: the one that it carries, or a preset; None where neither."""
    wanted = next((one for one in (*hashes, facts.get('observation_hash', '')) if one), '')
    candidates = [make() for make in OBSERVATIONS.values()]
    if 'observation' in facts:
        with suppress(ContractError, ValueError, KeyError, TypeError):
            candidates.insert(0, ObservationSpec.from_dict(json.loads(facts['observation'])['fields']))
    return next((spec for spec in candidates if spec.hash == wanted), None)


def _places(file: BinaryIO, opcode: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of the records that the summary's index of one kind points to."""
    size = file.seek(0, os.SEEK_END)
    file.seek(size - 28)
    (start,) = struct.unpack('<Q', file.read(8))
    file.seek(start)
    summary = file.read(size - 37 - start)
    for span in mcap.spans(summary, 0, len(summary)):
        if span.opcode == opcode:
            place, length = struct.unpack_from('<QQ', summary, span.body)
            yield place, length
