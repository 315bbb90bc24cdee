# SPDX-License-Identifier: Apache-2.0
import io
import itertools
import json
import math
import os
import pty
import re
import threading
import time

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.registers import Reg
from so101_driver.calibration.calibration import SERVO_IDS
from so101_driver.calibration.checks import POSES
from so101_driver.calibration.cli import main
from so101_driver.calibration.display import bar, enter_pressed, Screen
from so101_driver.calibration.files import from_lerobot, load, Places, save
from so101_driver.calibration.procedure import pending_path
from so101_driver.emulator.arm import VirtualArm


def row(servo_id, offset, low, high):
    return {'id': servo_id, 'drive_mode': 0, 'homing_offset': offset, 'range_min': low, 'range_max': high}


DATA = {
    'shoulder_pan': row(1, -871, 790, 3304),
    'shoulder_lift': row(2, 1010, 830, 3264),
    'elbow_flex': row(3, 667, 940, 3154),
    'wrist_flex': row(4, -69, 805, 3142),
    'wrist_roll': row(5, 81, 0, 4095),
    'gripper': row(6, 63, 1322, 2772),
}
STOPS = {
    'shoulder_pan': (2700, 5300),
    'shoulder_lift': (800, 3190),
    'elbow_flex': (-1200, 1010),
    'wrist_flex': (900, 3260),
    'gripper': (3300, 4750),
}


@pytest.fixture
def arm():
    with VirtualArm(pacing=False) as virtual:
        yield virtual


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / 'own', tmp_path / 'lerobot')


class Person:
    """Answers the questions of the command and moves the arm meanwhile."""

    def __init__(self, arm, pose=None, middle=0.0):
        self.arm = arm
        self.pose = pose
        self.middle = middle
        self.questions = []
        self.thread = None
        self.stop = threading.Event()

    def __call__(self, question):
        self.questions.append(question)
        if 'middle' in question:
            self.stop.set()
            self.thread.join(30)
            for name, (low, high) in STOPS.items():
                self.put(name, (low + high) / 2 + self.middle)
            self.put('wrist_roll', 3000)
            self.middle = 0.0
        elif 'limp' in question and self.pose is None:
            self.thread = threading.Thread(target=self.sweep, daemon=True)
            self.thread.start()
        elif 'like this' in question:
            for name, tick in zip(JOINT_NAMES, self.pose, strict=True):
                servo = self.arm.servo(SERVO_IDS[name])
                self.put(name, tick + servo.get(Reg.HOMING_OFFSET))
        return ''

    def put(self, name, encoder):
        self.arm.set_position(SERVO_IDS[name], encoder)

    def sweep(self):
        while not self.stop.is_set():
            for start, end in itertools.pairwise((0.5, 0, 1, 0.5)):
                for share in np.linspace(start, end, 25):
                    for name, (low, high) in STOPS.items():
                        self.put(name, low + share * (high - low))
                    time.sleep(0.004)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr('so101_driver.calibration.cli.SAMPLE_S', 0.001)


def run(arm, places, *argv, ask=lambda question: '', width=200):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    port = [] if arm is None else ['--port', arm.port]
    status = main([*port, *argv], ask=ask, console=console, places=places)
    return status, out.getvalue()


def hold(arm, calibration):
    """Let the servos of the arm hold a calibration."""
    for name in JOINT_NAMES:
        servo, joint = arm.servo(SERVO_IDS[name]), calibration[name]
        servo.set(Reg.HOMING_OFFSET, joint.homing_offset)
        servo.set(Reg.MIN_POSITION_LIMIT, joint.range_min)
        servo.set(Reg.MAX_POSITION_LIMIT, joint.range_max)


def test_P3_the_guided_calibration_ends_by_itself_and_says_its_id(arm, places, quick):
    person = Person(arm)
    status, out = run(arm, places, '--arm', 'mine', ask=person)
    assert status == 0, out
    calibration = load(places.own_path('mine'))
    assert f'Calibration {calibration.calibration_id} of the arm mine' in out
    assert re.search(r'shoulder_pan  \[[=O]+\]', out), 'a bar without gaps, wherever the joint stands in it'
    assert 'done' in out
    for name in STOPS:
        assert arm.servo(SERVO_IDS[name]).get_stored(Reg.HOMING_OFFSET) == calibration[name].homing_offset
    assert 'limp' in person.questions[0]
    status, out = run(arm, places, '--arm', 'mine', '--check')
    assert status == 0
    assert calibration.calibration_id in out


