# SPDX-License-Identifier: Apache-2.0
"""Acting on top of a base policy: at each step the base, a learned actor, or both together.

| mode | action of a step | as in |
|---|---|---|
| choice | the base's or the actor's, whichever the critics prefer | IBRL |
| residual | the base's plus a bounded correction by the actor | Johannink et al., ResiP |

The actor is trained to please these very critics, so it wins a plain comparison by their errors. Hence it is heard in a
share of the steps only (as in Policy Decorator), it has to be better by the word of
the whole ensemble (`Rule`), and who acts goes on for some steps, so that the plan of neither is shredded.

| cited as | paper |
|---|---|
| IBRL | Hu, Mirchandani and Sadigh 2023, imitation bootstrapped reinforcement learning, arXiv:2311.02198 |
| Johannink et al. | 2019, residual reinforcement learning for robot control, arXiv:1812.03201 |
| ResiP | Ankile et al. 2024, from imitation to refinement, arXiv:2407.16677 |
| Policy Decorator | Yuan et al. 2024, arXiv:2412.13630 |
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drqv2_policy_node.networks import Actor, Critic, Encoder
from drqv2_policy_node.policy import EDGE, Policy, policy_inputs, PolicyError
from so101_contract.manifest import OnBaseManifest
from so101_contract.observation import Observation
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import check_bounds, param

Action: TypeAlias = npt.NDArray[np.float32]
Proposer: TypeAlias = Callable[[Observation], npt.NDArray[np.floating[Any]] | None]
"""The base: an observation to its action in network units (4,), or None where it has none."""


RECENT = 100
"""Steps over which the actor's share is told."""


class Mode(StrEnum):
    """How base and actor come together."""

    CHOICE = 'choice'
    RESIDUAL = 'residual'


class Rule(StrEnum):
    """When the critics prefer the actor's action to the base's."""

    MEAN = 'mean'
    """Their mean does: the plain rule, which a young critic is fooled by."""
    UNANIMOUS = 'unanimous'
    """Each single one does."""
    MIN_MAX = 'min_max'
    """The most doubtful of them values the actor's above what the most hopeful one gives for the base's."""


@dataclass(frozen=True, kw_only=True)
class BaseTerms:
    """How much the actor may do on top of a base policy."""

    base_mode: str = param(
        'choice',
        doc='choice: the critics choose between the actions of base and actor. residual: the actor corrects the base.',
        choices=tuple(Mode),
    )
    base_rule: str = param(
        'unanimous',
        doc="Which critics have to prefer the actor's action: their mean, each (unanimous), or the smallest value of "
        "it against the largest of the base's (min_max).",
        choices=tuple(Rule),
    )
    base_margin: float = param(0.0, doc='By how much they have to prefer it.', lo=0.0, hi=1e3)
    hold_steps: int = param(5, doc='Steps for which a choice holds.', lo=1, hi=1000)
    residual_scale: float = param(
        0.3, doc='Largest correction of a residual, in network units.', lo=0.01, hi=2.0
    )
    base_std: float = param(
        0.05, doc="Exploration noise on the base's actions, in network units.", lo=0.0, hi=1.0
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)

    @classmethod
    def of(cls, said: OnBaseManifest) -> 'BaseTerms':
        """Return what a policy's manifest says.

        Raises:
            ParameterError: a value is not allowed.
        """
        return cls(
            base_mode=said.mode,
            base_rule=said.rule,
            base_margin=said.margin,
            hold_steps=said.hold_steps,
            residual_scale=said.residual_scale,
            base_std=said.base_std,
        )

    def manifest(self, share: float, alone: bool) -> OnBaseManifest:
        """Return it as a policy's manifest says it."""
        return OnBaseManifest(
            mode=self.base_mode,
            rule=self.base_rule,
            margin=self.base_margin,
            hold_steps=self.hold_steps,
            residual_scale=self.residual_scale,
            base_std=self.base_std,
            share=share,
            alone=alone,
        )


@dataclass(frozen=True)
class Mixed:
    """What is done at a step.

    Attributes:
        action: in network units (4,).
        by_base: the base acts alone.
    """

    action: Action
    by_base: bool


def prefers_actor(rule: str, margin: float, actor: Tensor, base: Tensor) -> Tensor:
    """Return where the critics prefer the actor's action (B,) bool; their values are (B, critics)."""
    if rule == Rule.MIN_MAX:
        lead = actor.amin(dim=1) - base.amax(dim=1)
    elif rule == Rule.UNANIMOUS:
        lead = (actor - base).amin(dim=1)
    else:
        lead = (actor - base).mean(dim=1)
    return lead > margin


def corrected(base: Tensor, actor: Tensor, scale: float) -> Tensor:
    """Return a residual's actions (B, A), not yet cut to their range."""
    return base + scale * actor


