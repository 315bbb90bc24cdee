# SPDX-License-Identifier: Apache-2.0
"""DrQ-v2 policies (Yarats et al., 2021): networks, store, weights on the wire, and the node that acts."""

__all__ = [
    'acting',
    'acting_on_base',
    'answering',
    'config',
    'networks',
    'on_base',
    'policy',
    'policy_requirements',
    'robobase',
    'spec',
    'step_node',
    'store',
    'weights',
]
