# SPDX-License-Identifier: Apache-2.0
"""Our own policies, and the expert, behind GR00T's protocol: `./so101 serve-policy`."""

__all__ = ['actors', 'cli', 'server', 'truth_node']
