# SPDX-License-Identifier: Apache-2.0
"""What an agent is updated with."""

from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B windows of n steps at most, drawn from a replay buffer. All tensors are on one device.

    Attributes:
        images: (B, V, 3T, S, S) uint8, what was seen before the action, oldest frame first.
        state: (B, T * D) float32, raw SI units, oldest first; the network normalises.
        action: (B, A) float32 in network units.
        reward: (B,) float32, discounted sum over the window.
        discount: (B,) float32, gamma^k after a window of k steps; 0 where it ends in success or failure.
        next_images: what was seen after the window, like `images`.
        next_state: like `state`.
        intervened: (B,) bool, a person decided the action.
        is_demo: (B,) bool, it came from the demonstration buffer.
    """

    images: torch.Tensor
    state: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    discount: torch.Tensor
    next_images: torch.Tensor
    next_state: torch.Tensor
    intervened: torch.Tensor
    is_demo: torch.Tensor

    def __len__(self) -> int:
        return len(self.reward)

    def to(self, device: torch.device | str) -> 'Batch':
        """Return the batch on another device; itself where it is there already."""
        if self.reward.device == torch.device(device):
            return self
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)
        }
        return Batch(**moved)
