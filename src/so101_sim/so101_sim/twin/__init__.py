# SPDX-License-Identifier: Apache-2.0
"""The twin: the scene behind a servo bus and a camera, as a node in the arm's place."""

__all__ = ['node', 'twin']
