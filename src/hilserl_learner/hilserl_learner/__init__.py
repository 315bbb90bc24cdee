# SPDX-License-Identifier: Apache-2.0
"""The learner: experience to buffers, to agents, to policies; from the simulation, from bags and datasets, and live."""

__all__ = ['agents', 'classifier', 'cli', 'data', 'errors', 'ingest', 'lerobot', 'live', 'training', 'trial']
