# SPDX-License-Identifier: Apache-2.0
"""From a stored policy to a snapshot that RoboBase loads."""

from collections import OrderedDict
from dataclasses import replace
import os
from pathlib import Path

import torch
from torch import Tensor

from drqv2_policy_node.networks import Critic, CriticKind, NetworkSpec
from drqv2_policy_node.robobase.layout import RoboBaseError, state_dict
from drqv2_policy_node.robobase.snapshot import COUNTERS
from drqv2_policy_node.store import load_critics, load_policy


def export_state_dict(
    directory: str | Path, *, envs: int, fresh_critics: bool = False
) -> 'OrderedDict[str, Tensor]':
    """Return the state dict that RoboBase loads from a stored policy.

    Args:
        directory: of the policy.
        envs: environments of the run that is to load it, the one for evaluation included.
        fresh_critics: whether a policy without critics such as RoboBase's gets new ones.

    Raises:
        RoboBaseError: the policy has no critics, or RoboBase has no such networks.
    """
    policy = load_policy(directory)
    stored = load_critics(directory)
    critics = None if stored is None or stored[0].spec.critic is not CriticKind.ROBOBASE else stored
    if policy.network.normalization.scale:
        raise RoboBaseError(
            f'expected a raw state, got the normalisation {policy.network.normalization.mode.value!r}; '
            f'RoboBase has no such networks'
        )
    if critics is None and not fresh_critics:
        found = 'none' if stored is None else f'those of the kind {stored[0].spec.critic.value!r}'
        raise RoboBaseError(
            f'expected critics of RoboBase next to the policy in {directory}, got {found}; RoboBase loads all or '
            f'nothing, pass --fresh-critics for new ones'
        )
    if critics is None:
        fresh = Critic(replace(policy.network, num_critics=2, critic=CriticKind.ROBOBASE))
        critics = fresh, fresh
    return state_dict(policy.encoder, policy.actor, *critics, envs=envs)


def settings(spec: NetworkSpec) -> list[str]:
    """Return the settings, beside the shapes, that RoboBase has to run with to build these networks."""
    halving = spec.strides.count(2)
    return [
        f'method.encoder_model.num_downsample_convs={halving}',
        f'method.encoder_model.num_post_downsample_convs={spec.convs - halving}',
    ]


def write_snapshot(path: str | Path, agent: 'OrderedDict[str, Tensor]', counters: dict[str, int]) -> None:
    """Write a state dict as a snapshot that RoboBase's `load_snapshot` takes; the file appears complete."""
    target = Path(path)
    if target.exists():
        raise RoboBaseError(f'expected no file at {target}, got one; name another')
    aside = target.with_name(f'.{target.name}.{os.getpid()}.partial')
    payload = {name: counters.get(name, 0) for name in COUNTERS} | {'agent': agent}
    try:
        torch.save(payload, aside)
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)
