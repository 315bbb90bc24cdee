# SPDX-License-Identifier: Apache-2.0
"""The SO-101 in MuJoCo: scene, tasks, environments, the twin behind the servo bus, and the human who helps."""

__all__ = [
    'env',
    'errors',
    'evaluate',
    'framed',
    'human',
    'in_process_arm',
    'registration',
    'render',
    'scene',
    'tasks',
    'twin',
]
