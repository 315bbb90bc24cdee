# SPDX-License-Identifier: Apache-2.0
"""The real arm_node, and somebody who commands and calls it beside the nodes of the stack."""

from collections.abc import Iterator
import os
import signal
import sys

import numpy as np
import pytest

pytest.importorskip('rclpy')

from so101_interfaces_py.graph import TRUSTED

from .rig_client import ArmClient
from .rig_processes import ArmProcesses, Program, wait_until

POSE = np.array([0.2, -0.6, 0.7, 0.4, -0.3, 0.8])
ELSEWHERE = POSE + np.array([0.4, 0.3, -0.4, 0.3, 0.4, 0.3])
NEAR = 0.03
MANY = 60  # commands that would have moved the arm
SPEAKS = """
import time, rclpy
from sensor_msgs.msg import JointState

rclpy.init()
node = rclpy.create_node('session_node', namespace='voices')
publisher = node.create_publisher(JointState, 'joint_command', 1)
print('there', flush=True)
time.sleep(600)
"""


@pytest.fixture(scope='module')
def arm() -> Iterator[tuple[ArmProcesses, ArmClient]]:
    """An enabled arm that follows a node which has the name of one of the stack's."""
    trusted, os.environ[TRUSTED] = os.environ[TRUSTED], ''
    try:
        with ArmProcesses('voices', pose=POSE, exit_policy='release') as processes:
            processes.node = processes.start_node()
            with ArmClient('voices', 'operator_node') as stack:
                os.environ[TRUSTED] = trusted
                stack.fresh()
                assert stack.enable().success
                yield processes, stack
    finally:
        os.environ[TRUSTED] = trusted


def near(client: ArmClient, pose: np.ndarray) -> bool:
    return bool(client.joints and np.max(np.abs(client.joints[-1].position - pose)) < NEAR)


def test_a_second_publisher_moves_nothing_and_the_first_goes_on_when_it_has_left(arm):
    processes, stack = arm
    with stack.streaming(lambda _: POSE):
        stack.wait(lambda: stack.state == 'enabled', 'an arm that follows')
        with ArmClient('voices', 'stranger') as stranger, stranger.streaming(lambda _: ELSEWHERE):
            stack.wait(lambda: 'stranger' in stack.reason, 'a sentence about the stranger')
            before = len(stranger.sent_s)
            stranger.wait(
                lambda: len(stranger.joints) > 10 and len(stranger.sent_s) > before + MANY, 'commands'
            )
            assert near(stack, POSE)
            assert stack.state == 'hold'
        stack.wait(lambda: stack.state == 'enabled', 'an arm that follows again')
    assert near(stack, POSE)
    told = [line for line in processes.node.lines if 'stranger' in line and 'joint_command' in line]
    assert len(told) == 1


def test_a_second_caller_is_refused_but_for_the_stop(arm):
    _, stack = arm
    with ArmClient('voices', 'console_node') as page:
        page.fresh()
        with ArmClient('voices', 'stranger') as stranger:
            stopped = stranger.e_stop()
            assert stopped.success, stopped.message
            page.wait(lambda: page.state == 'e_stop', 'a stopped arm')
            for refused in (
                stranger.e_stop(False),
                stranger.clear_fault(),
                stranger.enable(),
                stranger.park(),
            ):
                assert not refused.success
                assert 'stranger' in refused.message
            assert not page.enable().success  # nobody can tell who has called
            assert page.status.state == stack.status.state
        wait_until(lambda: page.e_stop(False).success, 'an answer, once the stranger has left')
        assert page.enable().success


def test_who_commanded_before_it_was_killed_does_not_stand_in_the_way(arm):
    processes, stack = arm
    with stack.streaming(lambda _: POSE), Program([sys.executable, '-c', SPEAKS]) as first:
        first.says('there')
        stack.wait(lambda: stack.state == 'enabled', 'both may speak')
        first.send(signal.SIGKILL)
        first.wait()
        with Program([sys.executable, '-c', SPEAKS]) as again:
            again.says('there')
            seen = stack.fresh().stamp_s
            stack.joints_after(seen + 1.0)
            stack.wait_for_state('enabled', after_s=seen + 1.0)
            assert 'session_node' not in stack.reason
    assert processes.node.alive
