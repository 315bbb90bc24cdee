# SPDX-License-Identifier: Apache-2.0
"""What is said of a camera beforehand: its parameters, and its lens as `sensor_msgs/CameraInfo` wants it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from so101_description.cameras import Intrinsics
from so101_interfaces_py.files import read_text
from so101_interfaces_py.params import check_bounds, param
from so101_interfaces_py.topics import CAMERAS
from so101_interfaces_py.yaml_text import load_yaml


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Where the frames come from, what they must look like, and how patient to be with them."""

    source: str = param(
        '/dev/video0',
        doc='Device (/dev/videoN, /dev/v4l/by-path/..., /dev/v4l/by-id/...), video file, image, folder or '
        'numbered images (f_%04d.png), or URL (http: MJPEG). by-path is stable even where cameras are alike.',
    )
    sources: tuple[str, ...] = param(
        ('',),
        doc='Several cameras, each NAME=SOURCE such as wrist=/dev/video0 and front=/dev/video2; empty: the wrist '
        'camera, from source.',
    )
    width: int = param(640, doc='Expected image width; 0 takes what comes.', unit='px', lo=0, hi=8192)
    height: int = param(480, doc='Expected image height; 0 takes what comes.', unit='px', lo=0, hi=8192)
    fps: float = param(30.0, doc='Expected frame rate, and the pace of files.', unit='Hz', lo=0.5, hi=240.0)
    fourcc: str = param(
        'MJPG',
        doc='Pixel format asked of a device; empty leaves it. Uncompressed frames of two cameras do not fit '
        'one USB 2 bus.',
    )
    buffer_size: int = param(
        1, doc='Frames that the device driver may queue; each is one frame of delay.', lo=1, hi=10
    )
    loop: bool = param(True, doc='Start files again at their end.')
    stall_timeout_s: float = param(
        0.5, doc='A stream without a new frame for this long has stalled.', unit='s', lo=0.05, hi=10.0
    )
    start_timeout_s: float = param(
        3.0, doc='Time for the source to open and give its first frame.', unit='s', lo=0.1, hi=60.0
    )
    slow_ratio: float = param(
        0.7, doc='A stream below this fraction of fps, over stall_timeout_s, is slow.', lo=0.05, hi=1.0
    )
    reconnect_after_s: float = param(
        2.0, doc='A stalled source is closed and opened again after this long.', unit='s', lo=0.1, hi=60.0
    )
    reconnect_min_s: float = param(0.2, doc='First pause before opening again.', unit='s', lo=0.01, hi=10.0)
    reconnect_max_s: float = param(3.0, doc='Longest pause before opening again.', unit='s', lo=0.01, hi=60.0)
    connect_timeout_s: float = param(
        1.0, doc='Time for a network source to answer.', unit='s', lo=0.05, hi=30.0
    )
    close_timeout_s: float = param(
        1.0,
        doc='Longest that closing waits for a reader that hangs in the device driver.',
        unit='s',
        lo=0.0,
        hi=10.0,
    )

    def __post_init__(self) -> None:
        """Check each value, and the values against each other."""
        check_bounds(self)
        if not self.source.strip():
            raise ValueError('source is empty; give a device, a file or a URL.')
        named = self.named_sources
        if not all(named.values()) or len(named) != max(1, sum(map(bool, self.sources))):
            raise ValueError(f'sources = {list(self.sources)}: write NAME=SOURCE, each name once.')
        if self.fourcc and len(self.fourcc) != 4:
            raise ValueError(f'fourcc = {self.fourcc!r} has not 4 letters; use for example MJPG or YUYV.')
        if (self.width == 0) != (self.height == 0):
            raise ValueError(f'width = {self.width} and height = {self.height}: give both, or 0 for both.')
        if self.stall_timeout_s * self.fps < 2.0:
            raise ValueError(
                f'stall_timeout_s = {self.stall_timeout_s} is shorter than two frames at fps = {self.fps}; '
                'every frame would be late.'
            )
        if self.reconnect_min_s > self.reconnect_max_s:
            raise ValueError(
                f'reconnect_min_s = {self.reconnect_min_s} is above reconnect_max_s = {self.reconnect_max_s}.'
            )

    @property
    def named_sources(self) -> dict[str, str]:
        """The source of each camera, by what its topics begin with."""
        pairs = [word.partition('=')[::2] for word in self.sources if word] or [('wrist', self.source)]
        return {CAMERAS.get(name, name): source for name, source in pairs}


