# SPDX-License-Identifier: Apache-2.0
"""Builds snapshots in RoboBase's container format, without RoboBase and omegaconf.

What a genuine one holds: a zip archive with the pickle protocol 2, counters, the Hydra configuration as omegaconf's
containers (each entry points back to its parent), and the agent's state dict with aliases, hidden states, module
metadata, and storages that were on a GPU.
"""

from collections import defaultdict, OrderedDict
from contextlib import contextmanager
import sys
import types
from typing import Any
from unittest.mock import patch

import torch

from drqv2_policy_node.networks import Actor, Critic, Encoder, NetworkSpec
from drqv2_policy_node.robobase.layout import state_dict

SMALL = NetworkSpec(image_size=32, mlp=(16, 24), bottleneck=8)
"""Reference shape but for the widths: 98 tensors."""

CONFIG = {
    'num_train_envs': 8,
    'visual_observation_shape': [32, 32],
    'frame_stack': 3,
    'frame_stack_on_channel': True,
    'action_repeat': 2,
    'action_sequence': 1,
    'use_min_max_normalization': False,
    'norm_obs': False,
    'method': {
        '_target_': 'robobase.method.drqv2.DrQV2',
        'stddev_schedule': '${env.stddev_schedule}',
        'distributional_critic': False,
        'encoder_model': {'num_downsample_convs': 1, 'num_post_downsample_convs': 3, 'kernel_size': 3},
        'actor_model': {'norm_after_bottleneck': True, 'mlp_nodes': [16, 24], 'output_shape': '???'},
    },
    'env': {'stddev_schedule': 'linear(1.0,0.1,500000)', 'tags': ['lift', None, 2.5, True]},
}
COUNTERS = {'_pretrain_step': 0, '_main_loop_iterations': 125_000, '_global_env_episode': 5_000}

_CLASSES = {
    'omegaconf.dictconfig': ('DictConfig',),
    'omegaconf.listconfig': ('ListConfig',),
    'omegaconf.base': ('ContainerMetadata', 'Metadata'),
    'omegaconf.nodes': ('AnyNode',),
}


def agent_state(spec=SMALL, envs=9, seed=0):
    """Return a state dict as RoboBase has it: two names for each tensor of the actor, and metadata."""
    generator = torch.Generator().manual_seed(seed)
    critic, target = Critic(spec, generator), Critic(spec, generator)
    named = state_dict(Encoder(spec, generator), Actor(spec, generator), critic, target, envs=envs)
    state = OrderedDict((name, tensor.clone()) for name, tensor in named.items())
    for name in state:
        if name.startswith('actor_model.'):
            state[name] = state[f'actor.{name}']
    state._metadata = OrderedDict({'': {'version': 1}})
    return state


def write(path, state=None, *, config=CONFIG, counters=COUNTERS, **more):
    """Write a snapshot and return its path."""
    with fake_omegaconf() as make, patch('torch.serialization.location_tag', lambda _: 'cuda:0'):
        payload = {
            **counters,
            'cfg': make(config),
            'agent': agent_state() if state is None else state,
            **more,
        }
        with open(path, 'wb') as file:
            torch.save(payload, file)
    return path


@contextmanager
def fake_omegaconf():
    """Give importable classes with omegaconf's names, and the function that makes its containers."""
    modules = {'omegaconf': types.ModuleType('omegaconf')}
    for name, classes in _CLASSES.items():
        modules[name] = types.ModuleType(name)
        for cls in classes:
            setattr(modules[name], cls, type(cls, (), {'__module__': name}))
    with patch.dict(sys.modules, modules):
        yield lambda value: _node(modules, value, None, None)


def _node(modules, value, key, parent):
    kinds = {dict: ('dictconfig', 'DictConfig'), list: ('listconfig', 'ListConfig')}
    module, name = kinds.get(type(value), ('nodes', 'AnyNode'))
    node = getattr(modules[f'omegaconf.{module}'], name)()
    container = isinstance(value, dict | list)
    metadata = getattr(modules['omegaconf.base'], 'ContainerMetadata' if container else 'Metadata')()
    metadata.__dict__.update(
        ref_type=Any, object_type=type(value) if container else None, optional=True, key=key, flags={}
    )
    metadata.__dict__['resolver_cache'] = defaultdict(dict)
    node.__dict__.update(_metadata=metadata, _parent=parent)
    if isinstance(value, dict):
        node.__dict__['_content'] = {k: _node(modules, v, k, node) for k, v in value.items()}
    elif isinstance(value, list):
        node.__dict__['_content'] = [_node(modules, v, i, node) for i, v in enumerate(value)]
    else:
        node.__dict__['_val'] = value
    return node
