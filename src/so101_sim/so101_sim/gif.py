# SPDX-License-Identifier: Apache-2.0
"""Writes animated GIFs: one palette for all frames, and of each frame only what has changed."""

from collections.abc import Sequence
from pathlib import Path
import struct

import numpy as np
import numpy.typing as npt

from so101_sim.errors import SimulationError

UInt8Array = npt.NDArray[np.uint8]

COLOURS = 255
TRANSPARENT = 255
SAMPLES = 20_000
ROUNDS = 8
SAME = 2
"""A pixel that has changed by no more than this in every channel counts as unchanged."""

_CLEAR, _END, _FIRST_FREE, _MAX_CODES = 256, 257, 258, 4096


def write_gif(path: Path | str, frames: Sequence[UInt8Array], frames_per_s: float) -> None:
    """Write an endless animation.

    Args:
        path: the file.
        frames: (height, width, 3) RGB each, all of one size.
        frames_per_s: speed [1/s]; GIF knows hundredths of a second.

    Raises:
        SimulationError: there are no frames, or they differ in size.
    """
    if not frames or any(f.shape != frames[0].shape or f.ndim != 3 or f.shape[2] != 3 for f in frames):
        raise SimulationError(
            f'expected RGB frames of one size, got {sorted({f.shape for f in frames})}; draw them all alike'
        )
    if not 0.5 <= frames_per_s <= 50.0:
        raise SimulationError(f'expected 0.5 to 50 frames per second, got {frames_per_s}; correct it')
    height, width = frames[0].shape[:2]
    palette = make_palette(frames)
    index_of = _lookup_table(palette)
    delay = round(100.0 / frames_per_s)
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    chunks = [
        b'GIF89a',
        struct.pack('<HHBBB', width, height, 0xF7, 0, 0),
        table.tobytes(),
        b'\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00',
    ]
    shown: UInt8Array | None = None
    for frame in frames:
        indices = index_of[frame[..., 0] >> 3, frame[..., 1] >> 3, frame[..., 2] >> 3]
        if shown is not None:
            same = (np.abs(frame.astype(np.int16) - shown) <= SAME).all(axis=2)
            indices = np.where(same, TRANSPARENT, indices)
            shown = np.where(same[..., None], shown, frame)
        else:
            shown = frame.copy()
        chunks += [
            b'\x21\xf9\x04' + struct.pack('<BHB', 0x05, delay, TRANSPARENT) + b'\x00',
            b'\x2c' + struct.pack('<HHHHB', 0, 0, width, height, 0) + b'\x08',
            _blocks(_lzw(indices.astype(np.uint8).tobytes())),
        ]
    Path(path).write_bytes(b''.join([*chunks, b'\x3b']))


def make_palette(frames: Sequence[UInt8Array]) -> UInt8Array:
    """Return up to `COLOURS` colours (n, 3) that stand for those of the frames, by a few rounds of k-means."""
    pixels = np.concatenate([frame.reshape(-1, 3) for frame in frames])
    rng = np.random.default_rng(0)
    sample = pixels[rng.choice(len(pixels), min(SAMPLES, len(pixels)), replace=False)].astype(np.float32)
    distinct = np.unique(sample, axis=0)
    if len(distinct) <= COLOURS:
        return distinct.astype(np.uint8)
    centres = distinct[rng.choice(len(distinct), COLOURS, replace=False)]
    for _ in range(ROUNDS):
        nearest = _nearest(sample, centres)
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.stack(
            [np.bincount(nearest, sample[:, i], minlength=len(centres)) for i in range(3)], axis=1
        )
        used = counts > 0
        centres[used] = sums[used] / counts[used, None]
    return np.asarray(np.rint(centres), dtype=np.uint8)


def _nearest(colours: npt.NDArray[np.float32], centres: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    distance = (centres**2).sum(axis=1) - 2.0 * colours @ centres.T
    return np.asarray(distance.argmin(axis=1))


def _lookup_table(palette: UInt8Array) -> npt.NDArray[np.intp]:
    """Return (32, 32, 32): the palette's index for each colour, of which five bits a channel count."""
    levels = (np.arange(32, dtype=np.float32) * 8.0) + 4.0
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing='ij'), axis=-1).reshape(-1, 3)
    return _nearest(cube, palette.astype(np.float32)).reshape(32, 32, 32)


def _lzw(data: bytes) -> bytes:
    """Compress as GIF wants it, with codes of 9 to 12 bits."""
    out = bytearray()
    bits = held = 0
    table: dict[int, int] = {}
    width, free = 9, _FIRST_FREE

    def put(code: int) -> None:
        nonlocal bits, held
        bits |= code << held
        held += width
        while held >= 8:
            out.append(bits & 0xFF)
            bits >>= 8
            held -= 8

    put(_CLEAR)
    prefix = data[0]
    for byte in data[1:]:
        key = prefix << 8 | byte
        known = table.get(key)
        if known is not None:
            prefix = known
            continue
        put(prefix)
        prefix = byte
        if free < _MAX_CODES:
            table[key] = free
            if free == 1 << width:
                width += 1
            free += 1
        else:
            put(_CLEAR)
            width, table, free = 9, {}, _FIRST_FREE
    put(prefix)
    put(_END)
    if held:
        out.append(bits & 0xFF)
    return bytes(out)


def _blocks(data: bytes) -> bytes:
    """Cut into blocks of up to 255 bytes, each with its length in front, and end them."""
    return (
        b''.join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
        + b'\x00'
    )
