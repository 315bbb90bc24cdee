# SPDX-License-Identifier: Apache-2.0
"""Encoder, actor and critics: RoboBase's DrQ-v2 tensor for tensor, and two faster presets.

features = encoder(images)             # (B, V, 3T, S, S) uint8 or float 0..255 -> (B, F)
mu = actor(features, state)            # (B, F), (B, T * D) raw SI units -> (B, A) in -1..1
q = critic(features, state, action)    # ..., (B, A) -> (B, num_critics)
"""

import functools

import torch
from torch import nn, Tensor
from torch.nn import functional

from drqv2_policy_node.networks_layers import (
    bottlenecks,
    convolutions,
    EnsembleMlp,
    FEATURES,
    initialise,
    linear,
    mlp,
    STATE,
)
from drqv2_policy_node.spec import CriticKind, EncoderPreset, NetworkError, NetworkSpec
from so101_contract.normalization import NormalizationMode

__all__ = [
    'Actor',
    'Critic',
    'CriticKind',
    'Encoder',
    'EncoderPreset',
    'NetworkError',
    'NetworkSpec',
    'feature_size',
    'normalise_images',
]


CPU_ROWS = 32
"""Rows of a batch that go through the convolutions together on a CPU."""


def normalise_images(images: Tensor) -> Tensor:
    """Return pixels 0..255 as -0.5..0.5; the only place where an image is scaled."""
    if images.dtype == torch.uint8:
        # A copy of our own, so in place: on a CPU the memory costs more than the sums.
        return images.to(torch.float32).div_(255.0).sub_(0.5)
    return images / 255.0 - 0.5


