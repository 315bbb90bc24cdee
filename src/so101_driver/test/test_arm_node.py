# SPDX-License-Identifier: Apache-2.0
"""The real arm_node, in a process of its own, on a virtual arm, over DDS."""

from collections.abc import Iterator
import os
import signal
import sys
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_driver.calibration.calibration import RAD_PER_TICK

from .rig_client import ArmClient
from .rig_processes import ARM_NODE, ArmProcesses, Program, wait_until

POSE = np.array([0.2, -0.6, 0.7, 0.4, -0.3, 0.8])
ELSEWHERE = POSE + np.array([0.4, 0.3, -0.4, 0.3, 0.4, 0.3])
NEAR = 0.03
# Runs arm_node with an Arm whose cycle fails from the given one on.
FAILING_NODE = """
import sys
from so101_driver import arm_node

class FailingArm(arm_node.Arm):
    count = 0
    def cycle(self):
        self.count += 1
        if self.count >= {first}:
            raise RuntimeError('this cycle fails')
        return super().cycle()

arm_node.Arm = FailingArm
arm_node.main()
"""


class Running:
    """A virtual arm, an arm_node on it, and a client."""

    def __init__(self, processes: ArmProcesses, client: ArmClient, node: Program) -> None:
        self.processes, self.client, self.node = processes, client, node
        self.control = processes.control

    def reset(self) -> None:
        """Back to a limp, healthy arm in POSE, with nothing left of the test before."""
        self.control.call('clear_faults')
        self.client.e_stop(False)
        self.client.clear_fault()
        self.client.enable(False)
        self.client.wait(lambda: self.client.state == 'disabled', 'a disabled arm')
        wait_until(lambda: not any(self.processes.driven()), 'a limp arm')
        self.processes.place(POSE)
        self.at(POSE)
        self.client.forget()
        self.control.call('clear_log')

    def enable(self) -> None:
        # A virtual arm that is late for a cycle refuses, as one with a loose cable does.
        wait_until(lambda: self.client.enable().success, 'an arm that can be enabled')
        self.client.wait(lambda: 'waiting for a command' in self.client.reason, 'the arm enabled')

    def at(self, pose: np.ndarray) -> None:
        self.client.wait(
            lambda: self.client.joints and np.max(np.abs(self.client.joints[-1].position - pose)) < NEAR,
            f'joint_states at {pose}',
        )

    def goals(self, after_s: float = 0.0) -> np.ndarray:
        """Goal writes (n, 6) [ticks] after a time."""
        log = self.control.call('log', register='GOAL_POSITION', after_s=after_s)
        return np.array([event['value'] for event in log]).reshape(-1, 6)

    def energising(self, after_s: float) -> list:
        return [event for event in self.control.call('log', after_s=after_s) if event['energises']]


@pytest.fixture(scope='module')
def left_and_right() -> Iterator[dict[str, Running]]:
    """Two arms that run for the whole module, one in each namespace."""
    with (
        ArmProcesses('left', pose=POSE, exit_policy='release') as left,
        ArmProcesses('right', pose=POSE, exit_policy='release') as right,
        ArmClient('left') as left_client,
        ArmClient('right') as right_client,
    ):
        nodes = left.start_node(), right.start_node()
        arms = {
            'left': Running(left, left_client, nodes[0]),
            'right': Running(right, right_client, nodes[1]),
        }
        for arm in arms.values():
            arm.client.fresh()
        yield arms


@pytest.fixture
def arm(left_and_right: dict[str, Running]) -> Running:
    left_and_right['left'].reset()
    return left_and_right['left']


# ---- while it runs ---------------------------------------------------------------------------------------


def test_P13_joint_states_come_a_hundred_times_a_second(arm):
    arm.client.wait(lambda: len(arm.client.joints) > 100, '100 joint_states')
    stamps = [joints.stamp_s for joints in arm.client.joints]
    assert np.median(np.diff(stamps)) == pytest.approx(0.01, abs=0.001)
    assert arm.client.status.period_p50 == pytest.approx(0.01, abs=0.001)


def test_F1_joint_states_are_the_pose_of_the_arm_in_rad(arm):
    joints = arm.client.fresh()
    assert joints.position == pytest.approx(POSE, abs=1.01 * RAD_PER_TICK)
    assert np.abs(joints.velocity).max() < 0.1


def test_stamps_are_the_time_of_measurement(arm):
    arm.client.wait(lambda: len(arm.client.joints) > 50, '50 joint_states')
    assert min(joints.received_s - joints.stamp_s for joints in arm.client.joints) < 0.03
    assert all(joints.stamp_s < joints.received_s for joints in arm.client.joints)


