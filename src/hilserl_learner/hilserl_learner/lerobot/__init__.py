# SPDX-License-Identifier: Apache-2.0
"""LeRobot's datasets, in and out: v3.0 and v2.1, with pictures as PNG or video. No LeRobot is needed."""

__all__ = [
    'actions',
    'cameras',
    'convert',
    'dataset',
    'export',
    'film',
    'metadata',
    'reader',
    'statistics',
    'units',
    'writer',
]
