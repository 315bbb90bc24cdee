# SPDX-License-Identifier: Apache-2.0
"""Behaviour cloning: imitate what a human or an expert did. A baseline, and a policy that the others begin with.

One update (Pomerleau 1991, ALVINN):

1. augment the observation by a shift, and by other colours if asked (DrQ-v2, arXiv:2107.09645)
2. encode it; the gradient goes through the encoder, which learns from nothing else
3. minimise the mean |a - mu(h)| over the actions of the demonstrator (the L1 loss of ACT, arXiv:2304.13705), for this
   step and, with `chunk` above 1, for those that follow; step encoder and actor
4. move the policy that acts towards the one that learns

Only rows that a human or an expert decided count. Live, those are the takeovers: the agent is HG-DAgger then (Kelly et
al. 2019, arXiv:1810.02890). A chunk of k actions is a richer label; the policy that is given away says the first of
them, so it is stored, run and gone on with like any other.
"""

import copy
from dataclasses import dataclass, replace

import torch

from drqv2_policy_node.networks import Actor, Encoder, EncoderPreset, NetworkSpec
from drqv2_policy_node.policy import Policy
from hilserl_learner.agents.common import Agent, channels_last, Metrics, soft_update
from hilserl_learner.data.augment import color_jitter, random_shift, table_randomization
from hilserl_learner.data.batch import Batch
from so101_contract.action import ACTION_SIZE
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import check_bounds, param

MOST_AHEAD = 16


@dataclass(frozen=True, kw_only=True)
class BcConfig:
    """What the agent is made of and how it learns."""

    encoder: str = param(
        'cpu', doc='Convolutions of a fresh agent.', choices=tuple(preset.value for preset in EncoderPreset)
    )
    width: int = param(256, doc='Width of the two hidden layers of the actor.', lo=8, hi=4096)
    chunk: int = param(1, doc='Actions that are learned from each observation.', lo=1, hi=MOST_AHEAD)
    learning_rate: float = param(3e-4, doc='Of AdamW, for both networks.', lo=1e-6, hi=1e-1)
    weight_decay: float = param(1e-4, doc='Of AdamW.', lo=0.0, hi=1.0)
    shift: int = param(
        4, doc='Largest shift of an image in augmentation; 0 for none.', unit='px', lo=0, hi=16
    )
    color_jitter: float = param(
        0.0, doc='How far augmentation changes brightness and colours; 0 for not at all.', lo=0.0, hi=1.0
    )
    table_randomization: float = param(
        0.0, doc='Share of the images that are shown on a table of another colour.', lo=0.0, hi=1.0
    )
    ema_tau: float = param(
        0.01, doc='Share by which the policy that acts follows the one that learns.', lo=1e-4, hi=1.0
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)


class BcAgent(Agent):
    """Encoder and actor that imitate; see the module."""

    config_type = BcConfig
    config: BcConfig

    def __init__(
        self,
        observation: ObservationSpec,
        config: BcConfig | None = None,
        *,
        policy: Policy | None = None,
        action_size: int = ACTION_SIZE,
        seed: int = 0,
        device: torch.device | str = 'cpu',
    ) -> None:
        """Build an agent, see `Agent`."""
        super().__init__(observation, config, policy=policy, seed=seed, device=device)
        self.chunk = self.config.chunk
        self.spec = NetworkSpec.from_observation(
            observation,
            encoder=EncoderPreset(self.config.encoder),
            mlp=(self.config.width, self.config.width),
            action_size=action_size,
        )
        init = torch.Generator().manual_seed(seed)
        self.encoder, self.actor = Encoder(self.spec, init), Actor(self.spec, init)
        if policy is not None:
            self._begin_with(policy)
            self.spec = self.actor.spec
        self.planner = self._planner(init)
        self.ema_encoder, self.ema_planner = copy.deepcopy(self.encoder), copy.deepcopy(self.planner)
        self._place(
            trained={'encoder': self.encoder, 'planner': self.planner},
            following={'ema_encoder': self.ema_encoder, 'ema_planner': self.ema_planner, 'actor': self.actor},
            optimizer=lambda parameters: torch.optim.AdamW(
                parameters, self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True
            ),
        )
        self._show_actor()

    def _planner(self, init: torch.Generator) -> Actor:
        """Return an actor that says `chunk` actions at once, the first of which is what the present actor says."""
        planner = Actor(replace(self.spec, action_size=self.spec.action_size * self.chunk), init)
        state, first = planner.state_dict(), self.actor.state_dict()
        for name, value in first.items():
            state[name][: len(value)] = value
        planner.load_state_dict(state)
        return planner

    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch; see the module for the order."""
        batch = batch.to(self.device)
        shifted = random_shift(batch.images, self.config.shift, self.generator)
        painted = table_randomization(shifted, self.config.table_randomization, self.generator)
        images = channels_last(color_jitter(painted, self.config.color_jitter, self.generator))
        planned = self.planner(self.encoder(images), batch.state).unflatten(1, (self.chunk, -1))  # (B, K, A)
        # Where the episode ends earlier there is nothing to imitate.
        counts = batch.is_demo.unsqueeze(1) & batch.known  # (B, K)
        distance = (planned - batch.actions).abs().mean(dim=2)
        loss = (distance * counts).sum() / counts.sum().clamp(min=1)
        self._step(loss, 'encoder', 'planner')
        soft_update(self.ema_encoder, self.encoder, self.config.ema_tau)
        soft_update(self.ema_planner, self.planner, self.config.ema_tau)
        self._show_actor()
        self.updates += 1
        return {'bc_loss': loss.detach(), 'action_abs': planned.detach().abs().mean()}

    def _show_actor(self) -> None:
        """Let the actor say the first action of the plan."""
        with torch.no_grad():
            plan = self.ema_planner.state_dict()
            for name, value in self.actor.state_dict().items():
                value.copy_(plan[name][: len(value)])
        self.acting = self.ema_encoder, self.actor

    @property
    def critics(self) -> None:
        """Return none: whoever goes on with this policy learns first what it is worth."""
        return
