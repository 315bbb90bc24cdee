# SPDX-License-Identifier: Apache-2.0
"""The agent of `hil` on top of a base policy that already works at times: a large model behind a socket, or imitation.

What the base says at both ends of a step is stored with the experience, so an update never calls it. One update:

1. augment observation and next observation, and encode both, as in `hil`
2. y = R + gamma^k Q'(h', a'), Q' the smaller of 2 of 10 target critics, and a'
   - choice: the better of the base's action b' and the actor's mu(h') + clip(noise) (IBRL, "bootstrap proposal")
   - residual: b' + scale * mu(h') + clip(noise) (Johannink et al.)
   - in the first updates: b', since the base is who acts then
3. mean over batch and critics of (Q - y)^2; step critics and encoder (RLPD)
4. every second time, maximise the mean of all critics at (h, a), with a = mu(h), or b + scale * mu(h), and stay close
   to demonstrated actions; step the actor. In the first updates it only stays close: critics first
5. move the target critics towards the critics, and the policy that acts towards the one that learns

Demonstrated are, beside what a human did, the base's first successes without help. Who acts is `OnBase`'s choice, and
how often the actor is heard is for evaluations to say: `Share`.

| cited as | paper |
|---|---|
| IBRL | Hu, Mirchandani and Sadigh 2023, arXiv:2311.02198 |
| Johannink et al. | 2019, residual reinforcement learning, arXiv:1812.03201 |
| ResiP | Ankile et al. 2024, arXiv:2407.16677 |
| Policy Decorator | Yuan et al. 2024, arXiv:2412.13630 |
| RLPD | Ball et al. 2023, arXiv:2302.02948 |
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from drqv2_policy_node.on_base import BaseTerms, corrected, Mode, OnBase, Proposer
from drqv2_policy_node.policy import Policy
from hilserl_learner.agents.common import critic_metrics, frozen, masked_mean, with_noise
from hilserl_learner.agents.hil import HilAgent, HilConfig
from hilserl_learner.data.batch import Batch
from so101_interfaces_py.params import param


@dataclass(frozen=True, kw_only=True)
class OnBaseConfig(HilConfig, BaseTerms):
    """What the agent is made of, how it learns, and how far it may leave the base."""

    base_successes: int = param(
        20, doc='Successes of the base without help that count as demonstrations.', lo=0, hi=100_000
    )
    share_step: float = param(
        0.5,
        doc='By how much the share of the actor rises with an evaluation that allows it.',
        lo=0.01,
        hi=1.0,
    )
    base_alone_steps: int = param(
        500, doc='Environment steps in which the base acts alone.', lo=0, hi=10_000_000
    )

    def __post_init__(self) -> None:
        """Check each value."""
        HilConfig.__post_init__(self)

    @property
    def terms(self) -> BaseTerms:
        """What who acts has to know."""
        return BaseTerms(**{field.name: getattr(self, field.name) for field in fields(BaseTerms)})


class OnBaseAgent(HilAgent):
    """`hil` on top of a base policy; see the module."""

    config_type = OnBaseConfig
    config: OnBaseConfig

    def policy_on_base(self, share: float, alone: bool, **fields: Any) -> Policy:
        """Return a copy of what acts on top of a base, heard in that share of the steps; `policy` acts alone."""
        encoder, actor = self.acting
        said = self.config.terms.manifest(share, alone)
        return Policy.create(encoder, actor, critic=self.critic_target, on_base=said, **fields)

    def on(self, base: Proposer) -> OnBase:
        """Return who acts: this base, and the agent's present policy whatever becomes of it."""
        # The slow copies go together: critics that read the features of another encoder would judge what nobody sees.
        return OnBase(base, (*self.acting, self.critic_target), self.observation, self.config.terms)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from one batch; see the module for the order."""
        batch = batch.to(self.device)
        images, next_images = self._augmented(batch.images), self._augmented(batch.next_images)
        led = self.updates >= self.config.critic_warmup_updates
        with torch.no_grad():
            target, rows = self._target_on_base(self.encoder(next_images), batch, led)
        features = self.encoder(images)
        values = self.critic(features, batch.state, batch.action)  # (B, critics)
        loss = masked_mean((values - target.unsqueeze(1)).square().mean(dim=1), rows)
        self._step(loss, 'encoder', 'critic')
        metrics = critic_metrics(loss, values, target, batch)
        if self.updates % self.config.actor_every == 0:
            metrics |= self._update_actor_on_base(features.detach(), batch, led)
        self._update_targets()
        self.updates += 1
        return metrics

    def _target_on_base(self, next_features: Tensor, batch: Batch, led: bool) -> tuple[Tensor, Tensor]:
        """Return y (B,), and the rows (B,) bool that have one; `led`: the actor counts already."""
        there, base = _known(batch.next_base)
        own, known = self._says(next_features, batch.next_state, base, there)
        members = torch.randperm(self.spec.num_critics, generator=self.generator, device=self.device)
        chosen = members[: self.config.target_critics]

        def value(action: Tensor) -> Tensor:
            values: Tensor = self.critic_target(next_features, batch.next_state, action, chosen)
            return values.amin(dim=1)

        of_own, of_base = (
            value(with_noise(own, self.std, self.config.noise_clip, self.generator)),
            value(base),
        )
        if not led:
            best = torch.where(there, of_base, of_own)
        elif self.config.base_mode == Mode.CHOICE:
            best = torch.where(there, torch.maximum(of_base, of_own), of_own)
        else:
            best = of_own
        target: Tensor = batch.reward + batch.discount * best
        if self.config.target_bound:
            target = target.clamp(max=self.config.target_bound)
        return target, known | (batch.discount == 0.0)

    def _update_actor_on_base(self, features: Tensor, batch: Batch, led: bool) -> dict[str, Tensor]:
        """Step the actor up the mean of the ensemble (RLPD), held by what was demonstrated (TD3+BC)."""
        config = self.config
        there, base = _known(batch.base)
        mean, known = self._says(features, batch.state, base, there)
        cloning = masked_mean((mean - batch.action).square().mean(dim=1), batch.is_demo & known)
        loss = config.bc_weight * cloning
        metrics = {'bc_loss': cloning.detach(), 'action_abs': mean.detach().abs().mean()}
        if led:
            with frozen(self.critic):
                noisy = with_noise(mean, self.std, config.noise_clip, self.generator)
                value = masked_mean(self.critic(features, batch.state, noisy).mean(dim=1), known)
            loss = loss - value
            metrics['actor_loss'] = -value.detach()
        self._step(loss, 'actor')
        return metrics

    def _says(self, features: Tensor, state: Tensor, base: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions (B, A) with the actor's part, and where there are any (B,) bool."""
        mean = self.actor(features, state)
        if self.config.base_mode == Mode.CHOICE:
            return mean, torch.ones_like(there)
        return corrected(base, mean, self.config.residual_scale), there


def _known(said: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the base said something (B,) bool, and what (B, A); 0 elsewhere."""
    return torch.isfinite(said).all(dim=1), torch.nan_to_num(said)
