# SPDX-License-Identifier: Apache-2.0
"""Frames, and where they come from: a device, a file, images, or a URL, told apart by the source string."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
import glob
import os
from pathlib import Path
import re
import time
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from so101_driver.camera.config import CameraConfig

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded image.

    Attributes:
        bgr: pixels (height, width, 3), read-only, in OpenCV's channel order.
        stamp_s: time on the monotonic clock at which the frame came, before it was decoded [s].
        wall_s: the same moment on the system clock [s since 1970].
        index: number of the frame since the camera was started.
        jpeg: the bytes as they came, where the source sends JPEG and hands it out.
    """

    bgr: Image
    stamp_s: float
    wall_s: float
    index: int
    jpeg: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height [px]."""
        return self.bgr.shape[1], self.bgr.shape[0]

    def rgb(self) -> Image:
        """Return the pixels (height, width, 3) in RGB order, as a new contiguous array."""
        return np.asarray(cv2.cvtColor(self.bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def age_s(self, now: float) -> float:
        """Return the age of the frame at a time on the monotonic clock [s]."""
        return now - self.stamp_s


IMAGE_SUFFIXES = frozenset({'.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff'})
MAX_FAILED_READS = 10
"""Failed reads in a row after which a device counts as gone."""

CaptureFactory = Callable[..., Any]
"""`cv2.VideoCapture`, or what a test puts in its place."""


class SourceError(Exception):
    """A source cannot be opened, or is lost."""


class SourceEnded(SourceError):  # noqa: N818  (the end of a file is not an error in itself)
    """A file has been read to its end."""


class SourceKind(StrEnum):
    """Kinds of source."""

    DEVICE = 'device'
    URL = 'url'
    IMAGES = 'images'
    VIDEO = 'video'


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A frame as a source gives it; see `Frame` for the fields. `skipped` older ones came with it."""

    bgr: Image
    stamp_s: float
    wall_s: float
    jpeg: bytes | None = None
    skipped: int = 0


class FrameSource(Protocol):
    """An open source, used from one thread.

    Attributes:
        notes: where the source does other than it was asked to.
        corrupt: frames so far that could not be decoded.
    """

    notes: tuple[str, ...]
    corrupt: int

    def read(self, timeout_s: float) -> RawFrame | None:
        """Return the next frame, or None where there is none in time; raise SourceError where it is lost."""

    def close(self) -> None:
        """Release the source."""


def source_kind(source: str) -> SourceKind:
    """Return what a source string names."""
    if '://' in source:
        return SourceKind.URL
    if source.isdigit() or source.startswith('/dev/'):
        return SourceKind.DEVICE
    path = Path(source)
    if path.is_dir() or '%' in path.name or path.suffix.lower() in IMAGE_SUFFIXES:
        return SourceKind.IMAGES
    return SourceKind.VIDEO


def open_local(config: CameraConfig, capture: CaptureFactory) -> FrameSource:
    """Open what is no MJPEG stream; see `so101_driver.camera.camera.open_source`."""
    kind = source_kind(config.source)
    if kind is SourceKind.IMAGES:
        return ImageFiles(config)
    opener = {SourceKind.DEVICE: _open_device, SourceKind.VIDEO: _open_video, SourceKind.URL: _open_url}[kind]
    return opener(config, capture)


class CaptureSource:
    """A `cv2.VideoCapture`: a device, a network stream other than MJPEG, or, with a pace, a video file."""

    def __init__(
        self, capture: Any, config: CameraConfig, notes: tuple[str, ...], pacer: 'Pacer | None'
    ) -> None:
        self.notes = notes
        self.corrupt = 0
        self._capture = capture
        self._config = config
        self._pacer = pacer
        self._failed = 0
        self._delivered = 0

    def read(self, timeout_s: float) -> RawFrame | None:
        """Return the next frame; a device blocks for as long as its driver likes."""
        if self._pacer is not None and not self._pacer.wait(timeout_s):
            return None
        if not self._capture.grab():
            self._failed_read()
            return None
        stamp_s, wall_s = time.monotonic(), time.time()
        good, image = self._capture.retrieve()
        if not good or image is None:
            self.corrupt += 1
            self._failed_read()
            return None
        self._failed = 0
        self._delivered += 1
        return RawFrame(_three_channels(image), stamp_s, wall_s)

    def close(self) -> None:
        """Release the device or file."""
        self._capture.release()

    def _failed_read(self) -> None:
        source = self._config.source
        if self._pacer is not None:  # a file
            if self._delivered == 0:
                raise SourceError(f'{source} holds no frame that can be read')
            if not self._config.loop:
                raise SourceEnded(f'{source} is at its end')
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            self._pacer.again()
            self._delivered = 0
            return
        self._failed += 1
        if self._failed >= MAX_FAILED_READS:
            raise SourceError(f'{source} gave no frame {self._failed} times in a row; is it unplugged?')
        time.sleep(min(0.01 * self._failed, 0.05))  # a lost device fails at once: do not spin


