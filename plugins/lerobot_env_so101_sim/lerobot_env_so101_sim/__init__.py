# SPDX-License-Identifier: Apache-2.0
"""The simulated SO-101 of this checkout for lerobot-eval: `--env.type=so101_sim`."""

from lerobot_env_so101_sim.config import SO101SimEnv

__all__ = ['SO101SimEnv']
