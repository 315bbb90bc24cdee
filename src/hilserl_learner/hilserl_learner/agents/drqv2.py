# SPDX-License-Identifier: Apache-2.0
"""RoboBase's DrQ-v2, number for number: for going on with its checkpoints, and for comparing with it.

One update, in RoboBase's order:

1. augment observation and next observation, once each, by independent shifts
2. encode both with the online encoder; the next one without gradient
3. y = R + gamma^k min of all target critics at (h', a'), a' ~ mu(h') + clip(noise)
4. mean over batch and critics of (Q - y)^2; step critics and encoder
5. minimise -min of all critics at (h, a), with the h of before that step, detached, and the critics of after it,
   plus the distance to demonstrated actions where that is switched on; step the actor
6. move the target critics by tau

Noise on an action passes its gradient on as if nothing had been cut. Losses are means, so they do not depend on
the size of the batch.
"""

from collections.abc import Iterable
import copy
from dataclasses import replace

import torch
from torch import nn, Tensor

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, NetworkSpec
from drqv2_policy_node.policy import Policy
from hilserl_learner.agents.base import AgentError, frozen, Metrics
from hilserl_learner.agents.common import ActorCritic, demonstrated_mean
from hilserl_learner.agents.faithful_config import FaithfulConfig
from hilserl_learner.batch import Batch
from so101_contract.observation_spec import ObservationSpec

__all__ = ['FaithfulAgent', 'FaithfulConfig']


class FaithfulAgent(ActorCritic):
    """DrQ-v2 as RoboBase updates it; see the module."""

    def __init__(
        self,
        observation: ObservationSpec,
        config: FaithfulConfig | None = None,
        *,
        policy: Policy | None = None,
        critics: tuple[Critic, Critic] | None = None,
        networks: NetworkSpec | None = None,
        seed: int = 0,
        device: torch.device | str = 'cpu',
    ) -> None:
        """Build an agent.

        Args:
            observation: what it sees.
            config: how it learns.
            policy: whose actor and encoder it begins with; None for fresh ones.
            critics: critics and targets that it begins with. None for those that are stored with the policy, or
                for fresh ones where there are none.
            networks: shapes of a fresh agent's networks; None for those of the configuration.
            seed: of the initial weights and of all that is left to chance.
            device: where it lives.

        Raises:
            ContractError: the policy sees something else.
            AgentError: the critics are of other shapes than the policy.
        """
        super().__init__(observation, seed=seed, device=device)
        self.config = FaithfulConfig() if config is None else config
        self.grad_clip = self.config.grad_clip
        init = torch.Generator().manual_seed(seed)
        if policy is None:
            self.spec = self.config.networks(observation) if networks is None else networks
            self.encoder, self.actor = Encoder(self.spec, init), Actor(self.spec, init)
        else:
            self._begin_with(policy)
            self.spec = replace(policy.network, critic=CriticKind.ROBOBASE)
        if critics is None:
            critics = self._stored_with(policy)
        if critics is None:
            self.critic = Critic(self.spec, init)
            self.critic_target = copy.deepcopy(self.critic)
        else:
            self.critic, self.critic_target = (copy.deepcopy(critic) for critic in critics)
        self._require_one_spec()
        self._place(
            {'encoder': self.encoder, 'actor': self.actor, 'critic': self.critic},
            {'critic_target': self.critic_target},
        )

    def _require_one_spec(self) -> None:
        for critic in (self.critic, self.critic_target):
            lines = self.spec.diff(critic.spec, ('policy', 'critics'))
            if lines:
                raise AgentError('expected critics of the policy, got differences:\n  ' + '\n  '.join(lines))

    def _optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(
            parameters, config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    @torch.no_grad()
    def _target(self, features: Tensor, batch: Batch) -> Tensor:
        """Return what the critics should say (B,); the batch's discount is 0 where an episode ended."""
        action = self._noisy(self.actor(features, batch.next_state))
        values: Tensor = self.critic_target(features, batch.next_state, action)
        return batch.reward + batch.discount * values.amin(dim=1)

    def _update_actor(self, features: Tensor, batch: Batch) -> Metrics:
        mean = self.actor(features, batch.state)
        with frozen(self.critic):
            value = self.critic(features, batch.state, self._noisy(mean)).amin(dim=1).mean()
            # summed over entries, not averaged
            distance = demonstrated_mean((mean - batch.action).square().sum(dim=1), batch)
            loss = self.config.bc_weight * distance - value
            self._step(loss, 'actor')
        return {
            'actor_loss': loss.detach(),
            'bc_loss': distance.detach(),
            'action_abs': mean.detach().abs().mean(),
        }

    def follow(self) -> None:
        """Move the target critics, rounding as RoboBase does.

        `target + tau * (online - target)` rounds equal moves of equal weights all to the same side; after one update
        of the golden batch the values differ by 1e-5.
        """
        with torch.no_grad():
            parameters: list[Tensor] = list(self.critic_target.parameters())
            torch._foreach_mul_(parameters, 1.0 - self.config.tau)
            torch._foreach_add_(parameters, list(self.critic.parameters()), alpha=self.config.tau)
