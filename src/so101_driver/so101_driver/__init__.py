# SPDX-License-Identifier: Apache-2.0
"""Driver of the SO-101: servo bus, safety gate, calibration, camera, set-up programs and a virtual arm."""

__all__ = [
    'arm',
    'arm_node',
    'bus',
    'calibration',
    'camera',
    'camera_node',
    'doctor',
    'emulator',
    'gate',
    'messages',
    'setup',
]
