# SPDX-License-Identifier: Apache-2.0
"""From the paths that a person names to the files in which messages lie."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

import yaml

from so101_bags.errors import BagError

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
        content = yaml.load(path.read_text(), Loader=getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
        return dict(content['rosbag2_bagfile_information'])
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
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


def _storage_file(path: Path, zipped_messages: bool) -> StorageFile:
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
