# SPDX-License-Identifier: Apache-2.0
"""RoboBase's state dict of a DrQ-v2 agent to networks and back, with every tensor accounted for.

The shapes of the networks are read off those of the tensors, the names of the tensors come from the networks.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
import functools
import math
import re
from types import MappingProxyType

import torch
from torch import Tensor

from drqv2_policy_node.networks import (
    Actor,
    Critic,
    CriticKind,
    Encoder,
    EncoderPreset,
    FEATURES,
    fill,
    NetworkSpec,
    STATE,
)
from drqv2_policy_node.spec import LARGEST
from so101_contract.errors import ContractError

ENCODER, ACTOR, ACTOR_ALIAS = 'encoder', 'actor.actor_model', 'actor_model'
CRITIC, CRITIC_TARGET = 'critic', 'critic_target'
HIDDEN_STATE = 'hidden_state'
RNN_LAYERS, RNN_WIDTH = 1, 128
"""Of the hidden state, a buffer that RoboBase registers even where it builds no recurrent layer."""

CONV_LAYERS = MLP_LAYERS = 3
"""Entries of a Sequential per layer: the layer, its norm, its activation."""


class RoboBaseError(ContractError):
    """A state dict is not exactly that of a DrQ-v2 agent; the message names every tensor that is wrong."""


def infer(
    tensors: Mapping[str, Tensor],
    image_size: int | None = None,
    encoder: EncoderPreset = EncoderPreset.ROBOBASE,
) -> tuple[NetworkSpec, int]:
    """Return the shapes of the networks, and the other image size that gives the same ones.

    Where several tensors tell the same size, the most frequent one counts, so that a single odd tensor is named
    as the odd one. The strides of the convolutions leave no trace in the tensors: `encoder` says them.

    Raises:
        RoboBaseError: a tensor that is needed is missing, or no size fits.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    views = _indices(shapes, r'encoder\.convs_per_cam\.(\d+)\.')
    convs = _indices(shapes, r'encoder\.convs_per_cam\.0\.(\d+)\.')
    critics = _indices(shapes, rf'(?:{CRITIC}|{CRITIC_TARGET})\.qs\.(\d+)\.')
    channels, image_channels = _axes(shapes, r'encoder\.convs_per_cam\.\d+\.0\.weight', 4)[:2]
    features = _axes(shapes, rf'.*\.input_preprocess_modules\.{FEATURES}\.0\.weight', 2)
    state = _axes(shapes, rf'.*\.input_preprocess_modules\.{STATE}\.0\.weight', 2)
    actor = rf'(?:{re.escape(ACTOR)}|{ACTOR_ALIAS})'
    values = rf'(?:{CRITIC}|{CRITIC_TARGET})\.qs\.\d+'
    actions = _axes(shapes, rf'{actor}\.out_mlp\.0\.weight', 2)[0]
    normed = any(re.fullmatch(rf'{values}\.main_mlp\.1\.weight', name) for name in shapes)
    mlp, critic_mlp = _widths(shapes, actor), _widths(shapes, values)
    if image_channels < 3 or image_channels % 3 or state[1] % (image_channels // 3):
        raise RoboBaseError(
            f'expected RGB frames and as many states, got {image_channels} channels and {state[1]} state entries; '
            f'this is not a DrQ-v2 agent with frames folded into channels'
        )
    known = {
        'frame_stack': image_channels // 3,
        'cameras': len(views),
        'state_size': state[1] // (image_channels // 3),
        'action_size': actions,
        'mlp': mlp,
        'critic_mlp': () if critic_mlp == mlp else critic_mlp,
        'bottleneck': features[0],
        'num_critics': len(critics),
        'channels': channels,
        'encoder': encoder.value,
        'convs': len([index for index in convs if index % CONV_LAYERS == 0]),
        'critic': CriticKind.RLPD if normed else CriticKind.ROBOBASE,
    }
    return _with_size(known, features[1], image_size)


def _with_size(known: dict[str, object], features: int, image_size: int | None) -> tuple[NetworkSpec, int]:
    largest = NetworkSpec.from_dict(NetworkSpec(image_size=LARGEST['image_size']).to_dict() | known)
    edge = math.isqrt(features // (largest.cameras * largest.channels))
    sizes = [size for size in range(1, LARGEST['image_size']) if largest.edge_for(size) == edge]
    if not sizes or edge * edge * largest.cameras * largest.channels != features:
        raise RoboBaseError(
            f'expected features of square images in actor.actor_model.input_preprocess_modules.{FEATURES}.0.weight, '
            f'got {features} of {largest.cameras} views with {largest.channels} channels; this is not a DrQ-v2 '
            f'agent, or its convolutions are others'
        )
    chosen = next((size for size in sizes if size % 2 == 0), sizes[0]) if image_size is None else image_size
    if chosen not in sizes:
        raise RoboBaseError(
            f'expected an image size of {" or ".join(map(str, sizes))} px for these tensors, got {chosen}; '
            f'name the right one with --image-size'
        )
    rest = [size for size in sizes if size != chosen]
    return NetworkSpec.from_dict(largest.to_dict() | {'image_size': chosen}), (rest or [chosen])[0]


def _indices(shapes: Iterable[str], pattern: str) -> set[int]:
    found = {int(match[1]) for name in shapes if (match := re.match(pattern, name))}
    if not found:
        raise RoboBaseError(
            f'expected tensors such as {_readable(pattern)}, got none; pass the state dict of a DrQ-v2 agent that '
            f'sees images'
        )
    return found


def _axes(shapes: Mapping[str, tuple[int, ...]], pattern: str, axes: int) -> tuple[int, ...]:
    """Return the most frequent shape of the tensors with such a name."""
    found = Counter(
        shape for name, shape in shapes.items() if re.fullmatch(pattern, name) and len(shape) == axes
    )
    if not found:
        raise RoboBaseError(
            f'expected a tensor such as {_readable(pattern)} with {axes} axes, got none; pass the state dict of a '
            f'DrQ-v2 agent that sees images and a state'
        )
    return found.most_common(1)[0][0]


def _widths(shapes: Mapping[str, tuple[int, ...]], owner: str) -> tuple[int, ...]:
    pattern = rf'{owner}\.main_mlp\.(\d+)\.weight'
    layers = sorted(i for i in _indices(shapes, pattern) if i % MLP_LAYERS == 0)
    return tuple(_axes(shapes, rf'{owner}\.main_mlp\.{layer}\.weight', 2)[0] for layer in layers)


def _readable(pattern: str) -> str:
    """Return a name that matches the pattern."""
    first = re.sub(r'\(\?:([^|)]*)\|[^)]*\)', r'\1', pattern).replace('.*', ACTOR)
    return first.replace('(\\d+)', '0').replace('\\d+', '0').replace('\\', '')


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
