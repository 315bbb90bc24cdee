# SPDX-License-Identifier: Apache-2.0
"""The virtual arm in a process of its own, controlled from this one."""

import os
import signal
import subprocess
import sys
import time

import pytest

from so101_driver.bus.bus import ServoBus
from so101_driver.bus.config import BusConfig
from so101_driver.bus.errors import PortError
from so101_driver.bus.registers import Reg
from so101_driver.emulator.arm import VirtualArm
from so101_driver.emulator.control import ArmControl, ControlServer, VirtualArmProcess

PATIENT = BusConfig(min_timeout_s=0.05, timeout_s=0.1, budget_s=0.5)


@pytest.fixture(scope='module')
def arm():
    with VirtualArmProcess('--no-pacing') as arm:
        yield arm


@pytest.fixture
def bus(arm):
    with ServoBus(arm.port, config=PATIENT) as bus:
        yield bus
    arm.call('clear_faults')


def test_another_process_serves_the_bus(bus):
    assert [identity.model for identity in bus.handshake()] == [777] * 6
    assert bus.cycle_read().ok


def test_faults_are_injected_from_outside(arm, bus):
    arm.call('mute', ids=[4])
    assert bus.cycle_read().missing == (4,)
    arm.call('mute', ids=[])
    arm.call('inject', fault='drop', servo_id=2, count=1)
    before = bus.counters.retried
    assert bus.cycle_read().ok
    assert bus.counters.retried > before
    arm.call('environment', servo_id=1, temperature_c=90.0)
    assert bus.cycle_read().servo(1).faults.sentence == 'temperature'
    arm.call('environment', servo_id=1, temperature_c=30.0)
    arm.call('power_cycle', ids=[1])
    assert not bus.cycle_read().servo(1).faults


def test_registers_and_the_log_are_seen_from_outside(arm, bus):
    arm.call('clear_log')
    before = time.monotonic()
    bus.write_goals({1: 2100})
    bus.read(1, Reg.GOAL_POSITION)  # the answer comes after the goal
    assert arm.call('get', servo_id=1, register='GOAL_POSITION') == 2100
    assert arm.call('torque')['1'] is True
    [event] = arm.call('log', register='GOAL_POSITION', after_s=before)
    assert event['energises']
    assert before < event['time_s'] < time.monotonic()  # one clock for all processes
    arm.call('advance', duration_s=2.0)
    assert arm.call('get', servo_id=1, register='PRESENT_POSITION') == 2100
    assert bus.release() == ()
    arm.call('set', servo_id=1, register='HOMING_OFFSET', value=100)
    assert arm.call('get', servo_id=1, register='PRESENT_POSITION') == 2000
    arm.call('set', servo_id=1, register='HOMING_OFFSET', value=0)


def test_the_cable_is_pulled_and_put_back_from_outside(arm, bus, wait_until):
    arm.call('unplug')
    with pytest.raises(PortError):
        bus.cycle_read()
    assert not bus.reconnect()
    arm.call('replug')
    wait_until(bus.reconnect, 'the bus comes back')
    assert bus.cycle_read().ok


def test_unknown_commands_and_arguments_are_answered_with_what_is_known(arm):
    with pytest.raises(RuntimeError, match=r'knows the commands .*unplug.*got'):
        arm.call('explode')
    with pytest.raises(RuntimeError, match='KeyError'):
        arm.call('get', servo_id=1, register='NONSENSE')
    with pytest.raises(RuntimeError, match='TypeError'):
        arm.call('mute', nobody=True)


def test_the_arm_ends_with_its_parent():
    with VirtualArmProcess('--no-pacing') as arm:
        process = arm._process
        assert os.path.exists(arm.port)
    assert process.returncode == 0
    assert not os.path.lexists(arm.port)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_line_and_removes_the_link(tmp_path, number):
    link = tmp_path / 'arm'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    command = [sys.executable, '-m', 'so101_driver.emulator', '--link', str(link), '--ids', '7']
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline().decode().strip() == str(link)
        with ServoBus(str(link), ids=(7,), config=PATIENT) as bus:
            assert bus.cycle_read().ok
        process.send_signal(number)
        assert process.wait(200.0) == 0
    assert not os.path.lexists(link)


def test_an_arm_in_this_process_can_be_controlled_from_another(tmp_path):
    with VirtualArm(pacing=False) as arm:
        server = ControlServer(arm, tmp_path / 'control')
        client = ArmControl(tmp_path / 'control')
        client.call('position', servo_id=2, encoder=1234.0)
        assert arm.servo(2).present_position == 1234
        assert (tmp_path / 'control').stat().st_mode & 0o077 == 0
        client.close()
        server.close()


def test_the_link_of_an_arm_that_was_killed_leads_nowhere_and_to_the_next_one_once_that_is_there(
    tmp_path, wait_until
):
    link = tmp_path / 'arm'
    bus = ServoBus(str(link), config=PATIENT)
    with VirtualArmProcess(link=link) as first:
        bus.open()
        first._process.kill()
        first._process.wait()
        # Another terminal gets the number that is free now.
        terminals = [os.openpty() for _ in range(4)]
        assert link.is_symlink()
        assert not link.exists()
        bus.close(torque_off=False)
        with pytest.raises(PortError, match='is the link of an arm that is gone'):
            bus.open()
    with VirtualArmProcess(link=link):
        wait_until(bus.reconnect, 'the port of the next arm')
        assert bus.cycle_read().ok
    bus.close(torque_off=False)
    for handle in (handle for pair in terminals for handle in pair):
        os.close(handle)
