# SPDX-License-Identifier: Apache-2.0
"""The one way from a camera image to what a network sees. Policy, learner, environment and bag reader use it.

Values stay uint8 0..255 from end to end. Division by 255 is the network's own first operation, nowhere else.
"""

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from so101_contract.errors import ImageError

UInt8Array: TypeAlias = npt.NDArray[np.uint8]

IMAGE_PIPELINE = 'crop, INTER_AREA, CHW uint8 RGB; version 1'
"""Name of what `preprocess` does. Part of every observation spec: change it when the pixels change."""

CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}
"""Encodings that are understood, by their ROS name, and their number of channels."""


def preprocess(
    image: npt.NDArray[np.uint8],
    encoding: str = 'rgb8',
    *,
    size: int = 84,
    crop: tuple[int, int, int, int] | None = None,
) -> UInt8Array:
    """Crop an image to its centre square (or the given rectangle) and scale it down by area averaging.

    A 640 x 480 image is cut to columns 80..559. Where the crop already has the wanted size, its pixels come
    out unchanged. A rectangle that is not square is squeezed.

    Args:
        image: (height, width, channels) or, for mono8, (height, width) uint8.
        encoding: ROS name of the encoding, one of `CHANNELS`.
        size: edge of the result [px].
        crop: top, left, height, width [px] instead of the centre square.

    Returns:
        A new (3, size, size) uint8 array, RGB.

    Raises:
        ImageError: type, shape, encoding or crop do not fit.
    """
    if size < 1:
        raise ImageError(f'expected a size of at least 1 px, got {size}; correct the camera spec')
    channels_last = _check(image, encoding)
    top, left, height, width = _centre(image.shape) if crop is None else crop
    if not (
        top >= 0
        and left >= 0
        and height > 0
        and width > 0
        and top + height <= image.shape[0]
        and left + width <= image.shape[1]
    ):
        raise ImageError(
            f'expected a crop inside the image of {image.shape[0]} rows and {image.shape[1]} columns, '
            f'got top {top}, left {left}, height {height}, width {width}; correct the camera spec'
        )
    rgb = np.ascontiguousarray(
        _to_rgb(channels_last[top : top + height, left : left + width], encoding), dtype=np.uint8
    )
    if rgb.shape[:2] != (size, size):
        rgb = np.asarray(cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return rgb.transpose(2, 0, 1).copy()


def message_to_rgb(
    height: int, width: int, encoding: str, step: int, data: 'bytes | bytearray | memoryview | UInt8Array'
) -> UInt8Array:
    """Return the pixels of an image message as (height, width, 3) uint8 RGB.

    Args:
        height: rows.
        width: columns.
        encoding: ROS name of the encoding, one of `CHANNELS`.
        step: bytes per row, with the padding that some cameras add at the end of each row.
        data: the message's bytes, `height * step` of them.

    Returns:
        For rgb8 a view of `data`, read-only if that is; else a new array.
    """
    channels = _channels(encoding)
    flat = np.frombuffer(data, dtype=np.uint8)
    if height < 1 or width < 1 or step < width * channels or flat.size != height * step:
        raise ImageError(
            f'expected {height} rows of {step} bytes with {width} pixels of {channels} bytes ({encoding}), '
            f'got {flat.size} bytes; check the camera driver'
        )
    rows = flat.reshape(height, step)[:, : width * channels]
    return _to_rgb(rows.reshape(height, width, channels), encoding)


def _channels(encoding: str) -> int:
    if encoding not in CHANNELS:
        raise ImageError(
            f'expected an encoding out of {sorted(CHANNELS)}, got {encoding!r}; convert it before (cv_bridge)'
        )
    return CHANNELS[encoding]


def _check(image: UInt8Array, encoding: str) -> UInt8Array:
    """Return the image as (height, width, channels), after checking that it is one."""
    channels = _channels(encoding)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, 'dtype', type(image).__name__)
        raise ImageError(
            f'expected an image of uint8 values 0..255, got {kind}; pass the pixels before any scaling'
        )
    shape = (*image.shape, 1) if channels == 1 and image.ndim == 2 else image.shape
    if len(shape) != 3 or shape[2] != channels or 0 in shape:
        raise ImageError(
            f'expected an image of shape (height, width, {channels}) for {encoding}, got {image.shape}; '
            f'pass one camera image, not a stack, with the channels last'
        )
    return image.reshape(shape)


def _centre(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    height, width = shape[:2]
    edge = min(height, width)
    return (height - edge) // 2, (width - edge) // 2, edge, edge


def _to_rgb(image: UInt8Array, encoding: str) -> UInt8Array:
    if encoding == 'mono8':
        return np.repeat(image, 3, axis=2)
    if encoding in ('bgr8', 'bgra8'):
        return np.ascontiguousarray(image[..., 2::-1])
    return image[..., :3]
