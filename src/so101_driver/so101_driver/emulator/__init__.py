# SPDX-License-Identifier: Apache-2.0
"""A virtual arm at the level of bytes: STS3215 servos on a pseudo-terminal, with faults on demand."""

__all__ = ['arm', 'control', 'dynamics', 'faults', 'line', 'servo']
