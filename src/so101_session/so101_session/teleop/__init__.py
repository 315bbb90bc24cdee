# SPDX-License-Identifier: Apache-2.0
"""Teleoperation: from what a human does with a device to actions, and the node and terminal around that."""

__all__ = ['cli', 'config', 'devices', 'node', 'pilot', 'report', 'terminal']
