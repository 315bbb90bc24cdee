# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the networks, with RoboBase's names for their parts.

No layer draws from torch's global random state: it is built without values, and `initialise` fills it.
"""

import itertools
import math

import torch
from torch import nn, Tensor
from torch.nn import functional

from drqv2_policy_node.spec import KERNEL, NetworkSpec

FEATURES, STATE = 'fused_view_feats', 'low_dim_obs'
"""The inputs that pass a bottleneck, in the order in which they are put together."""


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer whose values are still to be set."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    return layer


def convolutions(spec: NetworkSpec) -> nn.Sequential:
    """Return one view's convolutions: Conv2d, Identity (RoboBase's norm), ReLU, and so on."""
    layers: list[nn.Module] = []
    channels = spec.image_channels
    for stride in spec.strides:
        conv = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d, channels, spec.channels, KERNEL, stride=stride
        )
        layers += [conv, nn.Identity(), nn.ReLU(inplace=True)]
        channels = spec.channels
    return nn.Sequential(*layers)


def bottleneck(inputs: int, width: int) -> nn.Sequential:
    """Return Linear, LayerNorm, Tanh."""
    return nn.Sequential(linear(inputs, width), nn.LayerNorm(width), nn.Tanh())


def bottlenecks(spec: NetworkSpec, feature_size: int) -> nn.ModuleDict:
    """Return the bottleneck of the features and that of the state."""
    return nn.ModuleDict(
        {
            FEATURES: bottleneck(feature_size, spec.bottleneck),
            STATE: bottleneck(spec.stacked_state, spec.bottleneck),
        }
    )


def mlp(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Return Linear, Identity (RoboBase's norm), ReLU, and so on; there is no norm in front of a ReLU."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [linear(inputs, width), nn.Identity(), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers)


class EnsembleLinear(nn.Module):
    """N linear layers in one: (B, in) or (N, B, in) to (N, B, out).

    Its `weight` is (N, out, in) and its `bias` (N, out), so that entry n is member n's layer.
    """

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Apply every member, or those listed in `members` (n,)."""
        weight, bias = select(self.weight, members), select(self.bias, members)
        if x.dim() == 2:
            # One input for all members is one matrix product.
            y = functional.linear(x, weight.flatten(0, 1), bias.flatten())
            return y.view(len(x), *weight.shape[:2]).transpose(0, 1)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


class EnsembleNorm(nn.Module):
    """N LayerNorms in one: (N, B, width) to the same; `weight` and `bias` are (N, width)."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, width))
        self.bias = nn.Parameter(torch.zeros(members, width))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Apply every member, or those listed in `members` (n,)."""
        weight, bias = select(self.weight, members), select(self.bias, members)
        normed = functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(bias.unsqueeze(1), normed, weight.unsqueeze(1))


class EnsembleMlp(nn.Module):
    """N times Linear, LayerNorm, ReLU, ..., Linear to one number: (B, in) to (B, N)."""

    def __init__(self, members: int, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (inputs, *widths)
        self.hidden = nn.ModuleList(
            EnsembleLinear(members, one, two) for one, two in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList(EnsembleNorm(members, width) for width in widths)
        self.out = EnsembleLinear(members, sizes[-1], 1)

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Return the value that each member, or each of those listed, gives (B, N)."""
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = norm(layer(x, members), members).relu_()
        return self.out(x, members).squeeze(2).transpose(0, 1)  # type: ignore[no-any-return]


def select(parameter: Tensor, members: Tensor | None) -> Tensor:
    """Return the rows of the listed members, or all."""
    return parameter if members is None else parameter.index_select(0, members)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Give every layer the values that RoboBase starts with.

    Linear and convolution are orthogonal, with gains 1 and sqrt(2); biases are 0; norms do nothing.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            gain = math.sqrt(2.0) if isinstance(part, nn.Conv2d) else 1.0
            nn.init.orthogonal_(part.weight, gain, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, EnsembleLinear):
            for weight in part.weight:
                nn.init.orthogonal_(weight, generator=generator)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm | EnsembleNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
