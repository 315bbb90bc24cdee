# SPDX-License-Identifier: Apache-2.0
"""Stored policies of this checkout for LeRobot: `--policy.path=FOLDER`, made by `python -m lerobot_policy_so101`."""

from lerobot_policy_so101.configuration_so101 import SO101Config

__all__ = ['SO101Config']
