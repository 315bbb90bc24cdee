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

from collections.abc import Mapping
import copy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, NetworkSpec
from drqv2_policy_node.policy import Policy, policy_inputs
from drqv2_policy_node.store import load_critics
from hilserl_learner.agents.base import AgentError, channels_last, frozen, Metrics
from hilserl_learner.agents.faithful_config import FaithfulConfig
from hilserl_learner.agents.state import pack_state, Parts, unpack_state
from hilserl_learner.augment import random_shift
from hilserl_learner.batch import Batch
from hilserl_learner.exploration import explore, with_noise
from so101_contract.observation import Observation
from so101_contract.observation_spec import ObservationSpec

TRAINED = ('encoder', 'actor', 'critic')


__all__ = ['FaithfulAgent', 'FaithfulConfig']


class FaithfulAgent:
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
        self.observation, self.config = observation, FaithfulConfig() if config is None else config
        self.device = torch.device(device)
        self.std, self.updates = 0.0, 0
        init = torch.Generator().manual_seed(seed)
        if policy is None:
            self.spec = self.config.networks(observation) if networks is None else networks
            self.encoder, self.actor = Encoder(self.spec, init), Actor(self.spec, init)
        else:
            observation.require_same(policy.manifest.observation, ('here', 'policy'))
            self.spec = replace(policy.network, critic=CriticKind.ROBOBASE)
            self.encoder, self.actor = copy.deepcopy(policy.encoder), copy.deepcopy(policy.actor)
        if critics is None and policy is not None:
            critics = self._stored_with(policy)
        if critics is None:
            self.critic = Critic(self.spec, init)
            self.critic_target = copy.deepcopy(self.critic)
        else:
            self.critic, self.critic_target = (copy.deepcopy(critic) for critic in critics)
        self._require_one_spec()
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._parts = self._place()

    def _stored_with(self, policy: Policy) -> tuple[Critic, Critic] | None:
        """Return the critics next to a policy, where they are such as this agent updates."""
        found = None if policy.directory is None else load_critics(policy.directory)
        return None if found is None or found[0].spec != self.spec else found

    def _require_one_spec(self) -> None:
        for critic in (self.critic, self.critic_target):
            lines = self.spec.diff(critic.spec, ('policy', 'critics'))
            if lines:
                raise AgentError('expected critics of the policy, got differences:\n  ' + '\n  '.join(lines))

    def _place(self) -> Parts:
        """Bring everything to the device and return the list of it."""
        modules: dict[str, nn.Module] = {
            'encoder': self.encoder,
            'actor': self.actor,
            'critic': self.critic,
            'critic_target': self.critic_target,
        }
        for name, module in modules.items():
            module.to(self.device).requires_grad_(name in TRAINED)
        optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.AdamW(
                modules[name].parameters(),
                self.config.learning_rate,
                weight_decay=self.config.weight_decay,
                fused=True,
            )
            for name in TRAINED
        }
        return Parts(modules, optimizers, {'torch': self.generator})

    def act(
        self, observation: Observation, *, std: float = 0.0, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.float32]:
        """Return an action in network units (4,): the mean, or with noise of that std."""
        inputs = policy_inputs(observation, self.observation)
        with torch.inference_mode():
            images, state = (torch.from_numpy(array).to(self.device) for array in inputs)
            mean = self.actor(self.encoder(images), state)[0].cpu().numpy()
        return explore(mean, std, rng)

    def policy(self, **fields: Any) -> Policy:
        """Return a copy of what acts; the fields are those of `Policy.create`."""
        return Policy.create(self.encoder, self.actor, **fields)

    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch."""
        batch = batch.to(self.device)
        images, next_images = (
            channels_last(random_shift(pixels, self.config.shift, self.generator))
            for pixels in (batch.images, batch.next_images)
        )
        features = self.encoder(images)
        with torch.no_grad():
            next_features = self.encoder(next_images)
        target = self._target(next_features, batch)
        metrics = self._update_critic(features, batch, target)
        metrics |= self._update_actor(features.detach(), batch)
        _follow(self.critic_target, self.critic, self.config.tau)
        self.updates += 1
        return metrics

    @torch.no_grad()
    def _target(self, features: Tensor, batch: Batch) -> Tensor:
        """Return what the critics should say (B,); the batch's discount is 0 where an episode ended."""
        action = self._noisy(self.actor(features, batch.next_state))
        values: Tensor = self.critic_target(features, batch.next_state, action)
        return batch.reward + batch.discount * values.amin(dim=1)

    def _update_critic(self, features: Tensor, batch: Batch, target: Tensor) -> Metrics:
        values = self.critic(features, batch.state, batch.action)
        loss = (values - target.unsqueeze(1)).square().mean()
        self._step(loss, 'encoder', 'critic')
        values = values.detach()
        return {
            'critic_loss': loss.detach(),
            'q_mean': values.mean(),
            'q_max': values.max(),
            'target_mean': target.mean(),
            'reward_mean': batch.reward.mean(),
        }

    def _update_actor(self, features: Tensor, batch: Batch) -> Metrics:
        mean = self.actor(features, batch.state)
        with frozen(self.critic):
            value = self.critic(features, batch.state, self._noisy(mean)).amin(dim=1).mean()
            distance = _demo_distance(mean, batch)
            loss = self.config.bc_weight * distance - value
            self._step(loss, 'actor')
        return {
            'actor_loss': loss.detach(),
            'bc_loss': distance.detach(),
            'action_abs': mean.detach().abs().mean(),
        }

    def _noisy(self, mean: Tensor) -> Tensor:
        return with_noise(mean, self.std, self.config.noise_clip, self.generator)

    def _step(self, loss: Tensor, *names: str) -> None:
        for name in names:
            self._parts.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name in names:
            if self.config.grad_clip:
                nn.utils.clip_grad_norm_(self._parts.modules[name].parameters(), self.config.grad_clip)
            self._parts.optimizers[name].step()

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that training goes on from: weights, optimisers, random state, counters."""
        return pack_state(self._parts, {'updates': self.updates, 'std': self.std})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        counters = unpack_state(self._parts, {'updates': 0, 'std': 0}, state)
        self.updates, self.std = int(counters['updates']), counters['std']


def _demo_distance(mean: Tensor, batch: Batch) -> Tensor:
    """Return the squared distance to the actions of the demonstrated rows, summed over entries, not averaged."""
    chosen = batch.is_demo.to(mean.dtype)
    squares = (mean - batch.action).square().sum(dim=1)
    return (squares * chosen).sum() / chosen.sum().clamp(min=1.0)


@torch.no_grad()
def _follow(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move target parameters by tau, rounding as RoboBase does.

    `target + tau * (online - target)` rounds equal moves of equal weights all to the same side; after one update
    of the golden batch the values differ by 1e-5.
    """
    parameters: list[Tensor] = list(target.parameters())
    torch._foreach_mul_(parameters, 1.0 - tau)
    torch._foreach_add_(parameters, list(online.parameters()), alpha=tau)
