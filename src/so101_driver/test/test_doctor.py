# SPDX-License-Identifier: Apache-2.0
import io
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from rich.console import Console

from so101_contract.joints import JOINT_NAMES
from so101_contract.task.files import get_task
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.config import BusConfig
from so101_driver.bus.registers import MULTI_TURN_PHASE_BIT, Reg, ServoError
from so101_driver.calibration.calibration import SERVO_IDS
from so101_driver.calibration.files import from_lerobot, Places, save
from so101_driver.doctor.arm import check_arm
from so101_driver.doctor.checks import as_json, Check, passed, run_extra, Status
from so101_driver.doctor.cli import check_access, check_camera, check_cameras, check_ports, find_cameras, main
from so101_driver.doctor.task import check_task_cameras
from so101_driver.emulator.arm import VirtualArm
from so101_driver.setup.ports import SerialPort

DATA = {
    name: {'id': i + 1, 'drive_mode': 0, 'homing_offset': 100 * i, 'range_min': 900, 'range_max': 3100}
    for i, name in enumerate(JOINT_NAMES)
}
DATA['gripper'] |= {'range_min': 1500, 'range_max': 2800}
CYCLES = 20


@pytest.fixture
def calibration():
    return from_lerobot(DATA)


@pytest.fixture
def arm(calibration):
    with VirtualArm(pacing=False) as virtual:
        for name in JOINT_NAMES:
            servo, joint = virtual.servo(SERVO_IDS[name]), calibration[name]
            servo.set(Reg.HOMING_OFFSET, joint.homing_offset)
            servo.set(Reg.MIN_POSITION_LIMIT, joint.range_min)
            servo.set(Reg.MAX_POSITION_LIMIT, joint.range_max)
            servo.set(Reg.RETURN_DELAY_TIME, 0)
        yield virtual


@pytest.fixture
def places(tmp_path, calibration):
    found = Places(tmp_path / 'own', tmp_path / 'lerobot')
    save(calibration, found.own_path('mine'))
    return found


def examined(arm, known, name=None):
    # patient, since the machine that runs the tests may be busy: a late answer counts as a lost one
    bus = ServoBus(arm.port, config=BusConfig(min_timeout_s=0.03, timeout_s=0.1, budget_s=0.5))
    bus.open()
    try:
        return {check.name: check for check in check_arm(bus, known, name, cycles=CYCLES)}
    finally:
        bus.close(torque_off=False)


def run(places, *argv, extra_checks=()):
    out = io.StringIO()
    status = main(argv, console=Console(file=out, width=300), places=places, extra_checks=extra_checks)
    return status, out.getvalue()


def test_a_healthy_arm_passes_every_check(arm, calibration):
    checks = examined(arm, {'mine': calibration}, 'mine')
    assert [name for name, check in checks.items() if check.status is not Status.OK] == []
    assert set(checks) == {
        'arm.servos',
        'arm.model',
        'arm.firmware',
        'arm.settings',
        'arm.voltage',
        'arm.temperature',
        'arm.faults',
        'arm.torque',
        'arm.calibration',
        'arm.line',
    }
    assert calibration.calibration_id in checks['arm.calibration'].finding
    assert 'p99' in checks['arm.line'].finding
    assert 'firmware 3.' in checks['arm.firmware'].finding


def test_nothing_moves_and_nothing_is_written(arm, calibration):
    for servo in arm.servos:
        servo.set(Reg.TORQUE_ENABLE, 1)
    arm.log.clear()
    checks = examined(arm, {'mine': calibration})
    assert arm.log.events() == []
    assert all(servo.get(Reg.TORQUE_ENABLE) == 1 for servo in arm.servos)
    assert checks['arm.torque'].status is Status.WARN


def heat(arm, temperature):
    arm.servo(4).temperature_c = temperature


