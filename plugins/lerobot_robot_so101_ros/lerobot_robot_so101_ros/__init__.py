# SPDX-License-Identifier: Apache-2.0
"""An SO-101 in a ROS 2 graph, for LeRobot: `--robot.type=so101_ros`, `--teleop.type=so101_ros`.

LeRobot imports this package because of its name, and finds each device in it by the name of its configuration.
"""

from lerobot_robot_so101_ros.bridge import ArmStoppedError, BridgeError
from lerobot_robot_so101_ros.config import SO101RosConfig, SO101RosTeleoperatorConfig
from lerobot_robot_so101_ros.robot import SO101Ros
from lerobot_robot_so101_ros.teleoperator import SO101RosTeleoperator

__all__ = [
    'ArmStoppedError',
    'BridgeError',
    'SO101Ros',
    'SO101RosConfig',
    'SO101RosTeleoperator',
    'SO101RosTeleoperatorConfig',
]
