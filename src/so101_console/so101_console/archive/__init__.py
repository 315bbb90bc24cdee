# SPDX-License-Identifier: Apache-2.0
"""What lies behind: the episodes of this run and those in bags, earlier runs, and jobs that make something of them."""

__all__ = ['browser', 'jobs', 'memory', 'recorded', 'runs']
