# SPDX-License-Identifier: Apache-2.0
"""Setting up a new arm: its serial port, the ids of its motors, and its tasks."""

__all__ = ['cli', 'motors', 'ports', 'task']
