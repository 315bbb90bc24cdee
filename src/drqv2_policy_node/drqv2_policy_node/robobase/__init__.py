# SPDX-License-Identifier: Apache-2.0
"""RoboBase's checkpoints: read without running anything, converted to policies, and written back."""

__all__ = ['cli', 'convert', 'layout', 'schedule', 'snapshot', 'unpickle']
