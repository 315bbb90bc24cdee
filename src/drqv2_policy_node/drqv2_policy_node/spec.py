# SPDX-License-Identifier: Apache-2.0
"""What decides the shapes of a policy's networks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Self

from so101_contract.action import ACTION_SIZE
from so101_contract.errors import ContractError
from so101_contract.observation_spec import Normalization, NormalizationMode, ObservationSpec
from so101_contract.record import Record

CHANNELS_PER_FRAME = 3
KERNEL = 3

LARGEST: Mapping[str, int] = {
    'image_size': 2048,
    'frame_stack': 16,
    'cameras': 8,
    'state_size': 1024,
    'action_size': 64,
    'bottleneck': 4096,
    'num_critics': 100,
    'channels': 1024,
    'convs': 16,
}
WITHOUT_CAMERAS = ('image_size', 'cameras')
"""Sizes that are 0 where only the state is seen."""

WIDEST, MOST_LAYERS = 8192, 16
"""A spec may come over the network: what it may ask for, so that none takes all the memory there is."""


class NetworkError(ContractError):
    """A network cannot be built, or is fed with something else than it was built for."""


class EncoderPreset(Enum):
    """The convolutions over each camera's frames."""

    ROBOBASE = 'robobase'
    """One convolution of stride 2, the others of stride 1: the one of DrQ-v2."""
    CPU = 'cpu'
    """Stride 2 in all but the last: about a tenth of the work."""


class CriticKind(Enum):
    """How the values are computed."""

    ROBOBASE = 'robobase'
    """Independent critics, each with bottlenecks of its own."""
    RLPD = 'rlpd'
    """An ensemble with LayerNorm behind bottlenecks that all members share."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(Record):
    """Everything that decides the shapes of encoder, actor and critics.

    Attributes:
        image_size: S, edge of the square images [px]; 0 without cameras.
        frame_stack: T, frames that are folded into the channels of an image.
        cameras: V, number of views; each has convolutions of its own.
        state_size: D, state entries of one step; the networks see T * D.
        action_size: A.
        mlp: widths of the hidden layers of the actor, and of the critics where they have none of their own.
        critic_mlp: widths of the critics' hidden layers; empty for those of the actor.
        bottleneck: width that features and state are each brought to.
        num_critics: size of the ensemble.
        encoder: preset of the convolutions.
        channels: channels of every convolution.
        convs: number of convolutions per view.
        critic: kind of the critics.
        normalization: what happens to the state inside the networks.
    """

    KIND: ClassVar[str] = 'drqv2_policy_node/network/1'
    ERROR = NetworkError

    image_size: int = 84
    frame_stack: int = 3
    cameras: int = 1
    state_size: int = 18
    action_size: int = ACTION_SIZE
    mlp: tuple[int, ...] = (256, 256)
    critic_mlp: tuple[int, ...] = ()
    bottleneck: int = 50
    num_critics: int = 2
    encoder: EncoderPreset = EncoderPreset.ROBOBASE
    channels: int = 32
    convs: int = 4
    critic: CriticKind = CriticKind.ROBOBASE
    normalization: Normalization = field(default_factory=Normalization)

    def __post_init__(self) -> None:
        """Check that networks of these shapes exist."""
        super().__post_init__()
        seen = LARGEST if self.image_size or self.cameras else LARGEST.keys() - set(WITHOUT_CAMERAS)
        counts = [(name, getattr(self, name), largest) for name, largest in LARGEST.items() if name in seen]
        counts += [('hidden layers', len(self.mlp), MOST_LAYERS)]
        counts += [('width', width, WIDEST) for width in self.mlp + self.critic_mlp[:MOST_LAYERS]]
        wrong = [f'{name} {n} (1 to {largest})' for name, n, largest in counts if not 1 <= n <= largest]
        if len(self.critic_mlp) > MOST_LAYERS:
            wrong.append(f'hidden layers of the critics {len(self.critic_mlp)} (0 to {MOST_LAYERS})')
        if wrong:
            raise NetworkError(
                f'expected sizes in the ranges below, got {", ".join(wrong)}; correct the network spec'
            )
        if self.cameras and self.feature_edge < 1:
            raise NetworkError(
                f'expected images that {self.convs} convolutions of the strides {list(self.strides)} leave '
                f'something of, got {self.image_size} px; use larger images'
            )
        affine = self.normalization.mode is NormalizationMode.AFFINE
        if affine and len(self.normalization.scale) != self.state_size:
            raise NetworkError(
                f'expected statistics for {self.state_size} state entries, got '
                f'{len(self.normalization.scale)}; use those of this observation spec'
            )

    @classmethod
    def from_observation(cls, spec: ObservationSpec, **options: Any) -> Self:
        """Return the networks for an observation spec; `options` are the fields that it does not decide."""
        return cls(
            image_size=spec.image_size,
            frame_stack=spec.frame_stack,
            cameras=len(spec.cameras),
            state_size=spec.state_size,
            normalization=spec.normalization,
            **options,
        )

    def require_observation(self, spec: ObservationSpec) -> None:
        """Refuse an observation spec that these networks cannot take."""
        lines = self.diff(self.from_observation(spec, **self._own()), ('network', 'observation'))
        if lines:
            raise NetworkError(
                'expected an observation spec of the shapes that the networks have, got the differences '
                'below; use matching files:\n  ' + '\n  '.join(lines)
            )

    def _own(self) -> dict[str, Any]:
        names = ('action_size', 'mlp', 'critic_mlp', 'bottleneck', 'num_critics', 'encoder', 'channels')
        return {name: getattr(self, name) for name in (*names, 'convs', 'critic')}

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each convolution."""
        if self.encoder is EncoderPreset.ROBOBASE:
            return (2,) + (1,) * (self.convs - 1)
        return (2,) * (self.convs - 1) + (1,)

    @property
    def feature_edge(self) -> int:
        """Edge of the feature map behind the last convolution [px]; below 1 where nothing is left."""
        return self.edge_for(self.image_size)

    def edge_for(self, image_size: int) -> int:
        """Return the edge of the feature map of images of another size [px]."""
        for stride in self.strides:
            image_size = (image_size - KERNEL) // stride + 1
        return image_size

    @property
    def inputs(self) -> int:
        """Entries behind the bottlenecks: those of the features, where there are cameras, and those of the state."""
        return self.bottleneck * (2 if self.cameras else 1)

    @property
    def image_channels(self) -> int:
        """3T, channels of a folded image."""
        return CHANNELS_PER_FRAME * self.frame_stack

    @property
    def stacked_state(self) -> int:
        """T * D, entries of the state that the networks see."""
        return self.frame_stack * self.state_size

    @property
    def critic_widths(self) -> tuple[int, ...]:
        """Widths of the critics' hidden layers."""
        return self.critic_mlp or self.mlp
