# SPDX-License-Identifier: Apache-2.0
"""The agent that learns beside a person: DrQ-v2's actor and encoder, RLPD's critics.

The update is that of `actor_critic`, with

    y = R + gamma^k min of two random target critics at (h', a'), a' ~ mu(h') + clip(noise)

and an actor that maximises the mean of all critics at (h, a), a ~ mu(h) + clip(noise), and stays close to what was done
on the demonstrated rows.

The policy that acts is a moving average of the actor and encoder that learn: single updates make an actor succeed in
all episodes now and in four of five a minute later, their average does not. It is a short one in the beginning, when
yesterday's actor is a bad one, and grows longer.

An agent that begins with a policy goes on with the critics that are stored next to it. Where there are none it first
learns what that policy is worth, with encoder and actor at rest: led by critics that know nothing, it would soon do
worse than it could. Either way what it has lived through here is little at first, and values learned from little are
wrong elsewhere; so for a while the actor also stays close to what the first policy would do.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, EncoderPreset, NetworkSpec
from drqv2_policy_node.policy import Policy
from hilserl_learner.agents.base import begin_at_zero, channels_last, frozen, Metrics, soft_update
from hilserl_learner.agents.common import ActorCritic, demonstrated_mean
from hilserl_learner.augment import random_light, random_table
from hilserl_learner.batch import Batch
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import check_bounds, param

GROWN_UP = 9_000
"""Updates that a policy counts as old which an agent begins with."""


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
    hold_weight: float = param(
        0.3,
        doc='Weight of staying close to the policy that the agent began with, where nobody demonstrated.',
        lo=0.0,
        hi=100.0,
    )
    hold_updates: int = param(
        50_000, doc='Updates over which that weight falls to zero.', lo=1, hi=1_000_000_000
    )
    policy_tau: float = param(
        0.05,
        doc='Share by which the policy that acts first follows the actor that learns; 1 is the actor itself.',
        lo=1e-4,
        hi=1.0,
    )
    policy_settles: int = param(
        1000,
        doc='Updates after which it follows half as fast; after twice as many a third, and so on.',
        lo=1,
        hi=1_000_000_000,
    )
    critics_first: int = param(
        500,
        doc='Updates in which only the critics learn, where the agent begins with a policy that has none.',
        lo=0,
        hi=1_000_000,
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
    light: float = param(
        0.0,
        doc='How far brightness and colours of an image are changed in augmentation; 0 for not at all.',
        lo=0.0,
        hi=1.0,
    )
    table: float = param(
        0.0,
        doc='Share of the images that augmentation shows on a table of another colour; 0 for none.',
        lo=0.0,
        hi=1.0,
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


class HilAgent(ActorCritic):
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
        """Build an agent.

        Args:
            observation: what it sees.
            config: how it learns.
            policy: whose actor and encoder it begins with, and whose critics where they are stored with it and are
                such as this agent's; None for fresh ones.
            seed: of the initial weights and of all that is left to chance.
            device: where it lives.

        Raises:
            SpecMismatchError: the policy sees something else.
        """
        super().__init__(observation, seed=seed, device=device)
        self.config = HilConfig() if config is None else config
        self.actor_every = self.config.actor_every
        self.spec = self.config.networks(observation)
        init = torch.Generator().manual_seed(seed)
        self.encoder, self.actor = Encoder(self.spec, init), Actor(self.spec, init)
        if policy is not None:
            self._begin_with(policy)
            self.spec = replace(self.spec, **_shapes(policy.network))
        self._age = 0 if policy is None else GROWN_UP
        self._first = None if policy is None else _at_rest(policy, self.device)
        self.acting_encoder, self.acting_actor = copy.deepcopy(self.encoder), copy.deepcopy(self.actor)
        stored = self._stored_with(policy)
        if stored is not None:
            self.critic, self.critic_target = stored
        else:
            self.critics_first = 0 if policy is None else self.config.critics_first
            self.critic = Critic(self.spec, init)
            begin_at_zero(self.critic)
            self.critic_target = copy.deepcopy(self.critic)
        self._place(
            {'encoder': self.encoder, 'actor': self.actor, 'critic': self.critic},
            {
                'critic_target': self.critic_target,
                'acting_encoder': self.acting_encoder,
                'acting_actor': self.acting_actor,
            },
        )

    @property
    def acting(self) -> tuple[Encoder, Actor]:
        """The moving average of encoder and actor."""
        return self.acting_encoder, self.acting_actor

    def _augmented(self, images: Tensor) -> Tensor:
        shown = random_table(super()._augmented(images), self.config.table, self.generator)
        return random_light(shown, self.config.light, self.generator)

    @torch.no_grad()
    def _target(self, features: Tensor, batch: Batch) -> Tensor:
        """Return the return so far and the smaller of some values after it."""
        action = self._noisy(self.actor(features, batch.next_state))
        target = batch.reward + batch.discount * self._smallest_of_some(features, batch, action)
        return target.clamp(max=self.config.target_bound) if self.config.target_bound else target

    def _update_actor(self, features: Tensor, batch: Batch) -> Metrics:
        mean = self.actor(features, batch.state)
        with frozen(self.critic):
            value = self.critic(features, batch.state, self._noisy(mean)).mean()
        distance = demonstrated_mean((mean - batch.action).square().mean(dim=1), batch)
        loss = self.config.bc_weight * distance - value
        hold = self.config.hold_weight * (1.0 - self.updates / self.config.hold_updates)
        if self._first is not None and hold > 0.0:
            loss = loss + hold * self._distance_to_first(mean, batch)
        self._step(loss, 'actor')
        return {
            'actor_loss': -value.detach(),
            'bc_loss': distance.detach(),
            'action_abs': mean.detach().abs().mean(),
        }

    def _distance_to_first(self, mean: Tensor, batch: Batch) -> Tensor:
        """Return the mean squared distance to what the first policy would do, over what nobody demonstrated."""
        assert self._first is not None
        encoder, actor = self._first
        with torch.no_grad():
            first = actor(encoder(channels_last(batch.images)), batch.state)
        rows = (~batch.is_demo).to(mean.dtype)
        distance: Tensor = (mean - first).square().mean(dim=1)
        return (distance * rows).sum() / rows.sum().clamp(min=1.0)

    def follow(self) -> None:
        """Move the target critics, and the policy that acts, towards what learns."""
        super().follow()
        tau = self.config.policy_tau / (1.0 + (self._age + self.updates) / self.config.policy_settles)
        soft_update(self.acting_encoder, self.encoder, tau)
        soft_update(self.acting_actor, self.actor, tau)


def _at_rest(policy: Policy, device: torch.device) -> tuple[Encoder, Actor]:
    """Return copies of a policy's networks that do not learn."""
    encoder, actor = copy.deepcopy(policy.encoder), copy.deepcopy(policy.actor)
    return encoder.to(device).requires_grad_(False), actor.to(device).requires_grad_(False)


def _shapes(network: NetworkSpec) -> dict[str, Any]:
    """Return the fields of a policy's networks that its critics have to share."""
    names = ('bottleneck', 'encoder', 'channels', 'convs', 'normalization', 'mlp')
    return {name: getattr(network, name) for name in names}
