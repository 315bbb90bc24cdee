# SPDX-License-Identifier: Apache-2.0
"""Bags: reading any rosbag2, writing one that survives a crash, checking, repairing. No ROS needed."""

from so101_session.bags.errors import BagError
from so101_session.bags.reader import read_records, read_stamped, ReadReport, Recorded

__all__ = ['BagError', 'ReadReport', 'Recorded', 'read_records', 'read_stamped']
