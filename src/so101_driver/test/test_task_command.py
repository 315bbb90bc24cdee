# SPDX-License-Identifier: Apache-2.0
"""`./so101 task`: the arm is led by hand, the crop is shown, and nothing is written before the end."""

import math

import cv2
import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_contract.task.files import read_task
from so101_driver.calibration.files import save
from so101_driver.emulator.arm import calibrated_arm, virtual_calibration
from so101_driver.setup.task import main
from so101_kinematics.fk import ForwardKinematics

START = (0.0, -0.57, 0.39, 1.47, 0.0, 0.5)
CORNERS = ((-1.1, -0.13, 0.6, 0.82, 0.0, 0.0), (0.55, -0.07, 0.12, 0.08, 0.0, 0.0))


class Person:
    """Answers the questions, and holds the limp arm where they ask for it."""

    def __init__(self, arm, calibration, answers):
        self.arm, self.calibration, self.answers, self.limp = arm, calibration, iter(answers), False
        self.asked = 0

    def __call__(self, question):
        self.limp |= 'limp' in question
        self.asked += 1
        assert self.asked < 30, question
        if 'Hold' in question or 'Now in' in question:
            self.hold(START if 'begins' in question else CORNERS['opposite' in question])
            return ''
        return '' if 'limp' in question else next(self.answers)

    def hold(self, pose):
        ticks = self.calibration.rad_to_encoder_ticks(np.array(pose))
        for name, tick in zip(JOINT_NAMES, ticks, strict=True):
            joint = self.calibration[name]
            self.arm.set_position(joint.id, (int(tick) + joint.homing_offset) % 4096)


def test_start_and_workspace_are_where_the_arm_is_held(tmp_path, capsys):
    calibration = virtual_calibration()
    save(calibration, tmp_path / 'arm.json')
    file = tmp_path / 'bell.yaml'
    with calibrated_arm(calibration, pacing=False) as arm:
        answers = ('Tap the bell.', 'wrist', '', '', '', '', '', '')
        person = Person(arm, calibration, answers)
        words = ['new', str(file), '--port', arm.port, '--calibration', str(tmp_path / 'arm.json')]
        assert main(words, ask=person) == 0, capsys.readouterr().err
        assert person.limp
    task, fk = read_task(file), ForwardKinematics()
    assert task.start.xyz == pytest.approx(fk.position(np.array(START[:5])), abs=0.003)
    assert task.start.pitch_deg == pytest.approx(math.degrees(fk.pitch(np.array(START[:5]))), abs=0.5)
    corners = np.array([fk.position(np.array(pose[:5])) for pose in CORNERS])
    assert task.workspace.low[:2] == pytest.approx(corners.min(axis=0)[:2] - 0.01, abs=0.003)
    assert task.workspace.high == pytest.approx(corners.max(axis=0) + 0.01, abs=0.003)


def test_list_and_check_say_what_there_is(capsys):
    assert main(['list']) == 0
    assert 'push_can     Push the can onto the green mark.' in capsys.readouterr().out
    assert main(['check', 'place']) == 0
    assert 'time_limit' in capsys.readouterr().out
    assert main(['check', 'juggle']) == 1
    assert 'expected one of the tasks lift, place, push_can' in capsys.readouterr().err


def test_a_task_is_written_by_asking_and_a_wrong_answer_is_asked_again(tmp_path, capsys):
    picture = tmp_path / 'view.png'
    cv2.imwrite(str(picture), np.full((48, 64, 3), 90, np.uint8))
    answers = iter(
        [
            *(
                '',
                'Tap the bell.',
                '0.2 0',
                '0.2 0 0.1',
                '0.3 0 0 0.4 0.1 0.1',
                '0.1 -0.2 0.01 0.35 0.2 0.25',
            ),
            *('Wrist!', '', 'wrist', str(picture), '0 0 99 99', '0 8 48 48', '', 'none'),
            *('0', '12', 'suction', 'closed', 'operator', 'Put it back.'),
        ]
    )
    file = tmp_path / 'bell.yaml'
    assert main(['new', str(file), '--no-arm'], ask=lambda _: next(answers)) == 0, capsys.readouterr().err
    task = read_task(file)
    assert (task.name, task.time_limit_s, task.gripper.value) == ('bell', 12.0, 'closed')
    assert task.cameras[0].crop.box == (0, 8, 48, 48)
    shown = cv2.imread(str(tmp_path / 'bell_crops' / 'wrist.png'))
    assert shown.shape == (48, 64 + 48, 3)
    assert main(['new', str(file), '--no-arm'], ask=lambda _: next(answers)) == 1
    assert 'expected no file' in capsys.readouterr().err


def test_who_gives_up_has_written_nothing(tmp_path, capsys):
    def ask(_):
        raise EOFError

    assert main(['new', str(tmp_path / 'bell.yaml'), '--no-arm'], ask=ask) == 130
    assert not list(tmp_path.iterdir())
    assert 'nothing was written' in capsys.readouterr().err
