# SPDX-License-Identifier: Apache-2.0
"""What all agents here are: an encoder, an actor and an ensemble of critics, improved by one kind of update.

One update, in the order of the papers:

1. augment observation and next observation, once each, by independent shifts
2. encode both, by the encoder that learns; the next one without gradient
3. what the critics should say, y: the agent's business
4. mean squared error of all critics to y; step critics and encoder
5. every few updates, step the actor on features from before step 4, detached: the agent's business
6. move the targets towards what learns

R, gamma^k and the observation that is bootstrapped come with the batch, which knows where episodes end.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor

from drqv2_policy_node.networks import Actor, Critic, Encoder, NetworkSpec
from drqv2_policy_node.policy import Policy, policy_inputs
from drqv2_policy_node.store import load_critics
from hilserl_learner.agents.base import channels_last, Metrics, soft_update
from hilserl_learner.agents.state import pack_state, Parts, unpack_state
from hilserl_learner.augment import random_shift
from hilserl_learner.batch import Batch
from hilserl_learner.exploration import explore, with_noise
from so101_contract.observation import Observation
from so101_contract.observation_spec import ObservationSpec


class ActorCritic(ABC):
    """Encoder, actor and critics; a subclass builds them, then calls `_place`.

    Attributes:
        observation: what it sees.
        spec: shapes of its networks.
        encoder: of the images, for actor and critics.
        actor: learns what to do.
        critic: learns what comes of it.
        critic_target: follows the critic.
        device: where its tensors live.
        std: exploration noise now, in network units; the trainer sets it from its schedule.
        updates: gradient updates so far.
    """

    config: Any
    spec: NetworkSpec
    encoder: Encoder
    actor: Actor
    critic: Critic
    critic_target: Critic
    actor_every = 1
    """Updates of the critics for each one of the actor."""
    grad_clip = 0.0
    """Largest norm of the gradient of each network; 0 for any."""
    critics_first = 0
    """Updates in which the critics learn and nothing else does."""

    def __init__(self, observation: ObservationSpec, *, seed: int, device: torch.device | str) -> None:
        """Take down what every agent has; the networks are the subclass's."""
        self.observation = observation
        self.device = torch.device(device)
        self.std, self.updates = 0.0, 0
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def _begin_with(self, policy: Policy) -> None:
        """Take over a policy's encoder and actor.

        Raises:
            SpecMismatchError: the policy sees something else.
        """
        self.observation.require_same(policy.manifest.observation, ('here', 'policy'))
        self.encoder, self.actor = copy.deepcopy(policy.encoder), copy.deepcopy(policy.actor)

    def _stored_with(self, policy: Policy | None) -> tuple[Critic, Critic] | None:
        """Return the critics next to a policy, where they are such as this agent updates."""
        found = None if policy is None or policy.directory is None else load_critics(policy.directory)
        return None if found is None or found[0].spec != self.spec else found

    def _place(self, trained: Mapping[str, nn.Module], following: Mapping[str, nn.Module]) -> None:
        """Bring all networks to the device, and give those that learn from gradients an optimiser each."""
        modules = {**trained, **following}
        for name, module in modules.items():
            module.to(self.device).requires_grad_(name in trained)
        optimizers = {name: self._optimizer(module.parameters()) for name, module in trained.items()}
        self._parts = Parts(modules, optimizers, {'torch': self.generator})

    def _optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, self.config.learning_rate, fused=True)

    # ---- acting ------------------------------------------------------------------------------------------

    @property
    def acting(self) -> tuple[Encoder, Actor]:
        """What acts; those that learn, unless a subclass knows better."""
        return self.encoder, self.actor

    def act(
        self, observation: Observation, *, std: float = 0.0, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.float32]:
        """Return an action in network units (4,): the mean, or with noise of that std."""
        encoder, actor = self.acting
        with torch.inference_mode():
            images, state = self._inputs(observation)
            mean = actor(encoder(images), state)[0].cpu().numpy()
        return explore(mean, std, rng)

    def _inputs(self, observation: Observation) -> tuple[Tensor, Tensor]:
        images, state = policy_inputs(observation, self.observation)
        return torch.from_numpy(images).to(self.device), torch.from_numpy(state).to(self.device)

    def policy(self, **fields: Any) -> Policy:
        """Return a copy of what acts: encoder and actor; the fields are those of `Policy.create`."""
        return Policy.create(*self.acting, **fields)

    @property
    def critics(self) -> tuple[Critic, Critic] | None:
        """Critics and their targets, to be stored with the policy for whoever goes on; None for what is of no use."""
        return self.critic, self.critic_target

    # ---- learning ----------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch; see the module for the order."""
        batch = batch.to(self.device)
        images, next_images = (channels_last(self._augmented(i)) for i in (batch.images, batch.next_images))
        with torch.no_grad():
            target = self._target(self.encoder(next_images), batch)
        all_learn = self.updates >= self.critics_first
        with torch.set_grad_enabled(all_learn):
            features = self.encoder(images)
        metrics = self._update_critic(features, batch, target)
        if all_learn and self.updates % self.actor_every == 0:
            metrics |= self._update_actor(features.detach(), batch)
        self.follow()
        self.updates += 1
        return metrics

    def _augmented(self, images: Tensor) -> Tensor:
        return random_shift(images, self.config.shift, self.generator)

    @abstractmethod
    def _target(self, features: Tensor, batch: Batch) -> Tensor:
        """Return what the critics should say (B,), from the features of the next observation.

        The batch's discount is 0 where an episode ended.
        """

    def _update_critic(self, features: Tensor, batch: Batch, target: Tensor) -> Metrics:
        values = self.critic(features, batch.state, batch.action)
        loss = (values - target.unsqueeze(1)).square().mean()
        self._step(loss, 'encoder', 'critic')
        values = values.detach()
        return {
            'critic_loss': loss.detach(),
            'q_mean': values.mean(),
            'q_max': values.max(),
            'q_spread': values.std(dim=1).mean() if values.shape[1] > 1 else values.new_zeros(()),
            'target_mean': target.mean(),
            'reward_mean': batch.reward.mean(),
        }

    @abstractmethod
    def _update_actor(self, features: Tensor, batch: Batch) -> Metrics:
        """Improve the actor, and step its optimiser."""

    def follow(self) -> None:
        """Move what follows towards what learns."""
        soft_update(self.critic_target, self.critic, self.config.tau)

    def _noisy(self, mean: Tensor) -> Tensor:
        return with_noise(mean, self.std, self.config.noise_clip, self.generator)

    def _smallest_of_some(self, features: Tensor, batch: Batch, action: Tensor) -> Tensor:
        """Return the smallest value (B,) of a few target critics, chosen anew each time, of the next observation."""
        members = torch.randperm(self.spec.num_critics, generator=self.generator, device=self.device)
        chosen = members[: self.config.target_critics]
        values: Tensor = self.critic_target(features, batch.next_state, action, chosen)
        return values.amin(dim=1)

    def _step(self, loss: Tensor, *names: str) -> None:
        for name in names:
            self._parts.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name in names:
            if self.grad_clip:
                nn.utils.clip_grad_norm_(self._parts.modules[name].parameters(), self.grad_clip)
            self._parts.optimizers[name].step()

    # ---- state -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that training goes on from: weights, optimisers, random state, counters."""
        return pack_state(self._parts, {'updates': self.updates, 'std': self.std})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        counters = unpack_state(self._parts, {'updates': 0, 'std': 0}, state)
        self.updates, self.std = int(counters['updates']), counters['std']


def demonstrated_mean(values: Tensor, batch: Batch) -> Tensor:
    """Return the mean of the values (B,) over the demonstrated rows; 0 where there are none."""
    chosen = batch.is_demo.to(values.dtype)
    return (values * chosen).sum() / chosen.sum().clamp(min=1.0)
