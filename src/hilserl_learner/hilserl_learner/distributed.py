# SPDX-License-Identifier: Apache-2.0
"""Several processes learn one agent: each from batches of its own, with gradients averaged before every step.

Start them with `python -m torch.distributed.run --nproc-per-node 2 -m hilserl_learner.offline_cli ...`, one per GPU.
N processes with batches of B learn like one with batches of N * B.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import hashlib
import os
from typing import Any

from safetensors.torch import load, save
import torch
from torch import distributed
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hilserl_learner.agents.common import Agent


@dataclass(frozen=True)
class Group:
    """The processes that learn together.

    Attributes:
        rank: number of this one.
        size: how many there are.
        local_rank: number of this one on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Return the device of this process: `cuda` means one GPU for each."""
        return (
            torch.device('cuda', self.local_rank) if name == 'cuda' and self.size > 1 else torch.device(name)
        )


def join(device: str, environment: Mapping[str, str] | None = None) -> Group:
    """Meet the other processes that torchrun has started; alone where it has not.

    Args:
        device: where the agent lives: cuda talks over NCCL, cpu over Gloo.
        environment: what torchrun says; that of this process by default.
    """
    said = os.environ if environment is None else environment
    if 'RANK' not in said or 'WORLD_SIZE' not in said:
        return Group()
    group = Group(int(said['RANK']), int(said['WORLD_SIZE']), int(said.get('LOCAL_RANK', 0)))
    if distributed.is_initialized():
        return group
    if device.startswith('cuda'):
        torch.cuda.set_device(group.device(device))
    distributed.init_process_group('nccl' if device.startswith('cuda') else 'gloo')
    return group


def share(agent: Agent, group: Group) -> Any:
    """Let the agents of all processes begin alike and stay alike; return a handle whose `remove` ends it.

    Every optimiser of this process averages its gradients over the group before it makes a step.
    """
    if group.size > 1:
        agent.load_state_dict(_from_first(agent.state_dict() if group.first else {}, agent.device))
    return register_optimizer_step_pre_hook(_Average(group))


def agree(agent: Agent, group: Group) -> bool:
    """Whether the networks of all processes are equal, bit for bit."""
    if group.size == 1:
        return True
    digest = hashlib.sha256()
    for name, value in sorted(agent.state_dict().items()):
        if not name.startswith('generator.'):
            digest.update(value.cpu().numpy().tobytes())
    mine = torch.tensor(list(digest.digest()), dtype=torch.uint8, device=agent.device)
    others = [torch.empty_like(mine) for _ in range(group.size)]
    distributed.all_gather(others, mine)
    return all(torch.equal(mine, other) for other in others)


def meet(group: Group) -> None:
    """Wait for the others: who leaves while they still talk can take them down."""
    if group.size > 1:
        distributed.barrier()


def leave(group: Group) -> None:
    """Part from the others."""
    if group.size > 1:
        distributed.destroy_process_group()


class _Average:
    """Averages the gradients of one optimiser."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def __call__(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._group.size == 1:
            return
        gradients = [
            parameter.grad
            for entry in optimizer.param_groups
            for parameter in entry['params']
            if parameter.grad is not None
        ]
        if not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])  # one message instead of many
        distributed.all_reduce(flat)
        flat /= self._group.size
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()


def _from_first(state: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of the first process, as bytes of a safetensors file: others may have other entries."""
    payload = save({name: value.cpu().contiguous() for name, value in state.items()}) if state else b''
    size = torch.tensor([len(payload)], device=device)
    distributed.broadcast(size, 0)
    content = torch.zeros(int(size), dtype=torch.uint8, device=device)
    if payload:
        content.copy_(torch.frombuffer(bytearray(payload), dtype=torch.uint8))
    distributed.broadcast(content, 0)
    return load(content.cpu().numpy().tobytes())