class ImageFiles:
    """Image files one after the other, at the expected rate."""

    def __init__(self, config: CameraConfig) -> None:
        """List the files.

        Raises:
            SourceError: there are none.
        """
        self.notes: tuple[str, ...] = ()
        self.corrupt = 0
        self._config = config
        self._files = _image_files(config.source)
        if not self._files:
            raise SourceError(f'{config.source} names no image file; give an image, a folder, or f_%04d.png')
        self._pacer = Pacer(config.fps)
        self._next = 0

    def read(self, timeout_s: float) -> RawFrame | None:
        """Return the next image when its time has come."""
        if not self._pacer.wait(timeout_s):
            return None
        if self._next >= len(self._files):
            if not self._config.loop:
                raise SourceEnded(f'{self._config.source} is at its end')
            self._next = 0
        stamp_s, wall_s = time.monotonic(), time.time()
        image = cv2.imread(str(self._files[self._next]), cv2.IMREAD_COLOR)
        self._next += 1
        if image is None:
            self.corrupt += 1
            return None
        return RawFrame(np.asarray(image, dtype=np.uint8), stamp_s, wall_s)

    def close(self) -> None:
        """Do nothing: no file is kept open."""


class Pacer:
    """Lets frames through at a rate, without catching up after a pause."""

    def __init__(self, fps: float) -> None:
        self._period_s = 1.0 / fps
        self._due = time.monotonic()

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the next frame is due, at most for a time [s]; return whether it is."""
        now = time.monotonic()
        if self._due - now > timeout_s:
            time.sleep(timeout_s)
            return False
        if self._due > now:
            time.sleep(self._due - now)
        self._due = max(self._due + self._period_s, now)
        return True

    def again(self) -> None:
        """Let the next frame through at once: the last one was none."""
        self._due = time.monotonic()


def _open_device(config: CameraConfig, capture: CaptureFactory) -> FrameSource:
    path = f'/dev/video{config.source}' if config.source.isdigit() else config.source
    if not os.path.exists(path):
        found = sorted(glob.glob('/dev/v4l/by-path/*-video-index0') or glob.glob('/dev/video*'))
        raise SourceError(f'{path} does not exist; cameras here: {", ".join(found) or "none"}')
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceError(f'no permission for {path}; add the user to the group video and log in again')
    device = capture(path, cv2.CAP_V4L2)
    if not device.isOpened():
        device.release()
        raise SourceError(
            f'{path} does not open; another program uses it, or it is a metadata node (use index0)'
        )
    # The pixel format first: it decides which sizes and rates there are.
    wishes: list[tuple[str, int, float]] = []
    if config.fourcc:
        wishes.append(('fourcc', cv2.CAP_PROP_FOURCC, float(_fourcc(config.fourcc))))
    if config.width:
        wishes.append(('width', cv2.CAP_PROP_FRAME_WIDTH, float(config.width)))
        wishes.append(('height', cv2.CAP_PROP_FRAME_HEIGHT, float(config.height)))
    wishes.append(('fps', cv2.CAP_PROP_FPS, config.fps))
    wishes.append(('buffer_size', cv2.CAP_PROP_BUFFERSIZE, float(config.buffer_size)))
    notes = []
    for name, prop, value in wishes:
        taken = device.set(prop, value)
        got = device.get(prop)
        if name == 'buffer_size':
            if not taken:
                notes.append('buffer_size was not taken: frames may be queued')
        elif abs(got - value) > 0.5:
            shown = (
                (_fourcc_name(got), _fourcc_name(value)) if name == 'fourcc' else (f'{got:g}', f'{value:g}')
            )
            notes.append(f'{name} is {shown[0]}, asked for {shown[1]}')
    return CaptureSource(device, config, tuple(notes), None)


def _open_video(config: CameraConfig, capture: CaptureFactory) -> FrameSource:
    if not os.path.isfile(config.source):
        raise SourceError(f'the file {config.source} does not exist')
    video = capture(config.source, cv2.CAP_ANY)
    if not video.isOpened():
        video.release()
        raise SourceError(f'{config.source} is no video that can be read')
    return CaptureSource(video, config, (), Pacer(config.fps))


def _open_url(config: CameraConfig, capture: CaptureFactory) -> FrameSource:
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(config.connect_timeout_s * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(config.reconnect_after_s * 1000),
    ]
    stream = capture(config.source, cv2.CAP_FFMPEG, limits)
    if not stream.isOpened():
        stream.release()
        raise SourceError(f'{config.source} does not open within {config.connect_timeout_s} s')
    return CaptureSource(stream, config, (), None)


def _image_files(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if '%' not in path.name:
        return [path] if path.is_file() else []
    pattern = re.sub(r'%0?\d*d', r'(\\d+)', re.escape(path.name))
    numbered = []
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        match = re.fullmatch(pattern, file.name)
        if match:
            numbered.append((int(match[1]), file))
    return [file for _, file in sorted(numbered)]


def _three_channels(image: Any) -> Image:
    array = np.asarray(image, dtype=np.uint8)
    return array if array.ndim == 3 else np.asarray(cv2.cvtColor(array, cv2.COLOR_GRAY2BGR), dtype=np.uint8)


def _fourcc(name: str) -> int:
    return sum(ord(letter) << (8 * i) for i, letter in enumerate(name))


def _fourcc_name(value: float) -> str:
    number = int(value)
    return ''.join(chr((number >> (8 * i)) & 0x7F) for i in range(4)) if number > 0 else 'unknown'
