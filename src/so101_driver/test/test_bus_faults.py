# SPDX-License-Identifier: Apache-2.0
"""The control loop on a bad line: nothing ends it, and no old or wrong value passes as fresh."""

from dataclasses import replace
import threading
import time

from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
import pytest

from so101_driver.bus import protocol
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.config import BusConfig
from so101_driver.bus.errors import PortError, ServoTimeout
from so101_driver.bus.readings import WindowChooser, WINDOWS
from so101_driver.bus.registers import Reg
from so101_driver.emulator.arm import VirtualArm
from so101_driver.emulator.faults import FaultRates

# patient, since the machine that runs the tests may be busy
PATIENT = BusConfig(min_timeout_s=0.03, timeout_s=0.1, retries=4, budget_s=0.5)


@pytest.fixture(scope='module')
def shared():
    # Answers come up to 40 ms late, and much later where the machine stands still: what the bus is told to expect.
    config = BusConfig(late_window_s=0.6)
    with VirtualArm(pacing=False) as arm, ServoBus(arm.port, config=config) as bus:
        bus.handshake()
        yield arm, bus


def place(arm, value):
    """All joints to known places, one of them per servo."""
    with arm._stepping, arm.lock:
        for index, servo in enumerate(arm.servos):
            arm.dynamics.positions[index] = value + index
            servo.encoder = float(value + index)


def at_100_hz(bus, cycles):
    readings, next_s = [], time.monotonic()
    for _ in range(cycles):
        readings.append(bus.cycle_read())
        next_s += 0.01
        time.sleep(max(0.0, next_s - time.monotonic()))
    return readings


def wrong_values(reading, value):
    return [
        (servo.servo_id, servo.position_ticks)
        for servo in reading.servos
        if servo.ok and servo.position_ticks != value + servo.servo_id - 1
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.01, 0.05, 0.2, 0.5]),
    delay_s=st.sampled_from([0.002, 0.005, 0.02, 0.04]),
)
def test_a_reading_that_says_fresh_is_never_old_or_wrong(shared, seed, share, delay_s):
    arm, bus = shared
    arm.faults._random.seed(seed)
    part = share / 5
    rates = FaultRates(drop=part, corrupt=part, truncate=part, delay=part, noise=part, delay_s=delay_s)
    try:
        for cycle in range(25):
            value = (cycle * 131) % 4000
            place(arm, value)
            arm.faults.set_rates(rates)
            reading = bus.cycle_read()
            assert wrong_values(reading, value) == []
    finally:
        arm.faults.clear()


@pytest.mark.parametrize('share', [0.01, 0.05, 0.2])
def test_P1_bad_packets_never_end_the_loop_and_retries_repair_most(virtual_arm, bus, share):
    before = bus.counters.snapshot()
    virtual_arm.faults.set_rates(FaultRates.bad_packets(share))
    readings = at_100_hz(bus, 60)
    virtual_arm.faults.clear()
    counts = bus.counters
    assert sum(reading.ok for reading in readings) >= 57
    assert counts.cycles - before.cycles == 60
    if share > 0.01:
        assert counts.lost + counts.corrupt > before.lost + before.corrupt
        assert counts.retried > before.retried


def test_P1_a_lost_answer_is_asked_for_again_within_the_cycle(virtual_arm, bus):
    bus.handshake()
    for fault in ('drop', 'corrupt', 'truncate', 'noise', 'delay'):
        virtual_arm.faults.inject(fault, servo_id=4)
        assert bus.cycle_read().ok, fault


@pytest.mark.parametrize('fault', ['drop', 'corrupt', 'truncate', 'delay'])
def test_without_retries_the_last_good_state_stays_with_its_age(virtual_arm, fault):
    with ServoBus(virtual_arm.port, config=replace(PATIENT, retries=0)) as bus:
        assert bus.cycle_read().ok
        virtual_arm.faults.inject(fault, servo_id=2)
        place(virtual_arm, 1000)
        reading = bus.cycle_read()
        assert reading.missing == (2,)
        assert reading.servo(2).position_ticks == 2048
        assert 0.0 < reading.servo(2).age_s < float('inf')
        assert max(servo.age_s for servo in reading.servos) == reading.servo(2).age_s
        assert [reading.servo(servo_id).position_ticks for servo_id in (1, 3, 6)] == [1000, 1002, 1005]
        assert bus.cycle_read().servo(2).position_ticks == 1001


