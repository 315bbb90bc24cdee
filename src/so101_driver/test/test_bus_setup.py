# SPDX-License-Identifier: Apache-2.0
import pytest

from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError
from so101_driver.bus.registers import BAUD_RATES, Reg
from so101_driver.emulator.arm import VirtualArm
from so101_driver.setup.motors import change_baud_rate, change_id, find_servos


@pytest.fixture
def new_servo():
    with VirtualArm(ids=[1], pacing=False) as arm, ServoBus(arm.port, ids=(1,)) as bus:
        yield arm.servos[0], bus


@pytest.mark.parametrize('rate', [1_000_000, 76_800, 38_400])
def test_a_new_servo_is_found_at_any_baud_rate(new_servo, rate):
    servo, bus = new_servo
    servo.set(Reg.BAUD_RATE, {rate: code for code, rate in BAUD_RATES.items()}[rate])
    assert find_servos(bus, wait_s=0.03) == {rate: (1,)}
    assert bus.baud_rate == 1_000_000


def test_an_id_is_changed_for_good(new_servo):
    servo, bus = new_servo
    change_id(bus, 1, 6)
    assert servo.servo_id == 6
    assert servo.get(Reg.LOCK) == 1
    servo.power_on()
    assert bus.ping(6) == 777
    change_id(bus, 6, 6)


def test_an_id_that_is_taken_is_refused(virtual_arm, bus):
    with pytest.raises(BusError, match='id 3 is taken'):
        change_id(bus, 1, 3)
    assert virtual_arm.servo(1).servo_id == 1
    with pytest.raises(ValueError, match=r'0\.\.253, got 254'):
        change_id(bus, 1, 254)


def test_a_servo_that_does_not_answer_keeps_its_id(new_servo):
    _, bus = new_servo
    with pytest.raises(BusError, match='Servo 9 gave no answer'):
        change_id(bus, 9, 2)


def test_a_baud_rate_is_changed_for_good_and_the_port_follows(new_servo):
    servo, bus = new_servo
    change_baud_rate(bus, 1, 115_200)
    assert bus.baud_rate == 115_200
    servo.power_on()
    assert bus.ping(1) == 777
    change_baud_rate(bus, 1, 1_000_000)
    assert bus.ping(1) == 777
    with pytest.raises(ValueError, match=r'57600.*got 19200'):
        change_baud_rate(bus, 1, 19_200)


def test_P1_setup_works_on_a_bad_line():
    with VirtualArm(ids=[1], pacing=False, seed=3) as arm, ServoBus(arm.port, ids=(1,)) as bus:
        arm.faults.set_rates(drop=0.05, corrupt=0.05, deaf=0.05)
        for new in (2, 3, 4):
            change_id(bus, new - 1, new)
            assert arm.servos[0].servo_id == new


def test_a_servo_that_refuses_a_new_id_is_named(new_servo, monkeypatch):
    servo, bus = new_servo
    monkeypatch.setattr(bus, 'write_all', lambda *_: None)
    with pytest.raises(BusError, match='Servo 1 does not take 2 as its ID'):
        change_id(bus, 1, 2)
    assert servo.servo_id == 1
