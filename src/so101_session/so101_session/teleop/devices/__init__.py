# SPDX-License-Identifier: Apache-2.0
"""What a human drives with: one interface, the same events, whatever is plugged in."""

__all__ = ['base', 'controls', 'keyboard', 'keys', 'leader', 'pads']
