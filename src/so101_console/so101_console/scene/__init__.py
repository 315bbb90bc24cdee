# SPDX-License-Identifier: Apache-2.0
"""What is drawn over the pictures and around the arm, and where cameras see it."""

__all__ = ['drawings', 'views']