@pytest.mark.parametrize(
    ('trouble', 'name', 'status', 'says'),
    [
        (lambda a: a.servo(2).set(Reg.MODEL_NUMBER, 2825), 'arm.model', Status.FAIL, '2: 2825'),
        (lambda a: a.servo(2).set(Reg.FIRMWARE_MINOR_VERSION, 7), 'arm.firmware', Status.WARN, '2: 3.7'),
        (lambda a: a.servo(2).set(Reg.RETURN_DELAY_TIME, 250), 'arm.settings', Status.WARN, 'Servo 2 waits'),
        (
            lambda a: a.servo(2).set(Reg.PHASE, 12 | MULTI_TURN_PHASE_BIT),
            'arm.settings',
            Status.FAIL,
            'many turns',
        ),
        (lambda a: setattr(a.servo(2), 'voltage_v', 12.1), 'arm.voltage', Status.FAIL, 'measures 12.1 V'),
        (lambda a: setattr(a.servo(2), 'voltage_v', 3.2), 'arm.voltage', Status.FAIL, 'too weak'),
        (lambda a: heat(a, 58), 'arm.temperature', Status.WARN, 'wrist_flex at 58'),
        (lambda a: heat(a, 66), 'arm.temperature', Status.FAIL, 'wrist_flex at 66'),
        (
            lambda a: setattr(a.servo(6), 'latched', ServoError.OVERLOAD),
            'arm.faults',
            Status.FAIL,
            'gripper: overload',
        ),
        (
            lambda a: a.servo(3).set(Reg.HOMING_OFFSET, 7),
            'arm.calibration',
            Status.FAIL,
            'elbow_flex: homing_offset is 200 in the file and 7',
        ),
        (lambda a: a.faults.mute([3]), 'arm.servos', Status.FAIL, '3 (elbow_flex)'),
        (lambda a: a.faults.mute(range(1, 7)), 'arm.servos', Status.FAIL, 'power supply'),
        (
            lambda a: [s.set(Reg.BAUD_RATE, 1) for s in a.servos],
            'arm.servos',
            Status.FAIL,
            'at 500000 bit/s',
        ),
        (lambda a: a.faults.set_rates(drop=0.3), 'arm.line', Status.FAIL, 'answers lost'),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith('arm.') else '',
)
def test_P21_each_trouble_is_found_and_has_a_remedy(arm, calibration, trouble, name, status, says):
    trouble(arm)
    checks = examined(arm, {'mine': calibration}, 'mine')
    arm.faults.clear()
    assert checks[name].status is status
    assert says in checks[name].line
    assert checks[name].remedy


def test_P21_swapped_arms_are_recognised_by_their_offsets(arm, calibration):
    other = from_lerobot({**DATA, 'gripper': {**DATA['gripper'], 'homing_offset': -3}})
    check = examined(arm, {'left': other, 'right': calibration}, 'left')['arm.calibration']
    assert check.status is Status.FAIL
    assert 'They hold the calibration of right' in check.remedy


def test_an_arm_that_was_never_calibrated_is_told_so(calibration):
    with VirtualArm(pacing=False) as new:
        check = examined(new, {'mine': calibration})['arm.calibration']
    assert check.status is Status.FAIL
    assert 'never calibrated' in check.finding


def test_a_calibration_of_nobody_is_told_so(arm, calibration):
    arm.servo(1).set(Reg.HOMING_OFFSET, 44)
    assert 'none of the calibrations of this machine (mine)' in (
        examined(arm, {'mine': calibration})['arm.calibration'].finding
    )
    check = examined(arm, {'mine': calibration}, 'yours')['arm.calibration']
    assert 'no calibration of the arm yours' in check.finding


def test_an_arm_that_is_unplugged_meanwhile_keeps_its_findings(arm, calibration, monkeypatch):
    bus = ServoBus(arm.port)
    bus.open()
    real = bus.read_all

    def unplug(register, ids=None):
        if register is Reg.MIN_VOLTAGE_LIMIT:
            arm.unplug()
        return real(register, ids)

    monkeypatch.setattr(bus, 'read_all', unplug)
    checks = check_arm(bus, {}, cycles=CYCLES)
    bus.close()
    assert [check.name for check in checks] == [
        'arm.servos',
        'arm.model',
        'arm.firmware',
        'arm.settings',
        'arm.bus',
    ]


def test_the_command_passes_on_a_healthy_arm(arm, places):
    status, out = run(places, '--port', arm.port, '--cycles', str(CYCLES), '--arm', 'mine')
    assert status == 0, out
    assert 'ok   arm.calibration: The servos hold calibration' in out


def test_the_command_prints_json_for_programs(arm, places):
    arm.faults.mute([3])
    status, out = run(places, '--port', arm.port, '--json')
    report = json.loads(out)
    assert status == 1
    assert report['ok'] is False
    assert {'name', 'status', 'finding', 'remedy'} == set(report['checks'][0])
    assert 'fail' in [check['status'] for check in report['checks']]


def test_P21_without_an_arm_it_says_so_and_what_to_do(places, monkeypatch):
    monkeypatch.setattr('so101_driver.doctor.cli.find_ports', lambda: ())
    status, out = run(places)
    assert status == 1
    assert 'No arm is attached' in out
    assert 'Plug its USB cable in' in out
    assert 'skip arm' in out


@pytest.mark.parametrize(('port', 'says'), [('/dev/ttyNOPE', 'does not exist'), ('SERIAL9', 'SERIAL9')])
def test_a_port_that_is_not_there_is_said_in_a_sentence(places, port, says):
    status, out = run(places, '--port', port)
    assert status == 1
    assert says in out


def test_P21_every_adapter_is_examined():
    ports = [
        SerialPort('/dev/ttyACM0', '/dev/serial/by-id/a', '', 0x1A86, 0x55D3, 'A'),
        SerialPort('/dev/ttyACM1', '/dev/serial/by-id/b', '', 0x1A86, 0x55D3, 'B'),
        SerialPort('/dev/ttyACM2', '', '', 0x12D1, 0x1001, 'modem'),
    ]
    check, paths = check_ports('auto', ports)
    assert check.status is Status.OK
    assert paths == ('/dev/serial/by-id/a', '/dev/serial/by-id/b')
    assert check_ports('B', ports)[1] == ()  # its path is not on this machine
    check, paths = check_ports('auto', ports[2:])
    assert (check.status, paths) == (Status.FAIL, ())
    assert '/dev/ttyACM2' in check.finding


def test_P21_a_busy_port_names_the_program(arm, places):
    script = (
        'import sys; from so101_driver.bus.bus import ServoBus; bus = ServoBus(sys.argv[1]); bus.open(); '
        'print("open", flush=True); input(); bus.close(torque_off=False)'
    )
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, '-c', script, arm.port],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout.readline().strip() == 'open'
        check = check_access(arm.port)
        process.communicate('\n', timeout=300)
    assert check.status is Status.FAIL
    assert f'(process {process.pid})' in check.finding


