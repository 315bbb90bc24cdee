# SPDX-License-Identifier: Apache-2.0
"""What every SO-101 package agrees on: joints, actions, observations, messages, episodes, policy manifests."""

__all__ = [
    'action',
    'assembly',
    'base',
    'config',
    'errors',
    'human_time',
    'image',
    'interval',
    'joints',
    'manifest',
    'messages',
    'observation',
    'observation_spec',
    'orientation',
    'record',
    'session',
    'task',
    'task_report',
    'transition',
]
