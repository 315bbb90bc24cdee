# SPDX-License-Identifier: Apache-2.0
"""The doctor on the page: how the arm and the graph are, without touching them, and what to do about it.

`./so101 doctor` asks the bus itself and needs the arm's port to be free; this reads only what the nodes say anyway.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
import math
from typing import Any

import numpy as np
from so101_interfaces.msg import ArmStatus

from so101_console.curves import finite
from so101_contract.config import SERVO_HOT_C, SERVO_WARM_C
from so101_driver.doctor.checks import Check, Status

SILENT_S = 2.0
LOSSES_WARN, LOSSES_FAIL = 0.01, 0.10
MISSED_WARN = 0.05
SLOW_CAMERA_HZ = 8.0
OLD_PICTURE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class ArmReport:
    """What arm_node says.

    Attributes:
        state: `ready`, `off`, `stopped` or `fault`.
        reason: its sentence.
        hottest: joint and temperature [degC].
        lost: share of the bus requests of late without a good answer.
        missed: share of the control cycles of late that were late.
    """

    state: str
    reason: str = ''
    hottest: tuple[str, float] = ('', math.nan)
    lost: float = 0.0
    missed: float = 0.0


@dataclass(frozen=True, kw_only=True)
class GraphReport:
    """What the nodes say; None or an empty text where one is silent.

    Attributes:
        arm: of the driver.
        camera_age_s: of the newest picture [s].
        camera_hz: pictures per second [Hz].
        camera_problem: why the newest cannot be shown.
        session: state of the session.
        jitter_p99_ms: of its clock [ms].
        policy: name of the policy; empty: there is none.
        policy_holds: why it does not act.
        policy_ms: its latency that 95 of 100 answers stay below [ms].
        learner: state of the learner.
        learner_reason: its sentence.
        diagnostics: name and sentence of what any node warns of, and whether it is an error.
    """

    arm: ArmReport | None = None
    camera_age_s: float | None = None
    camera_hz: float = 0.0
    camera_problem: str = ''
    session: str = ''
    jitter_p99_ms: float = 0.0
    policy: str | None = None
    policy_holds: str = ''
    policy_ms: float = math.nan
    learner: str = ''
    learner_reason: str = ''
    diagnostics: tuple[tuple[str, str, bool], ...] = field(default=())


def examine(report: GraphReport) -> list[Check]:
    """Return one check for each part, the worst first."""
    checks = [*_arm(report.arm), _camera(report), _session(report), _policy(report), _learner(report)]
    for name, sentence, is_error in report.diagnostics:
        status = Status.FAIL if is_error else Status.WARN
        checks.append(Check(name.removeprefix('so101: ').replace('_', ' '), status, sentence))
    order = [Status.FAIL, Status.WARN, Status.SKIP, Status.OK]
    return sorted(checks, key=lambda check: order.index(check.status))


def _arm(arm: ArmReport | None) -> list[Check]:
    if arm is None:
        remedy = (
            'Look at the power supply and the USB cable, and at what arm_node printed; then start it again.'
        )
        return [Check('arm', Status.FAIL, 'The driver of the arm is silent.', remedy)]
    remedies = {
        'off': 'Press “Motors on”; it stays where it is.',
        'stopped': 'Make sure that nothing is in its way, then “Clear stop or fault”, then “Motors on”.',
        'fault': 'Mend what it says, then “Clear stop or fault”, then “Motors on”.',
    }
    bad = Status.WARN if arm.state == 'off' else Status.FAIL
    state = (
        Check('arm', bad, arm.reason or f'The arm is {arm.state}.', remedies[arm.state])
        if arm.state in remedies
        else Check('arm', Status.OK, 'The motors are on, and it follows.')
    )
    return [state, _heat(arm), _bus(arm), _loop(arm)]


def _heat(arm: ArmReport) -> Check:
    joint, heat = arm.hottest
    if not math.isfinite(heat):
        return Check('servos', Status.SKIP, 'No temperature has been read yet.')
    finding = f'The warmest servo is {joint.replace("_", " ")} with {heat:.0f} °C.'
    if heat >= SERVO_HOT_C:
        return Check('servos', Status.FAIL, finding, 'Switch the motors off and let it cool down.')
    remedy = 'Let it rest between episodes, and look whether a joint presses against something.'
    return (
        Check('servos', Status.WARN, finding, remedy)
        if heat >= SERVO_WARM_C
        else Check('servos', Status.OK, finding)
    )


def _bus(arm: ArmReport) -> Check:
    finding = f'{arm.lost:.1%} of the bus requests of the last seconds were lost or damaged.'
    remedy = 'Push the plugs of the servo cables home, and use another USB cable and port.'
    if arm.lost >= LOSSES_FAIL:
        return Check('bus', Status.FAIL, finding, remedy)
    return (
        Check('bus', Status.WARN, finding, remedy)
        if arm.lost >= LOSSES_WARN
        else Check('bus', Status.OK, finding)
    )


def _loop(arm: ArmReport) -> Check:
    finding = f'{arm.missed:.1%} of the control cycles of the last seconds were late.'
    if arm.missed < MISSED_WARN:
        return Check('driver', Status.OK, finding)
    return Check(
        'driver', Status.WARN, finding, 'This machine is busy: end other programs, or learn on another one.'
    )


def _camera(report: GraphReport) -> Check:
    remedy = 'Look at its plug, and that no other program uses it; ./so101 doctor tests cameras.'
    if report.camera_problem:
        return Check('camera', Status.FAIL, report.camera_problem, remedy)
    if report.camera_age_s is None:
        return Check('camera', Status.WARN, 'There has been no picture yet.', remedy)
    if report.camera_age_s > OLD_PICTURE_S:
        return Check('camera', Status.FAIL, f'The newest picture is {report.camera_age_s:.1f} s old.', remedy)
    finding = f'{report.camera_hz:.0f} pictures come in a second.'
    return Check('camera', Status.WARN if report.camera_hz < SLOW_CAMERA_HZ else Status.OK, finding)


def _session(report: GraphReport) -> Check:
    if not report.session:
        remedy = 'Start it, as ./so101 up does, to record episodes and to drive from this page.'
        return Check('session', Status.WARN, 'No session is running.', remedy)
    finding = f'It is {report.session}; its clock is less than {report.jitter_p99_ms:.0f} ms off in 99 of 100 steps.'
    if report.jitter_p99_ms <= 20.0:
        return Check('session', Status.OK, finding)
    return Check(
        'session', Status.WARN, finding, 'This machine is busy: end other programs, or learn on another one.'
    )


def _policy(report: GraphReport) -> Check:
    if report.policy is None:
        return Check('policy', Status.SKIP, 'No policy is running: a human drives.')
    if report.policy_holds:
        return Check(
            'policy', Status.WARN, f'It holds: {report.policy_holds}', 'It acts again once that is mended.'
        )
    latency = f' and answers within {report.policy_ms:.0f} ms' if math.isfinite(report.policy_ms) else ''
    return Check('policy', Status.OK, f'“{report.policy}” is in use{latency}.')


def _learner(report: GraphReport) -> Check:
    if not report.learner:
        return Check('learner', Status.SKIP, 'No learner is running: nothing is learned.')
    finding = f'It is {report.learner}. {report.learner_reason}'.strip()
    if report.learner == 'failed':
        return Check('learner', Status.FAIL, finding, 'Read what learner_node printed, then start it again.')
    return Check('learner', Status.OK, finding)


ARM_STATES: Mapping[int, str] = {
    ArmStatus.DISABLED: 'off',
    ArmStatus.ENABLED: 'ready',
    ArmStatus.HOLD: 'ready',
    ArmStatus.E_STOP: 'stopped',
    ArmStatus.FAULT: 'fault',
}
WINDOW_S = 10.0


def counters(arm: ArmStatus) -> dict[str, int]:
    """Return the counters whose growth during an episode says what it was like."""
    return {'clamped': int(arm.clamped), 'lost': int(arm.lost + arm.corrupt + arm.late)}


class ArmWatch:
    """Shares of the last seconds, from counters that only grow."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, int, int, int, int]] = deque()

    def hear(self, now: float, arm: ArmStatus) -> None:
        """Take another status."""
        bad = int(arm.lost + arm.corrupt + arm.late)
        self._past.append((now, int(arm.requests), bad, int(arm.cycles), int(arm.missed_cycles)))
        while now - self._past[0][0] > WINDOW_S:
            self._past.popleft()

    @property
    def lost(self) -> float:
        """Share of bus requests without a good answer."""
        return self._share(1, 2)

    @property
    def missed(self) -> float:
        """Share of control cycles that were late."""
        return self._share(3, 4)

    def report(self, arm: ArmStatus) -> ArmReport:
        """Return what the doctor looks at."""
        heat = np.array(arm.temperature, dtype=float)
        hottest = ('', math.nan)
        if heat.size and np.isfinite(heat).any():
            warmest = int(np.nanargmax(heat))
            hottest = arm.name[warmest], float(heat[warmest])
        return ArmReport(
            state=ARM_STATES[arm.state],
            reason=arm.reason,
            hottest=hottest,
            lost=self.lost,
            missed=self.missed,
        )

    def _share(self, whole: int, part: int) -> float:
        if len(self._past) < 2:
            return 0.0
        first, last = self._past[0], self._past[-1]
        total = last[whole] - first[whole]
        return min((last[part] - first[part]) / total, 1.0) if total > 0 else 0.0


def servo_rows(arm: ArmStatus, angles: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for each servo; what is not known is None."""
    return [
        {
            'name': name,
            'angle': angles.get(name),
            'temperature': finite(arm.temperature[i]),
            'voltage': finite(arm.voltage[i]),
            'load': finite(arm.load[i]),
            'state': f'error {arm.error[i]}' if arm.error[i] else 'on' if arm.torque[i] else 'off',
            'healthy': not arm.error[i],
        }
        for i, name in enumerate(arm.name)
    ]


def bus_line(arm: ArmStatus, watch: ArmWatch) -> str:
    """Return a sentence about the bus and the driver's loop."""
    return (
        f'Bus: {watch.lost:.1%} of the last seconds lost or damaged, {arm.reconnects} reconnects · '
        f'loop {1e3 * arm.period_p50:.1f} ms, 99 % under {1e3 * arm.period_p99:.1f} ms · '
        f'{arm.clamped} commands cut, {arm.refused} refused'
    )
