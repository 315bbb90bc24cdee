# SPDX-License-Identifier: Apache-2.0
"""What every agent can do, so that trainer, live node and command line treat them alike."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor

from drqv2_policy_node.networks import Critic, NetworkSpec
from drqv2_policy_node.policy import Policy
from hilserl_learner.batch import Batch
from so101_contract.observation import Observation

SMALL = 0.01
"""Share that is left of the last layer of fresh critics."""

Metrics: TypeAlias = dict[str, Tensor]
"""Numbers of one update without gradient. Reading one makes a GPU's caller wait, so it is left to the reader."""


class AgentError(ValueError):
    """An agent cannot be built, or cannot take over the state it was given."""


class Agent(Protocol):
    """An actor and what improves it.

    Attributes:
        spec: shapes of its networks.
        std: exploration noise now, in network units; the trainer sets it from its schedule.
        updates: gradient updates so far.
        device: where its tensors live.
    """

    spec: NetworkSpec
    std: float
    updates: int
    device: torch.device

    def act(
        self, observation: Observation, *, std: float = 0.0, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.float32]:
        """Return an action in network units (4,): the mean, or with noise of that std."""

    @property
    def critics(self) -> tuple[Critic, Critic] | None:
        """Critics and their targets, to be stored with the policy for whoever goes on; None for what is of no use."""

    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch."""

    def policy(self, **fields: Any) -> Policy:
        """Return a copy of what acts: encoder and actor; the fields are those of `Policy.create`."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that training goes on from: weights, optimisers, random state, counters."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            AgentError: it is of another agent, or of other networks.
        """


def soft_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the parameters of a target network towards those of the online one by the share tau."""
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)


def channels_last(images: Tensor) -> Tensor:
    """Return images (B, V, C, S, S) laid out with the channels innermost: a CPU convolves those a third faster."""
    return images.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def begin_at_zero(critic: Critic) -> None:
    """Make fresh critics of an RLPD ensemble say next to nothing.

    As they are initialised their values are up to 1 off, all in the same direction, and it takes thousands of updates
    until bootstrapping has forgotten that.
    """
    with torch.no_grad():
        critic.shared.ensemble.out.weight.mul_(SMALL)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without computing those of its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
