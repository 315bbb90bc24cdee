# SPDX-License-Identifier: Apache-2.0
"""Batches for tests of agents."""

from dataclasses import fields, replace

import torch

from hilserl_learner.data.batch import Batch
from so101_contract.observation_spec import CameraSpec, ObservationSpec, StateBlock


def tiny_spec(size=31, frame_stack=1, normalization=None):
    """The smallest observation that the cpu preset takes."""
    spec = ObservationSpec(
        state=(StateBlock.named('joint_pos'),),
        frame_stack=frame_stack,
        cameras=(CameraSpec('gripper_cam', size),),
    )
    return spec if normalization is None else replace(spec, normalization=normalization)


def random_batch(spec, rows=8, seed=0, chunk=1):
    """A batch in which nothing means anything; the first half is demonstrated."""
    draw = torch.Generator().manual_seed(seed)
    shape = (rows, len(spec.cameras), 3 * spec.frame_stack, spec.image_size, spec.image_size)
    state = (rows, spec.frame_stack * spec.state_size)
    return Batch(
        images=torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw),
        state=torch.randn(state, generator=draw),
        actions=torch.rand((rows, chunk, 4), generator=draw) * 2 - 1,
        known=torch.ones((rows, chunk), dtype=torch.bool),
        reward=torch.rand(rows, generator=draw),
        discount=torch.full((rows,), 0.97),
        next_images=torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw),
        next_state=torch.randn(state, generator=draw),
        intervened=torch.zeros(rows, dtype=torch.bool),
        is_demo=torch.arange(rows) < rows // 2,
        base=torch.full((rows, 4), float('nan')),
        next_base=torch.full((rows, 4), float('nan')),
    )


def joined(one, two):
    """Two batches as one."""
    return Batch(**{f.name: torch.cat([getattr(one, f.name), getattr(two, f.name)]) for f in fields(Batch)})
