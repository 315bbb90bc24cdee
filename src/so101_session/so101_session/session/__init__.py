# SPDX-License-Identifier: Apache-2.0
"""The session: a state machine that is told what comes and says what to do, and the node that carries it out."""

__all__ = ['arbiter', 'clock', 'config', 'episode', 'machine', 'node', 'reset', 'step', 'takeover', 'word']
