# SPDX-License-Identifier: Apache-2.0
"""Repairs a bag whose recorder was killed, or whose end was cut off. The original is never written to."""

from contextlib import closing
from dataclasses import dataclass, field
import os
from pathlib import Path
import shutil
import sqlite3
import time

from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from so101_bags.metadata import BagMetadata, FileMetadata, TopicMetadata
from so101_bags.salvage import is_closed, is_whole, salvage, salvage_sqlite
from so101_bags.storage import (
    BagError,
    DAMAGED,
    find_bags,
    FIXED,
    METADATA,
    Progress,
    read_metadata,
    storage_files,
    StorageFile,
)
from so101_bags.untrusted import BAD_BYTES, CUT_OFF, unpack_file
from so101_interfaces_py.files import open_file

_FRESH_S = 10.0


@dataclass
class FixReport:
    """What was done.

    Attributes:
        target: where the repaired bag is.
        messages: how many it has.
        files: a line about each file.
        repaired: names of the files that needed it.
        notes: the damage, in words.
        metadata_only: every file was whole; only the metadata were missing or old.
    """

    target: Path
    messages: int = 0
    files: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def metadata_only(self) -> bool:
        """Whether every file was whole."""
        return not self.repaired


def fix_bag(
    bag: Path, target: Path | None = None, *, in_place: bool = False, progress: Progress | None = None
) -> FixReport:
    """Make a whole bag out of a damaged one.

    Args:
        bag: folder or bare file.
        target: where the repaired one goes; by default beside it, with `_fixed` in the name.
        in_place: put it in the place of the damaged one, which is kept as `<name>.damaged`.
        progress: called now and then with bytes read and bytes in all, for each file that needs repair.

    Raises:
        BagError: there is no bag, the target exists, or nothing can be saved.
    """
    source, *others = find_bags(bag)
    if others:
        raise BagError(
            f'expected one bag at {bag}, got {1 + len(others)}; name one of them, such as {source}'
        )
    source = source.resolve()
    final = source if in_place else (target or source.with_name(f'{source.stem}{FIXED}{source.suffix}'))
    kept = source.with_name(f'{source.name}{DAMAGED}')
    for path in (kept,) if in_place else (final,):
        if path.exists():
            raise BagError(
                f'expected nothing at {path}, something is there; move it away or name another target'
            )
    aside = final.with_name(f'.{final.name}.fixing')
    _remove(aside)
    report = FixReport(final)
    try:
        if source.is_file():
            aside.mkdir(parents=True)
            written = _fix_file(StorageFile(source, source.suffix), aside, report, progress)
            _scan([written], report)
            os.replace(written, aside.with_name(f'{aside.name}.file'))
            aside.rmdir()
            aside = aside.with_name(f'{aside.name}.file')
        else:
            _fix_folder(source, aside, report, progress)
        if in_place:
            os.replace(source, kept)
        os.replace(aside, final)
    except BagError:
        raise
    except BAD_BYTES as error:
        raise BagError(
            f'expected something whole in {source}, got {type(error).__name__} ({error}); it cannot be repaired'
        ) from error
    finally:
        _remove(aside)
    return report


def _fix_folder(source: Path, aside: Path, report: FixReport, progress: Progress | None) -> None:
    try:
        known = read_metadata(source)
        files = storage_files(source)
    except BagError as error:  # the metadata are damaged or name missing files: go by the names
        report.notes.append(str(error))
        known = {}
        files = _files_by_name(source)
    aside.mkdir(parents=True)
    written = [_fix_file(file, aside, report, progress) for file in files]
    per_message = any(file.zipped_messages for file in files)
    storage = {'.mcap': 'mcap', '.db3': 'sqlite3'}[files[0].storage]
    topics, infos = _scan(written, report)
    custom = known.get('custom_data') or {}
    BagMetadata(
        topics,
        infos,
        storage,
        str(known.get('ros_distro') or 'jazzy'),
        {str(key): str(value) for key, value in custom.items()},
        'MESSAGE' if per_message else '',
    ).write(aside)


