# SPDX-License-Identifier: Apache-2.0
"""Recorded bags to buffers: actions repaired, rewards given, success told from pictures."""

__all__ = ['classifier', 'cli', 'ingest', 'relabel']
