# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import pty
import select
import subprocess
import sys
import termios

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import PortError
from so101_driver.bus.port import refuse_terminal
from so101_driver.calibration.cli import main as calibrate
from so101_driver.doctor.cli import main as doctor
from so101_driver.setup.cli import main as setup_motors
from so101_driver.setup.ports import (
    choose_port,
    find_ports,
    holders,
    permission_problem,
    SerialPort,
    udev_rules,
)

FOLLOWER = SerialPort(
    '/dev/ttyACM0',
    '/dev/serial/by-id/usb-1a86_USB_Single_Serial_5A46083062-if00',
    '/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0',
    0x1A86,
    0x55D3,
    '5A46083062',
)
LEADER = SerialPort('/dev/ttyACM1', '/dev/serial/by-id/leader', '', 0x1A86, 0x55D3, '5A46084111')
NAMELESS = SerialPort(
    '/dev/ttyUSB0', '', '/dev/serial/by-path/pci-0000:00:14.0-usb-0:2:1.0-port0', 0x1A86, 0x7523
)
MODEM = SerialPort('/dev/ttyACM9', '', '', 0x12D1, 0x1001, 'modem')


def test_P21_auto_takes_the_one_servo_adapter_by_its_stable_name():
    assert choose_port('auto', [MODEM, FOLLOWER]) == FOLLOWER.by_id
    assert choose_port('auto', [NAMELESS]) == NAMELESS.by_path


def test_P21_auto_refuses_to_guess_between_two_arms():
    with pytest.raises(PortError, match='found 2') as error:
        choose_port('auto', [FOLLOWER, LEADER])
    assert FOLLOWER.by_id in str(error.value)


def test_P21_no_arm_is_said_in_a_sentence():
    with pytest.raises(PortError, match=r'found none .*plug the arm in'):
        choose_port('auto', [MODEM])


def test_P21_an_arm_is_found_by_the_serial_number_of_its_adapter():
    assert choose_port('5A46084111', [FOLLOWER, LEADER]) == LEADER.by_id
    assert choose_port('ttyACM0', [FOLLOWER, LEADER]) == FOLLOWER.by_id
    with pytest.raises(PortError, match='serial number 999'):
        choose_port('999', [FOLLOWER, LEADER])


def test_a_path_is_taken_as_it_is():
    assert choose_port('/dev/pts/7', []) == '/dev/pts/7'


def test_P21_udev_rules_tell_arms_apart_by_serial_number_or_by_socket():
    text = udev_rules({'so101_follower': FOLLOWER, 'so101_leader': LEADER, 'so101_third': NAMELESS})
    assert 'ATTRS{serial}=="5A46083062", SYMLINK+="so101_follower"' in text
    assert 'ATTRS{idVendor}=="1a86", ATTRS{idProduct}=="55d3", ATTRS{serial}=="5A46084111"' in text
    assert 'ENV{ID_PATH}=="pci-0000:00:14.0-usb-0:2:1.0", SYMLINK+="so101_third"' in text
    for line in text.splitlines():
        if not line.startswith('#'):
            assert line.count('"') % 2 == 0


def test_udev_rules_refuse_names_and_ports_that_cannot_work():
    with pytest.raises(ValueError, match='device name'):
        udev_rules({'a b': FOLLOWER})
    with pytest.raises(ValueError, match='by-path'):
        udev_rules({'arm': SerialPort('/dev/ttyACM3', vendor_id=0x1A86, product_id=0x55D3)})


def test_P21_ports_are_listed_with_their_stable_names(tmp_path, monkeypatch):
    for name in ('ttyACM0', 'ttyACM1', 'ttyS0'):
        (tmp_path / name).touch()
    (tmp_path / 'serial/by-id').mkdir(parents=True)
    (tmp_path / 'serial/by-id/usb-arm-if00').symlink_to('../../ttyACM1')

    def info(name, vid, pid, serial):
        port = ListPortInfo(str(tmp_path / name))
        port.vid, port.pid, port.serial_number = vid, pid, serial
        return port

    found = [
        info('ttyACM0', 0x12D1, 0x1001, None),
        info('ttyACM1', 0x1A86, 0x55D3, '5A'),
        info('ttyS0', None, None, None),
    ]
    monkeypatch.setattr(list_ports, 'comports', lambda: found)
    arm, modem = find_ports(tmp_path)
    assert (arm.by_id, arm.serial_number) == (str(tmp_path / 'serial/by-id/usb-arm-if00'), '5A')
    assert 'CH343' in arm.adapter
    assert modem.adapter == ''


def test_listing_the_ports_of_this_machine_works():
    assert isinstance(find_ports(), tuple)


def test_P21_a_process_that_holds_a_port_is_named():
    master, slave = pty.openpty()
    path = os.ttyname(slave)
    try:
        script = 'import sys; f = open(sys.argv[1], "rb", buffering=0); print("open", flush=True); input()'
        with subprocess.Popen(
            [sys.executable, '-c', script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline().strip() == 'open'
            assert process.pid in [holder.pid for holder in holders(path)]
            process.communicate('\n', timeout=200)
        assert process.pid not in [holder.pid for holder in holders(path)]
    finally:
        os.close(slave)
        os.close(master)


@contextlib.contextmanager
def somebodys_terminal(*, of_a_session: bool):
    """A terminal in which a program sits, and the end at which it is looked at."""
    master, slave = pty.openpty()
    take = 'import fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); '
    script = (take if of_a_session else '') + 'print("here", flush=True); input()'
    streams = {'stdin': slave} if of_a_session else {'stdin': subprocess.PIPE, 'stderr': slave}
    with subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.PIPE, **streams) as process:
        try:
            assert process.stdout.readline() == b'here\n'
            yield os.ttyname(slave), master
        finally:
            process.kill()
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize('of_a_session', [True, False], ids=['of a session', 'as a stream'])
@pytest.mark.parametrize(
    'program', [None, setup_motors, calibrate, doctor], ids=['the bus', 'setup-motors', 'calibrate', 'doctor']
)
def test_a_terminal_is_never_taken_for_an_arm(of_a_session, program, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('XDG_CONFIG_HOME', str(tmp_path))
    with somebodys_terminal(of_a_session=of_a_session) as (terminal, screen):
        link = tmp_path / 'arm'
        link.symlink_to(terminal)
        handle = os.open(terminal, os.O_RDONLY | os.O_NOCTTY)
        before = termios.tcgetattr(handle)
        if program is None:
            with pytest.raises(PortError, match=f'{link} is the terminal {terminal} of python.*process'):
                ServoBus(str(link)).open()
        else:
            assert program(['--port', str(link)]) != 0
            said = capsys.readouterr()
            assert 'is the terminal' in said.out + said.err
        assert termios.tcgetattr(handle) == before
        assert not select.select([screen], [], [], 0.0)[0]
        os.close(handle)


def test_a_console_of_this_computer_is_no_arm():
    with pytest.raises(PortError, match='of this computer, not a servo bus'):
        refuse_terminal('/dev/tty')


def test_another_emulators_pseudo_terminal_is_a_port():
    master, slave = pty.openpty()
    with ServoBus(os.ttyname(slave)) as bus:
        assert bus.is_open
    os.close(slave)
    os.close(master)


def test_P21_a_missing_permission_names_the_group_and_the_command(tmp_path, monkeypatch):
    device = tmp_path / 'ttyACM0'
    device.touch()
    assert permission_problem(str(device)) is None
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    assert 'usermod -aG' in permission_problem(str(device))
