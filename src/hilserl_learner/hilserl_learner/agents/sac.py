# SPDX-License-Identifier: Apache-2.0
"""Soft actor-critic with the settings of HIL-SERL, on the same networks: a third agent, to compare with.

SAC is that of Haarnoja et al. 2018 (arXiv:1812.05905), with a temperature that is learned; its settings are those of
HIL-SERL (Luo et al. 2024, arXiv:2410.21845), whose critics are RLPD's (Ball et al. 2023, arXiv:2302.02948), and its
images are shifted as in DrQ-v2 (Yarats et al. 2021, arXiv:2107.09645). One update:

1. augment observation and next observation, once each, by independent shifts (DrQ-v2)
2. encode both with the encoder that learns; the next one without gradient
3. y = R + gamma^k min of 2 of 10 target critics at (h', a'), a' ~ tanh(N(mu(h'), sigma(h')))
4. mean over batch and critics of (Q - y)^2; step critics and encoder
5. every second time, minimise temperature * log pi(a) - the mean of all critics at (h, a), with h detached, plus the
   distance to demonstrated actions where that is switched on; step actor and noise, then the temperature
6. move the target critics by tau

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

from drqv2_policy_node.networks import Actor, Critic, Encoder, EncoderPreset, linear, NetworkSpec
from drqv2_policy_node.policy import Policy
from hilserl_learner.agents.common import (
    Agent,
    channels_last,
    critic_metrics,
    explore,
    frozen,
    masked_mean,
    rlpd_networks,
    shrink_output_init,
    soft_update,
)
from hilserl_learner.data.augment import random_shift
from hilserl_learner.data.batch import Batch
from so101_contract.action import ACTION_SIZE
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
    tau: float = param(0.01, doc='Share by which target critics follow in each update.', lo=0.0, hi=1.0)
    temperature: float = param(0.01, doc='Weight of the entropy in the beginning.', lo=1e-6, hi=10.0)
    target_entropy: float = param(
        0.0, doc='Entropy that the temperature is driven to; 0 for minus half of the action entries.', hi=0.0
    )
    backup_entropy: bool = param(False, doc='Whether target values count the entropy of the next action.')
    learning_rate: float = param(3e-4, doc='Of Adam, for all networks.', lo=1e-6, hi=1e-1)
    actor_every: int = param(2, doc='Critic updates for each update of the actor.', lo=1, hi=100)
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


class Temperature(nn.Module):
    """Weight of the entropy: a positive number that is learned, as its logarithm."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        """Return the weight, with gradient."""
        return self.log.exp()


class SacAgent(Agent):
    """Soft actor-critic; see the module."""

    config_type = SacConfig
    config: SacConfig

    def __init__(
        self,
        observation: ObservationSpec,
        config: SacConfig | None = None,
        *,
        policy: Policy | None = None,
        action_size: int = ACTION_SIZE,
        seed: int = 0,
        device: torch.device | str = 'cpu',
    ) -> None:
        """Build an agent, see `Agent`; its critics and its noise are always fresh."""
        init = torch.Generator().manual_seed(seed)
        super().__init__(observation, config, policy=policy, seed=seed, device=device)
        self.spec = rlpd_networks(observation, self.config, action_size)
        self.encoder, self.actor = Encoder(self.spec, init), Actor(self.spec, init)
        if policy is not None:
            self._begin_with(policy)
            kept = {name: getattr(self.spec, name) for name in ('num_critics', 'critic', 'critic_mlp')}
            self.spec = replace(policy.network, **kept)
        self.acting = self.encoder, self.actor
        self.noise = NoiseHead(self.spec)
        self.temperature = Temperature(self.config.temperature)
        self.target_entropy = self.config.entropy(self.spec.action_size)
        self.critic = Critic(self.spec, init)
        shrink_output_init(self.critic)
        self.critic_target = copy.deepcopy(self.critic)
        self._place(
            trained={
                'encoder': self.encoder,
                'actor': self.actor,
                'noise': self.noise,
                'temperature': self.temperature,
                'critic': self.critic,
            },
            following={'critic_target': self.critic_target},
            optimizer=lambda parameters: torch.optim.Adam(parameters, self.config.learning_rate, fused=True),
        )

    @property
    def critics(self) -> None:
        """None: they tell what the actor's own noise is worth, which is not stored with a policy."""

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from one batch; see the module for the order."""
        batch = batch.to(self.device)
        # Observation and next observation are shifted independently, each image once (DrQ-v2).
        shift = self.config.shift
        images = channels_last(random_shift(batch.images, shift, self.generator))
        next_images = channels_last(random_shift(batch.next_images, shift, self.generator))
        with torch.no_grad():
            target = self._target(self.encoder(next_images), batch)
        features = self.encoder(images)
        metrics = self._update_critic(features, batch, target)
        if self.updates % self.config.actor_every == 0:
            # On features of before that step, and without gradient: only the critics' loss trains the encoder.
            metrics |= self._update_actor(features.detach(), batch)
        soft_update(self.critic_target, self.critic, self.config.tau)
        self.updates += 1
        return metrics

    @torch.no_grad()
    def _target(self, next_features: Tensor, batch: Batch) -> Tensor:
        """Return y (B,), bootstrapped with the smallest value of a few random target critics (RLPD).

        SAC counts the entropy of the next action; RLPD and HIL-SERL leave it out of the backup.
        """
        action, log_prob, _ = self._sample(next_features, batch.next_state)
        chosen = torch.randperm(self.spec.num_critics, generator=self.generator, device=self.device)
        chosen = chosen[: self.config.target_critics]
        value: Tensor = self.critic_target(next_features, batch.next_state, action, chosen).amin(dim=1)
        if self.config.backup_entropy:
            value = value - self.temperature() * log_prob
        return batch.reward + batch.discount * value

    def _update_critic(self, features: Tensor, batch: Batch, target: Tensor) -> dict[str, Tensor]:
        """Step the ensemble and the encoder on the mean squared error."""
        values = self.critic(features, batch.state, batch.action)
        loss = (values - target.unsqueeze(1)).square().mean()
        self._step(loss, 'encoder', 'critic')
        return critic_metrics(loss, values, target, batch)

    def _sample(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions (B, A), the logarithms of their densities (B,), and the mean actions (B, A)."""
        logits, log_std = self._heads(features, state)
        drawn = torch.randn(logits.shape, generator=self.generator, device=logits.device)
        free = logits + log_std.exp() * drawn
        density = -0.5 * drawn.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh(x)^2), in a form that does not run out of digits
        squashed = 2.0 * (math.log(2.0) - free - nn.functional.softplus(-2.0 * free))
        return torch.tanh(free), (density - squashed).sum(dim=1), torch.tanh(logits)

    def _heads(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the tanh is applied to and the logarithm of its noise, each (B, A)."""
        hidden = self.actor.main_mlp(self.actor.inputs(features, state))
        return self.actor.out_mlp(hidden), self.noise(hidden)

    def _update_actor(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Step actor and noise, by the reparametrised gradient (SAC), then the temperature."""
        action, log_prob, mean = self._sample(features, batch.state)
        with frozen(self.critic):
            value = self.critic(features, batch.state, action).mean()  # of the ensemble (RLPD)
        temperature = self.temperature()
        # Behaviour-cloning regulariser on demonstrated rows (TD3+BC, Fujimoto and Gu 2021, arXiv:2106.06860).
        distance = masked_mean((mean - batch.action).square().mean(dim=1), batch.is_demo)
        loss = temperature.detach() * log_prob.mean() - value + self.config.bc_weight * distance
        self._step(loss, 'actor', 'noise')
        # The temperature rises while there is less entropy than wished, and falls while there is more (SAC).
        excess = (log_prob.detach() + self.target_entropy).mean()
        self._step(-temperature * excess, 'temperature')
        return {
            'actor_loss': loss.detach(),
            'bc_loss': distance.detach(),
            'entropy': -log_prob.detach().mean(),
            'temperature': temperature.detach(),
        }

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
