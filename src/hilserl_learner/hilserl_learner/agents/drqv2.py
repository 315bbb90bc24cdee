# SPDX-License-Identifier: Apache-2.0
"""DrQ-v2 as RoboBase has it, number for number: for going on with its checkpoints, and for comparing with it.

The algorithm is that of Yarats et al. 2021 (arXiv:2107.09645); where RoboBase differs, this agent, whose name is
`faithful`, does what RoboBase does. One update:

1. augment observation and next observation, once each, by independent shifts
2. encode both with the online encoder; the next one without gradient
3. y = R + gamma^k min of all target critics at (h', a'), a' ~ mu(h') + clip(noise)
4. mean over batch and critics of (Q - y)^2; step critics and encoder
5. minimise -min of all critics at (h, a), with the h of before that step, detached, and the critics of after it,
   plus the distance to demonstrated actions where that is switched on; step the actor
6. move the target critics by tau

R, gamma^k and the observation that is bootstrapped come with the batch. Losses are means, so they do not depend on the
size of the batch.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, EncoderPreset, NetworkSpec
from drqv2_policy_node.policy import Policy
from hilserl_learner.agents.common import (
    Agent,
    AgentError,
    channels_last,
    critic_metrics,
    critics_beside,
    frozen,
    masked_mean,
    with_noise,
)
from hilserl_learner.data.augment import random_shift
from hilserl_learner.data.batch import Batch
from so101_contract.action import ACTION_SIZE
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class FaithfulConfig:
    """RoboBase's settings; the defaults are those that policies for this arm were trained with."""

    width: int = param(256, doc='Width of the two hidden layers of a fresh agent.', lo=8, hi=4096)
    num_critics: int = param(2, doc='Critics of a fresh agent.', lo=1, hi=100)
    learning_rate: float = param(1e-4, doc='Of AdamW, for all networks.', lo=1e-6, hi=1e-1)
    weight_decay: float = param(0.0, doc='Of AdamW.', lo=0.0, hi=1.0)
    tau: float = param(0.01, doc='Share by which target critics follow in each update.', lo=0.0, hi=1.0)
    noise_clip: float = param(
        0.3, doc='Largest noise on the actions that losses are computed with.', lo=0.0, hi=2.0
    )
    shift: int = param(
        4, doc='Largest shift of an image in augmentation; 0 for none.', unit='px', lo=0, hi=16
    )
    bc_weight: float = param(
        0.0, doc='Weight of the squared distance to demonstrated actions (bc_lambda).', lo=0.0, hi=100.0
    )
    grad_clip: float = param(
        0.0, doc='Largest norm of the gradient of each network; 0 for any.', lo=0.0, hi=1e6
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)

    def networks(self, observation: ObservationSpec, action_size: int = ACTION_SIZE) -> NetworkSpec:
        """Return the shapes of a fresh agent's networks."""
        return NetworkSpec.from_observation(
            observation,
            encoder=EncoderPreset.ROBOBASE,
            critic=CriticKind.ROBOBASE,
            mlp=(self.width, self.width),
            num_critics=self.num_critics,
            action_size=action_size,
        )


