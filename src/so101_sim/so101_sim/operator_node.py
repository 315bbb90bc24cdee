# SPDX-License-Identifier: Apache-2.0
"""The simulated person as a ROS node: sees the ground truth of the twin, acts through the topics of teleoperation."""

import sys
import time
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState
from so101_interfaces.msg import EeDelta
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from so101_contract.action import EeDeltaValue
from so101_contract.frames import BASE_FRAME
from so101_contract.joints import JOINT_NAMES
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions, joint_state
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node
from so101_kinematics.ik import InverseKinematics
from so101_sim.demonstrator import Demonstrator, Stage
from so101_sim.errors import SimulationError
from so101_sim.operator import Decision, Operator
from so101_sim.operator_config import OperatorConfig
from so101_sim.presets import get_preset
from so101_sim.servo import FloatArray
from so101_sim.start import home_pose
from so101_sim.task_messages import read_task_message, RESET_SERVICE, TaskReport, TOPIC

CONFIG = (OperatorConfig,)
STALE_S = 0.5
"""Without a newer ground truth than this it does nothing [s]."""


class OperatorNode(Node):
    """Watches or demonstrates. Callbacks store, the tick acts."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('operator_node', **node_options)
        self._config = load_config(self, OperatorConfig)
        self._rng = np.random.default_rng(self._config.seed)
        self._report: TaskReport | None = None
        self._report_s = float('-inf')
        self._positions: FloatArray | None = None
        self._operator: Operator | None = None
        self._demonstrator: Demonstrator | None = None
        self._episode = self._index = 0
        self._actions = self.create_publisher(EeDelta, self._config.topic, qos.COMMAND)
        self._joint_command = self.create_publisher(JointState, topics.JOINT_COMMAND, qos.COMMAND)
        self.create_subscription(String, TOPIC, self._on_task, qos.STATE_SUBSCRIBER)
        self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, qos.STATE_SUBSCRIBER)
        self._reset = self.create_client(Trigger, RESET_SERVICE)
        self._intervene = self.create_client(SetBool, topics.INTERVENE_SERVICE)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0 / self._config.rate_hz, self._tick, clock=clock)
        self.get_logger().info(f'{self._config.mode} on {self._config.topic}')

    # --- callbacks ---

    def _on_task(self, message: String) -> None:
        try:
            self._report = read_task_message(message)
        except SimulationError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)
            return
        self._report_s = time.monotonic()

    def _on_joints(self, message: JointState) -> None:
        try:
            self._positions = joint_positions(message, JOINT_NAMES)
        except (KeyError, ValueError) as error:
            self.get_logger().warning(f'joint_states: {error}', throttle_duration_sec=1.0)

    # --- the tick ---

    def _tick(self) -> None:
        if self._report is None or time.monotonic() - self._report_s > STALE_S:
            self.get_logger().info(f'waiting for {TOPIC}; does twin_node run?', throttle_duration_sec=10.0)
            return
        if self._config.mode == 'demonstrate':
            self._demonstrate(self._report)
        else:
            self._watch(self._report)

    def _watch(self, report: TaskReport) -> None:
        if self._operator is None or self._episode != report.state.resets:
            self._begin_watching(report)
        assert self._operator is not None
        if report.state.status.success:
            return
        decision = self._operator.update(report.state.truth)
        if decision.started or decision.ended:
            self._tell_session(decision)
        if decision.action is not None:
            self._publish(decision.action)

    def _begin_watching(self, report: TaskReport) -> None:
        if self._operator is None:
            task = get_preset(report.preset, report.task).task
            self._operator = Operator(task, skill=self._config.skill, habits=self._config.habits)
        elif self._operator.intervening:
            self._tell_session(Decision(ended=True))
        self._operator.reset(self._rng)
        self._episode, self._index = report.state.resets, 0

    def _tell_session(self, decision: Decision) -> None:
        why = decision.reason.value if decision.reason else 'it is right again'
        self.get_logger().info(f'{"takes over" if decision.started else "hands back"}: {why}')
        if self._config.call_intervene and self._intervene.service_is_ready():
            self._intervene.call_async(SetBool.Request(data=decision.started))

    def _demonstrate(self, report: TaskReport) -> None:
        if self._positions is None:
            return
        if self._demonstrator is None:
            self._demonstrator = self._new_demonstrator(report)
        demonstrator = self._demonstrator
        before = demonstrator.score.episodes
        order = demonstrator.update(report.state, self._positions, 1.0 / self._config.rate_hz)
        if order.joint_goal is not None:
            stamp = self.get_clock().now().to_msg()
            self._joint_command.publish(joint_state(JOINT_NAMES, order.joint_goal.tolist(), stamp))
        if order.action is not None:
            self._publish(order.action)
        if order.reset and self._reset.service_is_ready():
            self._reset.call_async(Trigger.Request())
            self._episode, self._index = self._episode + 1, 0
        if demonstrator.score.episodes > before:
            self.get_logger().info(str(demonstrator.score))
        if demonstrator.stage is Stage.DONE:
            self.context.try_shutdown()  # ends the spinning, as an interrupt does

    def _new_demonstrator(self, report: TaskReport) -> Demonstrator:
        preset = get_preset(report.preset, report.task)
        home = home_pose(InverseKinematics())
        config = self._config
        return Demonstrator(preset, home, skill=config.skill, episodes=config.episodes, seed=config.seed)

    def _publish(self, action: EeDeltaValue) -> None:
        message = EeDelta(gripper=action.opening, source=EeDelta.SOURCE_TELEOP)
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = BASE_FRAME
        message.episode, message.index = self._episode, self._index
        vector = message.translation
        vector.x, vector.y, vector.z = action.translation.tolist()
        self._actions.publish(message)
        self._index += 1


def main() -> None:
    """Run the node."""
    sys.exit(run_node(OperatorNode, (SimulationError, ParameterError)))


if __name__ == '__main__':
    main()