class Encoder(nn.Module):
    """Convolutions over each view's folded frames; the views' features come out one after the other.

    Args:
        spec: shapes.
        generator: source of the initial values; None for one with seed 0.
        start: False leaves the values open, for a caller that loads them.
    """

    def __init__(
        self, spec: NetworkSpec, generator: torch.Generator | None = None, *, start: bool = True
    ) -> None:
        super().__init__()
        self.spec = spec
        self.convs_per_cam = nn.ModuleList(convolutions(spec) for _ in range(spec.cameras))
        if start:
            _start(self, generator)

    @property
    def feature_size(self) -> int:
        """F, entries of the features of all views."""
        return feature_size(self.spec)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, F) of images (B, V, 3T, S, S), uint8 or float 0..255."""
        spec = self.spec
        expected = (spec.cameras, spec.image_channels, spec.image_size, spec.image_size)
        if images.dim() != 5 or images.shape[1:] != expected:
            raise NetworkError(
                f'expected images (B, {", ".join(map(str, expected))}) with time folded into channels, got '
                f'{tuple(images.shape)}; fold them once, oldest frame first'
            )
        features = [_features(convs, images[:, view]) for view, convs in enumerate(self.convs_per_cam)]
        return features[0] if len(features) == 1 else torch.cat(features, dim=1)


def _features(convs: nn.Module, images: Tensor) -> Tensor:
    """Return one view's features (B, F)."""
    # A large batch at once makes intermediate images that leave the cache, and that the C library gets from the system
    # page by page for every update: at 256 rows that is as much work as the convolutions.
    rows = CPU_ROWS if images.device.type == 'cpu' else max(1, len(images))
    parts = [convs(normalise_images(part)).flatten(1) for part in torch.split(images, rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Inputs(nn.Module):
    """Brings features and state to the width of the bottleneck; the base of the actor and of each critic."""

    offset: Tensor
    scale: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.input_preprocess_modules = bottlenecks(spec, feature_size(spec))
        self.affine = spec.normalization.mode is NormalizationMode.AFFINE
        if self.affine:
            # Not part of the state dict: the spec carries them, and RoboBase knows no such tensors.
            for name in ('offset', 'scale'):
                entries = torch.tensor(getattr(spec.normalization, name), dtype=torch.float32)
                self.register_buffer(name, entries.repeat(spec.frame_stack), persistent=False)

    def inputs(self, features: Tensor, state: Tensor) -> Tensor:
        """Return features and state (B, 2 * bottleneck)."""
        if self.affine:
            state = (state - self.offset) / self.scale
        modules = self.input_preprocess_modules
        return torch.cat([modules[FEATURES](features), modules[STATE](state)], dim=1)


class Actor(_Inputs):
    """The policy: features and state to the mean of the action.

    Args:
        spec: shapes.
        generator: source of the initial values; None for one with seed 0.
        start: False leaves the values open, for a caller that loads them.
    """

    def __init__(
        self, spec: NetworkSpec, generator: torch.Generator | None = None, *, start: bool = True
    ) -> None:
        super().__init__(spec)
        self.spec = spec
        self.main_mlp = mlp(2 * spec.bottleneck, spec.mlp)
        self.out_mlp = nn.Sequential(linear(spec.mlp[-1], spec.action_size))
        if start:
            _start(self, generator)

    def logits(self, features: Tensor, state: Tensor) -> Tensor:
        """Return what the tanh is applied to (B, A)."""
        return self.out_mlp(self.main_mlp(self.inputs(features, state)))  # type: ignore[no-any-return]

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        """Return the mean action (B, A) in -1..1 for features (B, F) and raw state (B, T * D)."""
        return torch.tanh(self.logits(features, state))


class QFunction(_Inputs):
    """One critic of RoboBase, with bottlenecks of its own; the action passes none."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self.main_mlp = mlp(2 * spec.bottleneck + spec.action_size, spec.critic_widths)
        self.out_mlp = nn.Sequential(linear(spec.critic_widths[-1], 1))

    def forward(self, features: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Return the values (B, 1)."""
        x = torch.cat([self.inputs(features, state), action], dim=1)
        return self.out_mlp(self.main_mlp(x))  # type: ignore[no-any-return]


class SharedQ(_Inputs):
    """All members of an RLPD ensemble: one pair of bottlenecks, then N small networks with LayerNorm."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        inputs = 2 * spec.bottleneck + spec.action_size
        self.ensemble = EnsembleMlp(spec.num_critics, inputs, spec.critic_widths)

    def forward(self, features: Tensor, state: Tensor, action: Tensor, members: Tensor | None) -> Tensor:
        """Return the values (B, N), or those of the listed members."""
        x = torch.cat([self.inputs(features, state), action], dim=1)
        return self.ensemble(x, members)  # type: ignore[no-any-return]


class Critic(nn.Module):
    """An ensemble of value functions.

    Args:
        spec: shapes and kind.
        generator: source of the initial values; None for one with seed 0.
        start: False leaves the values open, for a caller that loads them.
    """

    def __init__(
        self, spec: NetworkSpec, generator: torch.Generator | None = None, *, start: bool = True
    ) -> None:
        super().__init__()
        self.spec = spec
        if spec.critic is CriticKind.ROBOBASE:
            self.qs = nn.ModuleList(QFunction(spec) for _ in range(spec.num_critics))
        else:
            self.shared = SharedQ(spec)
        if start:
            _start(self, generator)

    def forward(
        self, features: Tensor, state: Tensor, action: Tensor, members: Tensor | None = None
    ) -> Tensor:
        """Return the values (B, num_critics).

        Args:
            features: (B, F).
            state: (B, T * D), raw SI units.
            action: (B, A) in network units.
            members: indices (n,) of the critics that are wanted, int64; None for all.
        """
        if self.spec.critic is CriticKind.RLPD:
            return self.shared(features, state, action, members)  # type: ignore[no-any-return]
        wanted = range(self.spec.num_critics) if members is None else members.tolist()
        return torch.cat([self.qs[i](features, state, action) for i in wanted], dim=1)


@functools.lru_cache(maxsize=64)
def feature_size(spec: NetworkSpec) -> int:
    """Return F, found by sending an image of no content through the convolutions."""
    with torch.device('meta'), torch.no_grad():
        image = torch.empty(1, spec.image_channels, spec.image_size, spec.image_size)
        for stride in spec.strides:
            kernel = torch.empty(spec.channels, image.shape[1], 3, 3)
            image = functional.conv2d(image, kernel, stride=stride)
    return spec.cameras * image[0].numel()


def _start(module: nn.Module, generator: torch.Generator | None) -> None:
    initialise(module, torch.Generator().manual_seed(0) if generator is None else generator)
