# SPDX-License-Identifier: Apache-2.0
"""The agents, all behind one interface.

| name | what it is |
|---|---|
| hil | DrQ-v2's actor and encoder with RLPD's critics: learns beside a person; the default |
| faithful | RoboBase's DrQ-v2, number for number: goes on with its checkpoints |
| sac | soft actor-critic with HIL-SERL's settings, to compare with |
"""

from collections.abc import Mapping
from typing import Any

import torch

from drqv2_policy_node.policy import Policy
from hilserl_learner.agents.base import Agent, AgentError
from hilserl_learner.agents.drqv2 import FaithfulAgent, FaithfulConfig
from hilserl_learner.agents.hil import HilAgent, HilConfig
from hilserl_learner.agents.sac import SacAgent, SacConfig
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import from_mapping

__all__ = ['AGENTS', 'Agent', 'AgentError', 'agent_config', 'make_agent']

_CLASSES: dict[str, tuple[Any, type[Any]]] = {
    'hil': (HilAgent, HilConfig),
    'faithful': (FaithfulAgent, FaithfulConfig),
    'sac': (SacAgent, SacConfig),
}

AGENTS = tuple(_CLASSES)
"""Names of the agents."""


def agent_config(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """Return the configuration of an agent, with some of its values given.

    Raises:
        AgentError: there is no such agent.
        ParameterError: it has no such option, or the value is not allowed.
    """
    if name not in _CLASSES:
        raise AgentError(f'expected one of the agents {list(AGENTS)}, got {name!r}; name one of them')
    return from_mapping(_CLASSES[name][1], options or {})


def make_agent(
    name: str,
    observation: ObservationSpec,
    options: Mapping[str, Any] | None = None,
    *,
    policy: Policy | None = None,
    seed: int = 0,
    device: torch.device | str = 'cpu',
    **more: Any,
) -> Agent:
    """Build an agent by name.

    Args:
        name: one of `AGENTS`.
        observation: what it sees.
        options: values of its configuration that differ from the defaults.
        policy: whose actor and encoder it begins with; None for fresh ones.
        seed: of the initial weights and of all that is left to chance.
        device: where it lives.
        more: what only this agent takes, such as the critics of `faithful`.
    """
    config = agent_config(name, options)
    made: Agent = _CLASSES[name][0](observation, config, policy=policy, seed=seed, device=device, **more)
    return made
