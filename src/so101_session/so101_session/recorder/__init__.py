# SPDX-License-Identifier: Apache-2.0
"""Recording the running graph into a rosbag2."""

__all__ = ['cli', 'config', 'node', 'sink']
