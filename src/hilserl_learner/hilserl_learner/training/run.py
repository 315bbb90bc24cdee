# SPDX-License-Identifier: Apache-2.0
"""Training in one process: an environment, a policy in it, a scripted operator beside it, and the trainer behind it.

A run may be killed at any moment and goes on from what its directory holds, see `RunDirectory`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
import json
from pathlib import Path
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import save_policy
from hilserl_learner.data.collect import Collected, Collector, demonstrate, ScriptedOperator
from hilserl_learner.data.store import read_buffer, read_header
from hilserl_learner.training.checkpoint import BEST, Checkpoints, to_json
from hilserl_learner.training.evaluate import EvalScore, evaluate, Evaluation, EvalVerdict
from hilserl_learner.training.log import EVALUATION, read_table, RunLog, RunTracker, TRAIN
from hilserl_learner.training.settings import (
    DEMO,
    FREE_ON_RESUME,
    manifest_fields,
    ONLINE,
    RunConfig,
    RunDirectory,
    Settings,
)
from hilserl_learner.training.trainer import agent_part, make_trainer, Trainer
from so101_contract.observation import Observation
from so101_contract.transition import Transition
from so101_sim.env import ArmEnv

LAST = 'last'


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows.

    Attributes:
        steps: environment steps so far.
        success: rate over the last episodes, helped or not.
        unaided: rate of those in which nobody helped.
        steps_per_s: speed [1/s].
        note: what is going on: training, or an evaluation.
    """

    steps: int
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
    """The loop of one run. `save` is called with 'best' or 'last' when there is something worth keeping."""

    def __init__(
        self,
        trainer: Trainer,
        collector: Collector,
        evaluation_env: ArmEnv,
        tracker: RunTracker,
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
            tracker: takes the numbers.
            config: how long, how often.
            seed: of the exploration.
            save: keeps the present agent under a name.
            report: shows how it goes.
            keep: keeps each transition before it is learned from.
            judge_start: evaluate before the first step too: what the run begins with is the best one until beaten.
        """
        self.trainer, self.collector, self.tracker, self.config = trainer, collector, tracker, config
        self._env, self._save, self._report = evaluation_env, save, report
        self._keep, self._judge_start = keep, judge_start
        self._rng = np.random.default_rng([seed, 2])
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
                self.tracker.update()
            self._wall_s += time.perf_counter() - start
            self._cpu_s += time.process_time() - cpu
            self._note_episode(collected)
            if trainer.steps % config.log_every == 0:
                self._note_progress()
            if config.eval_every and trainer.steps % config.eval_every == 0:
                self._evaluate(config.eval_episodes)
        final = self._evaluate(config.final_episodes) if config.final_episodes else None
        self._save(LAST)
        alarms, episodes = tuple(self.tracker.alarms), self.tracker.episodes.episodes
        return Outcome(final, self._wall_s, self._cpu_s, episodes, alarms)

    def _act(self, observation: Observation) -> npt.NDArray[np.floating[Any]]:
        return self.trainer.agent.act(observation, std=self.trainer.std, rng=self._rng)

    def _note_episode(self, collected: Collected) -> None:
        if collected.result is not None:
            self.tracker.episodes.add(collected.result)
            self.tracker.note_episode(collected.result)
            self._show()

    def _spent(self) -> dict[str, float]:
        return {'wall_s': round(self._wall_s, 1), 'cpu_s': round(self._cpu_s, 1)}

    def _note_progress(self) -> None:
        trainer, episodes = self.trainer, self.tracker.episodes
        self.tracker.note_progress(
            {
                **self._spent(),
                'episodes': episodes.episodes,
                **episodes.rates(),
                'std': trainer.std,
                'updates': trainer.agent.updates,
                'utd': trainer.utd,
                'demo_transitions': len(trainer.demo),
                'online_transitions': len(trainer.online),
            }
        )

    def _evaluate(self, episodes: int) -> Evaluation:
        agent, best = self.trainer.agent, self.tracker.best
        evaluation = evaluate(
            self._env, agent.act, episodes, after_episode=lambda _: self._show('evaluating')
        )
        low, high = evaluation.interval
        score = evaluation.score(self.trainer.steps)
        verdict = best.judge(score)
        line: dict[str, float | str] = {
            **self._spent(),
            'updates': agent.updates,
            'episodes': evaluation.episodes,
            'success': evaluation.rate,
            'low': low,
            'high': high,
            'mean_steps': evaluation.mean_steps,
            'verdict': verdict.name.lower(),
        }
        if evaluation.images is not None:
            line |= evaluation.images.row()
        self.tracker.write(EVALUATION, line)
        if verdict is EvalVerdict.BEST:
            best.keep(score, agent.state_dict())
            self._save(BEST)
        elif verdict is EvalVerdict.COLLAPSED:
            self._collapse(score)
        self._save(LAST)
        return evaluation

    def _collapse(self, score: EvalScore) -> None:
        best, warn = self.tracker.best.score, self.tracker.warn
        assert best is not None
        said = (
            f'success fell from {best.rate:.0%} at step {best.step} to {score.rate:.0%} at step {score.step}'
        )
        if not self.config.rollback:
            warn(f'{said}; go back to the best policy, or set rollback')
            return
        if best.step == 0:
            warn(f'{said}; the run goes on, since its critics knew nothing then')
            return
        self.trainer.go_back(self.tracker.best.state)
        warn(f'{said}; the agent of step {best.step} goes on')

    def _show(self, note: str = '') -> None:
        rates, steps = self.tracker.episodes.rates(), self.trainer.steps
        self._report(Progress(steps, rates['success'], rates['unaided'], self.speed, note))


class Training:
    """A run with everything that belongs to it, put together from its settings, or taken up where it was stopped."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        *,
        resume: bool = False,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Build everything; demonstrations are made, or read, here.

        Args:
            settings: of the run.
            directory: of the run.
            resume: go on with the run that is there; an empty directory begins one.
            report: shows how it goes.
        """
        self.settings = settings
        self.env, self._evaluation_env = settings.make_env(), settings.make_env()
        spec, action = self.env.observation_spec, self.env.action_spec
        self.directory = RunDirectory(directory, spec, action)
        self.trainer, policy = make_trainer(
            settings.agent,
            settings.agent_options,
            settings.trainer,
            (spec, action),
            policy=settings.policy,
            observation=settings.observation,
            seed=settings.seed,
            device=settings.device,
        )
        self.agent = self.trainer.agent
        going_on = resume and not self.directory.is_new
        if going_on:
            self.directory.require_same(settings.plain(), FREE_ON_RESUME)
        else:
            self.directory.begin(settings.plain())
        operator = ScriptedOperator(self.env) if settings.operator == 'scripted' else None
        self._collector = Collector(self.env, human=operator, seed=settings.seed)
        self.tracker = RunTracker(
            self.trainer,
            RunLog(directory),
            Checkpoints(directory / 'checkpoints'),
            config=settings.plain(),
            q_bound=settings.run.q_bound,
        )
        self.run = TrainRun(
            self.trainer,
            self._collector,
            self._evaluation_env,
            self.tracker,
            settings.run,
            seed=settings.seed,
            save=self._save,
            report=report,
            keep=lambda transition: self.directory.record(transition, ONLINE),
            judge_start=policy is not None,
        )
        if going_on:
            self._take_up()
        else:
            self._demonstrate()

    def train(self) -> Outcome:
        """Run to the end."""
        try:
            return self.run.run()
        finally:
            self.close()

    def policy(self) -> Policy:
        """Return the present policy."""
        fields = manifest_fields(self.env, self.trainer.config.std_schedule)
        name = f'{self.settings.env} {self.settings.preset}'
        return self.agent.policy(name=name, version=self.agent.updates, **fields)

    def close(self) -> None:
        """Write everything out and free the environments."""
        self.tracker.close()
        self.directory.close()
        self.env.close()
        self._evaluation_env.close()

    def _demonstrate(self) -> None:
        text = self.settings.demos
        if text.isdigit():
            for episode in demonstrate(self.env, int(text), seed=self.settings.seed + 1_000):
                for transition in episode:
                    self.directory.record(transition, DEMO)
                    self.trainer.add(transition, DEMO, demo=True)
            return
        directory = Path(text)
        header = read_header(directory)
        self.env.observation_spec.require_same(header.observation, ('run', 'demonstrations'))
        for entry in read_buffer(directory):
            if isinstance(entry.output, Transition):
                self.trainer.add(entry.output, entry.stream, demo=True)
                self.directory.record(entry.output, DEMO)

    def _save(self, name: str) -> None:
        """Keep the present agent and its policy as `BEST` or `LAST`."""
        self.directory.sync()
        best = self.tracker.best.score
        self.tracker.save(
            best=name == BEST,
            episodes=self._collector.episode,
            notes=to_json({} if best is None else asdict(best)),
        )
        save_policy(self.directory.path / name, self.policy(), critics=self.agent.critics, overwrite=True)

    def _take_up(self) -> None:
        """Go on where the last save was; transitions that came after it are learned from too."""
        for transition in self.directory.recorded(DEMO):
            self.trainer.add(transition, DEMO, demo=True)
        episode = 0
        for transition in self.directory.recorded(ONLINE):
            self.trainer.add(transition)
            episode = transition.episode
        checkpoints = self.tracker.checkpoints
        saved = checkpoints.load()
        if saved is not None:
            steps = self.trainer.steps
            self.trainer.load_state_dict(saved.tensors)
            self.trainer.catch_up(steps)
            if best := json.loads(saved.metadata.notes):
                self.tracker.best.keep(EvalScore(**best), agent_part(checkpoints.load_best().tensors))
        self._collector.episode = episode
        lines = read_table(self.directory.path / f'{TRAIN}.csv')
        if lines:
            self.run.spent_before(float(lines[-1]['wall_s']), float(lines[-1]['cpu_s']))
