# SPDX-License-Identifier: Apache-2.0
"""A task of milliseconds: bring a point to a target. Agents are tried on it before anything else.

It has the form of the arm's environments, with a state that says everything and a picture that says nothing, so that
trainer, buffers and agents run as they do for the arm.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from so101_contract.action import ActionSpec
from so101_contract.observation import Observation, stack_window
from so101_contract.observation_spec import CameraSpec, Normalization, ObservationSpec, StateBlock

CENTRE = np.array([0.25, 0.0, 0.10])
HALF_SIZE = 0.05
"""Half an edge of the box that point and target start in [m]."""

CLOSE = 0.02
"""Distance from the target that counts as there [m]."""

PROGRESS = 5.0
"""Reward for coming closer by a metre; success is worth 1."""

CAMERA = 'gripper_cam'
PICTURE = 31
"""The smallest picture that the convolutions of the cpu preset leave something of [px]."""


def reach_spec() -> ObservationSpec:
    """Return what is observed: the point, the target, and a small black picture."""
    low, high = CENTRE - 2 * HALF_SIZE, CENTRE + 2 * HALF_SIZE
    return ObservationSpec(
        state=(StateBlock.named('tcp_pos'), StateBlock.named('cube_pos')),
        frame_stack=1,
        cameras=(CameraSpec(CAMERA, PICTURE),),
        normalization=Normalization.from_range(np.tile(low, 2), np.tile(high, 2)),
    )


class ReachEnv:
    """A point that moves in a plane, by the first two entries of an action."""

    def __init__(self, max_steps: int = 30) -> None:
        """Prepare; `reset` begins an episode.

        Args:
            max_steps: steps after which an episode is cut off.
        """
        self.observation_spec, self.action_spec = reach_spec(), ActionSpec()
        self._max_steps = max_steps
        self._rng = np.random.default_rng(0)
        self._frames: list[npt.NDArray[np.float32]] = []
        self._point = self._target = CENTRE

    def reset(self, *, seed: int | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        flat = np.array([HALF_SIZE, HALF_SIZE, 0.0])
        self._point, self._target = (CENTRE + self._rng.uniform(-flat, flat) for _ in range(2))
        self._steps = 0
        self._frames = [self._frame()]
        return self.observation(), {}

    def step(self, action: npt.NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the point by an action in network units (4,)."""
        before = self._distance()
        moved = self._point + self.action_spec.to_wire(action).translation * (1.0, 1.0, 0.0)
        self._point = np.clip(moved, CENTRE - 2 * HALF_SIZE, CENTRE + 2 * HALF_SIZE)
        self._steps += 1
        self._frames.append(self._frame())
        success = self._distance() < CLOSE
        truncated = self._steps >= self._max_steps and not success
        reward = float(success) + PROGRESS * (before - self._distance())
        return self.observation(), reward, success, truncated, {'is_success': success}

    def observation(self) -> Observation:
        """Return the present observation."""
        stack = self.observation_spec.frame_stack
        black = np.zeros((stack, 3, PICTURE, PICTURE), np.uint8)
        return Observation(np.stack(stack_window(self._frames, stack)), {CAMERA: black})

    def _distance(self) -> float:
        return float(np.linalg.norm(self._point - self._target))

    def _frame(self) -> npt.NDArray[np.float32]:
        return np.concatenate([self._point, self._target]).astype(np.float32)
