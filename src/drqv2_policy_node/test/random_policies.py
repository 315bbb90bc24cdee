# SPDX-License-Identifier: Apache-2.0
"""Policies with random weights: each seed acts differently."""

import torch

from drqv2_policy_node.networks import Actor, Encoder, EncoderPreset, NetworkSpec
from drqv2_policy_node.policy import Policy
from so101_contract.action import ActionSpec
from so101_contract.manifest import StepUnit, Workspace
from so101_contract.observation_spec import get_observation

BOX = Workspace(low=(0.10, -0.25, 0.01), high=(0.40, 0.25, 0.30))


def random_policy(seed=0, *, observation=None, encoder='cpu', **fields):
    """Return a policy for the default stack; `fields` change its manifest."""
    spec = observation or get_observation('compact')
    network = NetworkSpec.from_observation(spec, encoder=EncoderPreset(encoder))
    generator = torch.Generator().manual_seed(seed)
    said = {
        'name': f'random-{seed}',
        'version': 0,
        'action': ActionSpec(),
        'control_rate_hz': 10.0,
        'ik_profile': 'setpoint',
        'reset_pose': (0.0, -0.4, 0.6, 0.8, 0.0, 0.5),
        'workspace': BOX,
        'std_schedule': 'linear(0.2,0.1,1000)',
        'std_unit': StepUnit.ENV_STEPS,
        'calibration_id': None,
        'source_sha256': None,
    }
    return Policy.create(
        Encoder(network, generator), Actor(network, generator), observation=spec, **{**said, **fields}
    )
