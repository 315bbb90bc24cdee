# SPDX-License-Identifier: Apache-2.0
"""What the nodes of the driver publish: the state of the arm and of its loop, frames, and the state of their camera."""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from builtin_interfaces.msg import Time
import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage
from so101_interfaces.msg import ArmStatus

from so101_contract.joints import JOINT_NAMES
from so101_description.cameras import get_camera
from so101_driver.arm import ArmState
from so101_driver.bus.config import BusCounters
from so101_driver.camera.camera import CameraReport, CameraStatus
from so101_driver.camera.config import Lens
from so101_driver.camera.source import Frame
from so101_driver.gate.types import GateCounters, GateState, Level

WINDOW_S = 10.0
# A cycle that begins this share of a period late has missed its time.
LATE_SHARE = 0.5


@dataclass(frozen=True)
class Regularity:
    """Period of a loop over the last seconds [s], and what it missed since its start."""

    period_p50: float
    period_p99: float
    cycles: int
    missed: int


class LoopTiming:
    """Counts the cycles of a loop.

    Args:
        period_s: Nominal period [s].
    """

    def __init__(self, period_s: float) -> None:
        self._nominal = period_s
        self._periods: deque[float] = deque(maxlen=max(2, round(WINDOW_S / period_s)))
        self._last: float | None = None
        self._cycles = 0
        self._missed = 0

    def tick(self, now: float) -> None:
        """Note that a cycle begins at `now` [s, monotonic]."""
        self._cycles += 1
        if self._last is not None:
            period = now - self._last
            self._periods.append(period)
            self._missed += max(0, round(period / self._nominal - 1.0 + 0.5 - LATE_SHARE))
        self._last = now

    def regularity(self) -> Regularity:
        """Return the present figures; NaN before the second cycle."""
        p50, p99 = np.percentile(self._periods or [float('nan')], [50, 99])
        return Regularity(float(p50), float(p99), self._cycles, self._missed)


STATES = {
    GateState.DISABLED: ArmStatus.DISABLED,
    GateState.ENABLED: ArmStatus.ENABLED,
    GateState.HOLD: ArmStatus.HOLD,
    GateState.E_STOP: ArmStatus.E_STOP,
    GateState.FAULT: ArmStatus.FAULT,
}
LEVELS = {Level.WARN: DiagnosticStatus.WARN, Level.FAULT: DiagnosticStatus.ERROR}


def status_message(
    state: ArmState,
    stamp: Time,
    *,
    calibration_id: str,
    command_age: float,
    bus: BusCounters,
    gate: GateCounters,
    loop: Regularity,
) -> ArmStatus:
    """State of the arm and its bus."""
    reading, output = state.reading, state.output
    message = ArmStatus(
        state=STATES[output.state],
        reason=output.reason,
        calibration_id=calibration_id,
        name=list(JOINT_NAMES),
        torque=[output.torque] * len(JOINT_NAMES),
        temperature=_floats(reading.temperature_c),
        voltage=_floats(reading.voltage_v),
        current=_floats(reading.current_a),
        load=_floats(reading.load),
        error=[int(value) & 0xFF for value in reading.error],
        reading_age=_floats(reading.age_s),
        command_age=command_age,
        period_p50=loop.period_p50,
        period_p99=loop.period_p99,
        cycles=loop.cycles,
        missed_cycles=loop.missed,
        requests=bus.sent,
        lost=bus.lost,
        corrupt=bus.corrupt,
        late=bus.late,
        retried=bus.retried,
        reconnects=bus.reconnects,
        clamped=gate.clamped,
        refused=gate.refused + gate.stale,
    )
    message.header.stamp = stamp
    return message


def diagnostics_message(
    state: ArmState, stamp: Time, *, port: str, bus: BusCounters, loop: Regularity
) -> DiagnosticArray:
    """One status for the bus and its loop, one for each servo."""
    reading, output = state.reading, state.output
    bad = output.state in (GateState.FAULT, GateState.E_STOP)
    summary = DiagnosticStatus(
        name='so101: arm',
        hardware_id=port,
        level=DiagnosticStatus.ERROR if bad else DiagnosticStatus.OK,
        message=f'{output.state}: {output.reason}',
        values=[
            KeyValue(key='period p50 [ms]', value=f'{1e3 * loop.period_p50:.2f}'),
            KeyValue(key='period p99 [ms]', value=f'{1e3 * loop.period_p99:.2f}'),
            KeyValue(key='missed cycles', value=str(loop.missed)),
            *(KeyValue(key=name, value=str(count)) for name, count in bus.as_dict().items()),
        ],
    )
    servos = []
    for index, name in enumerate(JOINT_NAMES):
        findings = [finding for finding in output.findings if finding.joint == name]
        level = max((LEVELS[finding.level] for finding in findings), default=DiagnosticStatus.OK)
        values = {
            'temperature [degC]': f'{reading.temperature_c[index]:.0f}',
            'voltage [V]': f'{reading.voltage_v[index]:.1f}',
            'current [A]': f'{reading.current_a[index]:.2f}',
            'load': f'{reading.load[index]:.2f}',
            'last answer [s ago]': f'{reading.age_s[index]:.3f}',
        }
        servos.append(
            DiagnosticStatus(
                name=f'so101: {name}',
                hardware_id=port,
                level=level,
                message='; '.join(finding.sentence for finding in findings) or 'well',
                values=[KeyValue(key=key, value=value) for key, value in values.items()],
            )
        )
    message = DiagnosticArray(status=[summary, *servos])
    message.header.stamp = stamp
    return message


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in values]


JPEG_QUALITY = 90
CAMERA_LEVELS = {
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


def camera_diagnostics(
    report: CameraReport, source: str, stamp: Time, name: str = 'camera'
) -> DiagnosticArray:
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
        name=f'so101: {name}',
        hardware_id=source,
        level=CAMERA_LEVELS.get(report.status, DiagnosticStatus.ERROR),
        message=f'{report.status}: {report.sentence}',
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message
