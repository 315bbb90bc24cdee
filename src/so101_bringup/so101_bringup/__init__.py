# SPDX-License-Identifier: Apache-2.0
"""The stack, said once as data, and how it is started: `./so101 up`, ros2 launch, and the workspace they run in."""

__all__ = ['cli', 'options', 'programs', 'ros_launch', 'stack', 'supervisor']
