# SPDX-License-Identifier: Apache-2.0
"""DrQ-v2 policies (Yarats et al., 2021): networks, store, weights on the wire, and the node that acts."""

__all__ = [
    'acting',
    'config',
    'networks',
    'policy',
    'policy_requirements',
    'robobase',
    'spec',
    'store',
    'weights',
]
