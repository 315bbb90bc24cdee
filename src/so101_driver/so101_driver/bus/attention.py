# SPDX-License-Identifier: Apache-2.0
"""How far a virtual arm has come with what was sent to it.

A servo that is silent for 20 ms has a fault. A virtual servo may only have had no processor for as long: what it was
sent still waits in the pseudo-terminal. So the virtual arm counts, in a file beside its link, the bytes that it has
dealt with, and whoever waits for an answer tells the two kinds of silence apart. An arm of metal has no such file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
import struct
from typing import Self

_COUNT = struct.Struct('=Q')


def _beside(link: Path) -> Path:
    return link.with_name(f'.{link.name}.heard')


class DealtWith:
    """The count, kept by the virtual arm.

    Args:
        link: path under which the arm appears.
    """

    def __init__(self, link: Path) -> None:
        self._path = _beside(link)
        aside = self._path.with_name(f'{self._path.name}.{os.getpid()}')
        aside.write_bytes(_COUNT.pack(0))
        with aside.open('r+b') as file:
            self._page = mmap.mmap(file.fileno(), _COUNT.size)
        aside.replace(self._path)  # who has the old one open keeps it
        self._count = 0

    def add(self, count: int) -> None:
        """So many bytes more are dealt with: every answer to them is on the wire, or will never come."""
        self._count += count
        _COUNT.pack_into(self._page, 0, self._count)

    def close(self) -> None:
        """Take the count away."""
        self._path.unlink(missing_ok=True)
        self._page.close()


class Unheard:
    """What a virtual arm has not yet dealt with, seen from the other end of the line.

    Args:
        page: the count.
    """

    def __init__(self, page: mmap.mmap) -> None:
        self._page = page
        self._due: int = _COUNT.unpack_from(page)[0]

    @classmethod
    def of(cls, port: str) -> Self | None:
        """The count beside a port; None where the port is not that of a virtual arm."""
        with contextlib.suppress(OSError, ValueError):
            if os.readlink(port).startswith('/proc/'):
                with _beside(Path(port)).open('rb') as file:
                    return cls(mmap.mmap(file.fileno(), _COUNT.size, access=mmap.ACCESS_READ))
        return None

    def sent(self, count: int) -> None:
        """So many bytes more were sent."""
        self._due += count

    def __bool__(self) -> bool:
        return int(_COUNT.unpack_from(self._page)[0]) < self._due
