# SPDX-License-Identifier: Apache-2.0
"""The agent that learns beside a person: DrQ-v2's actor and encoder, RLPD's critics.

One update, in the order of the papers:

1. augment observation and next observation, once each, by independent shifts
2. encode both; the next one without gradient
3. y = R + gamma^k min of two random target critics at (h', a'), a' ~ mu(h') + clip(noise)
4. mean squared error of all critics to y; step critics and encoder
5. every few updates: maximise the mean of all critics at (h, a), a ~ mu(h) + clip(noise), with h detached, and stay
   close to what was done on the demonstrated rows; step the actor
6. move the target critics by tau, and the policy that acts by policy_tau

The policy that acts is a moving average of the actor and encoder that learn: single updates make an actor succeed in
all episodes now and in four of five a minute later, their average does not.

R, gamma^k and the observation that is bootstrapped come with the batch, which knows where episodes end.
"""

from collections.abc import Mapping
import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, EncoderPreset, NetworkSpec
from drqv2_policy_node.policy import Policy, policy_inputs
from hilserl_learner.agents.base import begin_at_zero, channels_last, frozen, Metrics, soft_update
from hilserl_learner.agents.state import pack_state, Parts, unpack_state
from hilserl_learner.augment import random_shift
from hilserl_learner.batch import Batch
from hilserl_learner.exploration import explore, with_noise
from so101_contract.observation import Observation
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import check_bounds, param

TRAINED = ('encoder', 'actor', 'critic')


@dataclass(frozen=True, kw_only=True)
class HilConfig:
    """What the agent is made of and how it learns."""

    encoder: str = param(
        'cpu',
        doc='Convolutions of a fresh agent: cpu learns on a laptop in real time, robobase is that of DrQ-v2.',
        choices=tuple(preset.value for preset in EncoderPreset),
    )
    width: int = param(256, doc='Width of the two hidden layers of actor and critics.', lo=8, hi=4096)
    num_critics: int = param(10, doc='Critics in the ensemble.', lo=1, hi=100)
    target_critics: int = param(
        2, doc='Randomly chosen target critics of which the smallest value counts.', lo=1, hi=100
    )
    learning_rate: float = param(3e-4, doc='Of Adam, for all networks.', lo=1e-6, hi=1e-1)
    tau: float = param(0.01, doc='Share by which target critics follow in each update.', lo=0.0, hi=1.0)
    actor_every: int = param(2, doc='Critic updates for each update of the actor.', lo=1, hi=100)
    bc_weight: float = param(
        0.5, doc='Weight of staying close to the demonstrated actions; 0 leaves it out.', lo=0.0, hi=100.0
    )
    policy_tau: float = param(
        0.05,
        doc='Share by which the policy that acts follows the actor that learns; 1 is the actor itself.',
        lo=1e-4,
        hi=1.0,
    )
    target_bound: float = param(
        0.0,
        doc='Targets above this are cut to it, where the largest return is known; 0 for none.',
        lo=0.0,
        hi=1e6,
    )
    noise_clip: float = param(
        0.3, doc='Largest noise on the actions that losses are computed with.', lo=0.0, hi=2.0
    )
    shift: int = param(
        4, doc='Largest shift of an image in augmentation; 0 for none.', unit='px', lo=0, hi=16
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)
        if self.target_critics > self.num_critics:
            raise ValueError(
                f'expected at most num_critics = {self.num_critics} target critics, got {self.target_critics}; '
                f'lower it'
            )

    def networks(self, observation: ObservationSpec) -> NetworkSpec:
        """Return the shapes of a fresh agent's networks."""
        return NetworkSpec.from_observation(
            observation,
            mlp=(self.width, self.width),
            num_critics=self.num_critics,
            encoder=EncoderPreset(self.encoder),
            critic=CriticKind.RLPD,
        )


