# SPDX-License-Identifier: Apache-2.0
"""How much a policy explores on the arm."""

from drqv2_policy_node.robobase.schedule import Schedule
from so101_contract.manifest import StepUnit


def exploration_std(
    schedule: Schedule, unit: StepUnit, *, updates: int, env_steps: int, limit: float
) -> float:
    """Return the std of the noise in network units.

    The step comes from the learner's own counters, which it saves, so it goes on after a restart of either node. A
    schedule over RoboBase's iterations, which nobody counts here, is taken at the environment steps.

    Args:
        schedule: of the manifest.
        unit: what its step counts.
        updates: gradient updates of the learner when it published these weights.
        env_steps: actions that have reached the learner.
        limit: largest std.
    """
    return min(schedule(updates if unit is StepUnit.UPDATES else env_steps), limit)
