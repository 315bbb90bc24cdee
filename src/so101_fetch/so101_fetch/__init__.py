# SPDX-License-Identifier: Apache-2.0
"""The Fetch robot in the contract of our own arm: three kinematics, four tasks, experts; a robot that is not ours."""

__all__ = ['arm', 'env', 'errors', 'expert', 'model', 'observed', 'registration', 'tasks']
