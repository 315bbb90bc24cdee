# SPDX-License-Identifier: Apache-2.0
"""A number written into the pixels of an image, so that latency and lost frames can be measured end to end.

The number sits in the upper left corner as 8 x 4 black and white blocks of 8 x 8 pixels, which JPEG keeps.
Eight of its 32 bits are a checksum.
"""

import numpy as np

from so101_driver.camera.frame import Image

BLOCK = 8
COLUMNS, ROWS = 8, 4
COUNTS = 1 << 24
"""Counts that can be told apart."""


def encode_counter(image: Image, count: int) -> Image:
    """Return a copy of an image (height, width, 3) with a count in its corner; it wraps at `COUNTS`."""
    if image.shape[0] < ROWS * BLOCK or image.shape[1] < COLUMNS * BLOCK:
        raise ValueError(
            f'the counter needs {COLUMNS * BLOCK}x{ROWS * BLOCK} pixels, got {image.shape[1::-1]}.'
        )
    code = ((count % COUNTS) << 8) | _checksum(count % COUNTS)
    bits = np.array([(code >> i) & 1 for i in range(COLUMNS * ROWS)], dtype=np.uint8).reshape(ROWS, COLUMNS)
    marked = image.copy()
    blocks = np.kron(bits * 255, np.ones((BLOCK, BLOCK), np.uint8))
    marked[: ROWS * BLOCK, : COLUMNS * BLOCK] = blocks[..., None]
    return marked


def decode_counter(image: Image) -> int | None:
    """Return the count in the corner of an image, or None where there is none."""
    if image.shape[0] < ROWS * BLOCK or image.shape[1] < COLUMNS * BLOCK:
        return None
    corner = image[: ROWS * BLOCK, : COLUMNS * BLOCK].astype(np.float64).mean(axis=2)
    blocks = corner.reshape(ROWS, BLOCK, COLUMNS, BLOCK)[:, 2:6, :, 2:6].mean(axis=(1, 3))
    if np.any((blocks > 64.0) & (blocks < 192.0)):
        return None
    code = sum(int(bit) << i for i, bit in enumerate((blocks > 128.0).ravel()))
    count = code >> 8
    return count if code & 0xFF == _checksum(count) else None


def counter_image(width: int, height: int, count: int) -> Image:
    """Return a grey image of a size [px] with a count in its corner and a bar that moves with it."""
    image = np.full((height, width, 3), 96, dtype=np.uint8)
    left = (7 * count) % width
    image[height // 2 :, left : left + max(width // 20, 1)] = (200, 120, 40)
    return encode_counter(image, count)


def _checksum(count: int) -> int:
    low, middle, high = count & 0xFF, (count >> 8) & 0xFF, count >> 16
    return (0xA5 + low + 3 * middle + 7 * high) & 0xFF
