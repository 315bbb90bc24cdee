# SPDX-License-Identifier: Apache-2.0
"""Beside the messages: topic names, QoS, parameters, spinning and ending of nodes, conversions, bounded files."""

__all__ = [
    'conversions',
    'endings',
    'files',
    'graph',
    'node',
    'params',
    'qos',
    'scratch',
    'spin',
    'topics',
    'voices',
    'yaml_text',
]