def test_P3_a_bad_pose_is_asked_for_again(arm, places, quick):
    person = Person(arm, middle=600.0)
    status, out = run(arm, places, ask=person)
    assert status == 0
    assert 'from the middle of its travel' in out
    assert len([question for question in person.questions if 'middle' in question]) == 2


def test_a_leader_is_calibrated_as_one(arm, places, quick):
    status, _ = run(arm, places, '--leader', ask=Person(arm))
    assert status == 0
    assert load(places.own_path('leader')).gripper_map == 'linear'


def test_an_arm_that_nobody_moves_gives_up_and_writes_nothing(arm, places, quick, capsys):
    status, _ = run(arm, places, '--timeout', '0.1')
    assert status == 1
    assert 'nothing was written' in capsys.readouterr().err
    assert not list(places.own.glob('*'))
    assert all(servo.get(Reg.HOMING_OFFSET) == 0 for servo in arm.servos)


def test_stopping_leaves_the_arm_as_it_was_and_standing(arm, places, capsys):
    for servo in arm.servos:
        servo.set(Reg.TORQUE_ENABLE, 1)

    def stop(question):
        raise KeyboardInterrupt

    status, _ = run(arm, places, ask=stop)
    assert status == 130
    assert 'the servos hold what they held' in capsys.readouterr().err
    assert all(servo.get(Reg.TORQUE_ENABLE) == 1 for servo in arm.servos)


def test_stopping_in_the_sweep_leaves_the_arm_limp(arm, places, quick):
    def stop_in_the_middle(question):
        if 'middle' in question:
            raise KeyboardInterrupt
        return person(question)

    person = Person(arm)
    status, _ = run(arm, places, ask=stop_in_the_middle)
    person.stop.set()
    person.thread.join(30)
    assert status == 130
    assert not any(servo.torque_on for servo in arm.servos)
    assert all(servo.get(Reg.HOMING_OFFSET) == 0 for servo in arm.servos)


def test_P3_lerobots_file_goes_in_and_out(places, tmp_path):
    source = tmp_path / 'theirs.json'
    source.write_text(json.dumps(DATA, indent=4))
    assert run(None, places, '--arm', 'mine', '--import-lerobot', str(source))[0] == 0
    assert run(None, places, '--arm', 'mine', '--export', str(tmp_path / 'out.json'))[0] == 0
    assert (tmp_path / 'out.json').read_bytes() == source.read_bytes()
    assert run(None, places, '--arm', 'mine', '--export', 'lerobot')[0] == 0
    assert (places.lerobot / 'robots/so_follower/mine.json').read_bytes() == source.read_bytes()
    _, out = run(None, places, '--list')
    assert f'mine: {from_lerobot(DATA).calibration_id}' in out


def test_a_bad_lerobot_file_is_refused_in_a_sentence(places, tmp_path, capsys):
    source = tmp_path / 'theirs.json'
    source.write_text(json.dumps({**DATA, 'gripper': row(6, 0, 2046, 2053)}))
    assert run(None, places, '--import-lerobot', str(source))[0] == 1
    assert 'gripper: expected a travel of about 110 degrees' in capsys.readouterr().err
    assert not list(places.own.glob('*'))


def test_P4_check_says_what_differs_and_changes_nothing(arm, places):
    calibration = from_lerobot(DATA)
    save(calibration, places.own_path('mine'))
    hold(arm, calibration)
    arm.servo(3).set(Reg.HOMING_OFFSET, 12)
    for servo in arm.servos:
        servo.set(Reg.TORQUE_ENABLE, 1)
    status, out = run(arm, places, '--arm', 'mine', '--check')
    assert status == 1
    assert 'elbow_flex: homing_offset is 667 in the file and 12 in the servo' in out
    assert '--to-servos' in out
    assert all(servo.get(Reg.TORQUE_ENABLE) == 1 for servo in arm.servos)
    assert not arm.log.events()


def test_P21_check_says_whose_servos_these_are(arm, places):
    save(from_lerobot(DATA), places.own_path('mine'))
    other = from_lerobot({**DATA, 'elbow_flex': row(3, 5, 940, 3154)})
    save(other, places.own_path('other'))
    hold(arm, other)
    status, out = run(arm, places, '--arm', 'mine', '--check')
    assert status == 1
    assert 'They hold that of other: is this that arm?' in out


def test_P3_an_imported_file_can_be_written_into_the_servos(arm, places):
    save(from_lerobot(DATA), places.own_path('mine'))
    assert run(arm, places, '--arm', 'mine', '--to-servos')[0] == 0
    assert arm.servo(3).get_stored(Reg.HOMING_OFFSET) == 667
    assert run(arm, places, '--arm', 'mine', '--check')[0] == 0


