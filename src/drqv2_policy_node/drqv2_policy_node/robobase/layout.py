# SPDX-License-Identifier: Apache-2.0
"""RoboBase's state dict of a DrQ-v2 agent to networks and back, with every tensor accounted for."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, EncoderPreset, NetworkSpec
from drqv2_policy_node.networks_bytes import fill
from drqv2_policy_node.robobase.infer import infer, RoboBaseError
from drqv2_policy_node.robobase.names import (
    ACTOR,
    ACTOR_ALIAS,
    alias_names,
    CRITIC,
    CRITIC_TARGET,
    critic_tensors,
    ENCODER,
    fill_critic,
    groups,
    hidden_names,
    RNN_LAYERS,
    RNN_WIDTH,
    robobase_names,
)


@dataclass(frozen=True, eq=False)
class RoboBaseAgent:
    """The networks of a state dict.

    Attributes:
        spec: their shapes, all of them read off the tensors.
        encoder: shared by actor and critics.
        actor: the policy.
        critic: the values.
        critic_target: slow copy of them.
        envs: environments that trained it, the one for evaluation included.
        unique: tensors that hold something.
        aliases: second names of the actor's tensors.
        hidden: hidden states, which hold nothing.
        other_image_size: the image size whose features have the same shape.
    """

    spec: NetworkSpec
    encoder: Encoder
    actor: Actor
    critic: Critic
    critic_target: Critic
    envs: int
    unique: int
    aliases: int
    hidden: int
    other_image_size: int


def read_agent(
    tensors: Mapping[str, Tensor],
    *,
    image_size: int | None = None,
    encoder: EncoderPreset = EncoderPreset.ROBOBASE,
) -> RoboBaseAgent:
    """Return the networks of a state dict.

    Args:
        tensors: the state dict, complete.
        image_size: edge of the images where it is known; two sizes give the same shapes, by default it is the
            even one.
        encoder: which of its convolutions halve the picture.

    Raises:
        RoboBaseError: a tensor is missing, too many, of another shape, not finite, or differs from its alias.
    """
    spec, other = infer(tensors, image_size, encoder)
    wanted, aliases = robobase_names(spec), alias_names(spec)
    hidden = list(hidden_names(spec.num_critics))
    lines = _shape_lines(
        tensors, {**wanted, **{alias: wanted[name] for alias, name in aliases.items()}}, hidden
    )
    lines += _hidden_lines(tensors, hidden)
    if not lines:
        lines = _value_lines(tensors, aliases, spec)
    if lines:
        raise RoboBaseError(
            f'expected exactly the tensors of a DrQ-v2 agent with {_describe(spec)}, got the differences below; '
            f'nothing was loaded, pass the snapshot as RoboBase wrote it:\n  ' + '\n  '.join(sorted(lines))
        )
    plain = {name: tensors[name].to(torch.float32) for name in wanted}
    return RoboBaseAgent(
        spec=spec,
        encoder=fill(Encoder(spec, start=False), plain, ENCODER),
        actor=fill(Actor(spec, start=False), plain, ACTOR),
        critic=fill_critic(spec, plain, CRITIC),
        critic_target=fill_critic(spec, plain, CRITIC_TARGET),
        envs=tensors[hidden[0]].shape[1],
        unique=len(wanted),
        aliases=len(aliases),
        hidden=len(hidden),
        other_image_size=other,
    )


def state_dict(
    encoder: Encoder, actor: Actor, critic: Critic, critic_target: Critic, *, envs: int = 2
) -> 'OrderedDict[str, Tensor]':
    """Return the state dict that RoboBase's `agent.load_state_dict` takes, aliases and hidden states included.

    Args:
        encoder: its convolutions.
        actor: its policy.
        critic: its values.
        critic_target: their slow copy.
        envs: environments of the RoboBase run that is to load it, the one for evaluation included.
    """
    named = {f'{ENCODER}.{name}': tensor for name, tensor in encoder.state_dict().items()}
    policy = {name: tensor.detach().clone() for name, tensor in actor.state_dict().items()}
    values = {CRITIC: critic_tensors(critic), CRITIC_TARGET: critic_tensors(critic_target)}
    for group in groups(critic.spec.num_critics):
        named[f'{group}.hidden_state'] = torch.zeros(RNN_LAYERS, envs, RNN_WIDTH)
        if group in (ACTOR_ALIAS, ACTOR):
            mine = policy
        else:
            part, _, member = group.partition('.')
            prefix = f'{member}.'
            mine = {n.removeprefix(prefix): t for n, t in values[part].items() if n.startswith(prefix)}
        named |= {f'{group}.{name}': tensor for name, tensor in mine.items()}
    return OrderedDict(
        (name, tensor.detach().to('cpu', torch.float32).contiguous()) for name, tensor in named.items()
    )


def _shape_lines(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], hidden: list[str]
) -> list[str]:
    lines = [f'{name}: missing' for name in (*wanted, *hidden) if name not in tensors]
    lines += [f'{name}: unexpected' for name in tensors if name not in wanted and name not in hidden]
    for name in wanted.keys() & tensors.keys():
        if tuple(tensors[name].shape) != wanted[name]:
            lines.append(f'{name}: expected the shape {wanted[name]}, got {tuple(tensors[name].shape)}')
        elif not tensors[name].is_floating_point():
            lines.append(f'{name}: expected floating point numbers, got {tensors[name].dtype}')
    return lines


def _hidden_lines(tensors: Mapping[str, Tensor], hidden: list[str]) -> list[str]:
    shapes = {name: tuple(tensors[name].shape) for name in hidden if name in tensors}
    if not shapes:
        return []
    common = Counter(shapes.values()).most_common(1)[0][0]
    good = len(common) == 3 and common[0] >= 1 and common[1] >= 1
    return [
        f'{name}: expected the shape {common if good else "(layers, envs, width)"}, got {shape}'
        for name, shape in shapes.items()
        if shape != common or not good
    ]


def _value_lines(tensors: Mapping[str, Tensor], aliases: Mapping[str, str], spec: NetworkSpec) -> list[str]:
    lines = [
        f'{alias}: differs from {name}, of which it should be a second name'
        for alias, name in aliases.items()
        if not torch.equal(tensors[alias], tensors[name])
    ]
    lines += [
        f'{name}: not finite'
        for name in tensors
        if name not in aliases and not torch.isfinite(tensors[name]).all()
    ]
    if spec.critic is CriticKind.RLPD:
        for part in (CRITIC, CRITIC_TARGET):
            first = f'{part}.qs.0.input_preprocess_modules.'
            for name in [name for name in tensors if name.startswith(first)]:
                for member in range(1, spec.num_critics):
                    twin = name.replace('.qs.0.', f'.qs.{member}.', 1)
                    if not torch.equal(tensors[name], tensors[twin]):
                        lines.append(f'{twin}: differs from {name}, which critics with a norm share')
    return lines


def _describe(spec: NetworkSpec) -> str:
    return (
        f'{spec.cameras} views of {spec.image_size} px x {spec.frame_stack} frames, {spec.state_size} state entries, '
        f'{spec.action_size} actions, hidden layers {list(spec.mlp)}, {spec.num_critics} critics'
    )
