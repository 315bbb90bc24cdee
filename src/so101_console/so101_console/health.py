# SPDX-License-Identifier: Apache-2.0
"""The doctor on the page: how the arm and the graph are, without touching them, and what to do about it.

`./so101 doctor` asks the bus itself and needs the arm's port to be free; this reads only what the nodes say anyway.
"""

from collections import deque
from collections.abc import Mapping
import contextlib
from dataclasses import dataclass, field
import json
import math
import os
from pathlib import Path
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
from so101_interfaces.msg import ArmStatus

from so101_console.curves import finite
from so101_contract.config import SERVO_HOT_C, SERVO_WARM_C
from so101_contract.errors import ContractError
from so101_driver.doctor.checks import Check, Status

SILENT_S = 2.0
LOSSES_WARN, LOSSES_FAIL = 0.01, 0.10
MISSED_WARN = 0.05
SLOW_CAMERA_HZ = 8.0
OLD_PICTURE_S = 0.5
RECORDER_STALE_S = 5.0
NOT_RECORDED = 'Nothing is recorded.', False


@dataclass(frozen=True, kw_only=True)
class ArmReport:
    """What arm_node says.

    Attributes:
        state: `ready`, `off`, `stopped` or `fault`.
        reason: its sentence.
        hottest: joint and temperature [degC].
        lost: share of the servos' answers of late that were not good.
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
        other_cameras: the same of each other camera, with its name in front.
        session: state of the session.
        jitter_p99_ms: of its clock [ms].
        policy: name of the policy; empty: there is none.
        policy_holds: why it does not act.
        policy_ms: its latency that 95 of 100 answers stay below [ms].
        learner: state of the learner.
        learner_reason: its sentence.
        diagnostics: name and sentence of what any node warns of, and whether it is an error.
        given_up: why a node is not started again, by its name.
        recorder: what the recorder says, and whether it is an error; None where there is none.
    """

    arm: ArmReport | None = None
    camera_age_s: float | None = None
    camera_hz: float = 0.0
    camera_problem: str = ''
    other_cameras: tuple[tuple[str, float | None, float, str], ...] = ()
    session: str = ''
    jitter_p99_ms: float = 0.0
    policy: str | None = None
    policy_holds: str = ''
    policy_ms: float = math.nan
    learner: str = ''
    learner_reason: str = ''
    diagnostics: tuple[tuple[str, str, bool], ...] = field(default=())
    given_up: Mapping[str, str] = field(default_factory=dict)
    recorder: tuple[str, bool] | None = None


def examine(report: GraphReport) -> list[Check]:
    """Return one check for each part, the worst first."""
    first = ('camera', report.camera_age_s, report.camera_hz, report.camera_problem)
    cameras = [_camera(*one) for one in (first, *report.other_cameras)]
    checks = [*_arm(report.arm), *cameras, _session(report), _policy(report), _learner(report)]
    checks.append(_recorder(report.recorder))
    for name, why in report.given_up.items():
        remedy = 'Mend what it says, then start the stack again.'
        checks.append(Check(name.replace('_', ' '), Status.FAIL, why, remedy))
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
        'off': 'Press “Motors on”: it stays where it is, until you press “Start”.',
        UNKNOWN_ARM: 'Use a newer version of this console.',
        'stopped': 'Make sure that nothing is in its way, then “Clear stop or fault”, “Motors on”, and “Start”.',
        'fault': 'Mend what it says, then “Clear stop or fault”, “Motors on”, and “Start”.',
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
    finding = f'{arm.lost:.1%} of the answers of the servos of the last seconds were lost or damaged.'
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


def _camera(name: str, age_s: float | None, rate_hz: float, problem: str) -> Check:
    remedy = 'Look at its plug, and that no other program uses it; ./so101 doctor tests cameras.'
    if problem:
        return Check(name, Status.FAIL, problem, remedy)
    if age_s is None:
        return Check(name, Status.WARN, 'There has been no picture yet.', remedy)
    if age_s > OLD_PICTURE_S:
        return Check(name, Status.FAIL, f'The newest picture is {age_s:.1f} s old.', remedy)
    finding = f'{rate_hz:.0f} pictures come in a second.'
    return Check(name, Status.WARN if rate_hz < SLOW_CAMERA_HZ else Status.OK, finding)


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


