# SPDX-License-Identifier: Apache-2.0
"""Who acts and helps in a simulation: the expert that knows the truth, the operator that takes over, and their node."""

__all__ = ['expert', 'labels', 'node', 'operator', 'session_human', 'traits']
