# SPDX-License-Identifier: Apache-2.0
"""The door for LeRobot's programs as a ROS node: it hears the arm and its cameras, and commands the joints."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import ArmStatus

from so101_contract.image import message_to_rgb
from so101_contract.joints import JOINT_NAMES
from so101_driver.calibration.calibration import ArmCalibration
from so101_driver.calibration.files import find_calibration
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions, joint_state, ns_to_stamp, stamp_to_ns
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode
from so101_interfaces_py.voices import Voices
from so101_session.lerobot.guests import ArmView, LerobotConfig, Lobby
from so101_session.lerobot.server import Server
from so101_session.lerobot.wire import default_path

CONFIG = (LerobotConfig,)

CAMERAS = {'gripper_cam': topics.IMAGE}
"""Camera -> its topic; LeRobot's datasets call it observation.images.gripper_cam."""

STATES = {
    ArmStatus.DISABLED: 'off',
    ArmStatus.ENABLED: 'enabled',
    ArmStatus.HOLD: 'hold',
    ArmStatus.E_STOP: 'emergency stop',
    ArmStatus.FAULT: 'fault',
}
FOLLOWING = (ArmStatus.ENABLED, ArmStatus.HOLD)

TICK_S = 0.02

OWN = 64
"""Stamps of own commands that are remembered: they come back with everybody else's."""


class LerobotNode(SoleNode):
    """Callbacks store, the threads of the guests ask and store, one timer commands."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('lerobot_node', **node_options)
        self._config = load_config(self, LerobotConfig)
        self._lobby = Lobby(self._config, self._calibration, self._cameras)
        self._own: deque[int] = deque(maxlen=OWN)
        self._cycles = self._reconnects = 0
        self._joint_command: Publisher | None = None
        if self._config.drives:
            self._joint_command = self.create_publisher(JointState, topics.JOINT_COMMAND, qos.COMMAND)
            # The steady clock: a step of the system's time must not stall the arm.
            clock = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = self.create_timer(TICK_S, self._tick, clock=clock)
        voices = Voices(self)
        measured = voices.only(topics.JOINT_STATES, self._on_joints)
        self.create_subscription(JointState, topics.JOINT_STATES, measured, qos.STATE_SUBSCRIBER)
        status = voices.only(topics.ARM_STATUS, self._on_status)
        self.create_subscription(ArmStatus, topics.ARM_STATUS, status, qos.LATCHED_EVERY)
        commanded = voices.only(topics.JOINT_COMMAND, self._on_command)
        self.create_subscription(JointState, topics.JOINT_COMMAND, commanded, qos.COMMAND)
        self.create_subscription(Image, topics.IMAGE, self._seer('gripper_cam'), qos.IMAGE)
        path = default_path(self.context.get_domain_id(), self.get_namespace())
        path = Path(self._config.socket).expanduser() if self._config.socket else path
        self._server = Server(path, self._lobby.enter)
        who = 'LeRobot drives' if self._config.drives else 'LeRobot records who drives'
        self.get_logger().info(f'{who}; its plug-ins connect to {path}')

    def close(self) -> None:
        """Hang up on LeRobot."""
        self._server.close()

    # --- callbacks ---

    def _on_joints(self, message: JointState) -> None:
        positions = joint_positions(message, JOINT_NAMES)
        self._lobby.see_joints(positions, self._monotonic(message.header.stamp))

    def _on_status(self, message: ArmStatus) -> None:
        lost = message.cycles < self._cycles or message.reconnects != self._reconnects
        self._cycles, self._reconnects = message.cycles, message.reconnects
        said = ': '.join(filter(None, (STATES.get(message.state, str(message.state)), message.reason)))
        self._lobby.see_arm(
            ArmView(message.state in FOLLOWING, message.state == ArmStatus.ENABLED, said), lost
        )

    def _on_command(self, message: JointState) -> None:
        if stamp_to_ns(message.header.stamp) not in self._own:
            self._lobby.see_command(joint_positions(message, JOINT_NAMES), time.monotonic())

    def _seer(self, camera: str) -> Callable[[Image], None]:
        def see(message: Image) -> None:
            shape = message.height, message.width
            pixels = message_to_rgb(*shape, message.encoding, message.step, message.data)
            self._lobby.see_picture(camera, pixels, self._monotonic(message.header.stamp))

        return see

    # --- the tick ---

    def _tick(self) -> None:
        goal = self._lobby.wanted()
        if goal is None or self._joint_command is None:
            return
        stamp_ns = self.get_clock().now().nanoseconds
        self._own.append(stamp_ns)  # before it can come back
        self._joint_command.publish(joint_state(JOINT_NAMES, goal.tolist(), ns_to_stamp(stamp_ns)))

    # --- for the lobby ---

    def _cameras(self) -> list[str]:
        return [name for name, topic in CAMERAS.items() if self.count_publishers(topic)]

    def _calibration(self) -> ArmCalibration:
        return find_calibration(self._config.calibration)

    def _monotonic(self, stamp: Any) -> float:
        """Turn a stamp into the monotonic time at which it was made [s]."""
        return time.monotonic() - (self.get_clock().now().nanoseconds - stamp_to_ns(stamp)) / 1e9


def main() -> None:
    """Run the node."""
    leave(run_node(LerobotNode, (OSError, ParameterError)))


if __name__ == '__main__':
    main()