def test_P8_enabling_moves_nothing_though_far_commands_were_sent_before(arm):
    with arm.client.streaming(lambda _: ELSEWHERE):
        arm.client.wait(lambda: len(arm.client.sent_s) > 10, 'commands sent')
        assert arm.goals().size == 0
    arm.enable()
    expected = arm.processes.calibration.rad_to_ticks(POSE)
    assert np.abs(arm.goals()[:2] - expected).max() <= 2
    arm.at(POSE)


def test_a_command_is_followed_and_a_reached_pose_held(arm):
    arm.enable()
    with arm.client.streaming(lambda _: ELSEWHERE):
        arm.client.wait_for_state('enabled')
        arm.at(ELSEWHERE)
    arm.client.wait_for_state('hold', after_s=time.monotonic())
    arm.at(ELSEWHERE)
    assert all(arm.processes.driven())


def test_A14_a_stream_that_ends_leads_to_hold_within_the_time_out(arm):
    arm.enable()
    with arm.client.streaming(lambda time_s: POSE + 0.3 * np.sin(2.0 * time_s)):
        arm.client.wait_for_state('enabled')
        time.sleep(0.3)
    last = arm.client.sent_s[-1]
    held = arm.client.wait_for_state('hold', after_s=last)
    assert 'no command' in held.message.reason
    settled = arm.client.joints_after(held.received_s + 0.3).position
    after = arm.goals(held.received_s)
    assert np.abs(after - after[0]).max() == 0
    assert arm.client.joints_after(time.monotonic() + 0.2).position == pytest.approx(
        settled, abs=2 * RAD_PER_TICK
    )


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf], ids=str)
def test_A14_a_command_that_is_not_finite_is_refused_and_moves_nothing(arm, bad):
    arm.enable()
    target = ELSEWHERE.copy()
    target[2] = bad
    refused = arm.client.status.refused
    with arm.client.streaming(lambda _: target):
        wait_until(lambda: arm.client.status.refused > refused + 5, 'commands refused')
    assert arm.client.state == 'hold'
    arm.at(POSE)


@pytest.mark.parametrize(
    ('names', 'positions'),
    [
        (JOINT_NAMES[:5], ELSEWHERE[:5]),
        ((*JOINT_NAMES, 'elbow_roll'), [*ELSEWHERE, 0.0]),
        (JOINT_NAMES, ELSEWHERE[:5]),
        ((*JOINT_NAMES[:5], JOINT_NAMES[0]), ELSEWHERE),
        ((), ()),
    ],
    ids=['a joint missing', 'a joint too many', 'a position missing', 'a joint twice', 'empty'],
)
def test_A14_a_malformed_command_is_refused_and_moves_nothing(arm, names, positions):
    arm.enable()
    refused = arm.client.status.refused
    for _ in range(3):
        arm.client.command(positions, names)
        time.sleep(0.02)  # a depth of one keeps only the newest
    wait_until(lambda: arm.client.status.refused > refused, 'a command refused')
    assert arm.client.state == 'hold'
    arm.at(POSE)


@pytest.mark.parametrize('age_s', [0.5, -0.5], ids=['from the past', 'from the future'])
def test_A14_a_command_with_a_bad_stamp_is_refused_and_moves_nothing(arm, age_s):
    arm.enable()
    refused = arm.client.status.refused
    arm.client.command(ELSEWHERE, age_s=age_s)
    wait_until(lambda: arm.client.status.refused > refused, 'a command refused')
    arm.at(POSE)


def test_a_command_without_a_stamp_is_followed(arm):
    arm.enable()
    arm.client.command(POSE + 0.1, age_s=None)
    arm.client.wait_for_state('enabled')


def test_a_command_beyond_the_limits_is_clamped_to_them(arm):
    arm.enable()
    upper = np.array([JOINT_LIMITS_RAD[name][1] for name in JOINT_NAMES])
    target = POSE.copy()
    target[4] = 9.0
    with arm.client.streaming(lambda _: target):
        arm.at(np.array([*POSE[:4], upper[4], POSE[5]]))
    assert arm.client.status.clamped > 0


def test_P11_an_e_stop_drops_the_torque_and_stays_though_commands_go_on(arm):
    arm.enable()
    with arm.client.streaming(lambda time_s: POSE + 0.2 * np.sin(time_s)):
        arm.client.wait_for_state('enabled')
        assert arm.client.e_stop().success
        wait_until(lambda: not any(arm.processes.driven()), 'all motors off', 1.0)
        stopped = time.monotonic()
        arm.client.wait_for_state('e_stop')
        time.sleep(0.3)
        assert not arm.client.enable().success
        assert arm.energising(stopped) == []
    assert not any(arm.processes.driven())
    assert arm.client.e_stop(False).success
    arm.client.wait(lambda: arm.client.state == 'disabled', 'a disabled arm')
    arm.enable()


