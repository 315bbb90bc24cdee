# SPDX-License-Identifier: Apache-2.0
"""Names of the environments, for `gymnasium.make` and `./so101 train --env`.

`Fetch` + PickAndPlace, Push, Slide or Reach + `-cartesian`, `-coupled`, `-joint`, `-coupled-locked` or `-joint-locked`,
and for Gymnasium a version: `gymnasium.make('FetchPush-joint-v0')`. `locked` is the coupling with ratio 0, where the
upper arm does not roll; without it the ratio is 1, as in the journal.
"""

from typing import Any

from so101_fetch.errors import FetchError
from so101_fetch.tasks import TASKS

ENTRY_POINT = 'so101_fetch.env:FetchEnv'
VERSION = '-v0'

VARIANTS: dict[str, dict[str, Any]] = {
    'cartesian': {'kinematics': 'cartesian'},
    'coupled': {'kinematics': 'coupled'},
    'joint': {'kinematics': 'joint'},
    'coupled-locked': {'kinematics': 'coupled', 'ratio': 0.0},
    'joint-locked': {'kinematics': 'joint', 'ratio': 0.0},
}

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    f'Fetch{task}-{variant}': {'task': task, **arguments}
    for task in TASKS
    for variant, arguments in VARIANTS.items()
}
"""Arguments of each environment by its id."""


def find_arguments(name: str) -> dict[str, Any]:
    """Return the arguments of the environment of that id, with or without its version.

    Raises:
        FetchError: there is none.
    """
    known = ENVIRONMENTS.get(name.removesuffix(VERSION))
    if known is None:
        raise FetchError(
            f'expected Fetch, one of {list(TASKS)}, and one of {[f"-{one}" for one in VARIANTS]}, got {name!r}; name '
            f'one, e.g. FetchPickAndPlace-cartesian'
        )
    return dict(known)


def register_envs() -> None:
    """Make the environments known to Gymnasium; a program calls it before `gymnasium.make`."""
    import gymnasium as gym

    for name, arguments in ENVIRONMENTS.items():
        if f'{name}{VERSION}' not in gym.registry:
            gym.register(f'{name}{VERSION}', entry_point=ENTRY_POINT, kwargs=arguments)
