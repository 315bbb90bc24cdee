# SPDX-License-Identifier: Apache-2.0
"""A planned trial of policies: ros2 launch so101_bringup trial.launch.py trial:=FOLDER checkpoint:=POLICY."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('trial')
