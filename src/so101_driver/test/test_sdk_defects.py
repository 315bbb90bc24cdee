# SPDX-License-Identifier: Apache-2.0
"""Defects of feetech-servo-sdk 1.0.0, one test each: the SDK has it, our bus on the same arm has not.

If a test fails in its first half, the SDK has been repaired and the work-around may go.
"""

import contextlib
from dataclasses import replace
import itertools
import time

import pytest
import scservo_sdk
from scservo_sdk import COMM_PORT_BUSY, COMM_RX_TIMEOUT, COMM_SUCCESS
import serial

from so101_driver.bus import protocol
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.config import BusConfig
from so101_driver.bus.errors import PortError, ServoTimeout
from so101_driver.bus.registers import Reg, ServoError
from so101_driver.emulator.arm import VirtualArm

# patient, since the machine that runs the tests may be busy
PATIENT = BusConfig(min_timeout_s=0.05, timeout_s=0.1, budget_s=0.5, single_timeout_s=0.1)


@contextlib.contextmanager
def sdk_on(arm, *, patient=True):
    port = scservo_sdk.PortHandler(arm.port)
    port.setBaudRate(1_000_000)
    if patient:  # where its time-outs, 34 ms and a little, are not what is looked at
        port.setPacketTimeout = lambda length: port.setPacketTimeoutMillis(1000.0)
    try:
        yield port, scservo_sdk.PacketHandler(0)
    finally:
        port.closePort()


def group_of(port, handler, ids, address=56, size=2):
    group = scservo_sdk.GroupSyncRead(port, handler, address, size)
    for servo_id in ids:
        group.addParam(servo_id)
    return group


def test_1_sdk_group_reads_lose_the_error_byte(virtual_arm):
    virtual_arm.servo(3).latched = ServoError.OVERLOAD
    with sdk_on(virtual_arm) as (port, handler):
        group = group_of(port, handler, range(1, 7))
        assert group.txRxPacket() == COMM_SUCCESS
        assert not hasattr(group, 'getError')
        assert 32 not in group.data_dict[3]  # the fault is nowhere
        assert handler.read2ByteTxRx(port, 3, 56)[2] == 32

    with ServoBus(virtual_arm.port, config=PATIENT) as bus:
        reading = bus.cycle_read()
        assert reading.ok
        assert reading.servo(3).error == ServoError.OVERLOAD
        assert bus.read(3, Reg.PRESENT_POSITION) == 2048
        assert bus.errors[3] == ServoError.OVERLOAD


def test_2_sdk_leaves_acknowledgements_in_the_input_and_takes_them_for_data(virtual_arm, wait_until):
    with sdk_on(virtual_arm) as (port, handler):
        handler.write1ByteTxOnly(port, 1, 41, 50)
        wait_until(lambda: port.getBytesAvailable() == 6, 'the acknowledgement lies there')
        port.clearPort()
        assert port.getBytesAvailable() == 6
        with pytest.raises(IndexError):
            handler.read2ByteTxRx(port, 1, 56)

    with ServoBus(virtual_arm.port, config=PATIENT) as bus:
        bus._port.send(b'\xff\xff\x01\x04\x03\x29\x32\x9c')  # a write whose acknowledgement nobody takes
        wait_until(lambda: bus._port.ser.in_waiting >= 6, 'the acknowledgement lies there')
        assert bus.read(1, Reg.PRESENT_POSITION) == 2048
        assert bus.read(1, Reg.ACCELERATION) == 50


