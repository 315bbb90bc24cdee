# SPDX-License-Identifier: Apache-2.0
"""The SO-101 as one model: MJCF through MjSpec, URDF made from it, TCP and camera presets, light visuals."""

__all__ = ['cameras', 'errors', 'model', 'pose', 'tcp', 'urdf']
