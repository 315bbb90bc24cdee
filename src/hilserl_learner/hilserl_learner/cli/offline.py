# SPDX-License-Identifier: Apache-2.0
"""`./so101 train-offline`: learn from buffers alone, after another reward, with another agent, on a larger machine.

Several processes may learn one agent: each from batches of its own, with gradients averaged before every step, so
that N processes with batches of B learn like one with batches of N * B. Start them with
`python -m torch.distributed.run --nproc-per-node 2 -m hilserl_learner.cli.offline ...`, one per GPU.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
import hashlib
import os
from pathlib import Path
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load, save
import torch
from torch import distributed
from torch.optim.optimizer import register_optimizer_step_pre_hook

from drqv2_policy_node.store import save_policy
from hilserl_learner.agents.common import Agent, AGENTS
from hilserl_learner.cli.report import add_json, show_report
from hilserl_learner.data.replay import ReplayBuffer
from hilserl_learner.data.store import read_buffer, read_header
from hilserl_learner.errors import LearnerError
from hilserl_learner.live.config import LearnerConfig
from hilserl_learner.training.checkpoint import Checkpoints
from hilserl_learner.training.log import RunLog, RunTracker
from hilserl_learner.training.settings import Settings
from hilserl_learner.training.trainer import agent_part, make_trainer, prepare_cpu, TrainerConfig
from so101_contract.observation_spec import DEFAULT_OBSERVATION, OBSERVATIONS
from so101_contract.task.spec import require_same_task
from so101_contract.transition import Transition

CHECKPOINTS, POLICY = 'checkpoints', 'policy'
_LOG_EVERY = 100


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


@dataclass(frozen=True, kw_only=True)
class OfflineSettings:
    """Everything that decides an offline run.

    Attributes:
        buffers: directories that ingest, or a learner, wrote.
        updates: gradient updates to make in all.
        learner: agent, policy to begin with, observation, device and seed; the rest of it is not used.
        trainer: how transitions become updates.
        agent_options: values of the agent's configuration.
        save_every: updates between two checkpoints.
    """

    buffers: tuple[str, ...]
    updates: int = 10_000
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    agent_options: dict[str, Any] = field(default_factory=dict)
    save_every: int = 5_000


class OfflineRun:
    """One run; resumes where its directory was left."""

    def __init__(self, settings: OfflineSettings, out: Path, group: Group) -> None:
        """Read the buffers and build the agent.

        Raises:
            LearnerError: a buffer is missing, empty, or observed otherwise.
        """
        learner = settings.learner
        self.settings, self.out, self._group = settings, out, group
        self.trainer, _ = make_trainer(
            learner.agent,
            settings.agent_options,
            settings.trainer,
            (learner.observation_spec, learner.action_spec),
            policy=learner.policy,
            observation=learner.observation,
            seed=learner.seed,
            device=group.device(learner.device),
            rank=group.rank,
        )
        self.agent = self.trainer.agent
        self._task = learner.task_spec
        self._load(settings.buffers)
        self._tracker = RunTracker(
            self.trainer,
            RunLog(out) if group.first else None,
            Checkpoints(out / CHECKPOINTS),
            config={**asdict(learner), **asdict(settings.trainer), **settings.agent_options},
            q_bound=learner.q_bound,
            by_updates=True,
        )
        saved = self._tracker.checkpoints.load()
        if saved is not None:
            self.agent.load_state_dict(agent_part(saved.tensors))
        self._sharing = share(self.agent, group)

    @property
    def buffer(self) -> ReplayBuffer:
        """What is learned from."""
        return self.trainer.demo

    def run(self, report: Callable[[int], None] = lambda _: None) -> Path | None:
        """Make the updates; return where the policy is, in the process that wrote it."""
        try:
            while self.agent.updates < self.settings.updates:
                self._tracker.update()
                updates = self.agent.updates
                report(updates)
                if updates % _LOG_EVERY == 0 and self._group.first:
                    self._tracker.note_progress({})
                if updates % self.settings.save_every == 0:
                    self._save()
            if not agree(self.agent, self._group):
                raise LearnerError(
                    'expected the same networks in every process, got different ones; start all with the same '
                    'arguments on the same kind of device'
                )
            return self._save()
        finally:
            self._sharing.remove()
            self._tracker.close()

    def _load(self, buffers: Sequence[str]) -> None:
        for name in buffers:
            path = Path(name).expanduser()
            header = read_header(path)
            self.settings.learner.observation_spec.require_same(header.observation, ('run', 'buffer'))
            require_same_task(self._task, header.task, ('run', name))
            self._task = self._task or header.task
            for entry in read_buffer(path):
                if isinstance(entry.output, Transition):
                    self.trainer.add(entry.output, f'{name} {entry.stream}', demo=True)
                elif entry.output.discarded:
                    self.trainer.discard(entry.output.episode, f'{name} {entry.stream}')
        if not len(self.buffer):
            raise LearnerError(f'expected transitions in {list(buffers)}, got none; ingest a bag first')

    def _save(self) -> Path | None:
        if not self._group.first:
            return None
        learner = self.settings.learner
        policy = self.agent.policy(
            name='offline',
            version=self.agent.updates,
            std_schedule=self.trainer.config.std_schedule,
            **{**learner.manifest_fields, 'task': None if self._task is None else self._task.meaning},
        )
        self._tracker.save(policy)
        return save_policy(self.out / POLICY, policy, critics=self.agent.critics, overwrite=True)


def with_capacity_for(settings: OfflineSettings) -> OfflineSettings:
    """Return settings whose buffer holds everything that was named, and no online buffer worth mentioning."""
    frames = 0
    for name in settings.buffers:
        path = Path(name).expanduser()
        header = read_header(path)
        spec = header.observation
        content = len(spec.cameras) * 3 * spec.image_size**2 + 4 * spec.state_size
        size = sum(file.stat().st_size for part in header.parts for file in (path / part.name).glob('*.seg'))
        frames += size // content + 1
    capacity = max(frames, 100)
    return replace(settings, trainer=replace(settings.trainer, demo_capacity=capacity, capacity=100))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog='so101 train-offline', description=__doc__)
    parser.add_argument('buffers', nargs='+', help='buffers that ingest, or a learner, wrote')
    parser.add_argument('--out', type=Path, required=True, help='run directory; what is there goes on')
    parser.add_argument('--updates', type=int, default=10_000, help='in all (default: %(default)s)')
    parser.add_argument('--agent', default='hil', choices=AGENTS, help='(default: %(default)s)')
    parser.add_argument(
        '--policy', default='none', help='begin with this policy, and its critics if there are any'
    )
    parser.add_argument('--observation', default=DEFAULT_OBSERVATION, choices=sorted(OBSERVATIONS))
    parser.add_argument('--task', default='', help='name or file (default: that of the first buffer)')
    parser.add_argument('--cameras', default='', help='that are observed, with commas between')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of torch; 0: its own choice')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE', help='any other value')
    add_json(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = make_parser().parse_args(argv)
    prepare_cpu(options.threads)
    group = join(options.device)
    try:
        values = dict(item.partition('=')[::2] for item in options.set)
        chosen = Settings.with_options(values, agent=options.agent, policy=options.policy)
        names = ('agent', 'policy', 'observation', 'task', 'device', 'threads', 'seed')
        given = {name: getattr(options, name) for name in names}
        settings = OfflineSettings(
            buffers=tuple(options.buffers),
            updates=options.updates,
            learner=LearnerConfig(**given, cameras=tuple(options.cameras.split(','))),
            trainer=chosen.trainer,
            agent_options=dict(chosen.agent_options),
        )
        run = OfflineRun(with_capacity_for(settings), options.out, group)
        columns = (TextColumn('updates'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        begin, before = time.perf_counter(), run.agent.updates
        with Progress(*columns, console=Console(stderr=True), disable=not group.first) as bar:
            task = bar.add_task('', total=options.updates)
            policy = run.run(lambda done: bar.update(task, completed=done))
        meet(group)
    except (ValueError, OSError) as error:
        print(f'so101 train-offline: {error}', file=sys.stderr)
        return 1
    finally:
        leave(group)
    if group.first:
        made = run.agent.updates - before
        report = {
            'policy': str(policy),
            'transitions': len(run.buffer),
            'updates': run.agent.updates,
            'updates_per_s': round(made / max(time.perf_counter() - begin, 1e-9), 2),
            'processes': group.size,
        }
        show_report(report, str(options.out), as_json=options.json)
    return 0


if __name__ == '__main__':
    sys.exit(main())
