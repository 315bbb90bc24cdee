# SPDX-License-Identifier: Apache-2.0
"""Arm, driver and controller as `./so101 up` starts them, and as `ros2 launch` does where ROS has it: real DDS between
real processes, the same assertions for both."""

from importlib.util import find_spec
import os
from pathlib import Path
import pty
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from geometry_msgs.msg import PoseStamped
from so101_interfaces.msg import ArmStatus, EeDelta
from std_srvs.srv import SetBool

from so101_interfaces_py import qos, topics

ROOT = Path(__file__).parents[3]
LAUNCH = ROOT / 'launch'
NO_LAUNCH = pytest.mark.skipif(find_spec('launch_ros') is None, reason='this ROS has no launch_ros')
# What `ros2 launch FILE` does, without the ros2 command.
RUN_FILE = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(word.split(':=')) for word in sys.argv[2:]]
service = LaunchService()
source = PythonLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""
STARTERS = {
    'up': [sys.executable, '-m', 'so101_bringup.cli', 'up', '--stack', 'sim'],
    'launch': [sys.executable, '-c', RUN_FILE, str(LAUNCH / 'sim.launch.py')],
}


class Graph:
    """The stack in a namespace, and a node that watches and drives it."""

    def __init__(self, starter, namespace):
        self.starter = starter
        self.process = subprocess.Popen(
            [*STARTERS[starter], f'namespace:={namespace}', 'tf:=own'],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.node = rclpy.create_node('test_graph', namespace=namespace)
        self.poses, self.statuses = [], []
        self.node.create_subscription(PoseStamped, topics.TCP_POSE, self.poses.append, qos.STATE_SUBSCRIBER)
        self.node.create_subscription(ArmStatus, topics.ARM_STATUS, self.statuses.append, qos.LATCHED)
        self.deltas = self.node.create_publisher(EeDelta, topics.EE_DELTA_CMD, qos.COMMAND)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.01)

    def spin_until(self, condition, timeout=300.0):
        end = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < end, f'waited too long; last status: {self.statuses[-1:]}'
            rclpy.spin_once(self.node, timeout_sec=0.01)

    def is_in(self, *states):
        return bool(self.statuses) and self.statuses[-1].state in states

    def tcp(self):
        count = len(self.poses)
        self.spin_until(lambda: len(self.poses) > count)
        point = self.poses[-1].pose.position
        return np.array([point.x, point.y, point.z])

    def drive(self, xyz, steps):
        """Send one action ten times a second, as a session does."""
        for _ in range(steps):
            message = EeDelta(gripper=0.5, source=EeDelta.SOURCE_TELEOP)
            message.header.frame_id = 'base_link'
            message.header.stamp = self.node.get_clock().now().to_msg()
            message.translation.x, message.translation.y, message.translation.z = map(float, xyz)
            self.deltas.publish(message)
            self.spin(0.1)

    def moves_by_what_it_is_told(self, y, steps, within):
        """Whether actions along y add up; to and fro, where a busy machine made one of them stale."""
        for attempt in range(20):
            way = np.array([0.0, y if attempt % 2 == 0 else -y, 0.0])
            before = self.tcp()
            self.drive(way, steps)
            self.drive([0.0, 0.0, 0.0], 10)
            moved = self.tcp() - before
            if np.linalg.norm(moved - steps * way) < within:
                return True
            assert np.linalg.norm(moved) < steps * abs(y) + within, 'it moved further than it was told'
        return False

    def call(self, name, value):
        client = self.node.create_client(SetBool, name)
        assert client.wait_for_service(200.0)
        future = client.call_async(SetBool.Request(data=value))
        self.spin_until(future.done)
        return future.result()


@pytest.fixture(scope='module', params=['up', pytest.param('launch', marks=NO_LAUNCH)])
def graph(request):
    rclpy.init()
    graph = Graph(request.param, f'test_graph_{request.param}')
    graph.spin_until(lambda: graph.poses and graph.is_in(ArmStatus.HOLD))
    yield graph
    if graph.process.poll() is None:
        graph.process.kill()
    graph.process.wait()
    graph.node.destroy_node()
    rclpy.try_shutdown()


def test_an_action_moves_the_arm_by_what_it_says(graph):
    graph.drive([0.0, 0.0, 0.012], 12)  # out of the folded rest pose
    graph.drive([0.01, 0.0, 0.0], 5)
    graph.drive([0.0, 0.0, 0.0], 10)
    assert graph.moves_by_what_it_is_told(0.01, 5, within=0.005)


def test_without_actions_the_arm_holds_still(graph):
    graph.spin(0.5)
    before = graph.tcp()
    graph.spin(2.0)
    assert np.linalg.norm(graph.tcp() - before) < 1e-3
    assert graph.is_in(ArmStatus.HOLD, ArmStatus.ENABLED)


def test_the_e_stop_ends_motion_and_actions_do_not_bring_it_back(graph):
    assert graph.call(topics.ARM_E_STOP_SERVICE, True).success
    graph.spin_until(lambda: graph.is_in(ArmStatus.E_STOP))
    graph.drive([0.0, 0.01, 0.0], 5)
    assert graph.is_in(ArmStatus.E_STOP)
    assert not any(graph.statuses[-1].torque)
    assert not graph.call(topics.ARM_ENABLE_SERVICE, True).success
    assert graph.call(topics.ARM_E_STOP_SERVICE, False).success
    assert graph.call(topics.ARM_ENABLE_SERVICE, True).success
    graph.spin_until(lambda: graph.is_in(ArmStatus.HOLD, ArmStatus.ENABLED))
    assert graph.moves_by_what_it_is_told(0.01, 3, within=0.008)


def test_A13_an_interrupt_ends_every_process_and_the_exit_code_is_zero(graph):
    graph.process.send_signal(signal.SIGINT)
    output, _ = graph.process.communicate(timeout=150.0)
    assert graph.process.returncode == 0
    assert 'is closed' in output
    assert 'Traceback' not in output


def test_a_bad_option_is_answered_with_a_sentence():
    command = [sys.executable, '-m', 'so101_bringup.cli', 'up', 'prot:=/dev/ttyACM0']
    done = subprocess.run(command, capture_output=True, text=True, timeout=600.0, check=False)
    assert done.returncode == 2
    assert 'prot' in done.stderr
    assert 'port' in done.stderr


def test_the_end_of_the_arm_ends_the_stack():
    master, slave = pty.openpty()  # a port behind which no arm answers
    calibration = ROOT / 'src/so101_testing/test/data/before/calibration/virtual.json'
    words = ['sim:=false', f'port:={os.ttyname(slave)}', f'calibration:={calibration}', 'namespace:=alone']
    command = [sys.executable, '-m', 'so101_bringup.cli', 'up', '--stack', 'driver', *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600.0, check=False)
    os.close(master)
    os.close(slave)
    assert done.returncode == 1
    assert 'the stack needs it, stopping everything' in done.stdout
    assert 'Traceback' not in done.stdout
