# SPDX-License-Identifier: Apache-2.0
"""The shapes of an agent's networks, read off the shapes of its tensors."""

from collections import Counter
from collections.abc import Iterable, Mapping
import math
import re

from torch import Tensor

from drqv2_policy_node.networks import CriticKind, EncoderPreset, NetworkSpec
from drqv2_policy_node.networks_layers import FEATURES, STATE
from drqv2_policy_node.robobase.names import ACTOR, ACTOR_ALIAS, CRITIC, CRITIC_TARGET
from drqv2_policy_node.spec import LARGEST
from so101_contract.errors import ContractError

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
