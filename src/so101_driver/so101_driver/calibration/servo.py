# SPDX-License-Identifier: Apache-2.0
"""The part of a calibration that the servos keep: read it, write it, and prove that it was taken."""

from collections.abc import Mapping

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.registers import MULTI_TURN_PHASE_BIT, Reg
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError, SERVO_IDS, TICKS_PER_TURN
from so101_driver.calibration.checks import differences, ServoValues
from so101_driver.calibration.homing import reported_after

HAND_MOTION = 200
"""A joint that lies limp or is held by hand moves less than this while the EEPROM is written [ticks]."""

_FIELDS = (
    ('homing_offset', Reg.HOMING_OFFSET),
    ('range_max', Reg.MAX_POSITION_LIMIT),  # before the minimum: 0 and 0 would mean multi-turn
    ('range_min', Reg.MIN_POSITION_LIMIT),
)


def read_servo_values(bus: ServoBus) -> dict[str, ServoValues]:
    """Read offset and limits of all six servos [ticks], by joint name."""
    columns = {field: read_joints(bus, register) for field, register in _FIELDS}
    return {name: ServoValues(**{field: columns[field][name] for field in columns}) for name in JOINT_NAMES}


def read_joints(bus: ServoBus, register: Reg) -> dict[str, int]:
    """Read one register of all six servos, by joint name."""
    values = bus.read_all(register)
    return {name: values[SERVO_IDS[name]] for name in JOINT_NAMES}


def torque_off(bus: ServoBus) -> None:
    """Switch the torque of all six servos off.

    Raises:
        CalibrationError: a servo does not confirm it.
    """
    stiff = bus.write_torque(SERVO_IDS.values(), False)
    if stiff:
        raise CalibrationError(
            f'expected every servo to be limp, but servo {", ".join(map(str, stiff))} did not confirm it; '
            f'switch the arm off and on and try again'
        )


def write_servo_values(bus: ServoBus, calibration: ArmCalibration) -> None:
    """Write offset and limits of all six servos into their EEPROM, with the torque off, and prove it.

    Registers that hold the right value already are left alone, so that this may be repeated after a failure.

    Raises:
        BusError: a servo does not answer, or does not take a value.
        CalibrationError: what the servos hold or report afterwards is not what was written.
    """
    torque_off(bus)
    before = read_servo_values(bus)
    positions = read_joints(bus, Reg.PRESENT_POSITION)
    _single_turn(bus)
    for name in JOINT_NAMES:
        for field, register in _FIELDS:
            wanted = getattr(calibration[name], field)
            if getattr(before[name], field) != wanted:
                bus.write(SERVO_IDS[name], register, wanted)
    wrong = differences(calibration, read_servo_values(bus))
    if wrong:
        raise CalibrationError(
            f'expected the servos to hold what was written, got: {"; ".join(map(str, wrong))}. '
            f'Run calibrate --resume'
        )
    _check_positions(bus, calibration, before, positions)


def _single_turn(bus: ServoBus) -> None:
    """Clear what would make a servo count beyond one turn or run as a wheel."""
    for servo_id, phase in bus.read_all(Reg.PHASE).items():
        if phase & MULTI_TURN_PHASE_BIT:
            bus.write(servo_id, Reg.PHASE, phase & ~MULTI_TURN_PHASE_BIT)
    for servo_id, mode in bus.read_all(Reg.OPERATING_MODE).items():
        if mode:
            bus.write(servo_id, Reg.OPERATING_MODE, 0)


def _check_positions(
    bus: ServoBus,
    calibration: ArmCalibration,
    before: Mapping[str, ServoValues],
    positions: Mapping[str, int],
) -> None:
    half = TICKS_PER_TURN // 2
    for name, found in read_joints(bus, Reg.PRESENT_POSITION).items():
        expected = reported_after(
            positions[name],
            old_offset=before[name].homing_offset,
            new_offset=calibration[name].homing_offset,
        )
        if abs((found - expected + half) % TICKS_PER_TURN - half) > HAND_MOTION:
            raise CalibrationError(
                f'{name}: expected the servo to report about {expected} ticks with its new offset, got '
                f'{found}; hold the arm still, switch it off and on and run calibrate --resume'
            )
