# SPDX-License-Identifier: Apache-2.0
"""The commands: `./so101 train`, `train-offline`, `eval`, `plot` and `adapt`; those for bags are in `ingest`."""

__all__ = ['adapt', 'eval', 'offline', 'plot', 'train']
