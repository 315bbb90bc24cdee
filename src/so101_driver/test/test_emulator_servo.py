# SPDX-License-Identifier: Apache-2.0
import math

import pytest

from so101_driver.bus.registers import Reg, ServoError
from so101_driver.emulator.servo import Behaviour, VirtualServo


@pytest.fixture
def servo():
    return VirtualServo(3)


def write(servo, reg, value):
    servo.write_block(reg.address, reg.encode(value))


def read(servo, reg):
    return reg.decode(servo.read_block(reg.address, reg.size))


def test_a_new_servo_has_the_defaults_of_the_vendor(servo):
    for reg in set(Reg) - {Reg.ID, *(reg for reg in Reg if not reg.writable)}:
        assert servo.get(reg) == reg.default, reg
    assert read(servo, Reg.ID) == 3
    assert read(servo, Reg.MODEL_NUMBER) == 777


def test_read_only_registers_ignore_writes(servo):
    write(servo, Reg.MODEL_NUMBER, 1)
    write(servo, Reg.PRESENT_POSITION, 7)
    assert read(servo, Reg.MODEL_NUMBER) == 777
    assert read(servo, Reg.PRESENT_POSITION) == 2048


def test_a_locked_eeprom_write_acts_and_vanishes_at_power_off(servo):
    write(servo, Reg.P_COEFFICIENT, 16)
    assert read(servo, Reg.P_COEFFICIENT) == 16
    servo.power_on()
    assert read(servo, Reg.P_COEFFICIENT) == 32


def test_an_unlocked_eeprom_write_survives_a_power_off(servo):
    write(servo, Reg.LOCK, 0)
    write(servo, Reg.P_COEFFICIENT, 16)
    servo.power_on()
    assert read(servo, Reg.P_COEFFICIENT) == 16
    assert read(servo, Reg.LOCK) == 1


def test_the_torque_limit_is_copied_at_power_on_only(servo):
    write(servo, Reg.LOCK, 0)
    write(servo, Reg.MAX_TORQUE_LIMIT, 500)
    assert read(servo, Reg.TORQUE_LIMIT) == 1000
    servo.power_on()
    assert read(servo, Reg.TORQUE_LIMIT) == 500


def test_a_goal_outside_the_limits_is_clamped_inside_and_kept_raw_in_the_register(servo):
    write(servo, Reg.MIN_POSITION_LIMIT, 1000)
    write(servo, Reg.MAX_POSITION_LIMIT, 3000)
    write(servo, Reg.GOAL_POSITION, 3500)
    assert read(servo, Reg.GOAL_POSITION) == 3500
    assert servo.target_position == 3000
    assert servo.goal == pytest.approx(3000)


def test_a_goal_switches_the_torque_on(servo):
    write(servo, Reg.GOAL_POSITION, 2000)
    assert read(servo, Reg.TORQUE_ENABLE) == 1
    assert servo.torque_on


def test_a_goal_leaves_the_torque_alone_when_the_firmware_is_said_to():
    servo = VirtualServo(1, behaviour=Behaviour(goal_enables_torque=False))
    write(servo, Reg.GOAL_POSITION, 2000)
    assert not servo.torque_on


def test_power_on_switches_the_torque_off(servo):
    write(servo, Reg.GOAL_POSITION, 2000)
    servo.power_on()
    assert not servo.torque_on


@pytest.mark.parametrize('offset', [-2047, -1000, 0, 1, 2047])
def test_the_present_position_is_the_encoder_less_the_offset_on_one_turn(servo, offset):
    write(servo, Reg.HOMING_OFFSET, offset)
    assert read(servo, Reg.PRESENT_POSITION) == (2048 - offset) % 4096


@pytest.mark.parametrize('encoder', [0, 1, 700, 2048, 4095, 5000])
def test_recentring_makes_the_present_position_2048(encoder):
    servo = VirtualServo(1, encoder)
    write(servo, Reg.TORQUE_ENABLE, 128)
    assert read(servo, Reg.PRESENT_POSITION) == pytest.approx(2048, abs=1)
    assert read(servo, Reg.TORQUE_ENABLE) == 0
    servo.power_on()
    assert read(servo, Reg.PRESENT_POSITION) == pytest.approx(2048, abs=1)


