# SPDX-License-Identifier: Apache-2.0
"""The simulated arm, its driver and its controller: ros2 launch so101_bringup sim.launch.py preset:=wide."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('sim')
