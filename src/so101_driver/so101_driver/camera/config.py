# SPDX-License-Identifier: Apache-2.0
"""Parameters of one camera."""

from dataclasses import dataclass

from so101_interfaces_py.params import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Where the frames come from, what they must look like, and how patient to be with them."""

    source: str = param(
        '/dev/video0',
        doc='Device (/dev/videoN, /dev/v4l/by-path/..., /dev/v4l/by-id/...), video file, image, folder or '
        'numbered images (f_%04d.png), or URL (http: MJPEG). by-path is stable even where cameras are alike.',
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
