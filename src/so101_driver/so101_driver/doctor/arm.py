# SPDX-License-Identifier: Apache-2.0
"""The checks of `doctor` that talk to an arm. They only read: nothing moves, no torque changes."""

from collections.abc import Mapping
import statistics
import time

from so101_contract.config import SERVO_HOT_C, SERVO_WARM_C
from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError, ServoTimeout
from so101_driver.bus.readings import BusReading
from so101_driver.bus.registers import MODEL_STS3215, MULTI_TURN_PHASE_BIT, NO_FAULT, Reg, VOLTAGE_UNIT_V
from so101_driver.calibration.calibration import ArmCalibration, MAX_TICK
from so101_driver.calibration.checks import differences, matching, ServoValues
from so101_driver.calibration.servo import read_servo_values
from so101_driver.doctor.checks import Check, Status
from so101_driver.setup.motors import find_servos

OVER_VOLTAGE_V = 0.4
"""A fresh supply of the 7.4 V type gives up to 8.4 V, its limit register says 8.0 V [V]."""


def model_check(there: Mapping[int, int]) -> Check:
    """Whether all servos are of the model of the SO-101; `there` is servo id -> model number."""
    wrong = {servo_id: model for servo_id, model in there.items() if model != MODEL_STS3215}
    if not wrong:
        return Check('arm.model', Status.OK, f'All servos are of model {MODEL_STS3215} (STS3215).')
    found = ', '.join(f'{servo_id}: {model}' for servo_id, model in wrong.items())
    return Check(
        'arm.model',
        Status.FAIL,
        f'Expected servos of model {MODEL_STS3215} (STS3215), found {found}.',
        'Another device is on this port; choose the port of the SO-101.',
    )


def firmware_check(bus: ServoBus) -> Check:
    """Whether all servos have one firmware."""
    major, minor = bus.read_all(Reg.FIRMWARE_MAJOR_VERSION), bus.read_all(Reg.FIRMWARE_MINOR_VERSION)
    versions = {servo_id: f'{major[servo_id]}.{minor[servo_id]}' for servo_id in bus.ids}
    if len(set(versions.values())) == 1:
        return Check('arm.firmware', Status.OK, f'All servos have firmware {versions[bus.ids[0]]}.')
    found = ', '.join(f'{servo_id}: {version}' for servo_id, version in versions.items())
    return Check(
        'arm.firmware',
        Status.WARN,
        f'The servos have different firmware ({found}) and may behave differently.',
        "Update them with the vendor's FD program.",
    )


def settings_check(bus: ServoBus) -> Check:
    """Whether the servos answer at once and count one turn."""
    delay, phase = bus.read_all(Reg.RETURN_DELAY_TIME), bus.read_all(Reg.PHASE)
    slow = [servo_id for servo_id, value in delay.items() if value]
    turning = [servo_id for servo_id, value in phase.items() if value & MULTI_TURN_PHASE_BIT]
    if turning:
        return Check(
            'arm.settings',
            Status.FAIL,
            f'Servo {_list(turning)} counts many turns, so that its position can leave 0 to {MAX_TICK}.',
            'Run calibrate, or calibrate --to-servos, which clears that.',
        )
    if slow:
        return Check(
            'arm.settings',
            Status.WARN,
            f'Servo {_list(slow)} waits before it answers, which slows the bus down.',
            'The driver switches that off when it starts; setup-motors does for good.',
        )
    return Check('arm.settings', Status.OK, 'The servos answer at once and count one turn.')


def voltage_check(bus: ServoBus, reading: BusReading) -> Check:
    """Whether the supply is the right one for these servos."""
    low, high = bus.read_all(Reg.MIN_VOLTAGE_LIMIT), bus.read_all(Reg.MAX_VOLTAGE_LIMIT)
    volts = {servo.servo_id: servo.voltage_v for servo in reading.servos if servo.known}
    for servo_id, volt in volts.items():
        lowest, highest = low[servo_id] * VOLTAGE_UNIT_V, high[servo_id] * VOLTAGE_UNIT_V
        found = f'Servo {servo_id} takes {lowest:.1f} to {highest:.1f} V and measures {volt:.1f} V.'
        if volt > highest + OVER_VOLTAGE_V:
            return Check(
                'arm.voltage',
                Status.FAIL,
                found,
                'Switch the supply off now: it is the one of the 12 V servos, or of another device.',
            )
        if volt < lowest:
            return Check('arm.voltage', Status.FAIL, found, 'The supply is too weak, or a cable is loose.')
    spread = f'{min(volts.values()):.1f} to {max(volts.values()):.1f} V'
    return Check('arm.voltage', Status.OK, f'The supply measures {spread} at the servos.')


