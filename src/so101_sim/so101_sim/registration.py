# SPDX-License-Identifier: Apache-2.0
"""Names of the environments for `gymnasium.make`.

| id | observes |
|---|---|
| SO101Lift-v0, SO101Place-v0 | 18 state entries and the wrist camera |
| SO101LiftState-v0, SO101PlaceState-v0 | the 18 state entries only |
| SO101LiftPrivileged-v0, SO101PlacePrivileged-v0 | 21 entries with the cube's position, which no real arm knows |

Keyword arguments: those of `so101_sim.env.ArmEnv`, e.g. `gymnasium.make('SO101Lift-v0', preset='wide')`. Episodes are
cut off by the environment itself, after the preset's number of steps.
"""

from typing import Any

ENTRY_POINT = 'so101_sim.env:ArmEnv'

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    f'SO101{task.capitalize()}{suffix}-v0': {'task': task, **arguments}
    for task in ('lift', 'place')
    for suffix, arguments in (
        ('', {}),
        ('State', {'images': False}),
        ('Privileged', {'images': False, 'privileged': True}),
    )
}
"""Arguments of each environment by its id."""


def register_envs() -> None:
    """Make the environments known to Gymnasium; a program calls it before `gymnasium.make`."""
    import gymnasium as gym

    for name, arguments in ENVIRONMENTS.items():
        if name not in gym.registry:
            gym.register(name, entry_point=ENTRY_POINT, kwargs=arguments)
