# SPDX-License-Identifier: Apache-2.0
"""Telling success from pictures: labels, network, light, and the node that judges each step."""

__all__ = ['cli', 'config', 'judge', 'labels', 'light', 'model', 'node', 'training']
