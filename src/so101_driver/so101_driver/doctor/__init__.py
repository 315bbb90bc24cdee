# SPDX-License-Identifier: Apache-2.0
"""The command `doctor`: what is wrong with ports, arms and cameras, and what to do."""

__all__ = ['arm', 'checks', 'cli']
