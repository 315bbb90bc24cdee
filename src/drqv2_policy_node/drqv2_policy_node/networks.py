# SPDX-License-Identifier: Apache-2.0
"""Encoder, actor and critics: RoboBase's DrQ-v2 tensor for tensor, and two faster presets.

features = encoder(images)             # (B, V, 3T, S, S) uint8 or float 0..255 -> (B, F)
mu = actor(features, state)            # (B, F), (B, T * D) raw SI units -> (B, A) in -1..1
q = critic(features, state, action)    # ..., (B, A) -> (B, num_critics)

The parts have RoboBase's names. No layer draws from torch's global random state: it is built without values, and
`initialise` fills it. As bytes the networks are safetensors that say their own shapes: no pickle, and the same bytes
for the same values.
"""

from collections.abc import Mapping
import functools
import itertools
import json
import math
import struct
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
import torch
from torch import nn, Tensor
from torch.nn import functional

from drqv2_policy_node.spec import CriticKind, EncoderPreset, KERNEL, NetworkError, NetworkSpec
from so101_contract.observation_spec import NormalizationMode

FEATURES, STATE = 'fused_view_feats', 'low_dim_obs'
"""The inputs that pass a bottleneck, in the order in which they are put together."""

CPU_ROWS = 32
"""Rows of a batch that go through the convolutions together on a CPU."""

SPEC_KEY = 'network'

Module = TypeVar('Module', bound=nn.Module)


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
    """Return the bottleneck of the features, where there are cameras, and that of the state."""
    sizes = {FEATURES: feature_size, STATE: spec.stacked_state}
    return nn.ModuleDict({name: bottleneck(size, spec.bottleneck) for name, size in sizes.items() if size})


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
        if not spec.cameras:
            return torch.empty(len(images), 0, device=images.device)
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
        self.seeing = spec.cameras > 0
        self.affine = spec.normalization.mode is NormalizationMode.AFFINE
        if self.affine:
            # Not part of the state dict: the spec carries them, and RoboBase knows no such tensors.
            for name in ('offset', 'scale'):
                entries = torch.tensor(getattr(spec.normalization, name), dtype=torch.float32)
                self.register_buffer(name, entries.repeat(spec.frame_stack), persistent=False)

    def inputs(self, features: Tensor, state: Tensor) -> Tensor:
        """Return features and state (B, 2 * bottleneck), or the state alone where there are no cameras."""
        if self.affine:
            state = (state - self.offset) / self.scale
        modules = self.input_preprocess_modules
        if not self.seeing:
            return modules[STATE](state)  # type: ignore[no-any-return]
        return torch.cat([modules[FEATURES](features), modules[STATE](state)], dim=1)


class Actor(_Inputs):
    """The policy: features and state to the mean of the action. Made as an `Encoder` is."""

    def __init__(
        self, spec: NetworkSpec, generator: torch.Generator | None = None, *, start: bool = True
    ) -> None:
        super().__init__(spec)
        self.spec = spec
        self.main_mlp = mlp(spec.inputs, spec.mlp)
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
        self.main_mlp = mlp(spec.inputs + spec.action_size, spec.critic_widths)
        self.out_mlp = nn.Sequential(linear(spec.critic_widths[-1], 1))

    def forward(self, features: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Return the values (B, 1)."""
        x = torch.cat([self.inputs(features, state), action], dim=1)
        return self.out_mlp(self.main_mlp(x))  # type: ignore[no-any-return]


class SharedQ(_Inputs):
    """All members of an RLPD ensemble: one pair of bottlenecks, then N small networks with LayerNorm."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self.ensemble = EnsembleMlp(spec.num_critics, spec.inputs + spec.action_size, spec.critic_widths)

    def forward(self, features: Tensor, state: Tensor, action: Tensor, members: Tensor | None) -> Tensor:
        """Return the values (B, N), or those of the listed members."""
        x = torch.cat([self.inputs(features, state), action], dim=1)
        return self.ensemble(x, members)  # type: ignore[no-any-return]


class Critic(nn.Module):
    """An ensemble of value functions. Made as an `Encoder` is."""

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
    """Return F, found by sending an image of no content through the convolutions; 0 without cameras."""
    if not spec.cameras:
        return 0
    with torch.device('meta'), torch.no_grad():
        image = torch.empty(1, spec.image_channels, spec.image_size, spec.image_size)
        for stride in spec.strides:
            kernel = torch.empty(spec.channels, image.shape[1], 3, 3)
            image = functional.conv2d(image, kernel, stride=stride)
    return spec.cameras * image[0].numel()


def _start(module: nn.Module, generator: torch.Generator | None) -> None:
    initialise(module, torch.Generator().manual_seed(0) if generator is None else generator)


def to_bytes(spec: NetworkSpec, parts: Mapping[str, nn.Module]) -> bytes:
    """Return the tensors of the parts, each under `<part's name>.`, with the spec in the header."""
    tensors = {
        f'{part}.{name}': tensor.detach()
        .to('cpu', torch.float32)
        .clone(memory_format=torch.contiguous_format)
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    return save(tensors, metadata={SPEC_KEY: spec.to_json(indent=None)})


def from_bytes(payload: bytes) -> tuple[NetworkSpec, dict[str, Tensor]]:
    """Return the spec and the tensors of what `to_bytes` gave.

    Raises:
        NetworkError: the bytes are damaged or come from something else.
    """
    try:
        tensors = load(payload)
        (length,) = struct.unpack_from('<Q', payload)
        text = json.loads(payload[8 : 8 + length]).get('__metadata__', {})[SPEC_KEY]
    except (SafetensorError, struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NetworkError(
            f'expected tensors of a policy with their network spec in the header, got {error!r}; '
            f'restore the file, or convert the checkpoint again'
        ) from error
    return NetworkSpec.from_json(text), tensors


def fill(module: Module, tensors: Mapping[str, Tensor], part: str) -> Module:
    """Give a module the tensors whose names begin with `<part>.`, all of them and no others.

    Raises:
        NetworkError: names the tensors that are missing, too many, of another shape, or not finite.
    """
    prefix = f'{part}.'
    given = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    wanted = module.state_dict()
    lines = [f'{prefix}{name}: missing' for name in wanted if name not in given]
    lines += [f'{prefix}{name}: not part of this network' for name in given if name not in wanted]
    for name in wanted.keys() & given.keys():
        if wanted[name].shape != given[name].shape:
            shapes = tuple(wanted[name].shape), tuple(given[name].shape)
            lines.append(f'{prefix}{name}: expected the shape {shapes[0]}, got {shapes[1]}')
        elif not torch.isfinite(given[name]).all():
            lines.append(f'{prefix}{name}: not finite')
    if lines:
        raise NetworkError(
            'expected exactly the tensors of this network, got the differences below; use the weights that '
            'belong to it:\n  ' + '\n  '.join(sorted(lines))
        )
    module.load_state_dict(given)
    return module
