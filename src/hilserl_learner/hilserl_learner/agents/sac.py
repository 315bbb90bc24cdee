# SPDX-License-Identifier: Apache-2.0
"""Soft actor-critic with the settings of HIL-SERL, on the same networks: a third agent, to compare with.

The actor is DrQ-v2's with a head for the noise's size next to it; its mean is what a policy acts with, so policies of
this agent are stored and run like any other. Defaults that others get wrong and that decide whether it learns: target
entropy -dim/2, temperature 0.01 in the beginning, and no entropy in the target values.
"""

import copy
from dataclasses import dataclass, replace
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, EncoderPreset, NetworkSpec
from drqv2_policy_node.networks_layers import linear
from drqv2_policy_node.policy import Policy
from hilserl_learner.agents.base import begin_at_zero, frozen, Metrics
from hilserl_learner.agents.common import ActorCritic, demonstrated_mean
from hilserl_learner.batch import Batch
from hilserl_learner.exploration import explore
from so101_contract.observation import Observation
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import check_bounds, param

LOG_STD_MIN, LOG_STD_MAX = -5.0, 0.5
"""Bounds of the logarithm of the noise's size, before the tanh."""


@dataclass(frozen=True, kw_only=True)
class SacConfig:
    """What the agent is made of and how it learns."""

    encoder: str = param(
        'cpu', doc='Convolutions of a fresh agent.', choices=tuple(preset.value for preset in EncoderPreset)
    )
    width: int = param(256, doc='Width of the two hidden layers of actor and critics.', lo=8, hi=4096)
    num_critics: int = param(10, doc='Critics in the ensemble.', lo=1, hi=100)
    target_critics: int = param(
        2, doc='Randomly chosen target critics of which the smallest value counts.', lo=1, hi=100
    )
    learning_rate: float = param(3e-4, doc='Of Adam, for all networks.', lo=1e-6, hi=1e-1)
    tau: float = param(0.01, doc='Share by which target critics follow in each update.', lo=0.0, hi=1.0)
    actor_every: int = param(2, doc='Critic updates for each update of the actor.', lo=1, hi=100)
    temperature: float = param(0.01, doc='Weight of the entropy in the beginning.', lo=1e-6, hi=10.0)
    target_entropy: float = param(
        0.0, doc='Entropy that the temperature is driven to; 0 for minus half of the action entries.', hi=0.0
    )
    backup_entropy: bool = param(False, doc='Whether target values count the entropy of the next action.')
    bc_weight: float = param(
        0.0, doc='Weight of staying close to the demonstrated actions; 0 leaves it out.', lo=0.0, hi=100.0
    )
    shift: int = param(
        4, doc='Largest shift of an image in augmentation; 0 for none.', unit='px', lo=0, hi=16
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)

    def entropy(self, action_size: int) -> float:
        """Return the entropy that the temperature is driven to, for actions of this size."""
        return self.target_entropy if self.target_entropy < 0.0 else -action_size / 2.0

    def networks(self, observation: ObservationSpec) -> NetworkSpec:
        """Return the shapes of a fresh agent's networks."""
        return NetworkSpec.from_observation(
            observation,
            mlp=(self.width, self.width),
            num_critics=self.num_critics,
            encoder=EncoderPreset(self.encoder),
            critic=CriticKind.RLPD,
        )


class NoiseHead(nn.Module):
    """Says how large the noise on each action entry is, from what the actor computes on its way to the mean."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.out = linear(spec.mlp[-1], spec.action_size)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, -0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logarithm of the std (B, A)."""
        return torch.clamp(self.out(hidden), LOG_STD_MIN, LOG_STD_MAX)


