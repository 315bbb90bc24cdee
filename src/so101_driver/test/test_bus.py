# SPDX-License-Identifier: Apache-2.0
import math

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from so101_driver.bus.bus import ServoBus
from so101_driver.bus.config import BusConfig
from so101_driver.bus.errors import HandshakeError, PortError, ServoTimeout, WriteNotTaken
from so101_driver.bus.registers import Reg, ServoError
from so101_driver.emulator.arm import VirtualArm
from so101_driver.emulator.servo import Behaviour


def test_the_constructor_opens_nothing():
    bus = ServoBus('/dev/does-not-exist')
    assert not bus.is_open
    bus.close()


@pytest.mark.parametrize('ids', [(), (1, 1), (1, 254), (-1,)], ids=str)
def test_impossible_ids_are_refused(ids):
    with pytest.raises(ValueError, match='Servo ids are different numbers'):
        ServoBus('/dev/does-not-exist', ids)


@pytest.mark.parametrize(
    'change',
    [
        {'timeout_s': 0.0},
        {'min_timeout_s': 1.0},
        {'retries': -1},
        {'single_timeout_s': math.nan},
        {'late_window_s': -1},
    ],
    ids=str,
)
def test_impossible_times_are_refused(change):
    with pytest.raises(ValueError, match='got'):
        BusConfig(**change)


def test_a_missing_port_is_named_with_the_ports_that_exist():
    with pytest.raises(PortError, match=r'/dev/nothing does not exist; serial ports here'):
        ServoBus('/dev/nothing').open()


def test_a_file_that_is_no_serial_port_is_refused(tmp_path):
    (tmp_path / 'file').write_text('no port')
    with pytest.raises(PortError, match='cannot be opened as a serial port'):
        ServoBus(str(tmp_path / 'file')).open()


def test_an_unknown_baud_rate_is_refused_with_those_that_exist(virtual_arm):
    with pytest.raises(PortError, match=r'76800.*got 9600'):
        ServoBus(virtual_arm.port, baud_rate=9600).open()


def test_a_port_has_one_owner(virtual_arm, bus):
    with pytest.raises(PortError, match='used by another program'):
        ServoBus(virtual_arm.port).open()
    assert bus.cycle_read().ok
    bus.close()
    with ServoBus(virtual_arm.port) as second:
        assert second.cycle_read().ok


def test_a_closed_bus_says_so():
    with pytest.raises(PortError, match=r'not open; call open\(\)'):
        ServoBus('/dev/nothing').cycle_read()


def test_one_transaction_brings_the_whole_state(virtual_arm, bus):
    virtual_arm.set_load(2, -0.3)
    virtual_arm.servo(2).write_block(42, Reg.GOAL_POSITION.encode(2048))
    virtual_arm.advance(1.0)
    virtual_arm.set_environment(2, voltage_v=7.1, temperature_c=41.0)
    before = bus.counters.sent
    reading = bus.cycle_read()
    assert bus.counters.sent == before + 1
    assert reading.ok
    assert reading.missing == ()
    assert [servo.servo_id for servo in reading.servos] == [1, 2, 3, 4, 5, 6]
    servo = reading.servo(2)
    assert servo.position_ticks == pytest.approx(2018, abs=2)
    assert servo.velocity_ticks_s == 0
    assert servo.load == pytest.approx(0.3, abs=0.01)
    assert servo.voltage_v == pytest.approx(7.1)
    assert servo.temperature_c == 41.0
    assert servo.current_a == pytest.approx(0.72, abs=0.03)
    assert servo.faults == ServoError(0)
    assert servo.age_s == 0.0
    assert max(servo.age_s for servo in reading.servos) == 0.0


def test_faults_of_one_servo_are_seen_and_cost_nothing(virtual_arm, bus):
    virtual_arm.servo(6).latched = ServoError.OVERLOAD
    virtual_arm.set_environment(3, temperature_c=75.0)
    reading = bus.cycle_read()
    assert reading.ok
    assert reading.servo(6).error == reading.servo(6).status == ServoError.OVERLOAD
    assert reading.servo(3).faults == ServoError.TEMPERATURE
    assert not reading.servo(1).faults


