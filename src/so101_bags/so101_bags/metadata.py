# SPDX-License-Identifier: Apache-2.0
"""What a bag says about itself beside its messages: the types and QoS of its topics, contract and calibration.

`metadata.yaml` is that of version 9, as rosbag2 of Jazzy writes and reads it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
import functools
import io
import json
import os
from pathlib import Path
import re
from typing import Any

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Metadata
from mcap.writer import MCAP0_MAGIC
import yaml

from so101_bags.storage import BagError, METADATA, read_metadata, storage_files
from so101_bags.unfinished import spans
from so101_bags.untrusted import BAD_BYTES
from so101_contract.errors import ContractError
from so101_contract.observation_spec import OBSERVATIONS, ObservationSpec
from so101_contract.task.spec import TaskSpec
from so101_interfaces_py.files import open_file
from so101_interfaces_py.yaml_text import load_yaml, YamlError

EMPTY_NS = 9223372036854775807
"""What rosbag2 says for the start of a bag without messages."""

SESSION = 'so101'
"""Name of the MCAP metadata in which the recorder stores contract and calibration."""

_FOREVER = ('9223372036', '854775807')

_RULE = '=' * 80
_FIELD = re.compile(
    r'^\s*(?P<type>[A-Za-z]\w*(?:/\w+){0,2})(?:<=\d+)?(?:\[(?:<=)?\d*\])?\s+[a-z]\w*\b(?!\s*=\s*\S+\s*$|=)'
)
_BUILT_IN = frozenset(
    ['bool', 'byte', 'char', 'float32', 'float64', 'string', 'wstring']
    + [f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64)]
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


@dataclass(frozen=True)
class OfferedQos:
    """What a publisher offers, in rosbag2's words. Discovery tells neither history nor depth."""

    reliability: str = 'reliable'
    durability: str = 'volatile'
    lifespan: tuple[str, str] = _FOREVER

    def profile(self) -> dict[str, Any]:
        """Return it as rosbag2 stores it."""
        return {
            'history': 'unknown',
            'depth': 0,
            'reliability': self.reliability,
            'durability': self.durability,
            'deadline': _duration(_FOREVER),
            'lifespan': _duration(self.lifespan),
            'liveliness': 'automatic',
            'liveliness_lease_duration': _duration(_FOREVER),
            'avoid_ros_namespace_conventions': False,
        }


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

    def entry(self) -> dict[str, Any]:
        """Return what metadata.yaml says about it."""
        topic = {
            'name': self.name,
            'type': self.msgtype,
            'serialization_format': 'cdr',
            'offered_qos_profiles': _profiles(self.qos),
            'type_description_hash': self.type_hash,
        }
        return {'topic_metadata': topic, 'message_count': self.count}


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

    def content(self) -> dict[str, Any]:
        """Return everything below the outermost key, in rosbag2's order."""
        firsts = [file.first_ns for file in self.files if file.first_ns is not None]
        lasts = [file.last_ns for file in self.files if file.last_ns is not None]
        return {
            'version': 9,
            'storage_identifier': self.storage,
            **_span(min(firsts, default=None), max(lasts, default=None)),
            'message_count': sum(file.count for file in self.files),
            'topics_with_message_count': [topic.entry() for topic in self.topics],
            'compression_format': 'zstd' if self.compression_mode else '',
            'compression_mode': self.compression_mode,
            'relative_file_paths': [file.name for file in self.files],
            'files': [
                {'path': file.name, **_span(file.first_ns, file.last_ns), 'message_count': file.count}
                for file in self.files
            ],
            'custom_data': dict(self.custom) or None,
            'ros_distro': self.distro,
        }

    def write(self, folder: Path) -> None:
        """Write the file: aside, then renamed.

        Raises:
            OSError: the disk is full, say; what was there stays.
        """
        aside = folder / f'.{METADATA}.{os.getpid()}'
        try:
            aside.write_text(dump_yaml({'rosbag2_bagfile_information': self.content()}))
            os.replace(aside, folder / METADATA)
        finally:
            aside.unlink(missing_ok=True)


def _profiles(qos: str) -> Any:
    """Return what a channel says was offered; nothing where that is no YAML."""
    with suppress(YamlError):
        return load_yaml(qos) or []
    return []


def dump_yaml(content: Any) -> str:
    """Return YAML with the keys in their order and no line broken."""
    dumper = getattr(yaml, 'CSafeDumper', yaml.SafeDumper)
    return str(yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True, width=2**30))


def read_session_metadata(bag: Path) -> dict[str, str]:
    """Return what the recorder stored about contract and calibration; empty for a foreign bag."""
    found: dict[str, str] = {}
    with suppress(BagError):
        if bag.is_dir():
            custom = read_metadata(bag).get('custom_data') or {}
            found.update({str(key): str(value) for key, value in custom.items()})
    for file in storage_files(bag):
        if file.storage == '.mcap' and not file.zipped:
            for name, values in read_mcap_metadata(file.path):
                if name == SESSION:
                    found.update(values)
    return found


def read_mcap_metadata(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the named maps of strings of an MCAP file, in the order in which they were written."""
    with suppress(*BAD_BYTES, OSError), open_file(path) as file:
        try:
            records = list(make_reader(file).iter_metadata())
        except BAD_BYTES:  # it has no end
            found = spans(file, len(MCAP0_MAGIC), file.seek(0, io.SEEK_END))
            bodies = (io.BytesIO(span.read(file)) for span in found if span.opcode == Opcode.METADATA)
            records = [Metadata.read(ReadDataStream(body)) for body in bodies]
        for record in records:
            yield record.name, record.metadata


def read_attachments(path: Path) -> dict[str, bytes]:
    """Return the files that a closed MCAP file carries."""
    with open_file(path) as file:
        return {record.name: record.data for record in make_reader(file).iter_attachments()}


def observation_of_bag(hashes: Iterable[str], metadata: Mapping[str, str]) -> ObservationSpec | None:
    """Return the observation spec whose hash a bag names: the one that it carries, or a preset; None where neither."""
    wanted = next((one for one in (*hashes, metadata.get('observation_hash', '')) if one), '')
    candidates = [make() for make in OBSERVATIONS.values()]
    if 'observation' in metadata:
        with suppress(ContractError, ValueError, KeyError, TypeError):
            candidates.insert(0, ObservationSpec.from_dict(json.loads(metadata['observation'])['fields']))
    return next((spec for spec in candidates if spec.hash == wanted), None)


def task_of_bag(metadata: Mapping[str, str]) -> TaskSpec | None:
    """Return the task that a bag was recorded in; None where it does not say, or not so that it can be read."""
    with suppress(ContractError):
        return TaskSpec.from_json(metadata['task']) if 'task' in metadata else None
    return None


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


def _duration(value: tuple[str, str]) -> dict[str, int]:
    return {'sec': int(value[0]), 'nsec': int(value[1])}


def _span(first_ns: int | None, last_ns: int | None) -> dict[str, Any]:
    duration = 0 if first_ns is None or last_ns is None else last_ns - first_ns
    return {
        'duration': {'nanoseconds': duration},
        'starting_time': {'nanoseconds_since_epoch': EMPTY_NS if first_ns is None else first_ns},
    }
