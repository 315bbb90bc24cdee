# SPDX-License-Identifier: Apache-2.0
"""What the arm's node says about the arm, as messages."""

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus

from so101_contract.joints import JOINT_NAMES
from so101_driver.arm import ArmState
from so101_driver.bus.counters import BusCounters
from so101_driver.gate.types import GateCounters, GateState, Level
from so101_driver.loop_timing import Regularity

STATES = {
    GateState.DISABLED: ArmStatus.DISABLED,
    GateState.ENABLED: ArmStatus.ENABLED,
    GateState.HOLD: ArmStatus.HOLD,
    GateState.E_STOP: ArmStatus.E_STOP,
    GateState.FAULT: ArmStatus.FAULT,
}
LEVELS = {Level.WARN: DiagnosticStatus.WARN, Level.FAULT: DiagnosticStatus.ERROR}


def joint_state_message(state: ArmState, stamp: Time, frame_id: str) -> JointState:
    """Positions [rad] and velocities [rad/s] as measured; nothing is clamped."""
    message = JointState(
        name=list(JOINT_NAMES),
        position=state.reading.position_rad.tolist(),
        velocity=state.velocity_rad_s.tolist(),
    )
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message


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
