# SPDX-License-Identifier: Apache-2.0
"""The checks of `doctor` that look at cameras: does it open, how large are its frames, how many come."""

from collections.abc import Sequence
from pathlib import Path
import time

from so101_driver.doctor.checks import Check, Status

POLL_S = 0.1
MEASURE_S = 2.2
"""Frames are counted for a little longer than the window over which the camera measures its rate [s]."""


def find_cameras(dev: Path = Path('/dev')) -> tuple[str, ...]:
    """List the video devices that deliver images, by their stable names where they have one.

    A camera makes two nodes; the second carries metadata and cannot be opened.
    """
    by_path = sorted((dev / 'v4l' / 'by-path').glob('*-video-index0'))
    if by_path:
        return tuple(map(str, by_path))
    return tuple(str(path) for path in sorted(dev.glob('video[0-9]*')))


def check_cameras(sources: Sequence[str] = ()) -> list[Check]:
    """Examine the given cameras, or those that are found."""
    cameras = tuple(sources) or find_cameras()
    if not cameras:
        return [
            Check(
                'camera',
                Status.SKIP,
                'No camera is attached.',
                'Plug one in, or say with --camera where it is.',
            )
        ]
    return [check_camera(source) for source in cameras]


def check_camera(source: str, *, measure_s: float = MEASURE_S) -> Check:
    """Open one camera and watch it for a while.

    Args:
        source: device, URL or file.
        measure_s: how long to count its frames [s].
    """
    name = 'camera'
    try:
        from so101_driver.camera.camera import Camera
        from so101_driver.camera.config import CameraConfig
    except ImportError as error:
        return Check(name, Status.SKIP, f'Not examined: {error}.', 'Install OpenCV (python3-opencv).')
    config = CameraConfig(source=source)
    with Camera(config) as camera:
        deadline = time.monotonic() + config.start_timeout_s
        while (frame := camera.wait_newer(-1, POLL_S)) is None and time.monotonic() < deadline:
            if camera.report().stream.lost:
                break
        if frame is not None:
            time.sleep(measure_s)
        report = camera.report()
    cause, _, remedy = report.sentence.partition('; ')
    size = report.stream.size
    if report.status.value == 'ok' and size is not None:
        notes = f' ({"; ".join(report.stream.notes)})' if report.stream.notes else ''
        return Check(name, Status.OK, f'{cause} at {report.fps:.1f} frames/s{notes}.')
    status = Status.WARN if report.status.value == 'slow' else Status.FAIL
    remedy = remedy or 'Check its cable, and that no other program uses it.'
    return Check(name, status, _sentence(cause), _sentence(remedy))


def _sentence(text: str) -> str:
    end = '' if text.endswith(('.', '?')) else '.'
    return f'{text[:1].upper()}{text[1:]}{end}' if not text.startswith('/') else f'{text}{end}'