def temperature_check(reading: BusReading) -> Check:
    """How warm the hottest servo is."""
    hottest = max((servo for servo in reading.servos if servo.known), key=lambda servo: servo.temperature_c)
    joint = JOINT_NAMES[hottest.servo_id - 1]
    finding = f'The hottest servo is {joint} at {hottest.temperature_c:.0f} degC.'
    if hottest.temperature_c >= SERVO_HOT_C:
        return Check('arm.temperature', Status.FAIL, finding, 'Switch the arm off and let it cool down.')
    if hottest.temperature_c >= SERVO_WARM_C:
        return Check('arm.temperature', Status.WARN, finding, 'Let it rest; look for a joint that is stuck.')
    return Check('arm.temperature', Status.OK, finding)


def faults_check(reading: BusReading) -> Check:
    """Whether a fault is latched."""
    latched = {servo.servo_id: servo.faults for servo in reading.servos if servo.faults != NO_FAULT}
    if not latched:
        return Check('arm.faults', Status.OK, 'No servo reports a fault.')
    found = ', '.join(f'{JOINT_NAMES[servo_id - 1]}: {fault.sentence}' for servo_id, fault in latched.items())
    return Check(
        'arm.faults',
        Status.FAIL,
        f'A fault is latched ({found}).',
        'Free the joint, then switch the arm off and on.',
    )


def torque_check(bus: ServoBus) -> Check:
    """Whether the arm is limp, as it is when no driver runs."""
    stiff = [servo_id for servo_id, value in bus.read_all(Reg.TORQUE_ENABLE).items() if value]
    if not stiff:
        return Check('arm.torque', Status.OK, 'The arm is limp.')
    return Check(
        'arm.torque',
        Status.WARN,
        f'Servo {_list(stiff)} holds its position although no program of this project runs on the port.',
        'Another program ended without letting go; hold the arm and switch it off and on.',
    )


def _list(ids: list[int]) -> str:
    return ', '.join(map(str, ids))


CYCLES = 200
READ_ATTEMPTS = 10
LOSS_WARN, LOSS_FAIL = 0.005, 0.05
SLOW_CYCLE_S = 0.008
"""At 100 Hz a slower read leaves no time for anything else [s]."""


def check_arm(
    bus: ServoBus, known: Mapping[str, ArmCalibration], arm: str | None = None, *, cycles: int = CYCLES
) -> list[Check]:
    """Examine the arm on an open bus.

    Args:
        bus: the bus.
        known: calibrations of this machine, by arm.
        arm: which of them it should be; None takes whichever the servos hold.
        cycles: how many reads measure the quality of the line.
    """
    checks: list[Check] = []
    try:
        there = bus.read_available(Reg.MODEL_NUMBER)
        checks.append(_answering(bus, there))
        if len(there) == len(bus.ids):
            checks.append(model_check(there))
            checks.append(firmware_check(bus))
            checks.append(settings_check(bus))
            reading = _whole_reading(bus)
            checks.append(voltage_check(bus, reading))
            checks.append(temperature_check(reading))
            checks.append(faults_check(reading))
            checks.append(torque_check(bus))
            checks.append(_calibration(read_servo_values(bus), known, arm))
            checks.append(_line(bus, cycles))
    except BusError as error:
        remedy = 'Run doctor again; if it stays, replug the adapter.'
        checks.append(Check('arm.bus', Status.FAIL, f'{error}', remedy))
    return checks