def _files_by_name(source: Path) -> list[StorageFile]:
    # What is no plain file is told with the metadata, which it contradicts; it may have no end.
    files = [path for path in sorted(source.iterdir()) if path.name != METADATA and path.is_file()]
    found = []
    for path in files:
        storage = path.with_suffix('').suffix if path.suffix == '.zstd' else path.suffix
        if storage in ('.mcap', '.db3'):
            found.append(StorageFile(path, storage, path.suffix == '.zstd'))
    if not found:
        raise BagError(f'expected *.mcap or *.db3 files in {source}, found none; copy the whole folder')
    return found


def _fix_file(file: StorageFile, folder: Path, report: FixReport, progress: Progress | None) -> Path:
    """Write the whole form of a file into a folder and return where it is."""
    source = file.path
    name = source.stem if file.zipped else source.name
    target = folder / name
    if file.zipped:
        source = folder / f'.{name}.unpacked'
        try:
            unpack_file(file.path, source)
        except CUT_OFF:
            report.notes.append(f'{file.path.name}: its compressed end is cut off')
    whole = is_whole(source) if file.storage == '.mcap' else is_closed(source)
    if whole:
        _link(source, target)
        line = f'{file.path.name}: whole'
    elif file.storage == '.db3':
        count = salvage_sqlite(source, target)
        report.repaired.append(file.path.name)
        line = f'{file.path.name}: {count} messages saved'
    else:
        found = salvage(source, target, progress=progress)
        report.repaired.append(file.path.name)
        report.notes += [f'{file.path.name}: {note}' for note in found.notes]
        line = f'{file.path.name}: {found.messages} messages saved'
    if file.zipped:
        source.unlink()
    report.files.append(line)
    return target


def _link(source: Path, target: Path) -> None:
    """Take over a whole file without a copy where the file system can do that.

    A file that changed just now may have a recorder that still writes to it: that one is copied.
    """
    try:
        if time.time() - source.stat().st_mtime < _FRESH_S:
            shutil.copyfile(source, target)
            return
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _scan(files: list[Path], report: FixReport) -> tuple[list[TopicMetadata], list[FileMetadata]]:
    topics: dict[str, TopicMetadata] = {}
    infos = []
    for path in files:
        offers = _offers(path)
        try:
            with Reader(path) as reader:
                count = reader.message_count
                first, last = (reader.start_time, reader.end_time - 1) if count else (None, None)
                infos.append(FileMetadata(path.name, first, last, count))
                report.messages += count
                for connection in reader.connections:
                    known = topics.get(connection.topic)
                    qos, type_hash = offers.get(connection.topic, ('', ''))
                    total = connection.msgcount + (known.count if known else 0)
                    topics[connection.topic] = TopicMetadata(
                        connection.topic, connection.msgtype, type_hash or connection.digest, qos, total
                    )
        except BAD_BYTES as error:
            raise BagError(
                f'expected {path.name} to be whole now, got {error}; it cannot be repaired'
            ) from error
    return list(topics.values()), infos


def _offers(path: Path) -> dict[str, tuple[str, str]]:
    """Return QoS profiles and type hash of each topic, as the file itself says."""
    if path.suffix == '.mcap':
        with open_file(path) as file:
            summary = make_reader(file).get_summary()
        keys = 'offered_qos_profiles', 'topic_type_hash'
        channels = summary.channels.values() if summary is not None else ()
        return {one.topic: (one.metadata.get(keys[0], ''), one.metadata.get(keys[1], '')) for one in channels}
    try:
        with closing(sqlite3.connect(f'file:{path}?mode=ro&immutable=1', uri=True)) as database:
            rows = database.execute('SELECT name, offered_qos_profiles, type_description_hash FROM topics')
            return {str(name): (str(qos), str(digest)) for name, qos, digest in rows}
    except sqlite3.Error:  # an older layout without these columns
        return {}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