MODELS = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}
"""Distortion models of ROS and how many coefficients each has."""


class LensError(ValueError):
    """A camera calibration cannot be used; the message says why."""


@dataclass(frozen=True)
class Lens:
    """Calibration of one camera for one image size; matrices row by row.

    Attributes:
        width: image width [px].
        height: image height [px].
        model: distortion model.
        d: distortion coefficients.
        k: camera matrix (9).
        r: rectification (9).
        p: projection (12).
    """

    width: int
    height: int
    model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check sizes."""
        if self.width <= 0 or self.height <= 0:
            raise LensError(
                f'expected an image size, got {self.width}x{self.height}; calibrate the camera again'
            )
        if self.model not in MODELS:
            raise LensError(f'expected a distortion model of {", ".join(MODELS)}, got {self.model!r}')
        for name, length in (('d', MODELS[self.model]), ('k', 9), ('r', 9), ('p', 12)):
            if len(getattr(self, name)) != length:
                raise LensError(f'expected {length} numbers in {name}, got {len(getattr(self, name))}')

    @classmethod
    def pinhole(cls, intrinsics: Intrinsics) -> 'Lens':
        """Make the lens of a camera without distortion, for example of a preset."""
        fx, fy, cx, cy = intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
        return cls(
            width=intrinsics.width,
            height=intrinsics.height,
            model='plumb_bob',
            d=(0.0,) * 5,
            k=(fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0),
            r=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            p=(fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0),
        )

    @classmethod
    def from_yaml(cls, path: Path) -> 'Lens':
        """Read the file that ROS's camera calibrator writes.

        Raises:
            LensError: the file is missing or is no camera calibration.
        """
        try:
            content = load_yaml(read_text(path))
            return cls(
                width=int(content['image_width']),
                height=int(content['image_height']),
                model=str(content['distortion_model']),
                d=_numbers(content['distortion_coefficients']),
                k=_numbers(content['camera_matrix']),
                r=_numbers(content['rectification_matrix']),
                p=_numbers(content['projection_matrix']),
            )
        except LensError as error:
            raise LensError(f'{path}: {error}') from error
        except OSError as error:
            raise LensError(f'the camera calibration {path} cannot be read ({error.strerror})') from error
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise LensError(
                f'{path} is no camera calibration ({type(error).__name__}: {error}); '
                'expected the file that `cameracalibrator` writes'
            ) from error

    def scaled(self, width: int, height: int) -> 'Lens':
        """Return the lens for images of another size [px] of the same view.

        Raises:
            LensError: the aspect ratio differs, so that the view is not the same.
        """
        if abs(width * self.height - height * self.width) > max(self.width, self.height):
            raise LensError(
                f'expected the aspect ratio of {self.width}x{self.height}, got {width}x{height}; '
                'calibrate the camera at the size that you use'
            )
        sx, sy = width / self.width, height / self.height
        k, p = list(self.k), list(self.p)
        # Pixel centres have integer coordinates: the first one moves when the pixels change size.
        k[0], k[1], k[2] = k[0] * sx, k[1] * sx, (k[2] + 0.5) * sx - 0.5
        k[4], k[5] = k[4] * sy, (k[5] + 0.5) * sy - 0.5
        p[0], p[1], p[2], p[3] = p[0] * sx, p[1] * sx, (p[2] + 0.5) * sx - 0.5, p[3] * sx
        p[5], p[6], p[7] = p[5] * sy, (p[6] + 0.5) * sy - 0.5, p[7] * sy
        return replace(self, width=width, height=height, k=tuple(k), p=tuple(p))


def _numbers(block: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in block['data'])
