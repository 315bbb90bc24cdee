# SPDX-License-Identifier: Apache-2.0
"""The agent that learns beside a human: DrQ-v2's encoder and actor, RLPD's critics, HIL-SERL's experience.

One update, of which every line stands below:

1. augment observation and next observation, once each, by independent shifts (DrQ-v2)
2. encode both with the encoder that learns; the next one without gradient
3. y = R + gamma^k min of 2 of 10 target critics at (h', a'), a' ~ mu(h') + clip(noise)
4. mean over batch and critics of (Q - y)^2; step critics and encoder
5. every second time, maximise the mean of all critics at (h, a), with the h of before that step, detached, and stay
   close to demonstrated actions, and for a while to the policy that the agent began with; step the actor
6. move the target critics towards the critics, and the policy that acts towards the one that learns

The batch is half demonstrations and interventions, half everything that was executed (RLPD's symmetric sampling, with
the human's actions on both sides as in HIL-SERL); that is the sampler's business. R, gamma^k and the observation that
is bootstrapped come with the batch.

| cited as | paper |
|---|---|
| DrQ-v2 | Yarats et al. 2021, arXiv:2107.09645 |
| RLPD | Ball et al. 2023, arXiv:2302.02948 |
| HIL-SERL | Luo et al. 2024, arXiv:2410.21845 |
| REDQ | Chen et al. 2021, arXiv:2101.05982 |
| TD3+BC | Fujimoto and Gu 2021, arXiv:2106.06860 |
| Kickstarting | Schmitt et al. 2018, arXiv:1803.03835 |
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drqv2_policy_node.networks import Actor, Critic, Encoder, EncoderPreset
from drqv2_policy_node.policy import Policy
from hilserl_learner.agents.common import (
    Agent,
    channels_last,
    critic_metrics,
    critics_beside,
    frozen,
    masked_mean,
    rlpd_networks,
    shrink_output_init,
    soft_update,
    with_noise,
)
from hilserl_learner.data.augment import color_jitter, random_shift, table_randomization
from hilserl_learner.data.batch import Batch
from so101_contract.action import ACTION_SIZE
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import check_bounds, param

PRETRAINED_AGE = 9_000
"""Updates that the average counts a policy as old which an agent begins with."""

SHARED_WITH_CRITICS = ('bottleneck', 'encoder', 'channels', 'convs', 'normalization', 'mlp')
"""Fields of a policy's networks in which its critics have to be alike."""


@dataclass(frozen=True, kw_only=True)
class HilConfig:
    """What the agent is made of and how it learns."""

    encoder: str = param(
        'cpu',
        doc='Convolutions of a fresh agent: cpu learns on a laptop in real time, robobase is that of DrQ-v2.',
        choices=tuple(preset.value for preset in EncoderPreset),
    )
    width: int = param(256, doc='Width of the two hidden layers of actor and critics.', lo=8, hi=4096)
    num_critics: int = param(10, doc='Critics in the ensemble, as in RLPD.', lo=1, hi=100)
    target_critics: int = param(
        2, doc='Randomly chosen target critics of which the smallest value counts.', lo=1, hi=100
    )
    learning_rate: float = param(3e-4, doc='Of Adam, for all networks.', lo=1e-6, hi=1e-1)
    shift: int = param(
        4, doc='Largest shift of an image in augmentation; 0 for none.', unit='px', lo=0, hi=16
    )
    color_jitter: float = param(
        0.0,
        doc='How far brightness and colours of an image are changed in augmentation; 0 for not at all.',
        lo=0.0,
        hi=1.0,
    )
    table_randomization: float = param(
        0.0,
        doc='Share of the images that augmentation shows on a table of another colour; 0 for none.',
        lo=0.0,
        hi=1.0,
    )
    noise_clip: float = param(
        0.3, doc='Largest noise on the actions that losses are computed with.', lo=0.0, hi=2.0
    )
    target_bound: float = param(
        0.0,
        doc='Targets above this are cut to it, where the largest return is known; 0 for none.',
        lo=0.0,
        hi=1e6,
    )
    actor_every: int = param(2, doc='Critic updates for each update of the actor.', lo=1, hi=100)
    critic_warmup_updates: int = param(
        500,
        doc='Updates in which only the critics learn, where the agent begins with a policy that has none.',
        lo=0,
        hi=1_000_000,
    )
    bc_weight: float = param(
        0.5, doc='Weight of staying close to the demonstrated actions; 0 leaves it out.', lo=0.0, hi=100.0
    )
    prior_weight: float = param(
        0.3,
        doc='Weight of staying close to the policy that the agent began with, where nobody demonstrated.',
        lo=0.0,
        hi=100.0,
    )
    prior_updates: int = param(
        50_000, doc='Updates over which that weight falls to zero.', lo=1, hi=1_000_000_000
    )
    tau: float = param(0.01, doc='Share by which target critics follow in each update.', lo=0.0, hi=1.0)
    ema_tau: float = param(
        0.05,
        doc='Share by which the policy that acts first follows the actor that learns; 1 is the actor itself.',
        lo=1e-4,
        hi=1.0,
    )
    ema_growth_updates: int = param(
        1000,
        doc='Updates after which it follows half as fast; after twice as many a third, and so on.',
        lo=1,
        hi=1_000_000_000,
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)
        if self.target_critics > self.num_critics:
            raise ValueError(
                f'expected at most num_critics = {self.num_critics} target critics, got {self.target_critics}; '
                f'lower it'
            )


