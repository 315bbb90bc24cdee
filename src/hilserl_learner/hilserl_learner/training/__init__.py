# SPDX-License-Identifier: Apache-2.0
"""Buffers and agents brought together: updates, runs in the simulation, evaluations, log and checkpoints."""

__all__ = ['checkpoint', 'evaluate', 'log', 'run', 'settings', 'trainer']
