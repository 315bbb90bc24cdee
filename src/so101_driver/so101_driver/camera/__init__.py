# SPDX-License-Identifier: Apache-2.0
"""A camera that nobody waits for: its sources, its newest frame, its lens and its health."""

__all__ = ['camera', 'config', 'source']
