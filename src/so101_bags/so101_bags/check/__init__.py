# SPDX-License-Identifier: Apache-2.0
"""Whether a bag is fit to learn from: rates, gaps, clocks, actions, contract, episodes."""

__all__ = ['bag', 'report']
