# SPDX-License-Identifier: Apache-2.0
"""LeRobot's programs drive the arm, through its safety gate: ros2 launch so101_bringup lerobot.launch.py sim:=false."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('lerobot')
