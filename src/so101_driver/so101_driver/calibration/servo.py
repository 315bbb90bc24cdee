# SPDX-License-Identifier: Apache-2.0
"""The part of a calibration that the servos keep: work it out, read it, write it, and prove that it was taken.

A servo reports (encoder - offset) modulo one turn. With the middle of the travel at tick 2047 the seam is as far from
both end stops as it can be, whatever pose the arm was calibrated from.
"""

from collections.abc import Mapping

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.registers import MULTI_TURN_PHASE_BIT, Reg, TICKS_PER_TURN
from so101_driver.calibration.calibration import (
    ArmCalibration,
    CalibrationError,
    JointCalibration,
    MAX_HOMING_OFFSET,
    MAX_TICK,
    SERVO_IDS,
)
from so101_driver.calibration.checks import differences, ServoValues

MID_TICK = MAX_TICK // 2
"""Where LeRobot, too, puts the middle."""


def swept_joint(name: str, low: int, high: int, *, old_offset: int, drive_mode: int = 0) -> JointCalibration:
    """Calibrate a joint that was moved from stop to stop.

    Args:
        name: of the joint.
        low: lowest position that the servo reported, counted on through the seam [ticks].
        high: highest position, counted likewise [ticks].
        old_offset: homing offset of the servo while it reported those [ticks].
        drive_mode: 1 when the gripper closes towards higher ticks.

    Raises:
        CalibrationError: the joint was not moved, or moved by a turn or more.
    """
    if not 0 < high - low <= MAX_TICK - 2:
        raise CalibrationError(
            f'{name}: expected a travel of less than one turn, got {high - low} ticks; '
            f'check that the horn is tight, and move the joint from stop to stop'
        )
    offset = _offset_for((low + high) // 2, old_offset)
    moved = old_offset - offset
    new_low = (low + moved) % TICKS_PER_TURN
    return JointCalibration(SERVO_IDS[name], drive_mode, offset, new_low, new_low + high - low)


def full_turn_joint(name: str, zero: int, *, old_offset: int) -> JointCalibration:
    """Calibrate a joint without stops: `zero` [ticks] is what its servo reports in the model's zero pose."""
    return JointCalibration(SERVO_IDS[name], 0, _offset_for(zero, old_offset), 0, MAX_TICK)


def reported_after(tick: int, *, old_offset: int, new_offset: int) -> int:
    """Position that a servo at `tick` reports once its offset is `new_offset` [ticks, 0..4095]."""
    return (tick + old_offset - new_offset) % TICKS_PER_TURN


def _offset_for(middle: int, old_offset: int) -> int:
    half = TICKS_PER_TURN // 2
    offset = (middle + old_offset - MID_TICK + half) % TICKS_PER_TURN - half
    # -2048 does not fit into the register; one tick beside is as good a middle.
    return max(offset, -MAX_HOMING_OFFSET)


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
