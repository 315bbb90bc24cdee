# SPDX-License-Identifier: Apache-2.0
"""The virtual arm on its pseudo-terminal, spoken to by the vendor's SDK."""

import os
import time

import pytest
import scservo_sdk
from scservo_sdk import COMM_RX_TIMEOUT, COMM_SUCCESS
import serial

from so101_driver.bus import protocol
from so101_driver.bus.registers import Reg
from so101_driver.emulator.arm import VirtualArm


class PatientPort(scservo_sdk.PortHandler):
    """Waits longer than the SDK's 34 ms, which a busy machine can miss."""

    def setPacketTimeout(self, packet_length):
        super().setPacketTimeout(packet_length)
        self.packet_timeout += 200.0


@pytest.fixture
def sdk(virtual_arm):
    port = PatientPort(virtual_arm.port)
    port.setBaudRate(1_000_000)
    yield port, scservo_sdk.PacketHandler(0)
    port.closePort()


def exchange(port, request, size, timeout=30.0, baud=1_000_000):
    with serial.Serial(port, baud, timeout=timeout) as line:
        line.write(request)
        return line.read(size)


def test_the_sdk_pings_every_servo(sdk):
    port, handler = sdk
    for servo_id in range(1, 7):
        assert handler.ping(port, servo_id) == (777, COMM_SUCCESS, 0)
    assert handler.ping(port, 7)[1] == COMM_RX_TIMEOUT


def test_the_sdk_reads_and_writes(sdk, virtual_arm):
    port, handler = sdk
    assert handler.read2ByteTxRx(port, 2, 56) == (2048, COMM_SUCCESS, 0)
    assert handler.write1ByteTxRx(port, 2, 21, 16) == (COMM_SUCCESS, 0)
    assert handler.read1ByteTxRx(port, 2, 21) == (16, COMM_SUCCESS, 0)
    assert virtual_arm.servo(2).get(Reg.P_COEFFICIENT) == 16


def test_the_sdk_reads_all_servos_at_once(sdk):
    port, handler = sdk
    group = scservo_sdk.GroupSyncRead(port, handler, 56, 15)
    for servo_id in range(1, 7):
        group.addParam(servo_id)
    assert group.txRxPacket() == COMM_SUCCESS
    assert [group.getData(servo_id, 56, 2) for servo_id in range(1, 7)] == [2048] * 6
    assert [group.getData(servo_id, 62, 1) for servo_id in range(1, 7)] == [74] * 6


def test_the_sdk_moves_all_servos_at_once(sdk, virtual_arm, wait_until):
    port, handler = sdk
    group = scservo_sdk.GroupSyncWrite(port, handler, 42, 2)
    for servo_id in range(1, 7):
        goal = 2000 + 50 * servo_id
        group.addParam(servo_id, [goal & 0xFF, goal >> 8])
    assert group.txPacket() == COMM_SUCCESS
    wait_until(lambda: virtual_arm.servo(6).present_position == 2300, 'servo 6 arrives')
    wait_until(lambda: virtual_arm.servo(1).present_position == 2050, 'servo 1 arrives')


def test_the_sdk_leaves_a_reg_write_until_its_action(sdk, virtual_arm):
    port, handler = sdk
    assert handler.regWriteTxRx(port, 4, 42, 2, [0x10, 0x04])[0] == COMM_SUCCESS
    assert virtual_arm.servo(4).get(Reg.GOAL_POSITION) == 0
    handler.action(port, scservo_sdk.BROADCAST_ID)
    assert handler.read2ByteTxRx(port, 4, 42)[0] == 0x0410


def test_a_fault_is_in_the_error_byte_of_every_answer(sdk, virtual_arm):
    port, handler = sdk
    virtual_arm.set_environment(5, temperature_c=80.0)
    assert handler.ping(port, 5)[2] == 4
    assert handler.read2ByteTxRx(port, 5, 56)[2] == 4
    assert handler.write1ByteTxRx(port, 5, 40, 0)[1] == 4
    assert handler.read1ByteTxRx(port, 5, 65) == (4, COMM_SUCCESS, 4)
    virtual_arm.set_environment(5, temperature_c=30.0)
    assert handler.ping(port, 5)[2] == 4
    virtual_arm.power_cycle([5])
    assert handler.ping(port, 5)[2] == 0


def test_a_new_id_is_acknowledged_under_the_old_one(virtual_arm):
    answer = exchange(virtual_arm.port, protocol.write(6, Reg.ID.address, b'\x09'), 6)
    assert protocol.parse(answer).servo_id == 6
    assert protocol.parse(exchange(virtual_arm.port, protocol.ping(9), 6)).servo_id == 9
    assert exchange(virtual_arm.port, protocol.ping(6), 6, timeout=0.1) == b''


def test_broadcast_writes_reach_all_and_are_not_answered(virtual_arm):
    request = protocol.write(0xFE, Reg.TORQUE_ENABLE.address, b'\x01')
    assert exchange(virtual_arm.port, request, 6, timeout=0.1) == b''
    assert all(servo.torque_on for servo in virtual_arm.servos)


def test_a_broadcast_ping_is_answered_by_all_in_the_order_of_their_ids(virtual_arm):
    stream = protocol.FrameStream()
    answers = stream.feed(exchange(virtual_arm.port, protocol.ping(0xFE), 36))
    assert [answer.servo_id for answer in answers] == [1, 2, 3, 4, 5, 6]