class HilAgent(Agent):
    """DrQ-v2's encoder and actor with RLPD's critics; see the module."""

    config_type = HilConfig
    config: HilConfig

    def __init__(
        self,
        observation: ObservationSpec,
        config: HilConfig | None = None,
        *,
        policy: Policy | None = None,
        action_size: int = ACTION_SIZE,
        seed: int = 0,
        device: torch.device | str = 'cpu',
    ) -> None:
        """Build an agent, see `Agent`; critics that are stored with the policy, and are such as its own, go on too."""
        super().__init__(observation, config, policy=policy, seed=seed, device=device)
        self.spec = rlpd_networks(observation, self.config, action_size)
        init = torch.Generator().manual_seed(seed)
        self.encoder, self.actor = Encoder(self.spec, init), Actor(self.spec, init)
        self.prior: tuple[Encoder, Actor] | None = None
        self.age = 0
        if policy is not None:
            self._begin_with(policy)
            self.spec = replace(
                self.spec, **{name: getattr(policy.network, name) for name in SHARED_WITH_CRITICS}
            )
            encoder, actor = copy.deepcopy(self.encoder), copy.deepcopy(self.actor)
            self.prior = (
                encoder.to(self.device).requires_grad_(False),
                actor.to(self.device).requires_grad_(False),
            )
            self.age = PRETRAINED_AGE
        # The policy that acts is an average (EMA) of the one that learns: single updates make an actor succeed in all
        # episodes now and in four of five a minute later, their average does not.
        self.ema_encoder, self.ema_actor = copy.deepcopy(self.encoder), copy.deepcopy(self.actor)
        self.acting = self.ema_encoder, self.ema_actor
        self.warmup_updates = 0
        stored = critics_beside(policy, self.spec)
        if stored is not None:
            self.critic, self.critic_target = stored
        else:
            # Led by critics that know nothing, a policy would soon do worse than it could.
            self.warmup_updates = 0 if policy is None else self.config.critic_warmup_updates
            self.critic = Critic(self.spec, init)
            shrink_output_init(self.critic)
            self.critic_target = copy.deepcopy(self.critic)
        self._place(
            trained={'encoder': self.encoder, 'actor': self.actor, 'critic': self.critic},
            following={
                'critic_target': self.critic_target,
                'ema_encoder': self.ema_encoder,
                'ema_actor': self.ema_actor,
            },
            optimizer=lambda parameters: torch.optim.Adam(parameters, self.config.learning_rate, fused=True),
        )

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from one batch; see the module for the order."""
        batch = batch.to(self.device)
        images, next_images = self._augmented(batch.images), self._augmented(batch.next_images)
        with torch.no_grad():  # the online encoder: there is no target encoder (DrQ-v2)
            target = self._target(self.encoder(next_images), batch)
        # Critic warm-up: first learn what the policy is worth, with encoder and actor at rest.
        warm = self.updates >= self.warmup_updates
        with torch.set_grad_enabled(warm):
            features = self.encoder(images)
        metrics = self._update_critic(features, batch, target)
        # Delayed policy updates. Detached: the actor's loss never reaches the encoder (DrQ-v2).
        if warm and self.updates % self.config.actor_every == 0:
            metrics |= self._update_actor(features.detach(), batch)
        self._update_targets()
        self.updates += 1
        return metrics

    def _augmented(self, images: Tensor) -> Tensor:
        """Return images (B, V, 3T, S, S), each shifted once (DrQ-v2), and with other table and colours if asked."""
        config = self.config
        shifted = random_shift(images, config.shift, self.generator)
        painted = table_randomization(shifted, config.table_randomization, self.generator)
        return channels_last(color_jitter(painted, config.color_jitter, self.generator))

    @torch.no_grad()
    def _target(self, next_features: Tensor, batch: Batch) -> Tensor:
        """Return y (B,): n-step returns (DrQ-v2), bootstrapped with the smallest of a few random critics (REDQ, RLPD).

        The batch's discount is gamma^k after k steps, and 0 where an episode ended in success or failure.
        """
        action = self._noisy(self.actor(next_features, batch.next_state))
        members = torch.randperm(self.spec.num_critics, generator=self.generator, device=self.device)
        chosen = members[: self.config.target_critics]
        values = self.critic_target(next_features, batch.next_state, action, chosen)  # (B, chosen)
        target: Tensor = batch.reward + batch.discount * values.amin(dim=1)
        return target.clamp(max=self.config.target_bound) if self.config.target_bound else target

    def _update_critic(self, features: Tensor, batch: Batch, target: Tensor) -> dict[str, Tensor]:
        """Step the whole ensemble, and the encoder, which only this loss trains (DrQ-v2)."""
        values = self.critic(features, batch.state, batch.action)  # (B, critics)
        loss = (values - target.unsqueeze(1)).square().mean()
        self._step(loss, 'encoder', 'critic')
        return critic_metrics(loss, values, target, batch)

    def _update_actor(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Step the actor up the mean of the ensemble (RLPD), held by what was demonstrated and by what it began as."""
        config = self.config
        mean = self.actor(features, batch.state)
        with frozen(self.critic):
            value = self.critic(features, batch.state, self._noisy(mean)).mean()
        # Behaviour-cloning regulariser (TD3+BC), on the rows that a human or the operator decided.
        cloning = masked_mean((mean - batch.action).square().mean(dim=1), batch.is_demo)
        loss = config.bc_weight * cloning - value
        # Offline-to-online forgetting: what was lived through here is little at first, and values learned from little
        # are wrong elsewhere. So for a while stay close to the first policy (Kickstarting), on the other rows.
        prior_weight = config.prior_weight * (1.0 - self.updates / config.prior_updates)
        if self.prior is not None and prior_weight > 0.0:
            prior_encoder, prior_actor = self.prior
            with torch.no_grad():
                before = prior_actor(prior_encoder(channels_last(batch.images)), batch.state)
            loss = loss + prior_weight * masked_mean((mean - before).square().mean(dim=1), ~batch.is_demo)
        self._step(loss, 'actor')
        return {
            'actor_loss': -value.detach(),
            'bc_loss': cloning.detach(),
            'action_abs': mean.detach().abs().mean(),
        }

    def _update_targets(self) -> None:
        """Move the target critics, and the policy that acts, towards what learns.

        The average is short in the beginning, when yesterday's actor is a bad one, and grows longer, as that of Polyak
        and Juditsky (1992) does.
        """
        soft_update(self.critic_target, self.critic, self.config.tau)
        share = self.config.ema_tau / (1.0 + (self.age + self.updates) / self.config.ema_growth_updates)
        soft_update(self.ema_encoder, self.encoder, share)
        soft_update(self.ema_actor, self.actor, share)

    def _noisy(self, mean: Tensor) -> Tensor:
        """Return actions with clipped exploration noise, whose std follows the schedule (DrQ-v2)."""
        return with_noise(mean, self.std, self.config.noise_clip, self.generator)