def test_negative_speed_and_load_keep_their_sign(virtual_arm, bus):
    with virtual_arm.lock:
        virtual_arm._auto_step = False
        virtual_arm.servo(1).moved(2048.0, -321.0, -0.25, 0.0)
    servo = bus.cycle_read().servo(1)
    assert servo.velocity_ticks_s == -321
    assert servo.load == -0.25
    assert servo.moving


def test_F4_positions_outside_one_turn_keep_their_sign_and_wrap_to_the_same_angle(virtual_arm, bus):
    servo = virtual_arm.servo(5)
    servo.set(Reg.PHASE, Reg.PHASE.default | 0x10)
    for encoder in (-100, 4195, -20_000, 28_672):
        virtual_arm.set_position(5, encoder)
        reading = bus.cycle_read().servo(5)
        assert reading.position_ticks == encoder
        assert reading.wrapped_ticks == encoder % 4096
        assert bus.read(5, Reg.PRESENT_POSITION) == encoder


@pytest.mark.parametrize('ticks', [-1, 4096, 32868, -32767])
def test_F4_goals_outside_one_turn_are_refused_and_none_is_sent(virtual_arm, bus, ticks):
    with pytest.raises(ValueError, match=rf'0\.\.4095 ticks, got {ticks} for servo 2'):
        bus.write_goals({1: 2000, 2: ticks})
    bus.cycle_read()
    assert virtual_arm.log.events() == []


def test_goals_of_unknown_servos_are_refused(bus):
    with pytest.raises(ValueError, match='got one for 9'):
        bus.write_goals({9: 2000})


def test_goals_reach_all_servos_in_one_write(virtual_arm, bus, wait_until):
    goals = {servo_id: 1800 + 100 * servo_id for servo_id in bus.ids}
    bus.write_goals(goals)
    wait_until(
        lambda: {servo.servo_id: servo.position_ticks for servo in bus.cycle_read().servos} == goals,
        'goals reached',
    )
    times = {event.time_s for event in virtual_arm.log.events(Reg.GOAL_POSITION)}
    assert len(virtual_arm.log.events(Reg.GOAL_POSITION)) == 6
    assert max(times) - min(times) < 0.1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_writable_register_reads_back_what_was_written(shared_bus, data):
    # TORQUE_ENABLE and GOAL_POSITION act on each other, LOCK is written around EEPROM registers
    special = {
        Reg.ID,
        Reg.BAUD_RATE,
        Reg.TORQUE_ENABLE,
        Reg.LOCK,
        Reg.RESPONSE_STATUS_LEVEL,
        Reg.RETURN_DELAY_TIME,
    }
    register = data.draw(st.sampled_from([reg for reg in Reg if reg.writable and reg not in special]))
    value = data.draw(st.integers(register.minimum, register.maximum))
    shared_bus.write(4, register, value, persist=False)
    assert shared_bus.read(4, register) == value


@pytest.fixture(scope='module')
def shared_bus():
    with VirtualArm(pacing=False) as arm, ServoBus(arm.port) as bus:
        yield bus


def test_eeprom_writes_survive_a_power_off_and_lock_the_memory_again(virtual_arm, bus):
    bus.write(3, Reg.HOMING_OFFSET, -1234)
    bus.write(3, Reg.P_COEFFICIENT, 16, persist=False)
    virtual_arm.power_cycle()
    assert bus.read(3, Reg.HOMING_OFFSET) == -1234
    assert bus.read(3, Reg.P_COEFFICIENT) == 32
    assert bus.read(3, Reg.LOCK) == 1


def test_the_eeprom_is_locked_again_when_the_write_fails(virtual_arm, bus):
    def fail():
        with bus.unlocked(2):
            assert virtual_arm.servo(2).get(Reg.LOCK) == 0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert virtual_arm.servo(2).get(Reg.LOCK) == 1


