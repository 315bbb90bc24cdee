# SPDX-License-Identifier: Apache-2.0
"""Networks as safetensors bytes that say their own shapes: no pickle, the same bytes for the same values."""

from collections.abc import Mapping
import json
import struct
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
import torch
from torch import nn, Tensor

from drqv2_policy_node.spec import NetworkError, NetworkSpec

SPEC_KEY = 'network'

Module = TypeVar('Module', bound=nn.Module)


def to_bytes(spec: NetworkSpec, parts: Mapping[str, nn.Module]) -> bytes:
    """Return the tensors of the parts, each under `<part's name>.`, with the spec in the header."""
    tensors = {
        f'{part}.{name}': tensor.detach()
        .to('cpu', torch.float32)
        .clone(memory_format=torch.contiguous_format)
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    return save(tensors, metadata={SPEC_KEY: spec.to_json(indent=None)})


def from_bytes(payload: bytes) -> tuple[NetworkSpec, dict[str, Tensor]]:
    """Return the spec and the tensors of what `to_bytes` gave.

    Raises:
        NetworkError: the bytes are damaged or come from something else.
    """
    try:
        tensors = load(payload)
        (length,) = struct.unpack_from('<Q', payload)
        text = json.loads(payload[8 : 8 + length]).get('__metadata__', {})[SPEC_KEY]
    except (SafetensorError, struct.error, ValueError, KeyError) as error:
        raise NetworkError(
            f'expected tensors of a policy with their network spec in the header, got {error!r}; '
            f'restore the file, or convert the checkpoint again'
        ) from error
    return NetworkSpec.from_json(text), tensors


def fill(module: Module, tensors: Mapping[str, Tensor], part: str) -> Module:
    """Give a module the tensors whose names begin with `<part>.`, all of them and no others.

    Raises:
        NetworkError: names the tensors that are missing, too many, of another shape, or not finite.
    """
    prefix = f'{part}.'
    given = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    wanted = module.state_dict()
    lines = [f'{prefix}{name}: missing' for name in wanted if name not in given]
    lines += [f'{prefix}{name}: not part of this network' for name in given if name not in wanted]
    for name in wanted.keys() & given.keys():
        if wanted[name].shape != given[name].shape:
            shapes = tuple(wanted[name].shape), tuple(given[name].shape)
            lines.append(f'{prefix}{name}: expected the shape {shapes[0]}, got {shapes[1]}')
        elif not torch.isfinite(given[name]).all():
            lines.append(f'{prefix}{name}: not finite')
    if lines:
        raise NetworkError(
            'expected exactly the tensors of this network, got the differences below; use the weights that '
            'belong to it:\n  ' + '\n  '.join(sorted(lines))
        )
    module.load_state_dict(given)
    return module
