# SPDX-License-Identifier: Apache-2.0
"""From ticks to angles: the calibration of an arm, its files, and the program that makes it."""

__all__ = ['calibration', 'checks', 'cli', 'files', 'lerobot_units', 'servo']
