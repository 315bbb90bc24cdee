# SPDX-License-Identifier: Apache-2.0
"""Honest evaluation on an arm: places on a sheet, a drawn order, and a verdict that says how sure it is."""

__all__ = ['node', 'protocol', 'sheet', 'verdict']
