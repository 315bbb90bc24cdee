# SPDX-License-Identifier: Apache-2.0
"""A scripted policy as a process of its own: answers every step with a displacement, keeps the TCP near home.

It stands for policy_node where the graph around it is measured: an answer costs nothing but the way there and back.
"""

import sys
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
import numpy as np
from rclpy.node import Node
from so101_interfaces.msg import EeDelta, PolicyStatus, Step

from so101_contract.joints import BASE_FRAME
from so101_interfaces_py import qos, topics
from so101_interfaces_py.spin import run_node

HOME = np.array([0.22, 0.0, 0.12])
SPREAD = np.array([0.06, 0.10, 0.03])
"""Half of the box in which the TCP wanders [m]."""

LARGEST = 0.02
"""Largest displacement along an axis [m]."""


class GraphPolicy(Node):
    """Goes from one random point to the next, as fast as `speed` allows."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('policy_node', **node_options)
        self._speed = float(self.declare_parameter('speed', 0.6).value)
        self._delay_s = float(self.declare_parameter('delay_s', 0.0).value)
        self._rng = np.random.default_rng(int(self.declare_parameter('seed', 0).value))
        self._tcp = HOME
        self._target = HOME
        self._opening = 0.5
        self._actions = self.create_publisher(EeDelta, topics.POLICY_EE_DELTA, qos.COMMAND)
        self._status = self.create_publisher(PolicyStatus, topics.POLICY_STATUS, qos.LATCHED)
        self.create_subscription(Step, topics.STEP, self._on_step, qos.EVENT)
        self.create_subscription(PoseStamped, topics.TCP_POSE, self._on_pose, qos.STATE_SUBSCRIBER)
        self.create_timer(1.0, self._publish_status)
        self._publish_status()

    def _publish_status(self) -> None:
        message = PolicyStatus(mode=PolicyStatus.MODE_EVAL, policy='scripted')
        message.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(message)

    def _on_pose(self, message: PoseStamped) -> None:
        point = message.pose.position
        self._tcp = np.array([point.x, point.y, point.z])

    def _on_step(self, step: Step) -> None:
        if step.terminated or step.truncated:
            return
        if np.linalg.norm(self._target - self._tcp) < LARGEST:
            self._target = HOME + SPREAD * self._rng.uniform(-1.0, 1.0, 3)
            self._opening = float(self._rng.uniform(0.2, 0.8))
        way = self._target - self._tcp
        way *= min(1.0, self._speed * LARGEST / max(float(np.abs(way).max()), 1e-9))
        if self._delay_s:
            time.sleep(self._delay_s)
        message = EeDelta(
            episode=step.episode, index=step.index, gripper=self._opening, source=EeDelta.SOURCE_POLICY
        )
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = BASE_FRAME
        message.translation.x, message.translation.y, message.translation.z = way.tolist()
        self._actions.publish(message)


if __name__ == '__main__':
    sys.exit(run_node(GraphPolicy))