def _recorder(said: tuple[str, bool] | None) -> Check:
    if said is None:
        return Check('recorder', Status.SKIP, NOT_RECORDED[0])
    sentence, is_error = said
    if not is_error:
        return Check('recorder', Status.OK, sentence)
    return Check(
        'recorder',
        Status.FAIL,
        sentence,
        'Mend what it says: it begins another bag, and “Pause” lets the session go on.',
    )


class RecorderWatch:
    """What the recorder said last, and whether it still says something."""

    def __init__(self) -> None:
        self._said: tuple[float, DiagnosticStatus] | None = None

    def hear(self, message: DiagnosticStatus) -> None:
        """Take another status."""
        self._said = time.monotonic(), message

    @property
    def folder(self) -> Path | None:
        """Where it puts bags, or the bag that it writes; None where it does not say, or that is no folder here."""
        pairs = [] if self._said is None else self._said[1].values
        named = next((pair.value for pair in pairs if pair.key == 'folder'), '')
        with contextlib.suppress(OSError, ValueError):  # such as a null byte
            folder = Path(named)
            if named and folder.is_dir():
                is_bag = any(folder.glob('*.mcap'))
                return (folder.parent if is_bag else folder).resolve()
        return None

    def said(self, now: float) -> tuple[str, bool] | None:
        """Return a sentence, and whether it is an error; None where there was no recorder at all."""
        if self._said is None:
            return None
        heard_s, message = self._said
        if now - heard_s > RECORDER_STALE_S:
            return 'The recorder is silent: nothing is recorded.', True
        return message.message[:1000], message.level == DiagnosticStatus.ERROR


GIVEN_UP = 'SO101_GIVEN_UP'
"""Environment variable that names the file in which whoever started the nodes says which it has given up."""


def read_given_up() -> dict[str, str]:
    """Return why nodes are not started again, by their names."""
    path = os.environ.get(GIVEN_UP)
    with contextlib.suppress(OSError, ValueError):
        if path is not None:
            with Path(path).open('rb') as file:
                content = json.loads(file.read(100_000))
            return {str(name): str(why) for name, why in content.items()} if isinstance(content, dict) else {}
    return {}


ARM_STATES: Mapping[int, str] = {
    ArmStatus.DISABLED: 'off',
    ArmStatus.ENABLED: 'ready',
    ArmStatus.HOLD: 'ready',
    ArmStatus.E_STOP: 'stopped',
    ArmStatus.FAULT: 'fault',
}
UNKNOWN_ARM = 'unknown'
"""A state that only a newer version knows."""

MOST_SERVOS = 64
WINDOW_S = 10.0


def arm_state(arm: ArmStatus) -> str:
    """Return what the page calls the state of the arm."""
    return ARM_STATES.get(arm.state, UNKNOWN_ARM)


def require_whole(arm: ArmStatus) -> None:
    """Refuse a status that does not say one thing of each servo.

    Raises:
        ContractError: it says more or less, or has more servos than any arm.
    """
    fields = ('name', 'torque', 'temperature', 'voltage', 'load', 'error')
    counts = {name: len(getattr(arm, name)) for name in fields}
    if len(set(counts.values())) > 1 or counts['name'] > MOST_SERVOS:
        raise ContractError(
            f'expected one value of each servo, of at most {MOST_SERVOS}, got {counts}; repair the sender of arm/status'
        )


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
        due = int(arm.requests) * len(
            arm.name
        )  # a request asks all servos, and what is lost is the answer of one
        self._past.append((now, due, bad, int(arm.cycles), int(arm.missed_cycles)))
        while now - self._past[0][0] > WINDOW_S:
            self._past.popleft()

    @property
    def lost(self) -> float:
        """Share of the servos' answers that were not good."""
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
            state=arm_state(arm),
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
        f'Bus: {watch.lost:.1%} of the answers of the last seconds lost or damaged, {arm.reconnects} reconnects · '
        f'loop {1e3 * arm.period_p50:.1f} ms, 99 % under {1e3 * arm.period_p99:.1f} ms · '
        f'{arm.clamped} commands cut, {arm.refused} refused'
    )
