# SPDX-License-Identifier: Apache-2.0
"""Names of the coordinate frames that packages exchange poses in."""

BASE_FRAME = 'base_link'
"""Fixed to the foot of the arm: x forward, y left, z up. Actions and workspaces are said in it."""

TCP_FRAME = 'gripper_frame_link'
"""The tool centre point of the chosen TCP preset."""
