# SPDX-License-Identifier: Apache-2.0
"""The operator's page: one ROS node that serves it, and what it shows and does."""

__all__ = ['access', 'console_node']
