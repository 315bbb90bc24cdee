# SPDX-License-Identifier: Apache-2.0
"""The state of an agent as one flat mapping of names to tensors, as safetensors files and checksums like it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn, Tensor

from hilserl_learner.agents.base import AgentError


@dataclass(frozen=True)
class Parts:
    """What the state of an agent is made of.

    Attributes:
        modules: networks by name.
        optimizers: the optimiser of each trained module, by that module's name.
        generators: sources of randomness by name.
    """

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    generators: Mapping[str, torch.Generator]


def pack_state(parts: Parts, counters: Mapping[str, float]) -> dict[str, Tensor]:
    """Return copies of everything: weights, moments of the optimisers, random states, counters (float64)."""
    state: dict[str, Tensor] = {}
    for name, module in parts.modules.items():
        for key, value in module.state_dict().items():
            state[f'{name}.{key}'] = value.detach().contiguous().clone()
    for name, optimizer in parts.optimizers.items():
        for key, parameter in parts.modules[name].named_parameters():
            for entry, value in optimizer.state.get(parameter, {}).items():
                state[f'{name}.optimizer.{key}.{entry}'] = (
                    torch.as_tensor(value).detach().contiguous().clone()
                )
    for name, generator in parts.generators.items():
        state[f'generator.{name}'] = generator.get_state()
    for name, number in counters.items():
        state[f'counter.{name}'] = torch.tensor(float(number), dtype=torch.float64)
    return state


def unpack_state(
    parts: Parts, counters: Mapping[str, float], state: Mapping[str, Tensor]
) -> dict[str, float]:
    """Put a state back in place and return the counters; nothing is changed where it does not fit.

    Args:
        parts: where it goes.
        counters: names of the counters, with any values.
        state: what `pack_state` returned.

    Raises:
        AgentError: names or shapes differ from those of the parts.
    """
    expected = pack_state(parts, counters)
    wanted = {key: value.shape for key, value in expected.items() if '.optimizer.' not in key}
    got = {key: value.shape for key, value in state.items() if '.optimizer.' not in key}
    if wanted != got:
        wrong = sorted(key for key in wanted | got if wanted.get(key) != got.get(key))
        raise AgentError(
            f'expected the state of an agent with these networks, got other names or shapes for {wrong[:6]}'
            f'{" and more" if len(wrong) > 6 else ""}; use the configuration that it was saved with'
        )
    with torch.no_grad():
        for name, module in parts.modules.items():
            for key, value in module.state_dict().items():
                value.copy_(state[f'{name}.{key}'])
    for name, optimizer in parts.optimizers.items():
        for key, parameter in parts.modules[name].named_parameters():
            prefix = f'{name}.optimizer.{key}.'
            entries = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if not entries:
                optimizer.state.pop(parameter, None)
                continue
            # On the device all of it: fused optimisers count their steps there too.
            optimizer.state[parameter] = {
                entry: value.clone().to(parameter.device) for entry, value in entries.items()
            }
    for name, generator in parts.generators.items():
        generator.set_state(state[f'generator.{name}'].to(torch.uint8).cpu())
    return {name: float(state[f'counter.{name}']) for name in counters}
