# SPDX-License-Identifier: Apache-2.0
"""The twin, the real arm_node and kinematics_node, and the scripted operator, each a process of its own."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from so101_interfaces.msg import ArmStatus
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from so101_interfaces_py import qos, topics


class Watcher:
    """What the graph says, and the services of the arm."""

    def __init__(self, log):
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'so101_bringup.cli', 'up', 'operator:=true', 'namespace:=twin'],
            stdout=log.open('w'),
            stderr=subprocess.STDOUT,
        )
        self.node = rclpy.create_node('test_twin', namespace='twin')
        self.statuses, self.truths = [], []
        self.node.create_subscription(ArmStatus, topics.ARM_STATUS, self.statuses.append, qos.LATCHED)
        self.node.create_subscription(String, 'sim/task', self.truths.append, qos.STATE_SUBSCRIBER)

    def spin_until(self, condition, timeout=60.0):
        end = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def call(self, kind, name, request):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(20.0)
        future = client.call_async(request)
        self.spin_until(future.done)
        return future.result()


@pytest.fixture(scope='module')
def graph(tmp_path_factory):
    rclpy.init()
    watcher = Watcher(tmp_path_factory.mktemp('twin') / 'log')
    yield watcher
    if watcher.process.poll() is None:
        watcher.process.send_signal(signal.SIGINT)
        watcher.process.wait(10.0)
    watcher.node.destroy_node()
    rclpy.try_shutdown()


def test_the_operator_lifts_the_cube_with_the_driver_that_moves_metal(graph):
    graph.spin_until(lambda: '2 of ' in graph.log.read_text())
    assert graph.statuses[-1].state in (ArmStatus.ENABLED, ArmStatus.HOLD)


def test_ground_truth_is_published(graph):
    graph.spin_until(lambda: graph.truths)
    assert np.isfinite(json.loads(graph.truths[-1].data)['cube_position']).all()


def test_the_scene_can_be_reset(graph):
    assert graph.call(Trigger, 'sim/reset', Trigger.Request()).success


def test_a_stopped_arm_falls_as_physics_says(graph):
    assert graph.call(SetBool, topics.ARM_E_STOP_SERVICE, SetBool.Request(data=True)).success
    graph.spin_until(
        lambda: graph.statuses[-1].state == ArmStatus.E_STOP and not any(graph.statuses[-1].torque)
    )


def test_an_interrupt_ends_the_graph_cleanly(graph):
    graph.process.send_signal(signal.SIGINT)
    assert graph.process.wait(15.0) == 0
