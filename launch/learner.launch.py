# SPDX-License-Identifier: Apache-2.0
"""The learner alone, beside an actor: ros2 launch so101_bringup learner.launch.py, with the actor's arguments."""

from so101_bringup.ros_launch import launch_description


def generate_launch_description():
    return launch_description('learner')
