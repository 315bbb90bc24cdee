# SPDX-License-Identifier: Apache-2.0
"""Bags: reading any rosbag2, writing one that survives a crash, checking, repairing. No ROS needed."""

__all__ = ['check', 'cli', 'fix', 'messages', 'metadata', 'records', 'storage', 'write']
