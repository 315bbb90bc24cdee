# SPDX-License-Identifier: Apache-2.0
"""Made-up experience for the tests of this package: every number tells where it comes from."""

import numpy as np

from so101_contract.action import ActionSpec
from so101_contract.messages import ExecutedAction
from so101_contract.observation import Frame
from so101_contract.observation_spec import CameraSpec, ObservationSpec, StateBlock
from so101_contract.session import Source
from so101_contract.transition import Transition

ACTION = ActionSpec()


def small_spec(size=4, frame_stack=3, cameras=1):
    return ObservationSpec(
        state=(StateBlock.named('joint_pos'),),
        frame_stack=frame_stack,
        cameras=tuple(CameraSpec(f'cam{i}', size) for i in range(cameras)),
    )


def make_frame(spec, episode, index, stream=0):
    rng = np.random.default_rng([stream, episode, index])
    size = spec.image_size
    return Frame(
        episode,
        index,
        1_000_000_000 * (1 + 1000 * episode + index) + stream,
        rng.uniform(-1, 1, spec.state_size).astype(np.float32),
        {name: rng.integers(0, 256, (3, size, size), dtype=np.uint8) for name in spec.camera_names},
    )


def make_episode(
    spec, episode, steps, *, terminated=False, truncated=False, intervened=(), gaps=(), stream=0, frames=None
):
    """The transitions of an episode of `steps` actions, without those at the indices in `gaps`."""
    frames = frames or [make_frame(spec, episode, index, stream) for index in range(steps + 1)]
    transitions = []
    for k in range(steps):
        if k in gaps:
            continue
        rng = np.random.default_rng([7, stream, episode, k])
        stack = tuple(frames[max(i, 0)] for i in range(k - spec.frame_stack + 1, k + 1))
        source = Source.TELEOP if k in intervened else Source.POLICY
        action = ExecutedAction(episode, k, rng.uniform(-0.02, 0.02, 3), rng.uniform(), source)
        last = k == steps - 1
        transitions.append(
            Transition(
                stack,
                frames[k + 1],
                action,
                float(rng.normal()),
                terminated and last,
                truncated and last and not terminated,
            )
        )
    return transitions


def views(frames):
    """The images of a stack as a batch has them: (V, 3T, S, S)."""
    cameras = list(frames[0].images)
    return np.stack([np.concatenate([frame.images[camera] for frame in frames]) for camera in cameras])
