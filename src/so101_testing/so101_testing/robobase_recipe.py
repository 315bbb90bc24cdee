# SPDX-License-Identifier: Apache-2.0
"""The deterministic weights and inputs that golden numbers of the real RoboBase agent belong to."""

from collections.abc import Mapping, Sequence
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, Tensor

from drqv2_policy_node.networks import NetworkSpec

DATA = Path(__file__).parent / 'data'


def golden(name: str) -> Any:
    """Return a file of golden numbers."""
    return json.loads((DATA / name).read_text())


def value(name: str, index: int, shape: tuple[int, ...]) -> Tensor:
    """Return the recipe's numbers for the tensor of that name, `index` in the sorted list of names."""
    flat = np.arange(math.prod(shape), dtype=np.float64)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
    numbers = np.sin(0.6180339887 * flat + 1.7 * index) / math.sqrt(fan_in) * (1.5 if len(shape) > 1 else 0.1)
    if 'input_preprocess_modules' in name and name.endswith('.1.weight'):
        numbers = 1 + numbers
    return torch.tensor(numbers.astype(np.float32)).view(shape)


def fill(encoder: nn.Module, actor: nn.Module, critics: Sequence[nn.Module]) -> None:
    """Give networks the recipe's weights; each of the critics gets the same."""
    parts = {'encoder': encoder, 'actor.actor_model': actor, 'critic': critics[0]}
    named = {f'{part}.{key}': t for part, net in parts.items() for key, t in net.state_dict().items()}
    for index, name in enumerate(sorted(named)):
        named[name].copy_(value(name, index, tuple(named[name].shape)))
    for critic in critics[1:]:
        critic.load_state_dict(critics[0].state_dict())


def images(batch: int, spec: NetworkSpec, offset: int = 0) -> Tensor:
    """Return (B, V, 3T, S, S) uint8."""
    size = spec.image_size
    shape = (batch, spec.cameras, spec.image_channels, size, size)
    i = np.arange(math.prod(shape)) + offset
    return torch.from_numpy(((7 * i + 13 * (i // size) + 101 * (i // size**2)) % 256).astype(np.uint8)).view(
        shape
    )


def state(batch: int, spec: NetworkSpec, offset: int = 0) -> Tensor:
    """Return (B, T * D) float32."""
    j = np.arange(batch * spec.stacked_state) + offset
    return torch.from_numpy(np.cos(0.1 * j).astype(np.float32)).view(batch, -1)


def action(batch: int, spec: NetworkSpec) -> Tensor:
    """Return (B, A) float32."""
    m = np.arange(batch * spec.action_size)
    return torch.from_numpy(np.sin(0.3 * m).astype(np.float32)).view(batch, -1)


def network_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a case of the golden file says about shapes, in the words of NetworkSpec."""
    words = {
        'size': 'image_size',
        'T': 'frame_stack',
        'D': 'state_size',
        'A': 'action_size',
        'views': 'cameras',
        'critics': 'num_critics',
        'bottleneck': 'bottleneck',
    }
    named = {words[key]: number for key, number in options.items() if key in words}
    return named | ({'mlp': tuple(options['mlp'])} if 'mlp' in options else {})
