# SPDX-License-Identifier: Apache-2.0
"""The door for LeRobot's programs: what they see of the graph and do in it, over a socket of this machine."""

__all__ = ['guests', 'node', 'server', 'wire']
