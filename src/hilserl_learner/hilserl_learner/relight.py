# SPDX-License-Identifier: Apache-2.0
"""A policy that was trained under one light, made to see another one as the first.

A camera in another room sees other mean colours than the camera, or the renderer, of the training. The first
convolution then works far from where it learned to, and most of what comes after it is silent: a policy that does
nothing right, and that learns more slowly than a fresh one. The difference of the means, seen through the weights of
that convolution, is a constant per channel; taken off its bias, the shape of the network stays as it is.
"""

from collections.abc import Iterable, Mapping
import copy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drqv2_policy_node.policy import Policy
from hilserl_learner.buffer_store import read_buffer, read_header
from hilserl_learner.collect import Collector, Environment
from hilserl_learner.errors import LearnerError
from hilserl_learner.metrics import ImageStatistics
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import Transition

PICTURES = 500
"""So many say enough about the light."""

Light = Mapping[str, ImageStatistics]
"""What each camera sees."""

KEPT = (
    'version',
    'observation',
    'action',
    'control_rate_hz',
    'ik_profile',
    'reset_pose',
    'workspace',
    'std_schedule',
    'std_unit',
    'calibration_id',
    'source_sha256',
)
"""Of the manifest."""


def light_of(transitions: Iterable[Transition]) -> Light:
    """Return what the cameras saw, from the first pictures.

    Raises:
        LearnerError: there are none.
    """
    frames = [transition.frames[-1].images for transition in islice(transitions, PICTURES)]
    if not frames:
        raise LearnerError('expected transitions with pictures, got none; record or collect some first')
    return {
        camera: ImageStatistics.of(np.stack([images[camera] for images in frames])) for camera in frames[0]
    }


def light_of_buffer(directory: Path, spec: ObservationSpec) -> Light:
    """Return what the cameras saw in a buffer.

    Raises:
        ContractError: it is no buffer, or one of another observation.
    """
    spec.require_same(read_header(directory).observation, ('policy', 'buffer'))
    entries = (entry.output for entry in read_buffer(directory))
    return light_of(output for output in entries if isinstance(output, Transition))


def light_of_env(env: Environment, policy: Policy, seed: int = 0) -> Light:
    """Return what the cameras see while a policy acts."""
    collector = Collector(env, seed=seed)
    return light_of(collector.step(policy.act).transition for _ in range(PICTURES))


def adapt_encoder(policy: Policy, seen: Light, now: Light, name: str) -> Policy:
    """Return a policy to which pictures of the light `now` look like those of the light `seen`.

    Args:
        policy: as it was trained.
        seen: the light that it was trained in.
        now: the light that it is to work in.
        name: of the new policy.
    """
    encoder = copy.deepcopy(policy.encoder)
    stack = policy.manifest.observation.frame_stack
    for convolutions, camera in zip(
        encoder.convs_per_cam, policy.manifest.observation.camera_names, strict=True
    ):
        difference = (np.array(seen[camera].mean) - np.array(now[camera].mean)) / 255.0
        first: Any = next(convolutions.children())
        with torch.no_grad():
            shift = torch.tensor(np.tile(difference, stack), dtype=first.weight.dtype)
            first.bias += torch.einsum('ochw,c->o', first.weight, shift)
    fields = {field: getattr(policy.manifest, field) for field in KEPT}
    return Policy.create(encoder, policy.actor, name=name, **fields)