def test_status_level_zero_answers_only_ping_and_read(virtual_arm):
    virtual_arm.servo(1).set(Reg.RESPONSE_STATUS_LEVEL, 0)
    port = virtual_arm.port
    assert exchange(port, protocol.write(1, 40, b'\x01'), 6, timeout=0.1) == b''
    assert virtual_arm.servo(1).torque_on
    assert protocol.parse(exchange(port, protocol.read(1, 40, 1), 7)).payload == b'\x01'


def test_a_line_of_another_baud_rate_is_not_heard(virtual_arm):
    assert exchange(virtual_arm.port, protocol.ping(1), 6, timeout=0.1, baud=115_200) == b''


@pytest.mark.parametrize(
    ('code', 'baud'), [(1, 500_000), (2, 250_000), (3, 128_000), (5, 76_800), (7, 38_400)]
)
def test_a_servo_follows_its_baud_register(virtual_arm, code, baud):
    exchange(virtual_arm.port, protocol.write(1, Reg.BAUD_RATE.address, bytes((code,))), 6)
    assert len(exchange(virtual_arm.port, protocol.ping(1), 6, baud=baud)) == 6
    assert exchange(virtual_arm.port, protocol.ping(1), 6, timeout=0.05) == b''


def test_two_servos_with_one_id_spoil_each_others_answers():
    with VirtualArm(ids=[1, 1], positions=[1000, 3000], pacing=False) as arm:
        answer = exchange(arm.port, protocol.read(1, 56, 2), 8)
    with pytest.raises(protocol.CorruptAnswer):
        protocol.parse(answer)


def test_the_wire_takes_its_time():
    with VirtualArm(pacing=True) as arm:
        for servo in arm.servos:
            servo.set(Reg.RETURN_DELAY_TIME, 250)
        with serial.Serial(arm.port, 1_000_000, timeout=30.0) as line:
            begin = time.monotonic()
            line.write(protocol.sync_read(56, 15, range(1, 7)))
            assert len(line.read(126)) == 126
            elapsed = time.monotonic() - begin
    assert elapsed >= 140 * 10e-6 + 6 * 500e-6


def test_unplugging_removes_the_port_and_ends_its_users(virtual_arm):
    with serial.Serial(virtual_arm.port, 1_000_000, timeout=0.2) as line:
        virtual_arm.unplug()
        assert not os.path.lexists(virtual_arm.port)
        with pytest.raises(serial.SerialException):
            line.read(1)
    virtual_arm.replug()
    assert len(exchange(virtual_arm.port, protocol.ping(1), 6)) == 6


def test_unplugging_does_not_release_the_arm_but_a_power_cut_does(virtual_arm):
    virtual_arm.servo(1).write_block(40, b'\x01')
    virtual_arm.unplug()
    virtual_arm.replug()
    assert virtual_arm.servo(1).torque_on
    virtual_arm.power_cycle()
    assert not virtual_arm.servo(1).torque_on


def test_a_servo_without_power_is_silent(virtual_arm):
    virtual_arm.power(False, [2])
    assert exchange(virtual_arm.port, protocol.ping(2), 6, timeout=0.05) == b''
    assert len(exchange(virtual_arm.port, protocol.ping(1), 6)) == 6


def test_a_stalled_joint_ends_in_a_latched_overload(virtual_arm):
    virtual_arm.set_stops(6, 2040, 2060)
    virtual_arm.servo(6).write_block(42, Reg.GOAL_POSITION.encode(3000))
    virtual_arm.advance(3.0)
    answer = protocol.parse(exchange(virtual_arm.port, protocol.ping(6), 6))
    assert answer.code == 0x20
    assert abs(virtual_arm.servo(6).load) <= 0.2


def test_the_log_tells_writes_that_energise_from_those_that_do_not(virtual_arm):
    port = virtual_arm.port
    exchange(port, protocol.sync_write(42, {1: b'\x00\x08', 2: b'\x00\x08'}) + protocol.ping(1), 6)
    cut = time.monotonic()
    exchange(port, protocol.write(1, 40, b'\x00'), 6)
    exchange(port, protocol.write(1, 48, b'\xf4\x01'), 6)
    assert [event.servo_id for event in virtual_arm.log.energising()] == [1, 2]
    assert virtual_arm.log.energising(after_s=cut) == []
    assert [event.value for event in virtual_arm.log.events(Reg.TORQUE_LIMIT)] == [500]


def test_noise_and_broken_requests_do_not_stop_the_arm(virtual_arm):
    for junk in (b'\xff\xff\x01', bytes(50), b'\xff\xff\x01\x04\x02\x38\x02\x00', b'\xff' * 20):
        exchange(virtual_arm.port, junk, 1, timeout=0.06)
    for request in (b'\x82\x38', b'\x83\x38\x02\x01'):  # parameters are missing
        exchange(virtual_arm.port, protocol.build(0xFE, request[0], request[1:]), 1, timeout=0.02)
    assert len(exchange(virtual_arm.port, protocol.ping(1), 6)) == 6


def test_a_request_that_was_never_finished_is_forgotten(virtual_arm):
    with serial.Serial(virtual_arm.port, 1_000_000, timeout=30.0) as line:
        line.write(b'\xff\xff\x01\xf0\x03')  # announces 240 bytes
        time.sleep(0.06)
        line.write(protocol.ping(1))
        assert len(line.read(6)) == 6


def test_a_reader_who_never_reads_does_not_block_the_arm(virtual_arm):
    with serial.Serial(virtual_arm.port, 1_000_000, timeout=30.0) as line:
        for _ in range(120):
            line.write(protocol.sync_read(56, 15, range(1, 7)))
        time.sleep(0.1)
        line.reset_input_buffer()
        line.write(protocol.ping(1))
        assert len(line.read(6)) == 6