def test_a_write_that_the_servo_does_not_take_is_noticed(bus):
    with pytest.raises(WriteNotTaken, match='TORQUE_ENABLE of servo 1 was set to 128 and reads back 0'):
        bus.write(1, Reg.TORQUE_ENABLE, 128)


def test_an_unacknowledged_write_is_verified_by_reading(virtual_arm, bus):
    virtual_arm.servo(1).set(Reg.RESPONSE_STATUS_LEVEL, 0)
    bus.write(1, Reg.ACCELERATION, 50)
    assert virtual_arm.servo(1).get(Reg.ACCELERATION) == 50


@pytest.mark.parametrize('register', [Reg.PRESENT_POSITION, Reg.MODEL_NUMBER, Reg.ID, Reg.BAUD_RATE])
def test_registers_that_write_cannot_set_are_refused(virtual_arm, bus, register):
    with pytest.raises(ValueError, match=register.name):
        bus.write(1, register, 1)
    assert virtual_arm.log.events() == []


def test_a_mute_servo_is_named_in_the_time_out(virtual_arm, bus):
    virtual_arm.faults.mute([4])
    with pytest.raises(
        ServoTimeout, match=r'Servo 4 gave no answer for P_COEFFICIENT in 6 attempt'
    ) as caught:
        bus.read(4, Reg.P_COEFFICIENT)
    assert caught.value.servo_id == 4
    with pytest.raises(ServoTimeout, match='Servo 4'):
        bus.read_all(Reg.P_COEFFICIENT)
    assert set(bus.read_available(Reg.P_COEFFICIENT)) == {1, 2, 3, 5, 6}


def test_scan_finds_the_servos_and_marks_two_with_one_id():
    with VirtualArm(ids=[2, 5, 7, 7], positions=[2048, 2048, 1, 4094], pacing=False) as arm:
        arm.servos[2].set(Reg.MODEL_NUMBER, 0x00FF)
        arm.servos[3].set(Reg.MODEL_NUMBER, 0x0102)
        with ServoBus(arm.port) as bus:
            assert bus.scan(range(9), timeout_s=0.4) == {2: 777, 5: 777, 7: None}
            assert bus.broadcast_ping(wait_s=1.0) == (2, 5, 7)


def test_ping_gives_the_model_and_keeps_the_faults(virtual_arm, bus):
    virtual_arm.servo(2).latched = ServoError.OVERLOAD | ServoError.VOLTAGE
    assert bus.ping(2) == 777
    assert bus.errors[2].sentence == 'voltage, overload'


def test_the_torque_limit_goes_into_both_registers_and_spares_the_memory_cell(virtual_arm, bus):
    bus.write_torque_limit({6: 0.5, 1: 1.0})
    servo = virtual_arm.servo(6)
    assert (
        servo.get(Reg.TORQUE_LIMIT)
        == servo.get(Reg.MAX_TORQUE_LIMIT)
        == servo.get_stored(Reg.MAX_TORQUE_LIMIT)
        == 500
    )
    virtual_arm.log.clear()
    bus.write_torque_limit({6: 0.5})
    assert virtual_arm.log.events(Reg.MAX_TORQUE_LIMIT) == []
    with pytest.raises(ValueError, match=r'0\.\.1, got 500 for servo 6'):
        bus.write_torque_limit({6: 500})


def test_torque_is_switched_and_confirmed(virtual_arm, bus):
    assert bus.write_torque((1, 2, 3), True) == ()
    assert [servo.torque_on for servo in virtual_arm.servos] == [True, True, True, False, False, False]
    virtual_arm.faults.mute([2])
    assert bus.write_torque(bus.ids, False) == (2,)
    virtual_arm.faults.mute([])
    assert [servo.torque_on for servo in virtual_arm.servos] == [False, True, False, False, False, False]


def test_close_switches_the_torque_off_and_may_be_called_again(virtual_arm, bus):
    bus.write_goals(dict.fromkeys(bus.ids, 2100))
    bus.close()
    bus.close()
    assert not any(servo.torque_on for servo in virtual_arm.servos)
    assert not bus.is_open