class OnBase:
    """Has base and actor act; one instance per arm, `begin` at the start of each episode.

    Attributes:
        share: how often the actor is heard, 0..1.
        alone: the actor acts in every step, without a look at the base.
        std: exploration noise, in network units.
        steps, by_actor: steps so far, and those in which the actor had a part.
    """

    def __init__(
        self,
        base: Proposer,
        networks: tuple[Encoder, Actor, Critic] | None,
        observation: ObservationSpec,
        terms: BaseTerms,
    ) -> None:
        """Prepare.

        Args:
            base: the base policy.
            networks: that learn; the encoder is for both others. None: the base acts until there are some.
            observation: what they see.
            terms: what they may do.
        """
        self._base, self._networks, self._observation, self.terms = base, networks, observation, terms
        self.share = self.std = 0.0
        self.alone = False
        self.steps = self.by_actor = 0
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self.begin(np.random.default_rng(0))

    @property
    def recent_share(self) -> float:
        """Share of the last steps in which the actor had a part; NaN before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else float('nan')

    def learned(self, policy: Policy) -> None:
        """Go on with the networks of another version, and with what its manifest lets it do."""
        said = policy.manifest.on_base
        if said is None or policy.critic is None:  # nothing that may act on top of a base: the base acts
            self.share, self.alone = 0.0, False
            return
        self._networks, self.terms = (policy.encoder, policy.actor, policy.critic), BaseTerms.of(said)
        self.share, self.alone = said.share, said.alone

    def begin(self, rng: np.random.Generator) -> None:
        """Begin an episode; all that is left to chance comes from `rng`."""
        self._rng = rng
        self._held, self._actor_acts = 0, False

    def act(
        self, observation: Observation, *, std: float = 0.0, rng: np.random.Generator | None = None
    ) -> Action:
        """Return what to do, as a policy does; `begin` says where chance comes from."""
        self.std = std
        return self.mix(observation, self.propose(observation)).action

    def propose(self, observation: Observation) -> Action | None:
        """Ask the base; the actor may act on what it does not answer."""
        said = self._base(observation)
        return None if said is None else np.asarray(said, dtype=np.float32)

    def mix(self, observation: Observation, proposal: Action | None) -> Mixed:
        """Return what to do, where the base proposes this."""
        self.steps += 1
        if self._held == 0:
            self._held = self.terms.hold_steps
            self._actor_acts = self.alone or (
                self._heard()
                and (
                    proposal is None
                    or self.terms.base_mode == Mode.RESIDUAL
                    or self._preferred(observation, proposal)
                )
            )
        self._held -= 1
        self._recent.append(self._actor_acts)
        if not self._actor_acts:
            if proposal is not None:
                return Mixed(self._noisy(proposal, min(self.std, self.terms.base_std)), True)
            raise PolicyError('expected an action of the base policy, got none; hold until it answers')
        self.by_actor += 1
        mean = self._mean(observation)
        if self.terms.base_mode == Mode.RESIDUAL:
            if proposal is None:
                raise PolicyError(
                    'expected an action of the base to correct, got none; hold until it answers'
                )
            return Mixed(self._noisy(proposal + self.terms.residual_scale * mean, self.std), False)
        return Mixed(self._noisy(mean, self.std), False)

    def _heard(self) -> bool:
        """Whether the actor is heard until the next choice."""
        return bool(self._rng.random() < self.share)

    def _inputs(self, encoder: Encoder, observation: Observation) -> tuple[Tensor, Tensor]:
        """Return features (1, F) and state (1, T * D)."""
        images, state = policy_inputs(observation, self._observation)
        device = next(encoder.parameters()).device
        return encoder(torch.from_numpy(images).to(device)), torch.from_numpy(state).to(device)

    def _mean(self, observation: Observation) -> Action:
        assert self._networks is not None
        encoder, actor, _ = self._networks
        with torch.inference_mode():
            mean: Action = actor(*self._inputs(encoder, observation))[0].cpu().numpy()
        return mean

    def _preferred(self, observation: Observation, proposal: Action) -> bool:
        """Whether the critics prefer the actor's action."""
        assert self._networks is not None
        encoder, actor, critic = self._networks
        with torch.inference_mode():
            features, state = self._inputs(encoder, observation)
            base = torch.from_numpy(proposal[None]).to(features.device)
            own = critic(features, state, actor(features, state))
            values = critic(features, state, base)
            return bool(prefers_actor(self.terms.base_rule, self.terms.base_margin, own, values)[0])

    def _noisy(self, action: Action, std: float) -> Action:
        noise = std * self._rng.standard_normal(action.shape) if std > 0.0 else 0.0
        noisy: Action = np.clip(action + noise, -EDGE, EDGE).astype(np.float32)
        return noisy
