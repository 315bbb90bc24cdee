# SPDX-License-Identifier: Apache-2.0
"""What the word behind `checkpoint:=` or `policy:=` stands for."""

from importlib import resources
from pathlib import Path

NO_POLICY, DEFAULT = ('', 'none'), 'default'
FOLDER = 'policies'


def find_policy(name: str, observation: str) -> Path | None:
    """Return the folder of a policy; None where there is to be none.

    Args:
        name: a folder; `default` for the policy that is shipped for this observation, which need not exist; `none`, or
            nothing.
        observation: name of the observation.
    """
    if name in NO_POLICY:
        return None
    if name != DEFAULT:
        return Path(name).expanduser()
    shipped = Path(str(resources.files('drqv2_policy_node').joinpath(FOLDER, observation)))
    return shipped if shipped.is_dir() else None
