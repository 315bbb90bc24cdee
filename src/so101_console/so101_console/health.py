# SPDX-License-Identifier: Apache-2.0
"""The doctor on the page: what can be told of the running graph without touching it, and what to do about it.

`./so101 doctor` asks the bus itself and needs the arm's port to be free; this reads only what the nodes say anyway.
"""

from dataclasses import dataclass, field
import math

from so101_contract.thresholds import SERVO_HOT_C, SERVO_WARM_C
from so101_driver.doctor.checks import Check, Status

SILENT_S = 2.0
LOSSES_WARN, LOSSES_FAIL = 0.01, 0.10
MISSED_WARN = 0.05
SLOW_CAMERA_HZ = 8.0
OLD_PICTURE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class ArmFacts:
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
class Facts:
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

    arm: ArmFacts | None = None
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


def examine(facts: Facts) -> list[Check]:
    """Return one check for each part, the worst first."""
    checks = [*_arm(facts.arm), _camera(facts), _session(facts), _policy(facts), _learner(facts)]
    for name, sentence, is_error in facts.diagnostics:
        status = Status.FAIL if is_error else Status.WARN
        checks.append(Check(name.removeprefix('so101: ').replace('_', ' '), status, sentence))
    order = [Status.FAIL, Status.WARN, Status.SKIP, Status.OK]
    return sorted(checks, key=lambda check: order.index(check.status))


def _arm(arm: ArmFacts | None) -> list[Check]:
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


def _heat(arm: ArmFacts) -> Check:
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


def _bus(arm: ArmFacts) -> Check:
    finding = f'{arm.lost:.1%} of the bus requests of the last seconds were lost or damaged.'
    remedy = 'Push the plugs of the servo cables home, and use another USB cable and port.'
    if arm.lost >= LOSSES_FAIL:
        return Check('bus', Status.FAIL, finding, remedy)
    return (
        Check('bus', Status.WARN, finding, remedy)
        if arm.lost >= LOSSES_WARN
        else Check('bus', Status.OK, finding)
    )


def _loop(arm: ArmFacts) -> Check:
    finding = f'{arm.missed:.1%} of the control cycles of the last seconds were late.'
    if arm.missed < MISSED_WARN:
        return Check('driver', Status.OK, finding)
    return Check(
        'driver', Status.WARN, finding, 'This machine is busy: end other programs, or learn on another one.'
    )


def _camera(facts: Facts) -> Check:
    remedy = 'Look at its plug, and that no other program uses it; ./so101 doctor tests cameras.'
    if facts.camera_problem:
        return Check('camera', Status.FAIL, facts.camera_problem, remedy)
    if facts.camera_age_s is None:
        return Check('camera', Status.WARN, 'There has been no picture yet.', remedy)
    if facts.camera_age_s > OLD_PICTURE_S:
        return Check('camera', Status.FAIL, f'The newest picture is {facts.camera_age_s:.1f} s old.', remedy)
    finding = f'{facts.camera_hz:.0f} pictures come in a second.'
    return Check('camera', Status.WARN if facts.camera_hz < SLOW_CAMERA_HZ else Status.OK, finding)


def _session(facts: Facts) -> Check:
    if not facts.session:
        remedy = 'Start it, as ./so101 up does, to record episodes and to drive from this page.'
        return Check('session', Status.WARN, 'No session is running.', remedy)
    finding = (
        f'It is {facts.session}; its clock is less than {facts.jitter_p99_ms:.0f} ms off in 99 of 100 steps.'
    )
    if facts.jitter_p99_ms <= 20.0:
        return Check('session', Status.OK, finding)
    return Check(
        'session', Status.WARN, finding, 'This machine is busy: end other programs, or learn on another one.'
    )


def _policy(facts: Facts) -> Check:
    if facts.policy is None:
        return Check('policy', Status.SKIP, 'No policy is running: a person drives.')
    if facts.policy_holds:
        return Check(
            'policy', Status.WARN, f'It holds: {facts.policy_holds}', 'It acts again once that is mended.'
        )
    latency = f' and answers within {facts.policy_ms:.0f} ms' if math.isfinite(facts.policy_ms) else ''
    return Check('policy', Status.OK, f'“{facts.policy}” is in use{latency}.')


def _learner(facts: Facts) -> Check:
    if not facts.learner:
        return Check('learner', Status.SKIP, 'No learner is running: nothing is learned.')
    finding = f'It is {facts.learner}. {facts.learner_reason}'.strip()
    if facts.learner == 'failed':
        return Check('learner', Status.FAIL, finding, 'Read what learner_node printed, then start it again.')
    return Check('learner', Status.OK, finding)
