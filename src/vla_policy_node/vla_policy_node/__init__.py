# SPDX-License-Identifier: Apache-2.0
"""Policies behind a socket, by GR00T's own protocol: a node that acts through a server, and a server of our own."""

__all__ = ['chunks', 'client', 'config', 'protocol', 'serving', 'wire', 'zmtp']
