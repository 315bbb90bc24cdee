# SPDX-License-Identifier: Apache-2.0
"""The servo bus: frames on a serial port, registers, and what the servos say of themselves. Units are ticks."""

__all__ = ['bus', 'errors', 'port', 'readings', 'registers']
