# SPDX-License-Identifier: Apache-2.0
"""Recorded bags to buffers: actions repaired, rewards given."""

__all__ = ['account', 'cli', 'ingest', 'relabel']
