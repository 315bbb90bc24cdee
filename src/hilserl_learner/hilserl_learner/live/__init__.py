# SPDX-License-Identifier: Apache-2.0
"""Learning beside an arm that works: the node, the process that trains next to it, and what they tell each other."""

__all__ = ['config', 'feed', 'identity', 'node', 'process', 'trainer']
