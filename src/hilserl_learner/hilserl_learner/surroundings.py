# SPDX-License-Identifier: Apache-2.0
"""What a policy's manifest says about where it was trained, for policies from an environment."""

from typing import Any

from so101_contract.manifest import StepUnit, Workspace
from so101_sim.env import ArmEnv


def manifest_fields(env: ArmEnv, std_schedule: str) -> dict[str, Any]:
    """Return the fields of `Policy.create` that an environment decides; name, version and hashes are left."""
    chain, home = env.preset.control, env.home
    box = chain.kinematics.workspace
    low, high = ((float(x), float(y), float(z)) for x, y, z in (box.lower, box.upper))
    return {
        'observation': env.observation_spec,
        'action': env.action_spec,
        'control_rate_hz': chain.rate_hz,
        'ik_profile': chain.kinematics.profile,
        'reset_pose': tuple(float(angle) for angle in home),
        'workspace': Workspace(low=low, high=high),
        'std_schedule': std_schedule,
        'std_unit': StepUnit.ENV_STEPS,
        'calibration_id': None,
        'source_sha256': None,
    }