def test_a_stop_that_is_over_before_the_next_cycle_is_heard_all_the_same(arm):
    """Who does not hear of it would go on with what it did, as soon as the motors are on again."""
    for _ in range(5):
        arm.enable()
        arm.client.forget()
        arm.client.stop_and_clear()
        arm.client.wait_for_state('disabled')
        assert 'e_stop' in {status.state for status in arm.client.statuses}


def test_two_arms_in_two_namespaces_do_not_hear_each_other(left_and_right):
    left, right = left_and_right['left'], left_and_right['right']
    for arm in (left, right):
        arm.reset()
        arm.enable()
    with left.client.streaming(lambda _: ELSEWHERE):
        left.at(ELSEWHERE)
    right.at(POSE)
    left.client.e_stop()
    wait_until(lambda: not any(left.processes.driven()), 'the left arm limp')
    assert all(right.processes.driven())


def test_a_mute_servo_silences_its_own_joint_alone_and_moves_nothing(arm):
    others = [name for name in JOINT_NAMES if name != 'elbow_flex']
    arm.enable()
    with arm.client.streaming(lambda _: ELSEWHERE):
        arm.client.wait_for_state('enabled')
        arm.control.call('mute', ids=[3])
        arm.client.wait_for_state('fault')
        arm.client.partial = None
        arm.control.call('clear_log')
        arm.client.wait(lambda: arm.client.partial, 'joint_states of the others')
        told, pose = arm.client.partial, arm.processes.pose()
        expected = dict(zip(JOINT_NAMES, pose, strict=True))
        assert list(told.name) == others
        assert list(told.position) == pytest.approx([expected[name] for name in others], abs=NEAR)
        assert len(told.velocity) == len(others)
        assert 'elbow_flex (servo 3)' in arm.client.reason
        refused = arm.client.enable()
        assert not refused.success
        assert 'elbow_flex (servo 3)' in refused.message
        assert arm.goals().size == 0
    back = time.monotonic()
    arm.control.call('mute', ids=[])
    assert np.abs(arm.client.joints_after(back).velocity).max() < 0.5


def test_P1_an_unplugged_arm_is_back_after_it_is_plugged_in_and_enabled(arm):
    arm.enable()
    arm.control.call('unplug')
    arm.client.wait_for_state('fault')
    arm.control.call('replug')
    replugged = time.monotonic()
    arm.client.joints_after(replugged)
    assert arm.node.alive
    assert arm.goals(replugged).size == 0
    arm.enable()
    assert np.abs(arm.goals(replugged)[0] - arm.processes.calibration.rad_to_ticks(POSE)).max() <= 2


# ---- its end and its next start --------------------------------------------------------------------------


@pytest.fixture(scope='module')
def lone_arm() -> Iterator[ArmProcesses]:
    with ArmProcesses('lone', pose=POSE, enable_at_start=True) as processes:
        yield processes


@pytest.fixture
def lone(lone_arm: ArmProcesses) -> Iterator[ArmProcesses]:
    """A virtual arm for nodes that a test starts and ends."""
    yield lone_arm
    lone_arm.end_nodes()


@pytest.fixture
def lone_client() -> Iterator[ArmClient]:
    with ArmClient('lone') as client:
        yield client


def energised(processes: ArmProcesses, node: Program) -> None:
    node.says('waiting for a command')
    wait_until(lambda: all(processes.driven()), 'torque on')


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
HEARS_HANGUP = ('env', '--default-signal=HUP', *ARM_NODE)  # although the tests may run under nohup


@pytest.mark.parametrize('number', ENDS, ids=lambda number: number.name)
def test_A13_a_signal_parks_the_arm_and_ends_the_node_with_the_torque_off(lone, number):
    node = lone.start_node(HEARS_HANGUP)
    energised(lone, node)
    node.send(number)
    assert node.wait() == 0, node.output
    assert not any(lone.driven())
    assert 'is closed' in node.output


def test_A13_a_node_whose_parent_is_killed_parks_and_releases(lone):
    parent = 'import subprocess, sys; subprocess.run(sys.argv[1:])'
    node = lone.start_node([sys.executable, '-c', parent, *HEARS_HANGUP])
    energised(lone, node)
    node.send(signal.SIGKILL)
    node.says('parked and released', 100.0)
    wait_until(lambda: not any(lone.driven()), 'a limp arm')


