# SPDX-License-Identifier: Apache-2.0
"""Experience: on disk, in memory, and where it comes from.

`store` keeps transitions in `segments`, `replay` gives batches of them, `augment` changes their images, and `collect`
makes transitions in the simulation.
"""

__all__ = ['augment', 'collect', 'replay', 'segments', 'store']