def test_a_servo_that_never_answered_has_an_infinite_age(virtual_arm, bus):
    virtual_arm.faults.mute([5])
    servo = bus.cycle_read().servo(5)
    assert not servo.ok
    assert not servo.known
    assert servo.age_s == float('inf')


def test_one_silent_servo_costs_the_others_neither_data_nor_time(virtual_arm):
    with ServoBus(virtual_arm.port, config=replace(PATIENT, retries=1)) as bus:
        virtual_arm.faults.mute([6])
        for _ in range(6):
            bus.cycle_read()
        before = bus.counters.snapshot()
        readings = [bus.cycle_read() for _ in range(50)]
        virtual_arm.faults.clear()
    assert all(reading.missing == (6,) for reading in readings)
    # It is asked a second time now and then: it may have come back.
    assert bus.counters.sent - before.sent < 60


def test_a_servo_that_comes_back_is_fresh_again_soon(virtual_arm, bus, wait_until):
    virtual_arm.faults.mute([3])
    for _ in range(6):
        bus.cycle_read()
    virtual_arm.faults.mute([])
    wait_until(lambda: bus.cycle_read().ok, 'servo 3 is back', 2.0)


def test_a_damaged_answer_is_asked_for_again_in_the_same_block_since_none_can_come_late(virtual_arm, bus):
    results, ask = [], bus._sync.ask

    def watched(window, ids, **options):
        results.append((window, ask(window, ids, **options)))
        return results[-1][1]

    bus._sync.ask = watched
    for _ in range(50):
        results.clear()
        virtual_arm.faults.inject('truncate', servo_id=2)
        assert bus.cycle_read().ok
        if results[0][1].broken == {2}:  # the cut left its first four bytes
            assert results[1][0] is results[0][0]
            return
        time.sleep(bus.config.late_window_s)
    pytest.fail('No cut answer kept its first four bytes.')


def test_late_answers_are_counted_as_late(virtual_arm):
    with ServoBus(virtual_arm.port, config=BusConfig(retries=0)) as bus:
        bus.handshake()
        for _ in range(5):
            bus.cycle_read()
        virtual_arm.faults.inject('delay', servo_id=6, delay_s=0.5)
        assert bus.cycle_read().missing == (6,)
        before = bus.counters.late
        end = time.monotonic() + 2.0
        while time.monotonic() < end and bus.counters.late == before:
            place(virtual_arm, 500)
            assert bus.cycle_read().servo(6).position_ticks in {505, 2048}
    # the late answer was either seen and thrown away in a cycle, or discarded between two


def test_a_late_answer_to_a_single_read_is_waited_out_before_the_retry(virtual_arm):
    config = BusConfig(single_timeout_s=0.1, late_window_s=1.0)
    with ServoBus(virtual_arm.port, config=config) as bus:
        virtual_arm.faults.inject('delay', servo_id=1, delay_s=0.3)
        virtual_arm.faults.inject('delay', servo_id=1, delay_s=0.05)
        threading.Timer(0.15, virtual_arm.set_position, (1, 1000)).start()
        assert bus.read(1, Reg.PRESENT_POSITION) == 1000


def test_a_late_acknowledgement_is_not_taken_for_data(virtual_arm):
    config = BusConfig(single_timeout_s=0.4, single_retries=0, late_window_s=0.0)
    with ServoBus(virtual_arm.port, config=config) as bus:
        virtual_arm.faults.inject('delay', servo_id=1, delay_s=0.55)
        with pytest.raises(ServoTimeout):
            bus.write(1, Reg.ACCELERATION, 7, verify=False)
        virtual_arm.faults.inject('delay', servo_id=1, delay_s=0.3)
        assert bus.read(1, Reg.PRESENT_TEMPERATURE) == 30
        assert bus.counters.late == 1


def test_where_one_block_is_all_there_is_late_answers_are_still_not_taken(virtual_arm, bus, wait_until):
    bus._states._chooser = WindowChooser(WINDOWS[:1], bus.config.late_window_s)
    place(virtual_arm, 100)
    for delay_s in (0.004, 0.02, 0.04):
        virtual_arm.faults.inject('delay', servo_id=6, delay_s=delay_s)
        bus.cycle_read()
        place(virtual_arm, 100 + round(10_000 * delay_s))
        end = time.monotonic() + 0.12
        while time.monotonic() < end:
            assert wrong_values(bus.cycle_read(), 100 + round(10_000 * delay_s)) == []
        wait_until(lambda: bus.cycle_read().ok, 'all are fresh again')


