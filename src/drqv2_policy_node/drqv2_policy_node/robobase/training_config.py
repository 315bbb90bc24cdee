# SPDX-License-Identifier: Apache-2.0
"""What the Hydra configuration in a snapshot says that its tensors do not."""

from collections.abc import Mapping
from dataclasses import dataclass
import re

from drqv2_policy_node.networks import CriticKind, EncoderPreset, NetworkSpec
from drqv2_policy_node.robobase.infer import RoboBaseError
from so101_contract.record import Json

_REFERENCE = re.compile(r'\$\{([\w.]+)\}')
_MAX_REFERENCES = 10

_SCALED = 'the numbers of that scaling are not in the snapshot'
_OTHER = 'the networks here do something else'

_SAME: Mapping[str, tuple[Json, str]] = {
    'use_standardization': (False, _SCALED),
    'use_min_max_normalization': (False, _SCALED),
    'norm_obs': (False, _SCALED),
    'action_sequence': (1, 'a policy here gives one action at a time'),
    'frame_stack_on_channel': (True, _OTHER),
    'method.distributional_critic': (False, _OTHER),
    'method.encoder_model.kernel_size': (3, _OTHER),
    'method.encoder_model.padding': (0, _OTHER),
    'method.encoder_model.channels_multiplier': (1, _OTHER),
    'method.encoder_model.activation': ('relu', _OTHER),
    'method.encoder_model.norm': ('identity', _OTHER),
    'method.encoder_model.normalise_inputs': (True, _OTHER),
    **{
        f'method.{model}.{key}': (value, _OTHER)
        for model in ('actor_model', 'critic_model')
        for key, value in (
            ('activation', 'relu'),
            ('norm_after_bottleneck', True),
            ('tanh_after_bottleneck', True),
            ('linear_bias', True),
        )
    },
    'method.actor_model.norm': ('identity', _OTHER),
}
"""Settings that shapes do not show, with the value that the networks here stand for, and what else goes wrong."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training.

    Attributes:
        values: the configuration as plain values.
    """

    values: Mapping[str, Json]

    def get(self, path: str) -> Json:
        """Return the value at a dotted path, with references to other values followed; None where there is none."""
        value = self._at(path)
        for _ in range(_MAX_REFERENCES):
            found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
            if found is None:
                return value
            value = self._at(found[1])
        return None

    def _at(self, path: str) -> Json:
        value: Json = dict(self.values)
        for key in path.split('.'):
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    @property
    def image_size(self) -> int | None:
        """Edge of the images [px]."""
        shape = self.get('visual_observation_shape')
        if not isinstance(shape, list) or len(shape) != 2:
            return None
        if shape[0] != shape[1] or not isinstance(shape[0], int):
            raise RoboBaseError(f'expected square images, got {shape}; train with square ones')
        return shape[0]

    @property
    def encoder(self) -> EncoderPreset | None:
        """Which convolutions halve the picture: the first one, or all but the last; None where it does not say."""
        halving, others = (
            self.get(f'method.encoder_model.num_{which}_convs') for which in ('downsample', 'post_downsample')
        )
        if halving is None:
            return None
        if halving == 1:
            return EncoderPreset.ROBOBASE
        if others == 1:
            return EncoderPreset.CPU
        raise RoboBaseError(
            f'expected num_downsample_convs 1, or num_post_downsample_convs 1, in method.encoder_model, got '
            f'{halving} and {others}; the networks here have no such strides'
        )

    @property
    def schedule(self) -> str | None:
        """Exploration noise over iterations of the main loop."""
        text = self.get('method.stddev_schedule')
        return None if text is None else str(text)

    def require_plain(self, spec: NetworkSpec) -> None:
        """Refuse a training whose policy does something that its tensors do not show.

        Raises:
            RoboBaseError: names the settings.
        """
        wanted: dict[str, tuple[Json, str]] = dict(_SAME)
        wanted['frame_stack'] = (spec.frame_stack, 'the tensors say otherwise')
        if spec.cameras > 1:
            wanted['method.view_fusion_model.mode'] = ('flatten', _OTHER)
        norm = 'layer' if spec.critic is CriticKind.RLPD else 'identity'
        wanted['method.critic_model.norm'] = (norm, _OTHER)
        lines = []
        for path, (value, reason) in wanted.items():
            got = self.get(path)
            if got is not None and got != value:
                lines.append(f'{path}: expected {value}, got {got}; {reason}')
        if lines:
            raise RoboBaseError(
                'expected a training whose policy is all in its tensors, got the settings below; '
                'train again without them:\n  ' + '\n  '.join(lines)
            )
