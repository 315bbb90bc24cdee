# SPDX-License-Identifier: Apache-2.0
"""What killed nodes leave behind, cleared by the next start.

A node that is killed has no time to remove the shared memory that it sent images through: 35 MB each time with the
profile of this project, until the memory of the machine is full of it. Fast DDS keeps a file beside each segment, which
its owner holds locked as long as it lives, however it ends. Who gets the lock knows that the owner is gone. Its ports,
and segments in whose making it was killed, need not have such a file: those are gone that no process has in its memory.
Locks tell of the folders of `so101_interfaces_py.scratch` too; the port of a virtual arm leads by way of its process,
and a socket that nobody answers belongs to nobody.
"""

from collections.abc import Iterator
from contextlib import suppress
import errno
import os
from pathlib import Path
import re
import socket
import time

from so101_interfaces_py.scratch import clear_scratch, held

SHARED_MEMORY = Path('/dev/shm')
YOUNG_S = 10.0
"""What was begun since then is left alone: between a file and its lock lies a moment [s]."""
STARTING_S = 300.0
"""So long a virtual arm may take from its calibration to its port [s]."""

_SEGMENT = re.compile(r'fastrtps_[0-9a-f]{16}')
_LOCK = '_el'
_LOCKS = (_LOCK, '_sl')
_PART = re.compile(r'(?:sem\.)?(fastrtps_(?:port\d{1,5}|[0-9a-f]{16}))(?:_el|_sl|_mutex)?')
_ARM = re.compile(r'\.?so101-virtual-arm.*')
_SOCKET = re.compile(r'.*\.sock')


def clear_leftovers() -> int:
    """Remove what killed programs of this project have left on this machine; return how many bytes of memory it had."""
    clear_scratch()
    clear_arms(Path('/tmp'))
    clear_sockets(Path(f'/tmp/so101-{os.getuid()}'))
    freed = clear_shared_memory()
    clear_unmapped()
    return freed


def clear_shared_memory(folder: Path = SHARED_MEMORY, young_s: float = YOUNG_S) -> int:
    """Remove the segments of Fast DDS whose owners are gone; return how many bytes they had.

    Segments of other users are left alone, and so is everything where there is no such folder.
    """
    freed = 0
    for segment in _ours(folder, _SEGMENT):
        with suppress(OSError):  # its owner, or another start like this one, was faster
            freed += _remove(segment, young_s)
    return freed


def clear_unmapped(folder: Path = SHARED_MEMORY, young_s: float = YOUNG_S) -> None:
    """Remove ports of Fast DDS, their semaphores, and segments without a lock, that no process of this user maps.

    What somebody maps stays, even where its reader is gone: who writes there would not see the next one.
    """
    things: dict[str, list[Path]] = {}
    for path in _ours(folder, _PART):
        found = _PART.fullmatch(path.name)
        if found is not None:
            things.setdefault(found[1], []).append(path)
    in_use = mapped(folder) if things else set()
    for parts in things.values():
        with suppress(OSError):
            young = any(time.time() - part.lstat().st_mtime < young_s for part in parts)
            if not young and not any(part.name in in_use or _is_held(part) for part in parts):
                for part in parts:
                    part.unlink(missing_ok=True)


def mapped(folder: Path) -> set[str]:
    """Return the names of the files of a folder that a process has in its memory, as far as this user may know."""
    names: set[str] = set()
    inside = re.compile(rf'{re.escape(str(folder))}/(\S+)')
    for maps in Path('/proc').glob('[0-9]*/maps'):
        with suppress(OSError):
            names.update(inside.findall(maps.read_text(errors='replace')))
    return names


def _is_held(path: Path) -> bool:
    if not path.name.endswith(_LOCKS):
        return False
    with held(path) as gone:
        return not gone


def clear_arms(folder: Path, young_s: float = STARTING_S) -> None:
    """Remove the ports of virtual arms whose processes are gone, and what lies beside them."""
    for path in _ours(folder, _ARM):
        with suppress(OSError):
            if path.is_symlink():
                if os.readlink(path).startswith('/proc/') and not path.exists():
                    path.unlink()
            elif time.time() - path.stat().st_mtime > young_s and not _port_of(path).is_symlink():
                path.unlink()


def _port_of(beside: Path) -> Path:
    """Return the port that a file lies beside: the calibration of its arm, and the count of what that has heard."""
    return beside.with_name(beside.name.removeprefix('.').partition('.')[0])


def clear_sockets(folder: Path) -> None:
    """Remove the sockets of a folder that nobody listens at any longer."""
    for path in _ours(folder, _SOCKET):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if path.is_socket() and probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()


def told(freed: int) -> list[str]:
    """Return a line about it; none where there is nothing worth one."""
    if freed < 10**8:
        return []
    return [f'{freed / 1e9:.1f} GB of shared memory that killed nodes had left behind are free again.']


def _ours(folder: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """Yield what this user has in a folder under such names; links first, since other files lie beside them."""
    with suppress(OSError):
        found = [path for path in folder.iterdir() if name.fullmatch(path.name)]
        for path in sorted(found, key=lambda path: not path.is_symlink()):
            with suppress(OSError):
                if path.lstat().st_uid == os.getuid():
                    yield path


def _remove(segment: Path, young_s: float) -> int:
    """Remove a segment and its lock, unless somebody holds that; return the bytes."""
    lock = segment.with_name(f'{segment.name}{_LOCK}')
    if time.time() - lock.lstat().st_mtime < young_s:
        return 0
    with held(lock) as gone:
        if not gone:
            return 0
        size = segment.lstat().st_blocks * 512
        segment.unlink()
        lock.unlink()
        return size
