# SPDX-License-Identifier: Apache-2.0
"""How far a damaged or hostile file is followed: what its bytes may raise, and how much they may unpack to.

A few kilobytes of zstd or LZ4 can stand for gigabytes. What is compressed is unpacked up to what it declares, and never
further than here; importing this module puts the same bound on the chunks that rosbags unpacks.
"""

from pathlib import Path
import struct

import apsw
from backports import zstd
import lz4.frame  # type: ignore[import-untyped]
from mcap.exceptions import McapError
from rosbags.rosbag2 import ReaderError, storage_mcap

MOST_BYTES = 256 * 2**20
"""Of a message or a chunk, unpacked; rosbag2's own chunks have less than a hundredth of that."""

MOST_RATIO = 200
"""Of a file that is compressed as a whole: unpacked to packed. Camera images of a simulation reach about 50."""

BAD_BYTES = (
    *(ReaderError, McapError, apsw.Error, zstd.ZstdError, struct.error),
    *(
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ),
    MemoryError,  # a damaged length
)
"""What the libraries that read bags let through where the bytes of a file are damaged."""

CUT_OFF = (zstd.ZstdError, EOFError)

_PIECE = 1 << 16


def unpack(data: bytes, most: int = MOST_BYTES) -> bytes:
    """Return what zstd has packed.

    Raises:
        ValueError: it is more than allowed, or not whole.
    """
    machine = zstd.ZstdDecompressor()
    return _whole(machine.decompress(data, max_length=most + 1), machine.eof, most)


def unpack_file(packed: Path, target: Path) -> None:
    """Unpack a file that zstd has packed as a whole; what lies before a damage is there afterwards.

    Raises:
        ValueError: it is more than allowed; nothing is left of it.
        CUT_OFF: it is damaged, or its end is missing.
    """
    most = max(MOST_BYTES, MOST_RATIO * packed.stat().st_size)
    written = 0
    with zstd.open(packed, 'rb') as source, target.open('wb') as plain:
        while piece := source.read(_PIECE):
            written += len(piece)
            if written > most:
                target.unlink()
                raise ValueError(
                    f'expected {packed} to unpack to at most {most} bytes, got more; do not trust this file'
                )
            plain.write(piece)


def _unpack_lz4(data: bytes, size: int) -> bytes:
    machine = lz4.frame.LZ4FrameDecompressor()
    most = min(size, MOST_BYTES)
    return _whole(machine.decompress(data, max_length=most + 1), machine.eof, most)


def _whole(plain: bytes, ended: bool, most: int) -> bytes:
    if len(plain) > most or not ended:
        raise ValueError(f'expected whole compressed data of at most {most} bytes, got a cut or larger one')
    return plain


storage_mcap.DECOMPRESSORS.update(
    lz4=_unpack_lz4, zstd=lambda data, size: unpack(data, min(size, MOST_BYTES))
)
