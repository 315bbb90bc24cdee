# SPDX-License-Identifier: Apache-2.0
"""A human drives, nothing learns: ros2 launch so101_bringup teleop.launch.py teleop:=gamepad record:=true."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('teleop')
