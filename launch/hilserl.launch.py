# SPDX-License-Identifier: Apache-2.0
"""The whole stack: ros2 launch so101_bringup hilserl.launch.py sim:=false port:=/dev/ttyACM0."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('hilserl')