def test_3_sdk_returns_a_late_answer_as_the_next_one(virtual_arm, wait_until):
    virtual_arm.faults.inject('delay', servo_id=1, delay_s=0.5)
    with sdk_on(virtual_arm, patient=False) as (port, handler):
        assert handler.read2ByteTxRx(port, 1, 56)[1] == COMM_RX_TIMEOUT
        wait_until(lambda: port.getBytesAvailable() == 8, 'the late answer lies there')
        virtual_arm.set_position(1, 1000)
        assert handler.read2ByteTxRx(port, 1, 56)[:2] == (2048, COMM_SUCCESS)  # where the joint was

    for retries in (0, 3):
        virtual_arm.set_position(1, 2048)
        config = BusConfig(retries=retries, single_retries=retries)
        with ServoBus(virtual_arm.port, config=config) as bus:
            virtual_arm.faults.inject('delay', servo_id=1, delay_s=0.03)
            with contextlib.suppress(ServoTimeout):
                bus.read(1, Reg.PRESENT_POSITION)
            virtual_arm.set_position(1, 1000)
            assert bus.read(1, Reg.PRESENT_POSITION) == 1000
            virtual_arm.faults.inject('delay', servo_id=1, delay_s=0.03)
            bus.cycle_read()
            virtual_arm.set_position(1, 500)
            for _ in range(20):
                servo = bus.cycle_read().servo(1)
                assert not servo.ok or servo.position_ticks == 500
                time.sleep(0.002)


def test_4_sdk_loses_later_servos_behind_a_silent_one_and_serves_old_values(virtual_arm):
    with sdk_on(virtual_arm) as (port, handler):
        group = group_of(port, handler, range(1, 7))
        assert any(group.txRxPacket() == COMM_SUCCESS for _ in range(10))
        virtual_arm.faults.mute([3])
        for servo_id in (2, 5):
            virtual_arm.set_position(servo_id, 1000)
        begin = time.monotonic()
        assert group.txRxPacket() == COMM_RX_TIMEOUT
        assert time.monotonic() - begin > 0.03
        assert group.getData(2, 56, 2) == 1000
        assert group.isAvailable(5, 56, 2)
        assert group.getData(5, 56, 2) == 2048  # servo 5 did answer 1000
        assert group.getData(77, 56, 2) == 0

    with ServoBus(virtual_arm.port, config=replace(PATIENT, retries=0)) as bus:
        reading = bus.cycle_read()
        assert reading.missing == (3,)
        assert reading.servo(5).position_ticks == 1000
        assert not reading.servo(3).ok
        with pytest.raises(KeyError, match='77'):
            reading.servo(77)


def test_5_sdk_is_blocked_for_good_after_an_exception(virtual_arm):
    with sdk_on(virtual_arm) as (port, handler):

        def interrupt(_):
            raise KeyboardInterrupt

        port.readPort = interrupt
        with pytest.raises(KeyboardInterrupt):
            handler.read2ByteTxRx(port, 1, 56)
        del port.readPort
        assert handler.read2ByteTxRx(port, 1, 56)[1] == COMM_PORT_BUSY
        assert handler.read2ByteTxRx(port, 1, 56)[1] == COMM_PORT_BUSY

    with ServoBus(virtual_arm.port, config=replace(PATIENT, single_retries=0)) as bus:
        bus._port.readPort = interrupt
        with pytest.raises(KeyboardInterrupt):
            bus.read(1, Reg.PRESENT_POSITION)
        del bus._port.readPort
        assert bus.read(1, Reg.PRESENT_POSITION) == 2048
        with pytest.raises(
            ValueError, match='rows of one size'
        ):  # the SDK raises IndexError, and stays blocked
            protocol.sync_write(42, {1: b'\x00\x08', 2: b'\x00'})
        assert bus.cycle_read().ok


def test_6_sdk_byte_order_is_flipped_for_all_by_one_handler_anywhere(virtual_arm):
    virtual_arm.set_position(1, 0x0102)
    try:
        with sdk_on(virtual_arm) as (port, handler):
            assert handler.read2ByteTxRx(port, 1, 56)[0] == 0x0102
            scservo_sdk.PacketHandler(1)
            assert handler.read2ByteTxRx(port, 1, 56)[0] == 0x0201

        with ServoBus(virtual_arm.port, config=PATIENT) as bus:
            assert bus.read(1, Reg.PRESENT_POSITION) == 0x0102
            assert bus.cycle_read().servo(1).position_ticks == 0x0102
            bus.write(1, Reg.GOAL_VELOCITY, 0x0304)
            assert virtual_arm.servo(1).get(Reg.GOAL_VELOCITY) == 0x0304
    finally:
        scservo_sdk.PacketHandler(0)


