# SPDX-License-Identifier: Apache-2.0
"""Serialised messages out of any rosbag2: MCAP or sqlite3, plain or zstd, split, or several bags at once.

An MCAP file that has no end, because its recorder still runs or was killed, is read up to its last whole chunk.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, ExitStack
from dataclasses import dataclass, field
import heapq
from pathlib import Path
import re
from typing import Any, NamedTuple

from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import Reader, ReaderError

from so101_bags.unfinished import begins_as_mcap, UnfinishedReader
from so101_bags.untrusted import BAD_BYTES, unpack, unpack_file
from so101_interfaces_py.files import read_text
from so101_interfaces_py.scratch import Scratch
from so101_interfaces_py.yaml_text import load_yaml


class BagError(ValueError):
    """A bag cannot be read, written or repaired; the message says what was expected and what to do."""


class DecodeError(BagError):
    """One message cannot be decoded, or lacks a field."""


METADATA = 'metadata.yaml'
STORAGES = ('.mcap', '.db3')
FIXED, DAMAGED = '_fixed', '.damaged'
"""What bag-fix appends to the name of a repaired bag, and of a damaged one that it has replaced."""


@dataclass(frozen=True)
class StorageFile:
    """One file with messages.

    Attributes:
        path: where it lies.
        storage: `.mcap` or `.db3`.
        zipped: the whole file is compressed with zstd (`--compression-mode file`).
        zipped_messages: each message is (`--compression-mode message`).
    """

    path: Path
    storage: str
    zipped: bool = False
    zipped_messages: bool = False


def find_bags(paths: Iterable[Path | str] | Path | str) -> list[Path]:
    """Return every bag that the paths name: bag folders, bare files, or folders of bags.

    Raises:
        BagError: a path does not exist, or no bag is in it.
    """
    bags: list[Path] = []
    for path in [Path(paths)] if isinstance(paths, str | Path) else map(Path, paths):
        if not path.exists():
            raise BagError(f'expected a bag at {path}, found nothing; correct the path')
        found = [path] if path.is_file() or _is_bag(path) else _bags_in(path)
        if not found:
            raise BagError(
                f'expected a bag at {path}, found a folder without {METADATA}, *.mcap or *.db3 '
                f'in it or one level below; correct the path'
            )
        bags += [bag for bag in found if bag not in bags]
    return bags


def storage_files(bag: Path) -> list[StorageFile]:
    """Return the files of one bag in the order in which they were written.

    A bag without `metadata.yaml`, whose recorder was killed, is read by its file names.

    Raises:
        BagError: the bag's metadata name files that do not exist, or a format that nobody knows.
    """
    if bag.is_file():
        return [_storage_file(bag, False)]
    metadata = read_metadata(bag)
    mode = str(metadata.get('compression_mode') or '').lower()
    form = str(metadata.get('compression_format') or '')
    if mode not in ('', 'none') and form != 'zstd':
        raise BagError(f'expected {bag} plain or compressed with zstd, got {form!r}; decompress it first')
    named = [bag / Path(name).name for name in metadata.get('relative_file_paths') or []]
    missing = [path.name for path in named if not path.exists()]
    if missing:
        raise BagError(
            f'expected the files that {bag / METADATA} names, {missing} are missing; copy the whole folder'
        )
    # A recorder that was killed had no time to name its last files.
    present = [path for path in bag.iterdir() if _suffix(path) in STORAGES and path not in named]
    files = [_storage_file(path, mode == 'message') for path in [*named, *sorted(present, key=_natural)]]
    if not files:
        raise BagError(f'expected *.mcap or *.db3 files in {bag}, found none; copy the whole folder')
    return files


def read_metadata(bag: Path) -> dict[str, Any]:
    """Return the content of a bag's `metadata.yaml`; empty where there is none.

    Raises:
        BagError: it cannot be read.
    """
    path = bag / METADATA
    if not path.exists():
        return {}
    try:
        _require_file(path)
        content = dict(load_yaml(read_text(path))['rosbag2_bagfile_information'])
        names, custom = content.get('relative_file_paths'), content.get('custom_data')
        if not isinstance(names or [], list) or not all(isinstance(name, str) for name in names or []):
            raise TypeError(f'relative_file_paths {names!r:.80}, which are no names of files')
        if not isinstance(custom or {}, dict):
            raise TypeError(f'custom_data {custom!r:.80}')
        return content
    except (OSError, KeyError, TypeError, ValueError) as error:
        detail = ' '.join(str(error).split())
        raise BagError(
            f'expected the metadata of a bag in {path}, got {type(error).__name__} ({detail}); run bag-fix on it'
        ) from error


def _bags_in(folder: Path) -> list[Path]:
    """Return the bags one level below a folder, without those of which a repaired copy lies beside them."""
    found = sorted(path for path in folder.iterdir() if not path.name.startswith('.') and _is_bag(path))
    names = {path.name for path in found}
    return [p for p in found if f'{p.name}{FIXED}' not in names and not p.name.endswith(DAMAGED)]


def _is_bag(path: Path) -> bool:
    if not path.is_dir():
        return False
    return (path / METADATA).exists() or any(_suffix(child) in STORAGES for child in path.iterdir())


def _suffix(path: Path) -> str:
    return path.with_suffix('').suffix if path.suffix == '.zstd' else path.suffix


def _require_file(path: Path) -> None:
    """Refuse what is no plain file: reading from a pipe or a device may never end."""
    if path.exists() and not path.is_file():
        raise BagError(f'expected a file at {path}, got a folder, a pipe or a device; copy the whole bag')


def _storage_file(path: Path, zipped_messages: bool) -> StorageFile:
    _require_file(path)
    storage = _suffix(path)
    if storage not in STORAGES:
        raise BagError(
            f'expected a bag folder, .mcap or .db3 at {path}, got {path.suffix!r}; correct the path'
        )
    zipped = path.suffix == '.zstd'
    return StorageFile(path, storage, zipped, zipped_messages and not zipped)


def _natural(path: Path) -> list[int | str]:
    """A key that sorts bag_2 before bag_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', path.name)]


