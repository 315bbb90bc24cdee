# SPDX-License-Identifier: Apache-2.0
"""Learning from buffers alone, without any arm: after another reward, with another agent, on a larger machine."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from drqv2_policy_node.named_policy import find_policy
from drqv2_policy_node.store import load_policy, save_policy
from hilserl_learner.agents.common import make_agent
from hilserl_learner.buffer_store import read_buffer, read_header
from hilserl_learner.checkpoint import Checkpoints, Facts, to_json
from hilserl_learner.distributed import agree, Group, share
from hilserl_learner.errors import LearnerError
from hilserl_learner.learner_config import LearnerConfig
from hilserl_learner.metrics import Meter
from hilserl_learner.replay import ReplayBuffer
from hilserl_learner.run_log import RunLog, TRAIN
from hilserl_learner.trainer import agent_part, Trainer, TrainerConfig
from so101_contract.transition import Transition

CHECKPOINTS, POLICY = 'checkpoints', 'policy'
_LOG_EVERY = 100


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
        spec, action = learner.observation_spec, learner.action_spec
        found = find_policy(learner.policy, learner.observation)
        policy = None if found is None else load_policy(found)
        device = group.device(learner.device)
        self.agent = make_agent(
            learner.agent, spec, settings.agent_options, policy=policy, seed=learner.seed, device=device
        )
        trainer = settings.trainer.beginning_with(policy)
        buffer = trainer.buffer(spec, action, is_demo=True, device=device)
        # Every process draws batches of its own.
        self.trainer = Trainer(self.agent, spec, action, trainer, demo=buffer, seed=learner.seed + group.rank)
        self._load(settings.buffers)
        self._checkpoints = Checkpoints(out / CHECKPOINTS)
        saved = self._checkpoints.load()
        if saved is not None:
            self.agent.load_state_dict(agent_part(saved.tensors))
        self._sharing = share(self.agent, group)

    @property
    def buffer(self) -> ReplayBuffer:
        """What is learned from."""
        return self.trainer.demo

    def run(self, report: Callable[[int], None] = lambda _: None) -> Path | None:
        """Make the updates; return where the policy is, in the process that wrote it."""
        log = RunLog(self.out) if self._group.first else None
        meter = Meter()
        try:
            while self.agent.updates < self.settings.updates:
                meter.add(self.trainer.step())
                updates = self.agent.updates
                report(updates)
                if log is not None and updates % _LOG_EVERY == 0:
                    log.write(TRAIN, updates, meter.take())
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
            if log is not None:
                log.close()

    def _load(self, buffers: Sequence[str]) -> None:
        for name in buffers:
            path = Path(name).expanduser()
            header = read_header(path)
            self.settings.learner.observation_spec.require_same(header.observation, ('run', 'buffer'))
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
            **learner.manifest_fields,
        )
        facts = Facts(
            updates=self.agent.updates,
            env_steps=0,
            observation_hash=learner.observation_spec.hash,
            config=to_json(
                {**asdict(learner), **asdict(self.settings.trainer), **self.settings.agent_options}
            ),
        )
        self._checkpoints.save(self.trainer.state_dict(), facts, policy)
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