class SacAgent(ActorCritic):
    """Soft actor-critic; see the module."""

    def __init__(
        self,
        observation: ObservationSpec,
        config: SacConfig | None = None,
        *,
        policy: Policy | None = None,
        seed: int = 0,
        device: torch.device | str = 'cpu',
    ) -> None:
        """Build an agent; its critics and its noise are always fresh.

        Args:
            observation: what it sees.
            config: how it learns.
            policy: whose actor and encoder it begins with; None for fresh ones.
            seed: of the initial weights and of all that is left to chance.
            device: where it lives.
        """
        super().__init__(observation, seed=seed, device=device)
        self.config = SacConfig() if config is None else config
        self.actor_every = self.config.actor_every
        self.spec = self.config.networks(observation)
        init = torch.Generator().manual_seed(seed)
        self.encoder, self.actor = Encoder(self.spec, init), Actor(self.spec, init)
        if policy is not None:
            self._begin_with(policy)
            kept = {name: getattr(self.spec, name) for name in ('num_critics', 'critic', 'critic_mlp')}
            self.spec = replace(policy.network, **kept)
        self.noise = NoiseHead(self.spec)
        self.temperature = _Temperature(self.config.temperature)
        self.critic = Critic(self.spec, init)
        begin_at_zero(self.critic)
        self.critic_target = copy.deepcopy(self.critic)
        self.target_entropy = self.config.entropy(self.spec.action_size)
        self._place(
            {
                'encoder': self.encoder,
                'actor': self.actor,
                'noise': self.noise,
                'temperature': self.temperature,
                'critic': self.critic,
            },
            {'critic_target': self.critic_target},
        )

    @property
    def critics(self) -> None:
        """None: they tell what the actor's own noise is worth, which is not stored with a policy."""

    def act(
        self, observation: Observation, *, std: float = 0.0, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.float32]:
        """Return an action in network units (4,): the mean, or with its own noise where std is above 0.

        How much noise there is, this agent decides; std only says whether.
        """
        with torch.inference_mode():
            images, state = self._inputs(observation)
            logits, log_std = self._heads(self.encoder(images), state)
        if not std > 0.0:
            return np.asarray(torch.tanh(logits)[0].cpu().numpy(), dtype=np.float32)
        if rng is None:
            return explore(np.zeros(0, np.float32), std, rng)
        drawn = rng.standard_normal(logits.shape[1])
        noisy = logits[0].cpu().numpy() + log_std[0].exp().cpu().numpy() * drawn
        return np.asarray(np.tanh(noisy), dtype=np.float32)

    @torch.no_grad()
    def _target(self, features: Tensor, batch: Batch) -> Tensor:
        action, log_prob, _ = self._sample(features, batch.next_state)
        value = self._smallest_of_some(features, batch, action)
        if self.config.backup_entropy:
            value = value - self.temperature() * log_prob
        return batch.reward + batch.discount * value

    def _update_actor(self, features: Tensor, batch: Batch) -> Metrics:
        action, log_prob, mean = self._sample(features, batch.state)
        with frozen(self.critic):
            value = self.critic(features, batch.state, action).mean()
        temperature = self.temperature()
        distance = demonstrated_mean((mean - batch.action).square().mean(dim=1), batch)
        loss = temperature.detach() * log_prob.mean() - value + self.config.bc_weight * distance
        self._step(loss, 'actor', 'noise')
        excess = (log_prob.detach() + self.target_entropy).mean()
        self._step(-temperature * excess, 'temperature')
        return {
            'actor_loss': loss.detach(),
            'bc_loss': distance.detach(),
            'entropy': -log_prob.detach().mean(),
            'temperature': temperature.detach(),
        }

    def _heads(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the tanh is applied to and the logarithm of its noise, each (B, A)."""
        hidden = self.actor.main_mlp(self.actor.inputs(features, state))
        return self.actor.out_mlp(hidden), self.noise(hidden)

    def _sample(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions (B, A), the logarithms of their densities (B,), and the mean actions (B, A)."""
        logits, log_std = self._heads(features, state)
        drawn = torch.randn(logits.shape, generator=self.generator, device=logits.device)
        free = logits + log_std.exp() * drawn
        density = -0.5 * drawn.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh(x)^2), in a form that does not run out of digits
        squashed = 2.0 * (math.log(2.0) - free - nn.functional.softplus(-2.0 * free))
        return torch.tanh(free), (density - squashed).sum(dim=1), torch.tanh(logits)


class _Temperature(nn.Module):
    """A positive number that is learned, as its logarithm."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        return self.log.exp()
