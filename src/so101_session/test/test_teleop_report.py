# SPDX-License-Identifier: Apache-2.0
"""What driving was like, in numbers, and what the terminal shows."""

import io

import numpy as np

from so101_contract.action import EeDeltaValue
from so101_contract.session import Driver, SessionStatus
from so101_session.teleop.devices.base import DeviceState
from so101_session.teleop.devices.keys import DEFAULT_KEYS
from so101_session.teleop.pilot import Say
from so101_session.teleop.report import TeleopReport
from so101_session.teleop.terminal import help_lines, status_line, TerminalScreen

VALUE = EeDeltaValue(np.array([0.01, 0.0, 0.0]), 0.5)
ACTS = DeviceState(active=True, axes=(0.5, 0.0, 0.0))


def drive(report, count=50, period=0.1, latency=0.002, executed=1.0, answers=True):
    for index in range(count):
        now = index * period
        report.tick(ACTS, None, now)
        report.said(Say(1, index, VALUE, answers), now)
        if index < executed * count:
            report.executed((1, index), (0.01, 0.0, 0.0), now + latency)


def test_good_driving_is_called_good():
    report = TeleopReport(10.0)
    drive(report)
    assert report.problems() == []
    assert 9.9 < report.said_hz < 10.1
    assert report.latency(0.99) < 0.003
    assert 'good' in report.lines()[-1]


def test_actions_that_nobody_executes_are_a_problem():
    report = TeleopReport(10.0)
    drive(report, executed=0.5)
    assert any('25 of 50 answers to steps were not executed' in problem for problem in report.problems())


def test_driving_outside_of_episodes_is_told_apart():
    report = TeleopReport(10.0)
    drive(report, answers=False, executed=0.0)
    assert report.problems() == ['no step came while you drove: does session_node run, and an episode?']


def test_a_slow_line_is_a_problem():
    report = TeleopReport(10.0)
    drive(report, period=0.2)
    assert any('only 5.0 actions per second' in problem for problem in report.problems())


def test_latency_is_a_problem():
    report = TeleopReport(10.0)
    drive(report, latency=0.08)
    assert any('80 ms' in problem for problem in report.problems())


def test_an_arm_that_does_not_go_where_it_is_told_is_a_problem():
    report = TeleopReport(10.0)
    joints = np.array([0.1, -0.5, 0.6, 0.9, 0.2, 0.6])
    report.tick(ACTS, joints, 0.0)
    drive(report)
    for tick in range(40):
        report.tick(DeviceState(), joints, 5.0 + tick * 0.02)
    assert any('the hand went 0% of the way' in problem for problem in report.problems())


def test_nobody_who_drove_is_no_good_driving():
    assert 'nobody drove' in TeleopReport(10.0).problems()[0]


def test_the_help_names_every_key():
    text = '\n'.join(help_lines('keyboard', DEFAULT_KEYS))
    for entry in DEFAULT_KEYS:
        assert f' {entry.partition("=")[0]} ' in text.replace('\n', ' ')


def test_the_line_says_what_goes_on():
    values = {'driver': Driver.HUMAN, 'episode': 3, 'index': 12, 'sentence': 'episode 3 runs'}
    status = SessionStatus(**{**dict.fromkeys(SessionStatus.__dataclass_fields__, 0), **values})
    line = status_line(DeviceState(active=True, axes=(0.5, -0.5, 0.0), gripper=1.0), 0.4, status, 10.0)
    for text in ('driver human', 'forward right opening', '10 Hz', 'gripper 40% open', 'episode 3 step 12'):
        assert text in line


def test_the_line_says_that_a_dead_device_lets_the_arm_hold():
    assert status_line(DeviceState(alive=False, note='gone'), None, None, 0.0) == 'dead: gone; the arm holds'


def test_no_codes_are_written_to_what_is_no_terminal():
    out = io.StringIO()
    screen = TerminalScreen(out)
    screen.line('never seen')
    screen.say('seen')
    assert out.getvalue() == 'seen\n'
