# SPDX-License-Identifier: Apache-2.0
"""Setting up a new arm: its serial port, and the ids of its motors."""

__all__ = ['cli', 'motors', 'ports']
