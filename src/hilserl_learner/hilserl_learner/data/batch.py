# SPDX-License-Identifier: Apache-2.0
"""What is drawn from a replay buffer, and over how many steps it looks ahead."""

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from hilserl_learner.errors import ReplayError


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B windows of n steps at most, drawn from a replay buffer. All tensors are on one device.

    Attributes:
        images: (B, V, 3T, S, S) uint8, what was seen before the action, oldest frame first.
        state: (B, T * D) float32, raw SI units, oldest first; the network normalises.
        actions: (B, K, A) float32 in network units, the action and those that followed, as many as `Windows` says.
        known: (B, K) bool, which of them there are: an episode may end earlier.
        reward: (B,) float32, discounted sum over the window.
        discount: (B,) float32, gamma^k after a window of k steps; 0 where it ends in success or failure.
        next_images: what was seen after the window, like `images`.
        next_state: like `state`.
        intervened: (B,) bool, a human decided the action.
        is_demo: (B,) bool, it came from the demonstration buffer.
        base: (B, A) float32, what the base policy said before the action, in network units; NaN where nothing.
        next_base: (B, A) float32, what it said after the window.
    """

    images: torch.Tensor
    state: torch.Tensor
    actions: torch.Tensor
    known: torch.Tensor
    reward: torch.Tensor
    discount: torch.Tensor
    next_images: torch.Tensor
    next_state: torch.Tensor
    intervened: torch.Tensor
    is_demo: torch.Tensor
    base: torch.Tensor
    next_base: torch.Tensor

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def action(self) -> torch.Tensor:
        """The action that was executed (B, A) float32, in network units."""
        return self.actions[:, 0]

    def to(self, device: torch.device | str) -> 'Batch':
        """Return the batch on another device; itself where it is there already."""
        if self.reward.device == torch.device(device):
            return self
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)
        }
        return Batch(**moved)


Stream: TypeAlias = str
Slots: TypeAlias = npt.NDArray[np.int64]
Arrays: TypeAlias = dict[str, npt.NDArray[np.generic]]

FREE = -1


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What a batch says of the steps that follow.

    Attributes:
        n_step: steps over which rewards are summed up, fewer where the episode ends.
        gamma: discount per step.
        chunk: actions that a batch says, the first one's successors included, for agents that imitate.
    """

    n_step: int = 1
    gamma: float = 0.97
    chunk: int = 1

    def __post_init__(self) -> None:
        """Check the range."""
        if self.n_step < 1 or self.chunk < 1 or not 0.0 <= self.gamma <= 1.0:
            raise ReplayError(
                f'expected n_step and chunk >= 1 and gamma in 0..1, got {self.n_step}, {self.chunk} and '
                f'{self.gamma}; correct them'
            )
