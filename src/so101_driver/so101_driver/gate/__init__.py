# SPDX-License-Identifier: Apache-2.0
"""The safety gate: the last thing between a joint command and the servos. No bus, no clock, no ROS."""

__all__ = ['config', 'follower', 'gate', 'types']