def test_a_port_without_permission_names_the_remedy(arm, monkeypatch):
    monkeypatch.setattr(
        'so101_driver.doctor.cli.permission_problem', lambda path: 'you may not; run `sudo x`'
    )
    check = check_access(arm.port)
    assert (check.finding, check.remedy) == ('You may not.', 'Run `sudo x`.')


def test_extra_checks_of_other_packages_run_too(arm, places):
    def dds():
        return Check('dds', Status.OK, 'Large messages arrive.')

    def several():
        return [Check('a', Status.WARN, 'Hm.'), Check('b', Status.SKIP, 'Not here.')]

    def broken():
        raise RuntimeError('oh')

    _, out = run(places, '--port', arm.port, '--cycles', '2', extra_checks=(dds, several))
    assert 'ok   dds: Large messages arrive.' in out
    assert 'warn a: Hm.' in out
    (check,) = run_extra(broken)
    assert check.status is Status.FAIL
    assert 'oh' in check.finding


def test_only_failures_fail():
    checks = [Check('x', status, 'X.') for status in (Status.OK, Status.WARN, Status.SKIP)]
    assert passed(checks)
    assert json.loads(as_json(checks))['ok']
    assert not passed([*checks, Check('y', Status.FAIL, 'Y.')])


def test_udev_rules_are_printed(places, monkeypatch):
    port = SerialPort('/dev/ttyACM0', '/dev/serial/by-id/a', '', 0x1A86, 0x55D3, '5A46')
    monkeypatch.setattr('so101_driver.doctor.cli.find_ports', lambda: (port,))
    status, out = run(places, '--udev', 'so101=5A46')
    assert status == 0
    assert 'ATTRS{serial}=="5A46", SYMLINK+="so101"' in out
    assert run(places, '--udev', 'so101=nothing')[0] == 1


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'camera.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 30, (640, 480))
    for i in range(5):
        writer.write(np.full((480, 640, 3), 40 * i, np.uint8))
    writer.release()
    return str(path)


