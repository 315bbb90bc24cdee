# SPDX-License-Identifier: Apache-2.0
"""What the nodes share beside the messages: topic names, QoS profiles, parameters, spinning, conversions."""

__all__ = ['conversions', 'params', 'qos', 'spin', 'topics']
