# SPDX-License-Identifier: Apache-2.0
"""What a user says of the arm on the command line of LeRobot's programs."""

from dataclasses import dataclass

from lerobot.robots import RobotConfig
from lerobot.teleoperators import TeleoperatorConfig

from lerobot_robot_so101_ros.bridge import Bridge, default_path


@dataclass(kw_only=True)
class Place:
    """Where the arm is, and how its joints are said.

    Attributes:
        namespace: of the arm's nodes, as in `./so101 up namespace:=left`.
        socket: of lerobot_node; empty: where it is by default for ROS_DOMAIN_ID and the namespace.
        use_degrees: joints in degrees, as LeRobot has them since 0.4.4; else -100..100 over their range.
    """

    namespace: str = ''
    socket: str = ''
    use_degrees: bool = True

    def bridge(self, role: str) -> Bridge:
        """Return a connection that is not made yet."""
        path = self.socket or default_path(self.namespace)
        return Bridge(path, role, 'degrees' if self.use_degrees else 'range')


@RobotConfig.register_subclass('so101_ros')
@dataclass(kw_only=True)
class SO101RosConfig(RobotConfig, Place):
    """The arm as a robot."""


@TeleoperatorConfig.register_subclass('so101_ros')
@dataclass(kw_only=True)
class SO101RosTeleoperatorConfig(TeleoperatorConfig, Place):
    """Whoever drives the arm in its own graph, as a teleoperator."""