def test_an_interrupted_calibration_is_offered_and_finished(arm, places):
    calibration = from_lerobot(DATA)
    save(from_lerobot({**DATA, 'gripper': row(6, 1, 1322, 2772)}), places.own_path('mine'))
    save(calibration, pending_path(places.own_path('mine')))
    _, out = run(arm, places, '--arm', 'mine', '--check')
    assert 'finish it with `calibrate --resume`' in out
    assert run(arm, places, '--arm', 'mine', '--resume')[0] == 0
    assert load(places.own_path('mine')) == calibration
    assert set(places.known()) == {'mine'}


def test_resume_without_anything_to_finish_leaves_the_arm_standing(arm, places, capsys):
    arm.servo(1).set(Reg.TORQUE_ENABLE, 1)
    assert run(arm, places, '--resume')[0] == 1
    assert 'no such file' in capsys.readouterr().err
    assert arm.servo(1).get(Reg.TORQUE_ENABLE) == 1


def posed(calibration, *errors_deg):
    return calibration.rad_to_encoder_ticks(np.array(POSES['zero'].joints_rad) + np.radians(errors_deg))


def test_P4_the_zero_check_measures_and_applies_offsets(arm, places, quick):
    calibration = from_lerobot(DATA)
    save(calibration, places.own_path('mine'))
    hold(arm, calibration)
    person = Person(arm, posed(calibration, 0, 0, -12.5, 2, 0, 0))
    status, out = run(arm, places, '--arm', 'mine', '--zero-check', ask=person)
    assert status == 0
    assert 'elbow_flex is -12.5 degrees off' in out
    assert load(places.own_path('mine')) == calibration
    status, _ = run(arm, places, '--arm', 'mine', '--zero-check', '--apply', ask=person)
    assert status == 0
    fixed = load(places.own_path('mine'))
    assert fixed['elbow_flex'].offset_rad == pytest.approx(math.radians(12.5), abs=0.002)
    assert fixed.calibration_id != calibration.calibration_id
    assert run(arm, places, '--arm', 'mine', '--check')[0] == 0


def test_P4_the_zero_check_fails_on_an_assembly_error(arm, places, quick):
    calibration = from_lerobot(DATA)
    save(calibration, places.own_path('mine'))
    hold(arm, calibration)
    person = Person(arm, posed(calibration, 0, 0, 0, 0, 178, 0))
    status, out = run(arm, places, '--arm', 'mine', '--zero-check', '--apply', ask=person)
    assert status == 1
    assert 'half a turn off' in out
    assert load(places.own_path('mine')) == calibration


def test_P4_the_zero_check_refuses_servos_with_another_calibration(arm, places, capsys):
    save(from_lerobot(DATA), places.own_path('mine'))
    assert run(arm, places, '--arm', 'mine', '--zero-check')[0] == 1
    assert 'calibrate --check' in capsys.readouterr().err


def test_a_missing_arm_is_one_sentence(places, capsys):
    assert main(['--port', '/dev/nothing-here', '--check'], places=places) == 1
    assert 'does not exist' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['../x', 'a b', ''])
def test_bad_arm_names_are_refused(places, capsys, name):
    status = main(['--list', '--arm', name], places=places)
    assert status == (0 if not name else 1)


def test_bars_show_range_and_position():
    assert bar(-1, 0, 1, 1, width=5) == '==O=='
    assert bar(0, 0, 0, 1, width=5) == '..O..'
    assert bar(-0.5, -9, 0.5, 1, width=5) == 'O===.'


def test_bars_are_drawn_in_place_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, _environ={'TERM': 'xterm'})
    screen = Screen(console, time.monotonic)
    with screen.live():
        screen.show([], last=True)
    assert '\x1b[' in out.getvalue()


def test_a_dumb_terminal_gets_plain_lines():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, _environ={'TERM': 'dumb'})
    clock = iter([0.0, 0.5, 2.5]).__next__
    screen = Screen(console, clock)
    with screen.live():
        for text in ('first', 'second', 'third'):
            screen.show([Text(text)])
    assert out.getvalue().split() == ['first', 'third']


def test_enter_is_noticed_without_waiting():
    master, slave = pty.openpty()
    with os.fdopen(slave, 'r') as stream:
        assert not enter_pressed(stream)
        os.write(master, b'\n')
        deadline = time.monotonic() + 5
        while not enter_pressed(stream):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not enter_pressed(stream)
    os.close(master)
    assert not enter_pressed(io.StringIO('\n'))
