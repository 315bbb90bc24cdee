# SPDX-License-Identifier: Apache-2.0
"""Rigs for tests and benchmarks: graphs, probes, feeders. Not part of the product."""

__all__ = ['console_rig', 'graph', 'policy_feeder', 'probe_node']
