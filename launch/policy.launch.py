# SPDX-License-Identifier: Apache-2.0
"""A policy drives, nothing learns: ros2 launch so101_bringup policy.launch.py checkpoint:=policies/mine."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('policy')
