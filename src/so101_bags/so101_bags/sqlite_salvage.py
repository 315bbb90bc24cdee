# SPDX-License-Identifier: Apache-2.0
"""Closes an sqlite3 bag whose recorder was killed: what waits in its journal goes into the file."""

from contextlib import closing
from pathlib import Path
import shutil
import sqlite3

from so101_bags.errors import BagError

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
