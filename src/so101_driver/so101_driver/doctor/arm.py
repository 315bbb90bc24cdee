# SPDX-License-Identifier: Apache-2.0
"""The checks of `doctor` that talk to an arm. They only read: nothing moves, no torque changes."""

from collections.abc import Mapping
import statistics
import time

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError, ServoTimeout
from so101_driver.bus.readings import BusReading
from so101_driver.bus.registers import Reg
from so101_driver.calibration.calibration import ArmCalibration, MAX_TICK
from so101_driver.calibration.checks import differences, matching, ServoValues
from so101_driver.calibration.servo import read_servo_values
from so101_driver.doctor.checks import Check, Status
from so101_driver.doctor.servos import (
    faults_check,
    firmware_check,
    model_check,
    settings_check,
    temperature_check,
    torque_check,
    voltage_check,
)
from so101_driver.setup.bus_setup import find_servos

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
