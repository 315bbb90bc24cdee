# SPDX-License-Identifier: Apache-2.0
"""What `doctor` asks of each servo: model, firmware, settings, supply, temperature, faults and torque."""

from collections.abc import Mapping

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.readings import BusReading
from so101_driver.bus.registers import MODEL_STS3215, MULTI_TURN_PHASE_BIT, NO_FAULT, Reg, VOLTAGE_UNIT_V
from so101_driver.calibration.calibration import MAX_TICK
from so101_driver.doctor.checks import Check, Status

WARM_C, HOT_C = 55.0, 65.0
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
    if hottest.temperature_c >= HOT_C:
        return Check('arm.temperature', Status.FAIL, finding, 'Switch the arm off and let it cool down.')
    if hottest.temperature_c >= WARM_C:
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