Progress = Callable[[int, int], None]
"""Called now and then with how many messages are read, and how many there are."""

_REPORT_EVERY = 200


class RawMessage(NamedTuple):
    """One message as it was written.

    Attributes:
        topic: absolute name.
        msgtype: e.g. `sensor_msgs/msg/Image`.
        log_ns: when the recorder received it [ns].
        data: its CDR bytes.
    """

    topic: str
    msgtype: str
    log_ns: int
    data: bytes


@dataclass
class TopicInfo:
    """What is known about one topic of a bag.

    Attributes:
        topic: absolute name.
        msgtype: its type.
        count: how many messages there are.
        definitions: the type's text as it is stored, of each bag that says another one; empty where none does.
    """

    topic: str
    msgtype: str
    count: int = 0
    definitions: list[MessageDefinition] = field(default_factory=list)


@dataclass
class RawBag:
    """An open bag, or several that are read as one.

    Attributes:
        paths: the bags.
        topics: what is in them.
        unfinished: the files that have no end; they are read up to their last whole chunk.
    """

    paths: tuple[Path, ...]
    topics: dict[str, TopicInfo] = field(default_factory=dict)
    unfinished: list[Path] = field(default_factory=list)
    _readers: list[tuple[StorageFile, Reader]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many messages there are."""
        return sum(info.count for info in self.topics.values())

    @property
    def start_ns(self) -> int:
        """When the first message was received [ns]; 0 for an empty bag."""
        return min((r.start_time for _, r in self._readers if r.message_count), default=0)

    @property
    def end_ns(self) -> int:
        """When the last message was received [ns]; 0 for an empty bag."""
        return max((r.end_time - 1 for _, r in self._readers if r.message_count), default=0)

    def messages(
        self,
        topics: Collection[str] | None = None,
        progress: Progress | None = None,
        window_ns: tuple[int, int] | None = None,
    ) -> Iterator[RawMessage]:
        """Yield the messages of some topics, or of all, by the time at which they were received.

        Args:
            topics: absolute names; None for all.
            progress: called now and then.
            window_ns: only what was received from the first to before the second of these times [ns].

        Raises:
            BagError: the file is damaged.
        """
        wanted = self.topics.keys() if topics is None else set(topics)
        total = sum(info.count for topic, info in self.topics.items() if topic in wanted)
        sources = [_messages(*source, wanted, window_ns) for source in self._readers]
        # Files of one bag follow each other; bags of one time are merged. Most bags are one file: nothing to merge.
        merged = sources[0] if len(sources) == 1 else heapq.merge(*sources, key=lambda m: m.log_ns)
        for done, message in enumerate(merged):
            if progress is not None and done % _REPORT_EVERY == 0:
                progress(done, total)
            yield message
        if progress is not None:
            progress(total, total)


@contextmanager
def open_bags(paths: Iterable[Path | str] | Path | str) -> Iterator[RawBag]:
    """Open bags for reading.

    Args:
        paths: bag folders, bare `.mcap` or `.db3` files (also `.zstd`), or folders of bags.

    Raises:
        BagError: something is missing or damaged.
    """
    bags = find_bags(paths)
    with ExitStack() as stack:
        raw = RawBag(tuple(bags))
        for file in [file for bag in bags for file in storage_files(bag)]:
            reader = _open(file, stack)
            raw._readers.append((file, reader))
            if isinstance(reader.storage, UnfinishedReader):
                raw.unfinished.append(file.path)
            for connection in reader.connections:
                _note(raw.topics, connection, file)
        if raw.unfinished and not raw.topics:
            raise _complaint(raw.unfinished[0], ReaderError())
        yield raw


def _open(file: StorageFile, stack: ExitStack) -> Reader:
    path = file.path
    try:
        if path.stat().st_size == 0:
            raise BagError(f'expected messages in {path}, got an empty file; record again')
        if file.zipped:
            path = _unzipped(path, stack)
        if file.storage == '.db3' and _has_journal(path):
            raise BagError(
                f'expected a closed bag, but the recorder of {path} was killed or still runs; '
                f'wait for its end, or run bag-fix on it'
            )
        reader = _opened(path)
    except BagError:
        raise
    except (*BAD_BYTES, OSError) as error:
        raise _complaint(file.path, error) from error
    stack.enter_context(closing(reader))
    return reader


def _opened(path: Path) -> Reader:
    reader = Reader(path)
    try:
        reader.open()
    except BAD_BYTES:
        if path.suffix != '.mcap' or not begins_as_mcap(path):
            raise
        reader.storage = UnfinishedReader(path)
        reader.open()
    return reader


def _complaint(path: Path, error: Exception) -> BagError:
    if path.suffix == '.mcap' and begins_as_mcap(path):
        return BagError(
            f'expected a closed bag, but {path} has no valid end (its recorder was killed, or still runs); '
            f'wait for its end, or run bag-fix on it'
        )
    detail = ' '.join(str(error).split()) or 'damaged'
    return BagError(
        f'expected a rosbag2 file at {path}, got {type(error).__name__} ({detail}); copy it again, or try bag-fix'
    )


def _has_journal(path: Path) -> bool:
    journal = path.with_name(path.name + '-wal')
    return journal.exists() and journal.stat().st_size > 0


def _unzipped(path: Path, stack: ExitStack) -> Path:
    """Unpack a file that is compressed as a whole into a folder that goes when the bag is closed."""
    folder = stack.enter_context(Scratch('bag')).path
    unpack_file(path, folder / path.stem)
    return folder / path.stem


def _note(topics: dict[str, TopicInfo], connection: Connection, file: StorageFile) -> None:
    info = topics.setdefault(connection.topic, TopicInfo(connection.topic, connection.msgtype))
    if info.msgtype != connection.msgtype:
        raise BagError(
            f'expected one type on {info.topic}, got {info.msgtype} and {connection.msgtype} ({file.path}); '
            f'read these bags one at a time'
        )
    info.count += connection.msgcount
    stored = connection.msgdef
    if stored.format is not MessageDefinitionFormat.NONE and stored not in info.definitions:
        info.definitions.append(stored)


def _messages(
    file: StorageFile, reader: Reader, topics: Collection[str], window_ns: tuple[int, int] | None
) -> Iterator[RawMessage]:
    wanted = [connection for connection in reader.connections if connection.topic in topics]
    if not wanted:
        return
    start, stop = (None, None) if window_ns is None else window_ns
    try:
        for connection, log_ns, data in reader.messages(wanted, start=start, stop=stop):
            payload = unpack(data) if file.zipped_messages else data
            yield RawMessage(connection.topic, connection.msgtype, log_ns, payload)
    except BagError:
        raise
    except (*BAD_BYTES, OSError) as error:
        detail = ' '.join(str(error).split()) or type(error).__name__
        raise BagError(
            f'expected whole messages in {file.path}, got damaged ones ({detail}); run bag-fix on it'
        ) from error
