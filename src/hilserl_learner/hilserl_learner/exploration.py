# SPDX-License-Identifier: Apache-2.0
"""Noise on actions: of those that are executed, and of those that losses are computed with."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

EDGE = 1.0 - 1e-6
"""Largest entry of an action that noise was added to, as in DrQ-v2."""


def explore(
    mean: npt.NDArray[np.float32], std: float, rng: np.random.Generator | None
) -> npt.NDArray[np.float32]:
    """Return an action to execute: the mean itself, or with Gaussian noise where std is above 0.

    Args:
        mean: (A,) in network units.
        std: of the noise, in network units.
        rng: source of the noise; needed where std is above 0.
    """
    if not std > 0.0:
        return mean
    if rng is None:
        raise ValueError(f'expected a random generator for noise of std {std}, got none; pass rng')
    return np.clip(mean + std * rng.standard_normal(mean.shape), -EDGE, EDGE).astype(np.float32)


def with_noise(mean: Tensor, std: float, clip: float, generator: torch.Generator) -> Tensor:
    """Return actions (B, A) for a loss: Gaussian noise cut to +-clip, and the sum cut to the action's range.

    The gradient with respect to the mean is 1, also where the sum was cut (DrQ-v2's straight-through).
    """
    noise = torch.randn(mean.shape, generator=generator, device=mean.device) * std
    free = mean + noise.clamp(-clip, clip)
    return free - (free - free.clamp(-EDGE, EDGE)).detach()
