# SPDX-License-Identifier: Apache-2.0
"""All but the learner; the policy explores: ros2 launch so101_bringup actor.launch.py, and learner.launch.py."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('actor')