def test_A13_a_second_signal_ends_the_node_at_once_with_the_torque_off(lone):
    lone.place(np.array([0.0, 1.7, -1.6, 0.0, 0.0, 0.5]))
    node = lone.start_node(exit_timeout_s=20.0)
    energised(lone, node)
    node.send(signal.SIGINT)
    lone.control.call('clear_log')
    wait_until(lambda: len(lone.control.call('log', register='GOAL_POSITION')) > 360, 'the arm parking')
    sent = node.send(signal.SIGINT)
    assert node.wait() == 0, node.output
    assert node.ended_s - sent < 10.0, 'parking may take 20 s'
    assert not any(lone.driven())


def test_A13_a_signal_ends_a_node_that_still_waits_for_its_arm(lone):
    node = lone.start_node(port='/dev/no-such-arm', connect_timeout_s=60.0)
    node.says('waiting for the arm')
    node.send(signal.SIGINT)
    assert node.wait() == 0, node.output


def test_P1_a_node_waits_for_an_arm_that_has_no_power_yet(lone):
    lone.control.call('power', on=False)
    node = lone.start_node()
    node.says('waiting for the arm: No servo answers')
    lone.control.call('power', on=True)
    energised(lone, node)
    node.end()


def test_P1_a_node_looks_anew_at_its_port_with_each_attempt(lone, tmp_path):
    mute, slave = os.openpty()
    link, aside = tmp_path / 'arm', tmp_path / 'aside'
    link.symlink_to(os.ttyname(slave))
    node = lone.start_node(port=str(link), connect_timeout_s=100.0)
    node.says('waiting for the arm: No servo answers')
    aside.symlink_to(lone.port)
    aside.replace(link)
    energised(lone, node)
    node.end()
    os.close(slave)
    os.close(mute)


def test_A12_the_exit_policy_hold_leaves_the_torque_on(lone):
    node = lone.start_node(exit_policy='hold')
    energised(lone, node)
    node.send(signal.SIGTERM)
    assert node.wait() == 0, node.output
    assert all(lone.driven())


def test_A12_an_exception_in_the_cycle_ends_the_node_with_the_torque_off(lone):
    node = lone.start_node([sys.executable, '-c', FAILING_NODE.format(first=50)])
    energised(lone, node)
    assert node.wait() != 0
    assert 'this cycle fails' in node.output
    assert not any(lone.driven())


def test_P8_a_killed_node_starts_again_without_a_jump(lone, lone_client):
    lone.place(POSE)
    node = lone.start_node()
    energised(lone, node)
    with lone_client.streaming(lambda _: ELSEWHERE):
        wait_until(lambda: np.abs(lone.pose() - POSE).max() > 0.1, 'an arm in motion', 30.0)
        node.send(signal.SIGKILL)
        node.wait()
        assert all(lone.driven())
        wait_until(lambda: not any(lone.registers('MOVING')), 'an arm at rest')
        present = np.array(lone.registers('PRESENT_POSITION'))
        lone.control.call('clear_log')
        again = lone.start_node()
        lone_client.wait_for_state('enabled', after_s=again.started_s, deadline_s=30.0)
    goals = np.array([e['value'] for e in lone.control.call('log', register='GOAL_POSITION')])
    first = goals[: 6 * (len(goals) // 6)].reshape(-1, 6)
    assert np.abs(first[0] - present).max() <= 2
    ramp = 0.02 * 3.0 / RAD_PER_TICK
    assert np.abs(np.diff(first, axis=0)).max() <= ramp + 1
    again.end()


def test_a_second_node_on_the_port_is_refused_with_a_sentence(left_and_right):
    left = left_and_right['left']
    elsewhere = ('--ros-args', '-r', '__ns:=/elsewhere')  # in its own namespace its name would be taken
    second = left.processes.start_node((*ARM_NODE, *elsewhere), connect_timeout_s=0.0)
    assert second.wait() == 1
    assert 'is used by another program' in second.lines[-1]
    left.client.fresh()


@pytest.mark.parametrize(
    ('parameters', 'sentence'),
    [
        ({'rate_hertz': 50.0}, 'has no parameter rate_hertz; it has: port'),
        ({'rate_hz': 50}, 'rate_hz'),
        ({'exit_policy': 'explode'}, "exit_policy = 'explode' is not one of"),
        ({'calibration': '/nowhere/arm.json'}, '/nowhere/arm.json'),
        ({'port': '/dev/no-such-arm', 'connect_timeout_s': 0.0}, '/dev/no-such-arm does not exist'),
    ],
    ids=['misspelt parameter', 'int for a float', 'unknown choice', 'missing calibration', 'missing port'],
)
def test_P2_a_wrong_set_up_ends_with_one_sentence(lone, parameters, sentence):
    node = lone.start_node(**parameters)
    assert node.wait() == 1
    assert sentence in node.lines[-1]
    assert 'Traceback' not in node.output
