# SPDX-License-Identifier: Apache-2.0
"""Folders that are there for as long as a process needs them, and not longer, however that process ends. No ROS.

One that is killed has no time to clean up. So each such folder holds a file that its owner keeps locked, and the kernel
lets go of a lock with the process (flock(2)): whoever gets it knows that the owner is gone, and may remove the folder.
`clear_scratch` does so, and is called by whatever starts a graph.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import fcntl
import os
from pathlib import Path
import shutil
import tempfile
import time
from typing import Self

PREFIX = 'so101-'
OWNER = '.owner'
YOUNG_S = 10.0
"""A folder that was begun since then is left alone: between it and its lock lies a moment [s]."""


class Scratch:
    """A folder of this process; a context manager that removes it.

    Attributes:
        path: of the folder.
    """

    def __init__(self, what: str = '') -> None:
        """Make one; `what` is the first word of its name."""
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX + (f'{what}-' if what else '')))
        self._owner = (self.path / OWNER).open('w')
        fcntl.flock(self._owner, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it with all that is in it. Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._owner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Try for the lock of a file that its owner keeps locked; say whether it was had, which means the owner is gone.

    Raises:
        OSError: there is no such file, or it is no plain one.
    """
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(number)


def clear_scratch(folder: Path | None = None, young_s: float = YOUNG_S) -> int:
    """Remove this user's folders whose owners are gone; return how many there were.

    Args:
        folder: where they are; that of temporary files by default.
        young_s: one that was begun since then is left alone [s].
    """
    cleared = 0
    for path in Path(tempfile.gettempdir() if folder is None else folder).glob(f'{PREFIX}*'):
        with suppress(OSError):  # it is gone, or another start like this one was faster
            found = path.lstat()
            is_folder = path.is_dir() and not path.is_symlink()
            if not is_folder or found.st_uid != os.getuid() or time.time() - found.st_mtime < young_s:
                continue
            if not (path / OWNER).exists():
                if (
                    not any(path.iterdir()) and found.st_mode & 0o777 == 0o700
                ):  # killed before it had its lock
                    path.rmdir()
                continue
            with held(path / OWNER) as ours:
                if ours:
                    shutil.rmtree(path)
                    cleared += 1
    return cleared