def test_7_sdk_spins_while_it_waits(virtual_arm):
    virtual_arm.faults.mute([1])

    def share(call, times):
        used, begin = time.thread_time(), time.monotonic()
        for _ in range(times):
            call()
        return (time.thread_time() - used) / (time.monotonic() - begin)

    with sdk_on(virtual_arm, patient=False) as (port, handler):
        spinning = share(lambda: handler.read2ByteTxRx(port, 1, 56), 5)
    with ServoBus(virtual_arm.port, ids=(1,)) as bus:

        def wait():
            with contextlib.suppress(ServoTimeout):
                bus.read(1, Reg.PRESENT_POSITION)

        waiting = share(wait, 1)
    assert waiting < 0.1
    assert spinning > 3.0 * waiting


def test_8_sdk_time_outs_are_long_and_follow_the_wall_clock(virtual_arm, monkeypatch):
    virtual_arm.faults.mute([1])
    with sdk_on(virtual_arm, patient=False) as (port, handler):
        begin = time.monotonic()
        handler.read2ByteTxRx(port, 1, 56)
        assert time.monotonic() - begin > 0.034
        real = time.time
        monkeypatch.setattr(time, 'time', lambda: real() + 3600.0)
        port.setPacketTimeoutMillis(100.0)
        monkeypatch.setattr(time, 'time', lambda: real() + 7200.0)
        assert port.isPacketTimeout()  # at once, since the clock was set
        monkeypatch.undo()

    with ServoBus(virtual_arm.port, config=BusConfig(single_timeout_s=0.2)) as bus:
        for _ in range(10):
            bus.cycle_read()
        assert min(bus.cycle_read().duration_s for _ in range(20)) < 0.02
        retried = bus.counters.retried
        steps = itertools.count()
        monkeypatch.setattr(time, 'time', lambda: real() + 3600.0 * next(steps))
        virtual_arm.faults.inject('delay', servo_id=2, delay_s=0.01)
        assert bus.read(2, Reg.ID) == 2
        assert bus.counters.retried == retried
        assert 1 in bus.cycle_read().missing


def test_9a_sdk_names_only_the_first_fault(virtual_arm):
    faults = ServoError.VOLTAGE | ServoError.TEMPERATURE | ServoError.OVERLOAD
    assert (
        scservo_sdk.PacketHandler(0).getRxPacketError(int(faults)) == '[RxPacketError] Input voltage error!'
    )
    assert faults.sentence == 'voltage, temperature, overload'


def test_9b_sdk_opens_a_port_that_is_in_use_and_raises_for_a_missing_one(virtual_arm):
    with sdk_on(virtual_arm), sdk_on(virtual_arm) as (port, handler):
        assert handler.ping(port, 1)[1] == COMM_SUCCESS
    with pytest.raises(serial.SerialException):
        scservo_sdk.PortHandler('/dev/nothing').openPort()

    with ServoBus(virtual_arm.port), pytest.raises(PortError, match='another program'):
        ServoBus(virtual_arm.port).open()
    with pytest.raises(PortError, match='does not exist'):
        ServoBus('/dev/nothing').open()


def test_9c_sdk_has_no_broadcast_ping():
    assert not hasattr(scservo_sdk.PacketHandler(0), 'broadcastPing')
    with VirtualArm(ids=[4, 9], pacing=False) as arm, ServoBus(arm.port, ids=(4, 9)) as bus:
        assert bus.broadcast_ping() == (4, 9)


def test_10_sdk_keeps_the_list_of_servos_after_it_was_cleared(virtual_arm):
    with sdk_on(virtual_arm) as (port, handler):
        group = group_of(port, handler, (1, 2))
        assert group.txRxPacket() == COMM_SUCCESS
        group.clearParam()
        group.makeParam()
        assert group.param == [1, 2]

    with ServoBus(virtual_arm.port, config=PATIENT) as bus:
        assert set(bus.read_available(Reg.ID, (1, 2))) == {1, 2}
        assert set(bus.read_available(Reg.ID, (5,))) == {5}
        assert set(bus.read_available(Reg.ID)) == {1, 2, 3, 4, 5, 6}
        assert bus.read_available(Reg.ID, ()) == {}
