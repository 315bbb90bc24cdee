# SPDX-License-Identifier: Apache-2.0
"""The operator's page and RViz, beside a running stack: ros2 launch so101_bringup view.launch.py rviz:=true."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('view')