class FaithfulAgent(Agent):
    """DrQ-v2 as RoboBase updates it; see the module."""

    config_type = FaithfulConfig
    config: FaithfulConfig

    def __init__(
        self,
        observation: ObservationSpec,
        config: FaithfulConfig | None = None,
        *,
        policy: Policy | None = None,
        critics: tuple[Critic, Critic] | None = None,
        networks: NetworkSpec | None = None,
        action_size: int = ACTION_SIZE,
        seed: int = 0,
        device: torch.device | str = 'cpu',
    ) -> None:
        """Build an agent, see `Agent`.

        Args:
            observation: what it sees.
            config: how it learns.
            policy: whose actor and encoder it begins with; None for fresh ones.
            critics: critics and targets that it begins with. None for those that are stored with the policy, or
                for fresh ones where there are none.
            networks: shapes of a fresh agent's networks; None for those of the configuration.
            action_size: entries of an action of a fresh agent, where the shapes are those of the configuration.
            seed: of the initial weights and of all that is left to chance.
            device: where it lives.

        Raises:
            ContractError: the policy sees something else.
            AgentError: the critics are of other shapes than the policy.
        """
        super().__init__(observation, config, policy=policy, seed=seed, device=device)
        init = torch.Generator().manual_seed(seed)
        if policy is None:
            self.spec = self.config.networks(observation, action_size) if networks is None else networks
            self.encoder, self.actor = Encoder(self.spec, init), Actor(self.spec, init)
        else:
            self.spec = replace(policy.network, critic=CriticKind.ROBOBASE)
            self._begin_with(policy)
        self.acting = self.encoder, self.actor
        critics = critics_beside(policy, self.spec) if critics is None else critics
        if critics is None:
            self.critic = Critic(self.spec, init)
            self.critic_target = copy.deepcopy(self.critic)
        else:
            self.critic, self.critic_target = (copy.deepcopy(critic) for critic in critics)
        for critic in (self.critic, self.critic_target):
            lines = self.spec.diff(critic.spec, ('policy', 'critics'))
            if lines:
                raise AgentError('expected critics of the policy, got differences:\n  ' + '\n  '.join(lines))
        self._place(
            trained={'encoder': self.encoder, 'actor': self.actor, 'critic': self.critic},
            following={'critic_target': self.critic_target},
            # RoboBase has AdamW in the place of DrQ-v2's Adam; without decay they are the same.
            optimizer=lambda parameters: torch.optim.AdamW(
                parameters, self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True
            ),
        )

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from one batch, in RoboBase's order: the actor steps in every update, on features of before."""
        batch = batch.to(self.device)
        # Each image is shifted once, the next observation by a shift of its own (DrQ-v2, arXiv:2107.09645).
        images, next_images = (
            channels_last(random_shift(seen, self.config.shift, self.generator))
            for seen in (batch.images, batch.next_images)
        )
        with torch.no_grad():  # there is no target encoder
            target = self._target(self.encoder(next_images), batch)
        features = self.encoder(images)
        metrics = self._update_critic(features, batch, target)
        # Detached: the actor's loss never reaches the encoder.
        metrics |= self._update_actor(features.detach(), batch)
        self._update_targets()
        self.updates += 1
        return metrics

    @torch.no_grad()
    def _target(self, next_features: Tensor, batch: Batch) -> Tensor:
        """Return y (B,), the n-step return with clipped double Q-learning (DrQ-v2, arXiv:2107.09645).

        The batch's discount is gamma^k after k steps, and 0 where an episode ended in success or failure.
        """
        action = self._noisy(self.actor(next_features, batch.next_state))
        values: Tensor = self.critic_target(next_features, batch.next_state, action)  # (B, critics)
        return batch.reward + batch.discount * values.amin(dim=1)

    def _update_critic(self, features: Tensor, batch: Batch, target: Tensor) -> dict[str, Tensor]:
        """Step critics and encoder; a mean over both critics, where DrQ-v2 has their sum."""
        values = self.critic(features, batch.state, batch.action)
        loss = (values - target.unsqueeze(1)).square().mean()
        self._step(loss, 'encoder', 'critic', grad_clip=self.config.grad_clip)
        return critic_metrics(loss, values, target, batch)

    def _update_actor(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Step the actor up the deterministic policy gradient (DrQ-v2, arXiv:2107.09645)."""
        mean = self.actor(features, batch.state)
        with frozen(self.critic):
            value = self.critic(features, batch.state, self._noisy(mean)).amin(dim=1).mean()
            # Behaviour cloning on demonstrated rows (RoboBase's get_bc_loss): summed over entries, not averaged.
            distance = masked_mean((mean - batch.action).square().sum(dim=1), batch.is_demo)
            loss = self.config.bc_weight * distance - value
            self._step(loss, 'actor', grad_clip=self.config.grad_clip)
        return {
            'actor_loss': loss.detach(),
            'bc_loss': distance.detach(),
            'action_abs': mean.detach().abs().mean(),
        }

    def _update_targets(self) -> None:
        """Move the target critics, rounding as RoboBase does.

        `target + tau * (online - target)` rounds equal moves of equal weights all to the same side; after one update
        of the golden batch the values differ by 1e-5.
        """
        with torch.no_grad():
            parameters: list[Tensor] = list(self.critic_target.parameters())
            torch._foreach_mul_(parameters, 1.0 - self.config.tau)
            torch._foreach_add_(parameters, list(self.critic.parameters()), alpha=self.config.tau)

    def _noisy(self, mean: Tensor) -> Tensor:
        """Return actions with clipped exploration noise, whose std follows the schedule (DrQ-v2)."""
        return with_noise(mean, self.std, self.config.noise_clip, self.generator)
