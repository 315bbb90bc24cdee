# SPDX-License-Identifier: Apache-2.0
"""A frame and the state of its camera, as messages."""

from pathlib import Path

from builtin_interfaces.msg import Time
import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import CameraInfo, CompressedImage

from so101_description.cameras import get_camera
from so101_driver.camera.frame import Frame
from so101_driver.camera.lens import Lens
from so101_driver.camera.stats import CameraReport, CameraStatus

JPEG_QUALITY = 90
LEVELS = {
    CameraStatus.OK: DiagnosticStatus.OK,
    CameraStatus.STARTING: DiagnosticStatus.OK,
    CameraStatus.SLOW: DiagnosticStatus.WARN,
}


def lens_of(path: str, preset: str, width: int, height: int) -> Lens:
    """The lens for images of a size [px]: from a calibration file, or a pinhole with a preset's view.

    Raises:
        LensError: the file cannot be used, or is for another aspect ratio.
    """
    if path:
        return Lens.from_yaml(Path(path).expanduser()).scaled(width, height)
    return Lens.pinhole(get_camera(preset).intrinsics(width, height))


def info_message(lens: Lens, frame_id: str) -> CameraInfo:
    """The lens as a message without a stamp."""
    info = CameraInfo(
        width=lens.width,
        height=lens.height,
        distortion_model=lens.model,
        d=lens.d,
        k=lens.k,
        r=lens.r,
        p=lens.p,
    )
    info.header.frame_id = frame_id
    return info


def compressed_message(frame: Frame, stamp: Time, frame_id: str) -> CompressedImage:
    """The frame as JPEG: the camera's own bytes where it sent JPEG."""
    data = frame.jpeg
    if data is None:
        data = cv2.imencode('.jpg', frame.bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    message = CompressedImage(format='rgb8; jpeg compressed bgr8')
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.data.frombytes(data)
    return message


def camera_diagnostics(report: CameraReport, source: str, stamp: Time) -> DiagnosticArray:
    """What the stream is worth now."""
    stream = report.stream
    values = {
        'frame rate [Hz]': f'{report.fps:.1f}',
        'age of the newest frame [s]': 'none' if report.age_s is None else f'{report.age_s:.3f}',
        'frames': stream.frames,
        'missed': stream.missed,
        'skipped': stream.skipped,
        'corrupt': stream.corrupt,
        'wrong size': stream.wrong_size,
        'reconnects': stream.reconnects,
    }
    status = DiagnosticStatus(
        name='so101: camera',
        hardware_id=source,
        level=LEVELS.get(report.status, DiagnosticStatus.ERROR),
        message=f'{report.status}: {report.sentence}',
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message