def test_close_can_leave_the_torque_on(virtual_arm, bus, wait_until):
    bus.write_torque(bus.ids, True)
    bus.close(torque_off=False)
    assert all(servo.torque_on for servo in virtual_arm.servos)


def test_close_also_releases_servos_that_nobody_expects(virtual_arm):
    with ServoBus(virtual_arm.port, ids=(1, 2)):
        virtual_arm.servo(5).write_block(40, b'\x01')
    assert not virtual_arm.servo(5).torque_on


def test_an_exception_in_the_with_block_still_releases_the_arm(virtual_arm):
    def interrupted():
        with ServoBus(virtual_arm.port) as bus:
            assert bus.write_torque(bus.ids, True) == ()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(servo.torque_on for servo in virtual_arm.servos)


def test_A12_one_faulty_and_one_mute_servo_do_not_keep_the_others_from_being_released(virtual_arm, bus):
    bus.write_torque(bus.ids, True)
    virtual_arm.servo(5).latched = ServoError.OVERLOAD
    virtual_arm.faults.mute([4])
    assert bus.release() == (4,)
    virtual_arm.faults.mute([])
    assert [servo.servo_id for servo in virtual_arm.servos if servo.get(Reg.TORQUE_ENABLE)] == [4]


def test_A12_closing_an_unplugged_bus_raises_nothing(virtual_arm, bus):
    virtual_arm.unplug()
    assert bus.release() == bus.ids
    bus.close()


def test_handshake_identifies_every_servo(virtual_arm, bus):
    virtual_arm.servo(6).latched = ServoError.OVERLOAD
    identities = bus.handshake()
    assert [identity.servo_id for identity in identities] == [1, 2, 3, 4, 5, 6]
    assert {identity.firmware for identity in identities} == {(3, 10)}
    assert identities[0].voltage_v == pytest.approx(7.4)
    assert identities[5].faults == ServoError.OVERLOAD


def test_handshake_without_power_asks_for_the_supply(virtual_arm, bus):
    virtual_arm.power(False)
    with pytest.raises(HandshakeError, match=r'No servo answers on .*power supply'):
        bus.handshake()


def test_handshake_names_missing_servos_and_the_cable(virtual_arm, bus):
    virtual_arm.faults.mute([3, 4])
    with pytest.raises(
        HandshakeError, match='no answer from 3, 4: check the 3-pin cable that leads to servo 3'
    ):
        bus.handshake()


def test_handshake_lists_every_problem_at_once(virtual_arm, bus):
    virtual_arm.servo(1).set(Reg.MODEL_NUMBER, 2825)
    virtual_arm.servo(2).set(Reg.FIRMWARE_MINOR_VERSION, 9)
    virtual_arm.set_environment(3, voltage_v=12.1)
    virtual_arm.set_environment(4, voltage_v=3.2)
    with pytest.raises(HandshakeError) as caught:
        bus.handshake()
    text = str(caught.value)
    assert 'Servo 1 should be an STS3215 (777), its model number is 2825' in text
    assert 'one firmware' in text
    assert '2: 3.9' in text
    assert 'Servo 3 takes 4.0 to 8.0 V and measures 12.1 V: switch the supply off' in text
    assert 'Servo 4 takes 4.0 to 8.0 V and measures 3.2 V: the supply is too weak' in text
    assert len(caught.value.problems) == 4


def test_a_fresh_supply_of_8_4_volt_is_accepted(virtual_arm, bus):
    virtual_arm.set_environment(1, voltage_v=8.4)
    assert bus.handshake()


def test_P1_handshake_survives_a_bad_line(virtual_arm, bus):
    virtual_arm.faults.set_rates(drop=0.07, corrupt=0.07, truncate=0.06)
    assert len(bus.handshake()) == 6


def test_goals_do_not_enable_where_the_firmware_does_not():
    with (
        VirtualArm(pacing=False, behaviour=Behaviour(goal_enables_torque=False)) as arm,
        ServoBus(arm.port) as bus,
    ):
        bus.write_goals({1: 2000})
        bus.cycle_read()
        assert not arm.servo(1).torque_on