def _whole_reading(bus: ServoBus) -> BusReading:
    for _ in range(READ_ATTEMPTS):
        reading = bus.cycle_read()
        if all(servo.known for servo in reading.servos):
            return reading
    raise ServoTimeout(reading.missing[0], 'its state', READ_ATTEMPTS)


def _answering(bus: ServoBus, there: Mapping[int, int]) -> Check:
    name = 'arm.servos'
    missing = [servo_id for servo_id in bus.ids if servo_id not in there]
    if not missing:
        return Check(name, Status.OK, f'All {len(bus.ids)} servos answer on {bus.port}.')
    if there:
        joints = ', '.join(f'{servo_id} ({JOINT_NAMES[servo_id - 1]})' for servo_id in missing)
        return Check(
            name,
            Status.FAIL,
            f'No answer from servo {joints}.',
            f'Check the 3-pin cable that leads to servo {missing[0]}, and its ID with setup-motors.',
        )
    elsewhere = {rate: ids for rate, ids in find_servos(bus).items() if rate != bus.baud_rate}
    if elsewhere:
        found = ', '.join(f'{", ".join(map(str, ids))} at {rate} bit/s' for rate, ids in elsewhere.items())
        return Check(
            name,
            Status.FAIL,
            f'No servo answers at {bus.baud_rate} bit/s, but some do at other speeds: {found}.',
            'Run setup-motors.',
        )
    return Check(
        name,
        Status.FAIL,
        f'The adapter {bus.port} is there, but no servo answers.',
        'Switch the power supply on; check the cable to the first servo and the jumpers (both on B).',
    )


def _calibration(
    servos: Mapping[str, ServoValues], known: Mapping[str, ArmCalibration], arm: str | None
) -> Check:
    name = 'arm.calibration'
    owners = matching(known, servos)
    if arm is not None and arm in known and arm not in owners:
        found = differences(known[arm], servos)
        more = f', and {len(found) - 1} more' if len(found) > 1 else ''
        remedy = (
            f'They hold the calibration of {owners[0]}: take that arm, or swap the cables.'
            if owners
            else f'Run calibrate --arm {arm}, or calibrate --arm {arm} --to-servos.'
        )
        return Check(name, Status.FAIL, f'{found[0]}{more}.', remedy)
    if arm is not None and arm not in known:
        return Check(
            name, Status.FAIL, f'There is no calibration of the arm {arm}.', f'Run calibrate --arm {arm}.'
        )
    if owners:
        chosen = arm or owners[0]
        return Check(
            name,
            Status.OK,
            f'The servos hold calibration {known[chosen].calibration_id} of the arm {chosen}.',
        )
    factory = all(value == ServoValues(0, 0, MAX_TICK) for value in servos.values())
    finding = (
        'The servos were never calibrated.'
        if factory
        else f'The servos hold none of the calibrations of this machine ({", ".join(known) or "none"}).'
    )
    return Check(name, Status.FAIL, finding, 'Run calibrate, or calibrate --import-lerobot FILE.')


def _line(bus: ServoBus, cycles: int) -> Check:
    before = bus.counters.snapshot()
    times = []
    for _ in range(cycles):
        begin = time.monotonic()
        bus.cycle_read()
        times.append(time.monotonic() - begin)
    after = bus.counters
    lost = after.lost + after.corrupt - before.lost - before.corrupt
    due = lost + after.received - before.received
    share = lost / due if due else 1.0
    p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
    finding = (
        f'{lost} of {due} answers lost in {cycles} cycles; a cycle takes {1e3 * p50:.1f} ms '
        f'(p50) and {1e3 * p99:.1f} ms (p99).'
    )
    if share > LOSS_FAIL:
        return Check('arm.line', Status.FAIL, finding, 'Replace the 3-pin cables and the USB cable.')
    if share > LOSS_WARN:
        return Check('arm.line', Status.WARN, finding, 'Look for a loose 3-pin cable.')
    if p50 > SLOW_CYCLE_S:
        return Check(
            'arm.line',
            Status.WARN,
            finding,
            'The USB adapter holds answers back: set its latency_timer to 1 ms (doctor --udev shows how).',
        )
    return Check('arm.line', Status.OK, finding)
