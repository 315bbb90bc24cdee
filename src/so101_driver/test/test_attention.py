# SPDX-License-Identifier: Apache-2.0
"""A virtual arm that got no processor is late, not silent."""

from dataclasses import replace
import threading
import time

import pytest

from so101_driver.bus.attention import DealtWith, Unheard
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.config import BusConfig
from so101_driver.bus.errors import ServoTimeout
from so101_driver.bus.port import ArmPort
from so101_driver.bus.registers import Reg
from so101_driver.emulator.arm import VirtualArm
from so101_driver.setup.motors import change_baud_rate

ONCE = replace(BusConfig(), retries=0, single_retries=0)


@pytest.fixture
def arm():
    with VirtualArm(pacing=False) as arm:
        yield arm


@pytest.fixture
def bus(arm):
    bus = ServoBus(arm.port, config=ONCE)
    bus.open()
    yield bus
    bus.close(torque_off=False)


class Starved:
    """A virtual arm that cannot look at its servos for a while."""

    def __init__(self, arm, duration_s):
        self.arm, self.duration_s = arm, duration_s
        self.taken = threading.Event()
        self.thread = threading.Thread(target=self.hold)

    def hold(self):
        with self.arm.lock:
            self.taken.set()
            time.sleep(self.duration_s)

    def __enter__(self):
        self.thread.start()
        self.taken.wait()

    def __exit__(self, *_):
        self.thread.join()


def test_an_answer_that_a_busy_machine_delays_is_not_lost(arm, bus):
    for ask in (
        lambda: bus.ping(3),
        lambda: bus.read(3, Reg.PRESENT_POSITION),
        lambda: bus.write(3, Reg.ACCELERATION, 77),
        lambda: bus.read_all(Reg.PRESENT_TEMPERATURE),
        lambda: bus.broadcast_ping(wait_s=0.001),
        bus.cycle_read,
    ):
        with Starved(arm, 0.2):
            answer = ask()
        if isinstance(answer, tuple):
            assert len(answer) == len(bus.ids)
    assert (bus.counters.lost, bus.counters.corrupt, bus.counters.late, bus.counters.retried) == (0, 0, 0, 0)
    assert bus.counters.full_cycles == 1


def test_what_was_sent_goes_out_at_the_old_rate(arm):
    arm.power(False, [2, 3, 4, 5, 6])
    with ServoBus(arm.port, ids=(1,), config=ONCE) as bus:
        with Starved(arm, 0.1):
            change_baud_rate(bus, 1, 115_200)
        assert bus.baud_rate == arm.servo(1).baud_rate == 115_200


def test_a_servo_that_is_silent_is_not_waited_for(arm, bus, monkeypatch):
    monkeypatch.setattr('so101_driver.bus.port.STANDSTILL_S', 600.0)
    arm.faults.mute([3])
    with pytest.raises(ServoTimeout):
        bus.ping(3)
    assert bus.cycle_read().missing == (3,)
    assert bus.counters.lost == 2


def test_a_virtual_arm_that_stands_still_is_given_up(arm, bus, monkeypatch):
    monkeypatch.setattr('so101_driver.bus.port.STANDSTILL_S', 0.05)
    with Starved(arm, 0.5), pytest.raises(ServoTimeout):
        bus.ping(3)


def test_who_opens_the_port_later_is_not_kept_waiting(arm, monkeypatch):
    monkeypatch.setattr('so101_driver.bus.port.STANDSTILL_S', 600.0)
    for _ in range(3):
        with ServoBus(arm.port, config=ONCE) as bus:
            assert bus.broadcast_ping() == bus.ids
            arm.faults.mute([1])
            with pytest.raises(ServoTimeout):
                bus.ping(1)
            arm.faults.clear()
        arm.unplug()
        arm.replug()


def test_the_count_goes_with_the_arm(tmp_path):
    link = tmp_path / 'arm'
    with VirtualArm(link=link) as arm:
        assert len(list(tmp_path.iterdir())) == 2
        arm.unplug()
        assert not list(tmp_path.iterdir())
        arm.replug()
    assert not list(tmp_path.iterdir())


def test_a_port_of_metal_or_a_damaged_count_has_none(tmp_path, arm):
    assert Unheard.of('/dev/null') is None
    assert Unheard.of(str(tmp_path / 'nothing')) is None
    counts = DealtWith(tmp_path / 'arm')
    assert Unheard.of(str(tmp_path / 'arm')) is None, 'the link is missing'
    (tmp_path / 'arm').symlink_to('/proc/self/fd/0')
    assert Unheard.of(str(tmp_path / 'arm')) is not None
    (tmp_path / '.arm.heard').write_bytes(b'')
    assert Unheard.of(str(tmp_path / 'arm')) is None
    counts.close()
    assert ArmPort(arm.port, 1_000_000)._unheard is None, 'a port that is closed waits for nobody'


def test_the_time_of_the_arm_does_not_pass_while_it_has_no_processor(arm, bus):
    machine, before = time.monotonic(), bus.now()
    with Starved(arm, 1.5):
        reading = bus.cycle_read()
    stood = (time.monotonic() - machine) - (bus.now() - before)
    assert stood > 0.2
    assert reading.ok
    assert reading.duration_s < time.monotonic() - machine - 0.2
    after = bus.now()
    time.sleep(0.1)
    assert bus.now() - after >= 0.1, 'then it goes on'


def test_an_arm_that_was_given_up_is_old_by_nothing_is_sent_nothing_and_answers_again(arm, bus, monkeypatch):
    monkeypatch.setattr('so101_driver.bus.port.STANDSTILL_S', 0.1)
    assert bus.cycle_read().ok
    with Starved(arm, 2.0):
        ages = [max(servo.age_s for servo in bus.cycle_read().servos) for _ in range(20)]
        assert bus._port._standing_since is not None
        sent = bus._port._unheard._due
        bus.write_goals(dict.fromkeys(bus.ids, 2100))
        assert bus._port._unheard._due == sent
    assert max(ages) < 1.5, 'in its own time'
    deadline = time.monotonic() + 60.0
    while not bus.cycle_read().ok:
        assert time.monotonic() < deadline