def test_turns_are_counted_only_with_the_phase_bit_and_forgotten_at_power_off(servo):
    servo.moved(6000.0, 0.0, 0.0, 0.01)
    assert read(servo, Reg.PRESENT_POSITION) == 6000 - 4096
    servo.set(Reg.PHASE, Reg.PHASE.default | 0x10)
    assert read(servo, Reg.PRESENT_POSITION) == 6000
    servo.moved(-300.0, 0.0, 0.0, 0.01)
    assert read(servo, Reg.PRESENT_POSITION) == -300
    servo.power_on()
    assert read(servo, Reg.PRESENT_POSITION) == 4096 - 300


def test_a_goal_is_pursued_within_the_turn_and_never_across_the_seam(servo):
    servo.moved(4000.0, 0.0, 0.0, 0.01)
    write(servo, Reg.GOAL_POSITION, 100)
    assert servo.goal == pytest.approx(100)


def test_reg_write_waits_for_action(servo):
    servo.reg_write(Reg.GOAL_POSITION.address, Reg.GOAL_POSITION.encode(1500))
    assert read(servo, Reg.REG_WRITE_FLAG) == 1
    assert not servo.torque_on
    servo.action()
    assert read(servo, Reg.REG_WRITE_FLAG) == 0
    assert read(servo, Reg.GOAL_POSITION) == 1500
    assert servo.torque_on


def test_an_overload_trips_after_its_time_and_leaves_the_protective_torque(servo):
    write(servo, Reg.GOAL_POSITION, 2000)
    servo.moved(2048.0, 0.0, 0.9, 1.9)
    assert servo.latched == 0
    servo.moved(2048.0, 0.0, 0.9, 0.2)
    assert servo.latched == ServoError.OVERLOAD
    assert servo.duty_limit == pytest.approx(0.2)
    servo.moved(2048.0, 0.0, 0.0, 10.0)
    assert read(servo, Reg.STATUS) == 0x20
    servo.power_on()
    assert read(servo, Reg.STATUS) == 0


def test_a_short_peak_of_load_does_not_trip_the_overload(servo):
    for _ in range(5):
        servo.moved(2048.0, 0.0, 0.9, 1.9)
        servo.moved(2048.0, 0.0, 0.1, 0.1)
    assert servo.latched == 0


def test_heat_cuts_the_torque_where_the_unloading_mask_says_so(servo):
    write(servo, Reg.GOAL_POSITION, 2000)
    servo.temperature_c = 71.0
    servo.check_environment()
    assert servo.latched == ServoError.TEMPERATURE
    assert not servo.torque_on
    write(servo, Reg.UNLOADING_CONDITION, 0)
    assert servo.torque_on


@pytest.mark.parametrize('voltage_v', [3.5, 12.0], ids=['sag', 'wrong supply'])
def test_a_wrong_voltage_is_latched_but_cuts_nothing_by_default(servo, voltage_v):
    write(servo, Reg.GOAL_POSITION, 2000)
    servo.voltage_v = voltage_v
    servo.check_environment()
    assert servo.latched == ServoError.VOLTAGE
    assert servo.torque_on


def test_too_much_current_for_too_long_is_a_fault(servo):
    write(servo, Reg.PROTECTION_CURRENT, 250)
    servo.moved(2048.0, 0.0, 0.75, 2.1)
    assert servo.latched == ServoError.CURRENT


def test_signed_state_is_written_as_sign_and_magnitude(servo):
    servo.moved(2048.0, -250.0, -0.4, 0.01)
    assert servo.read_block(58, 2) == bytes((250, 0x80))
    assert servo.read_block(60, 2) == (400 | 1 << 10).to_bytes(2, 'little')


def test_the_unit_of_speed_depends_on_the_phase(servo):
    write(servo, Reg.GOAL_VELOCITY, 60)
    assert servo.speed_limit == 60
    servo.set(Reg.PHASE, Reg.PHASE.default & ~0x04)
    assert servo.speed_limit == 3000
    write(servo, Reg.GOAL_VELOCITY, 0)
    assert math.isinf(servo.speed_limit)
    servo.set(Reg.PHASE, 0)
    assert servo.speed_limit == 0


def test_velocity_mode_turns_on_for_ever(servo):
    servo.set(Reg.OPERATING_MODE, 1)
    write(servo, Reg.GOAL_VELOCITY, -300)
    assert servo.goal < servo.encoder - 1e5
    assert servo.speed_limit == 300
    write(servo, Reg.GOAL_VELOCITY, 0)
    assert servo.goal == servo.encoder
