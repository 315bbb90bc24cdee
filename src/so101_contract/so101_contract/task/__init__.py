# SPDX-License-Identifier: Apache-2.0
"""What is to be done: what a task may say, and its files."""

__all__ = ['files', 'reward', 'spec']
