# SPDX-License-Identifier: Apache-2.0
"""Training in one process: an environment, a policy in it, a scripted person beside it, and the trainer behind it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
import json
import logging
from pathlib import Path
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from drqv2_policy_node.networks import Critic
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import save_policy
from hilserl_learner.data.collect import Collected, Collector
from hilserl_learner.data.store import (
    BufferHeader,
    BufferWriter,
    Entry,
    Part,
    PartReader,
    write_header,
    write_whole,
)
from hilserl_learner.errors import CheckpointError
from hilserl_learner.training.checkpoint import Checkpoints, Metadata, to_json
from hilserl_learner.training.evaluate import BestCheckpoint, EvalScore, evaluate, Evaluation, EvalVerdict
from hilserl_learner.training.log import (
    EpisodeMeter,
    EPISODES,
    EVALUATION,
    InterventionAdvice,
    Meter,
    RunLog,
    TRAIN,
    ValueAlarm,
)
from hilserl_learner.training.trainer import Trainer
from so101_contract.action import ActionSpec
from so101_contract.observation import Observation
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import Transition
from so101_interfaces_py.params import check_bounds, param
from so101_sim.env import ArmEnv

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long a run is and how often it is looked at."""

    steps: int = param(6000, doc='Environment steps of the run.', lo=1, hi=100_000_000)
    log_every: int = param(250, doc='Environment steps between two lines of the log.', lo=1, hi=1_000_000)
    eval_every: int = param(
        1000, doc='Environment steps between two evaluations; 0 for none.', lo=0, hi=10_000_000
    )
    eval_episodes: int = param(20, doc='Episodes of an evaluation during the run.', lo=1, hi=10_000)
    final_episodes: int = param(100, doc='Episodes of the last evaluation; 0 for none.', lo=0, hi=100_000)
    rollback: bool = param(
        True, doc='Go back to the best agent where an evaluation is certainly worse than the best one.'
    )
    q_bound: float = param(
        1.0, doc='Largest return that the task gives; values above it raise an alarm.', lo=0.0, hi=1e6
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows.

    Attributes:
        steps: environment steps so far.
        total: steps of the run.
        success: rate over the last episodes, helped or not.
        unaided: rate of those in which nobody helped.
        steps_per_s: speed [1/s].
        note: what is going on: training, or an evaluation.
    """

    steps: int
    total: int
    success: float
    unaided: float
    steps_per_s: float
    note: str = ''


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        evaluation: the last one; None where none was wanted.
        wall_s: time spent collecting and learning, without evaluations [s].
        cpu_s: of that, time that this process had a core: what it takes on a machine of its own [s].
        episodes: episodes of training.
        alarms: sentences to show, each once.
    """

    evaluation: Evaluation | None
    wall_s: float
    cpu_s: float
    episodes: int
    alarms: tuple[str, ...]


class TrainRun:
    """One run. `save` is called with 'best' or 'last' when there is something worth keeping."""

    def __init__(
        self,
        trainer: Trainer,
        collector: Collector,
        evaluation_env: ArmEnv,
        log: RunLog,
        config: RunConfig,
        *,
        seed: int = 0,
        save: Callable[[str], None] = lambda _: None,
        report: Callable[[Progress], None] = lambda _: None,
        keep: Callable[[Transition], None] = lambda _: None,
        judge_start: bool = False,
    ) -> None:
        """Prepare.

        Args:
            trainer: learns.
            collector: acts.
            evaluation_env: where the policy is tried; not the collector's, which is in the middle of an episode.
            log: takes the numbers.
            config: how long, how often.
            seed: of the exploration.
            save: keeps the present agent under a name.
            report: shows how it goes.
            keep: keeps each transition before it is learned from.
            judge_start: evaluate before the first step too: what the run begins with is the best one until beaten.
        """
        self.trainer, self.collector, self.config = trainer, collector, config
        self.keeper, self.episodes = BestCheckpoint(), EpisodeMeter()
        self.alarms: dict[str, None] = {}
        self._env, self._log, self._save, self._report = evaluation_env, log, save, report
        self._keep, self._judge_start = keep, judge_start
        self._rng = np.random.default_rng([seed, 2])
        self._meter, self._values, self._advice = Meter(), ValueAlarm(config.q_bound), InterventionAdvice()
        self._wall_s = self._cpu_s = 0.0
        self._steps_before = 0

    @property
    def speed(self) -> float:
        """Environment steps a second so far, updates included [1/s]."""
        return (self.collector.steps + self._steps_before) / max(self._wall_s, 1e-9)

    def spent_before(self, wall_s: float, cpu_s: float) -> None:
        """Count the time that earlier lives of the run have taken [s]."""
        self._wall_s, self._cpu_s = wall_s, cpu_s
        self._steps_before = self.trainer.steps

    def run(self) -> Outcome:
        """Train until the steps are made; a run that goes on makes the rest of them."""
        trainer, config = self.trainer, self.config
        if self._judge_start and config.eval_every and trainer.steps == 0:
            self._evaluate(config.eval_episodes)
        while trainer.steps < config.steps:
            start, cpu = time.perf_counter(), time.process_time()
            collected = self.collector.step(self._act)
            self._keep(collected.transition)
            trainer.add(collected.transition)
            while trainer.ready and trainer.owed >= 1.0:
                self._meter.add(trainer.step())
            self._wall_s += time.perf_counter() - start
            self._cpu_s += time.process_time() - cpu
            self._note_episode(collected)
            if trainer.steps % config.log_every == 0:
                self._write_line()
            if config.eval_every and trainer.steps % config.eval_every == 0:
                self._evaluate(config.eval_episodes)
        final = self._evaluate(config.final_episodes) if config.final_episodes else None
        self._save('last')
        return Outcome(final, self._wall_s, self._cpu_s, self.episodes.episodes, tuple(self.alarms))

    def _act(self, observation: Observation) -> npt.NDArray[np.floating[Any]]:
        return self.trainer.agent.act(observation, std=self.trainer.std, rng=self._rng)

    def _note_episode(self, collected: Collected) -> None:
        result = collected.result
        if result is None:
            return
        self.episodes.add(result)
        self._log.write(
            EPISODES,
            self.trainer.steps,
            {
                'episode': result.episode,
                'success': int(result.success),
                'episode_steps': result.steps,
                'return': result.reward,
                'intervened': result.intervened,
                'takeovers': result.takeovers,
            },
        )
        self._show()

    def _write_line(self) -> None:
        rates, means = self.episodes.rates(), self._meter.take()
        line = {
            'wall_s': round(self._wall_s, 1),
            'cpu_s': round(self._cpu_s, 1),
            'episodes': self.episodes.episodes,
            **rates,
            'std': self.trainer.std,
            'updates': self.trainer.agent.updates,
            'utd': self.trainer.utd,
            'demo_transitions': len(self.trainer.demo),
            'online_transitions': len(self.trainer.online),
            **means,
        }
        self._log.write(TRAIN, self.trainer.steps, line)
        self._warn(self._values.update(means['q_mean']) if 'q_mean' in means else '')
        self._warn(self._advice.update(rates, self.episodes.episodes))

    def _evaluate(self, episodes: int) -> Evaluation:
        agent, step = self.trainer.agent, self.trainer.steps
        evaluation = evaluate(
            self._env, agent.act, episodes, after_episode=lambda _: self._show('evaluating')
        )
        low, high = evaluation.interval
        mark = EvalScore(evaluation.successes, evaluation.episodes, evaluation.mean_steps, step)
        verdict = self.keeper.judge(mark)
        line: dict[str, float | str] = {
            'wall_s': round(self._wall_s, 1),
            'cpu_s': round(self._cpu_s, 1),
            'updates': agent.updates,
            'episodes': evaluation.episodes,
            'success': evaluation.rate,
            'low': low,
            'high': high,
            'mean_steps': evaluation.mean_steps,
            'verdict': verdict.name.lower(),
        }
        if evaluation.images is not None:
            for name, colour in zip('rgb', range(3), strict=True):
                line[f'image_mean_{name}'] = evaluation.images.mean[colour]
                line[f'image_std_{name}'] = evaluation.images.std[colour]
        self._log.write(EVALUATION, step, line)
        if verdict is EvalVerdict.BEST:
            self.keeper.keep(mark, agent.state_dict())
            self._save('best')
        elif verdict is EvalVerdict.COLLAPSED:
            self._collapse(mark)
        self._save('last')
        return evaluation

    def _collapse(self, mark: EvalScore) -> None:
        best = self.keeper.best
        assert best is not None
        said = f'success fell from {best.rate:.0%} at step {best.step} to {mark.rate:.0%} at step {mark.step}'
        if not self.config.rollback:
            self._warn(f'{said}; go back to the best policy, or set rollback')
            return
        if best.step == 0:
            self._warn(f'{said}; the run goes on, since its critics knew nothing then')
            return
        self.trainer.go_back(self.keeper.state)
        self._warn(f'{said}; the agent of step {best.step} goes on')

    def _warn(self, sentence: str) -> None:
        if sentence and sentence not in self.alarms:
            self.alarms[sentence] = None
            _log.warning(sentence)
            self._log.text('alarm', f'step {self.trainer.steps}: {sentence}')

    def _show(self, note: str = '') -> None:
        rates = self.episodes.rates()
        self._report(
            Progress(
                self.trainer.steps, self.config.steps, rates['success'], rates['unaided'], self.speed, note
            )
        )


BEST, LAST = 'best', 'last'
DEMO, ONLINE = 'demo', 'online'
CONFIG = 'config.json'


class RunDirectory:
    """The directory of one run."""

    def __init__(self, path: Path, observation: ObservationSpec, action: ActionSpec) -> None:
        """Open it; nothing is written yet."""
        self.path = path
        self._observation, self._action = observation, action
        self._writers: dict[str, BufferWriter] = {}
        self.checkpoints = Checkpoints(path / 'checkpoints')

    @property
    def is_new(self) -> bool:
        """Whether no run has begun there."""
        return not (self.path / CONFIG).exists()

    def begin(self, config: Mapping[str, Any]) -> None:
        """Begin a run.

        Raises:
            CheckpointError: there is one already.
        """
        if not self.is_new:
            raise CheckpointError(
                f'expected a directory without a run at {self.path}, got one with a {CONFIG}; add --resume to go '
                f'on with it, or name another directory'
            )
        self.path.mkdir(parents=True, exist_ok=True)
        header = BufferHeader(
            observation=self._observation, action=self._action, parts=(Part(name=DEMO), Part(name=ONLINE))
        )
        write_header(self.path / 'buffer', header)
        write_whole(self.path / CONFIG, json.dumps(config, indent=2, sort_keys=True).encode() + b'\n')

    def require_same(self, config: Mapping[str, Any], free: tuple[str, ...]) -> None:
        """Refuse to go on with a run that was begun with other settings.

        Args:
            config: the settings now.
            free: settings that may change, such as the number of steps.

        Raises:
            CheckpointError: with every difference.
        """
        before = json.loads((self.path / CONFIG).read_text())
        now = json.loads(json.dumps(config))
        lines = [
            f'{name}: {before.get(name)!r} before, {now.get(name)!r} now'
            for name in sorted(before.keys() | now.keys())
            if name not in free and before.get(name) != now.get(name)
        ]
        if lines:
            raise CheckpointError(
                'expected the settings that the run was begun with, got the differences below; use the same '
                'ones, or another directory:\n  ' + '\n  '.join(lines)
            )

    # ---- transitions -------------------------------------------------------------------------------------

    def record(self, transition: Transition, part: str) -> None:
        """Append a transition; killing the process after this does not lose it."""
        if part not in self._writers:
            self._writers[part] = BufferWriter(self.path / 'buffer' / part)
        self._writers[part].append(Entry(part, transition))

    def recorded(self, part: str) -> Iterator[Transition]:
        """Yield the transitions of earlier lives of the run."""
        directory = self.path / 'buffer' / part
        if not directory.exists():
            return
        for entry in PartReader(directory, self._observation).poll():
            if isinstance(entry.output, Transition):
                yield entry.output

    # ---- agents ------------------------------------------------------------------------------------------

    def save(
        self,
        name: str,
        state: Mapping[str, Tensor],
        facts: Metadata,
        policy: Policy,
        critics: tuple[Critic, Critic] | None = None,
    ) -> None:
        """Write a checkpoint and its policy.

        Args:
            name: `BEST` or `LAST`.
            state: of the trainer.
            facts: counters and notes.
            policy: what acts.
            critics: of the policy, and their targets, for a run that begins with it.
        """
        for writer in self._writers.values():
            writer.sync()
        write = self.checkpoints.save_best if name == BEST else self.checkpoints.save
        write(state, facts)
        save_policy(self.path / name, policy, critics=critics, overwrite=True)

    def close(self) -> None:
        """Bring everything to the disk."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def mark_notes(mark: EvalScore | None) -> str:
    """Return an evaluation as notes of a checkpoint."""
    return to_json({} if mark is None else asdict(mark))


def mark_of(notes: str) -> EvalScore | None:
    """Return the evaluation in the notes of a checkpoint."""
    values = json.loads(notes)
    return EvalScore(**values) if values else None
