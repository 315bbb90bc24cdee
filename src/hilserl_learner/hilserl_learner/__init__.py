# SPDX-License-Identifier: Apache-2.0
"""The learner: experience to buffers, buffers to agents, agents to policies; in the simulation, from bags, and live."""

__all__ = ['agents', 'cli', 'data', 'errors', 'ingest', 'live', 'training']
