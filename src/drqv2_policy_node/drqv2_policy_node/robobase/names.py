# SPDX-License-Identifier: Apache-2.0
"""RoboBase's names for the tensors of networks, and back."""

from collections.abc import Iterator, Mapping
import functools
from types import MappingProxyType

import torch
from torch import Tensor

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, NetworkSpec
from drqv2_policy_node.networks_bytes import fill

ENCODER, ACTOR, ACTOR_ALIAS = 'encoder', 'actor.actor_model', 'actor_model'
CRITIC, CRITIC_TARGET = 'critic', 'critic_target'
HIDDEN_STATE = 'hidden_state'
RNN_LAYERS, RNN_WIDTH = 1, 128
"""Of the hidden state, a buffer that RoboBase registers even where it builds no recurrent layer."""


def groups(num_critics: int) -> list[str]:
    """Return the prefixes of the modules that have a hidden state each."""
    critics = [f'{name}.qs.{i}' for name in (CRITIC, CRITIC_TARGET) for i in range(num_critics)]
    return [ACTOR_ALIAS, ACTOR, *critics]


def critic_tensors(critic: Critic) -> dict[str, Tensor]:
    """Return the tensors of critics as RoboBase names them, `qs.<n>.<...>`.

    An RLPD ensemble becomes critics with a LayerNorm in front of each ReLU (RoboBase's `norm: layer`), each with
    a copy of the bottlenecks that the members share.
    """
    state = {name: tensor.detach() for name, tensor in critic.state_dict().items()}
    if critic.spec.critic is CriticKind.ROBOBASE:
        return state
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for member in range(critic.spec.num_critics):
            mine = tensor[member] if name.startswith('shared.ensemble.') else tensor
            named[f'qs.{member}.{_member_name(name)}'] = mine.clone()
    return named


def fill_critic(spec: NetworkSpec, tensors: Mapping[str, Tensor], part: str) -> Critic:
    """Return critics of a spec with the tensors that RoboBase names `<part>.qs.<n>.<...>`."""
    critic = Critic(spec, start=False)
    if spec.critic is CriticKind.ROBOBASE:
        return fill(critic, tensors, part)
    stacked = {}
    for name in critic.state_dict():
        members = [tensors[f'{part}.qs.{i}.{_member_name(name)}'] for i in range(spec.num_critics)]
        stacked[f'{part}.{name}'] = (
            torch.stack(members) if name.startswith('shared.ensemble.') else members[0]
        )
    return fill(critic, stacked, part)


def _member_name(name: str) -> str:
    """Return RoboBase's name, within one critic, of a tensor of an RLPD ensemble."""
    name = name.removeprefix('shared.')
    if not name.startswith('ensemble.'):
        return name
    kind, *rest = name.removeprefix('ensemble.').split('.')
    if kind == 'out':
        return f'out_mlp.0.{rest[0]}'
    return f'main_mlp.{3 * int(rest[0]) + (kind == "norms")}.{rest[1]}'


@functools.lru_cache(maxsize=8)
def robobase_names(spec: NetworkSpec) -> Mapping[str, tuple[int, ...]]:
    """Return name and shape of every tensor that holds something: all but aliases and hidden states.

    The names come from the networks themselves, built without values.
    """
    with torch.device('meta'):
        parts = ((ENCODER, Encoder(spec, start=False)), (ACTOR, Actor(spec, start=False)))
        critic = Critic(spec, start=False)
        named = [(f'{part}.{name}', value) for part, net in parts for name, value in net.state_dict().items()]
        for part in (CRITIC, CRITIC_TARGET):
            named += [(f'{part}.{name}', value) for name, value in critic_tensors(critic).items()]
    return MappingProxyType({name: tuple(value.shape) for name, value in named})


def hidden_names(num_critics: int) -> Iterator[str]:
    """Return the names of the hidden states."""
    return (f'{group}.{HIDDEN_STATE}' for group in groups(num_critics))


def alias_names(spec: NetworkSpec) -> dict[str, str]:
    """Return the second name of each of the actor's tensors, and the first."""
    first = [name for name in robobase_names(spec) if name.startswith(f'{ACTOR}.')]
    return {f'{ACTOR_ALIAS}.{name.removeprefix(f"{ACTOR}.")}': name for name in first}