def test_stale_input_is_discarded_before_each_request(virtual_arm, bus, wait_until):
    bus.cycle_read()
    bus._port.send(protocol.sync_read(56, 15, bus.ids))
    wait_until(lambda: bus._port.ser.in_waiting == 126, 'six answers that nobody takes')
    place(virtual_arm, 700)
    assert wrong_values(bus.cycle_read(), 700) == []
    bus._port.send(b'\xff\xff\x01\x04\x02\x38\x02\xbe')  # a read whose answer nobody takes
    time.sleep(0.02)
    assert bus.read(1, Reg.ID) == 1
    assert bus.cycle_read().ok


def test_P1_writes_survive_a_bad_line(virtual_arm, bus):
    virtual_arm.faults.set_rates(drop=0.07, corrupt=0.07, truncate=0.06)
    for value in range(1, 15):
        bus.write(1 + value % 6, Reg.ACCELERATION, value)
        assert virtual_arm.servo(1 + value % 6).get(Reg.ACCELERATION) == value


def test_a_request_that_no_servo_hears_is_repeated(virtual_arm, bus):
    bus.handshake()
    virtual_arm.faults.set_rates(deaf=0.3)
    assert sum(reading.ok for reading in at_100_hz(bus, 40)) > 32


def test_waiting_for_a_mute_bus_takes_no_processor_time(virtual_arm, bus):
    virtual_arm.faults.mute(bus.ids)
    used, begin = time.thread_time(), time.monotonic()
    with pytest.raises(Exception, match='no answer'):
        bus.read(1, Reg.ID)
    used, elapsed = time.thread_time() - used, time.monotonic() - begin
    assert elapsed > 0.08
    assert used < 0.25 * elapsed


def test_an_unplugged_port_is_an_error_and_comes_back(virtual_arm, bus, wait_until):
    place(virtual_arm, 1500)
    assert bus.cycle_read().ok
    virtual_arm.unplug()
    with pytest.raises(PortError, match='USB cable'):
        bus.cycle_read()
    with pytest.raises(PortError, match='reconnect'):
        bus.write_goals({1: 2000})
    assert not bus.is_open
    assert not bus.reconnect()
    virtual_arm.replug()
    wait_until(bus.reconnect, 'the port is back')
    assert bus.cycle_read().ok
    assert bus.counters.reconnects == 1
    assert bus.reconnect()
    assert bus.counters.reconnects == 1


def test_unplugging_in_the_middle_of_a_cycle_is_an_error_not_a_hang(virtual_arm, bus):
    virtual_arm.faults.mute(bus.ids)
    timer = threading.Timer(0.02, virtual_arm.unplug)
    timer.start()

    def read_for(seconds):
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            bus.cycle_read()

    with pytest.raises(PortError):
        read_for(5.0)
    timer.join()


def test_a_keyboard_interrupt_between_request_and_answer_latches_nothing(virtual_arm, bus, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    for method in ('receive', 'readPort'):
        monkeypatch.setattr(bus._port, method, interrupt)
    for action in (bus.cycle_read, lambda: bus.read(1, Reg.ID), lambda: bus.write(1, Reg.LOCK, 1)):
        with pytest.raises(KeyboardInterrupt):
            action()
    monkeypatch.undo()
    assert bus.read(1, Reg.ID) == 1
    assert bus.cycle_read().ok


def test_P13_a_cycle_of_read_and_write_costs_little_processor_time(virtual_arm):
    from so101_driver.emulator.control import VirtualArmProcess

    with VirtualArmProcess('--no-pacing') as arm, ServoBus(arm.port) as bus:
        goals = dict.fromkeys(bus.ids, 2048)
        used = time.thread_time()
        for _ in range(200):
            bus.cycle_read()
            bus.write_goals(goals)
        used = time.thread_time() - used
    assert (
        used / 200 < 0.01
    )  # of this thread alone: about 0.1 ms, and a hundred times that is a loop that spins
