# SPDX-License-Identifier: Apache-2.0
"""The commands `./so101 train`, `train-offline`, `eval`, `plot`, `adapt` and `export`; `ingest` has those for bags."""

__all__ = ['adapt', 'eval', 'export', 'offline', 'plot', 'train']