class HilAgent:
    """DrQ-v2's actor and encoder with RLPD's critics; see the module."""

    def __init__(
        self,
        observation: ObservationSpec,
        config: HilConfig | None = None,
        *,
        policy: Policy | None = None,
        seed: int = 0,
        device: torch.device | str = 'cpu',
    ) -> None:
        """Build an agent; its critics are always fresh.

        Args:
            observation: what it sees.
            config: how it learns.
            policy: whose actor and encoder it begins with; None for fresh ones.
            seed: of the initial weights and of all that is left to chance.
            device: where it lives.

        Raises:
            SpecMismatchError: the policy sees something else.
        """
        self.observation, self.config = observation, HilConfig() if config is None else config
        self.device = torch.device(device)
        self.std, self.updates = 0.0, 0
        self.spec = self.config.networks(observation)
        init = torch.Generator().manual_seed(seed)
        self.encoder, self.actor = Encoder(self.spec, init), Actor(self.spec, init)
        if policy is not None:
            observation.require_same(policy.manifest.observation, ('here', 'policy'))
            self.spec = replace(self.spec, **_shapes(policy.network))
            self.encoder, self.actor = copy.deepcopy(policy.encoder), copy.deepcopy(policy.actor)
        self.acting_encoder, self.acting_actor = copy.deepcopy(self.encoder), copy.deepcopy(self.actor)
        self.critic = Critic(self.spec, init)
        begin_at_zero(self.critic)
        self.critic_target = copy.deepcopy(self.critic)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._parts = self._place()

    def _place(self) -> Parts:
        """Bring everything to the device and return the list of it."""
        modules: dict[str, nn.Module] = {
            'encoder': self.encoder,
            'actor': self.actor,
            'critic': self.critic,
            'critic_target': self.critic_target,
            'acting_encoder': self.acting_encoder,
            'acting_actor': self.acting_actor,
        }
        for name, module in modules.items():
            module.to(self.device).requires_grad_(name in TRAINED)
        optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(modules[name].parameters(), self.config.learning_rate, fused=True)
            for name in TRAINED
        }
        return Parts(modules, optimizers, {'torch': self.generator})

    # ---- acting ------------------------------------------------------------------------------------------

    def act(
        self, observation: Observation, *, std: float = 0.0, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.float32]:
        """Return an action in network units (4,): the mean, or with noise of that std."""
        inputs = policy_inputs(observation, self.observation)
        with torch.inference_mode():
            images, state = (torch.from_numpy(array).to(self.device) for array in inputs)
            mean = self.acting_actor(self.acting_encoder(images), state)[0].cpu().numpy()
        return explore(mean, std, rng)

    def policy(self, **fields: Any) -> Policy:
        """Return a copy of what acts; the fields are those of `Policy.create`."""
        return Policy.create(self.acting_encoder, self.acting_actor, **fields)

    # ---- learning ----------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch; the order of the steps is that of the papers."""
        batch = batch.to(self.device)
        images = channels_last(random_shift(batch.images, self.config.shift, self.generator))
        next_images = channels_last(random_shift(batch.next_images, self.config.shift, self.generator))
        target = self._target(next_images, batch)
        features = self.encoder(images)
        metrics = self._update_critic(features, batch, target)
        if self.updates % self.config.actor_every == 0:
            metrics |= self._update_actor(features.detach(), batch)
        soft_update(self.critic_target, self.critic, self.config.tau)
        self.follow()
        self.updates += 1
        return metrics

    @torch.no_grad()
    def _target(self, next_images: Tensor, batch: Batch) -> Tensor:
        """Return what the critics should say (B,): the return so far and the smaller of some values after it."""
        features = self.encoder(next_images)
        action = self._noisy(self.actor(features, batch.next_state))
        members = torch.randperm(self.spec.num_critics, generator=self.generator, device=self.device)
        chosen = members[: self.config.target_critics]
        values: Tensor = self.critic_target(features, batch.next_state, action, chosen)
        target = batch.reward + batch.discount * values.amin(dim=1)
        return target.clamp(max=self.config.target_bound) if self.config.target_bound else target

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

    def _update_actor(self, features: Tensor, batch: Batch) -> Metrics:
        mean = self.actor(features, batch.state)
        with frozen(self.critic):
            value = self.critic(features, batch.state, self._noisy(mean)).mean()
        distance = _masked_mean((mean - batch.action).square().mean(dim=1), batch.is_demo)
        self._step(self.config.bc_weight * distance - value, 'actor')
        return {
            'actor_loss': -value.detach(),
            'bc_loss': distance.detach(),
            'action_abs': mean.detach().abs().mean(),
        }

    def follow(self) -> None:
        """Move the policy that acts towards the actor and the encoder that learn."""
        soft_update(self.acting_encoder, self.encoder, self.config.policy_tau)
        soft_update(self.acting_actor, self.actor, self.config.policy_tau)

    def _noisy(self, mean: Tensor) -> Tensor:
        return with_noise(mean, self.std, self.config.noise_clip, self.generator)

    def _step(self, loss: Tensor, *names: str) -> None:
        optimizers = [self._parts.optimizers[name] for name in names]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()

    # ---- state -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that training goes on from: weights, optimisers, random state, counters."""
        return pack_state(self._parts, {'updates': self.updates, 'std': self.std})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        counters = unpack_state(self._parts, {'updates': 0, 'std': 0}, state)
        self.updates, self.std = int(counters['updates']), counters['std']


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values where the mask is set; 0 where it is nowhere."""
    chosen = mask.to(values.dtype)
    return (values * chosen).sum() / chosen.sum().clamp(min=1.0)


def _shapes(network: NetworkSpec) -> dict[str, Any]:
    """Return the fields of a policy's networks that its critics have to share."""
    names = ('bottleneck', 'encoder', 'channels', 'convs', 'normalization', 'mlp')
    return {name: getattr(network, name) for name in names}
