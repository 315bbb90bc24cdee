# SPDX-License-Identifier: Apache-2.0
"""The simulated scene, from its parts to the running physics."""

__all__ = ['ground_truth', 'presets', 'scene', 'servo', 'simulation', 'start']