def test_a_camera_is_opened_and_its_true_rate_measured(video):
    check = check_camera(video, measure_s=0.6)
    assert check.status in (Status.OK, Status.WARN)  # a slow machine may not keep up
    assert '640x480' in check.finding or 'frames/s' in check.finding


def test_a_camera_that_does_not_open_fails_with_a_remedy(tmp_path, places):
    check = check_camera(str(tmp_path / 'nothing.avi'), measure_s=0.1)
    assert check.status is Status.FAIL
    assert 'does not exist' in check.finding
    assert check.remedy


def test_cameras_are_found_by_their_stable_names(tmp_path):
    assert find_cameras(tmp_path) == ()
    (tmp_path / 'video0').touch()
    assert find_cameras(tmp_path) == (str(tmp_path / 'video0'),)
    (tmp_path / 'v4l/by-path').mkdir(parents=True)
    for index in (0, 1):
        (tmp_path / f'v4l/by-path/usb-video-index{index}').touch()
    assert find_cameras(tmp_path) == (str(tmp_path / 'v4l/by-path/usb-video-index0'),)


def test_no_camera_is_no_failure(monkeypatch):
    monkeypatch.setattr('so101_driver.doctor.cli.find_cameras', lambda: ())
    assert [check.status for check in check_cameras()] == [Status.SKIP]


def seen(source):
    return Check('camera', Status.OK, f'{source} gives pictures.')


def of_task(cameras, given=(), found=()):
    task = get_task('lift').with_cameras(cameras)
    return {check.name: check for check in check_task_cameras(task, given, found, seen)}


def test_the_only_camera_of_a_task_is_the_one_that_is_attached():
    checks = of_task(['wrist'], found=('/dev/video3',))
    assert checks['camera.wrist'].finding == '/dev/video3 gives pictures.'


def test_each_camera_of_a_task_is_examined_by_its_name():
    checks = of_task(['wrist=/dev/video0', 'front'], given=['front=/dev/video2'])
    assert checks['camera.wrist'].finding == '/dev/video0 gives pictures.'
    assert checks['camera.front'].finding == '/dev/video2 gives pictures.'


def test_a_camera_of_a_task_that_nobody_has_attached_fails_by_its_name():
    checks = of_task(['wrist', 'front'], found=('/dev/video0',))
    assert [check.status for check in checks.values()] == [Status.FAIL, Status.FAIL]
    assert '--camera front=DEVICE' in checks['camera.front'].remedy
    assert (
        of_task(['wrist=/dev/video0', 'front'], found=('/dev/video0',))['camera.front'].status is Status.FAIL
    )


def test_two_cameras_without_a_word_which_is_which_are_examined_with_a_warning():
    checks = of_task(['wrist', 'front'], found=('/dev/video0', '/dev/video2'))
    assert checks['camera'].status is Status.WARN
    assert 'which' in checks['camera'].finding
    assert checks['camera.front'].finding == '/dev/video2 gives pictures.'


def test_the_command_reads_the_task_and_looks_at_its_gripper(arm, places, video):
    words = ('--port', arm.port, '--cycles', '2', '--task', 'lift', '--camera', f'wrist={video}')
    status, out = run(places, *words)
    assert 'task: lift: Lift the red cube.' in out
    assert 'camera.wrist: ' in out
    assert 'arm.gripper: The gripper opens by 114 degrees.' in out
    status, out = run(places, '--port', arm.port, '--cycles', '2', '--task', 'lfit')
    assert status == 1
    assert 'fail task: ' in out


def test_a_gripper_that_stays_closed_in_the_task_is_told(arm, places):
    _, out = run(places, '--port', arm.port, '--cycles', '2', '--task', 'push_can')
    assert 'ok   arm.gripper: The gripper stays closed in the task push_can.' in out
