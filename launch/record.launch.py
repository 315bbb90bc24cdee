# SPDX-License-Identifier: Apache-2.0
"""The recorder alone, beside a running stack: ros2 launch so101_bringup record.launch.py record:=bags."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('record')
