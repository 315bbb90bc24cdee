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

from drqv2_policy_node.on_base import OnBase
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import save_policy
from hilserl_learner.data.collect import Actor, Collected, Collector, demonstrate, ScriptedOperator, World
from hilserl_learner.data.store import read_buffer, read_header
from hilserl_learner.training.checkpoint import BEST, Checkpoints, to_json
from hilserl_learner.training.evaluate import EvalScore, evaluate, Evaluation, EvalVerdict
from hilserl_learner.training.log import EVALUATION, read_table, RunLog, RunTracker, TRAIN
from hilserl_learner.training.on_base import base_run, BaseRun, load_base
from hilserl_learner.training.settings import (
    DEMO,
    FREE_ON_RESUME,
    LABELS_HUMAN,
    manifest_fields,
    ONLINE,
    RunConfig,
    RunDirectory,
    Settings,
)
from hilserl_learner.training.trainer import agent_part, make_trainer, Trainer
from so101_contract import session
from so101_contract.human_time import MadeUpSession
from so101_contract.observation import Observation
from so101_contract.task.spec import require_same_task
from so101_contract.transition import Transition
from so101_sim.human.expert import Skill

LAST, BOTH = 'last', 'both'
"""The newest policy, and the best one that acts together with a base."""


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
    """The loop of one run. `save` is called with 'best', 'both' or 'last' when there is something worth keeping.

    Attributes:
        best_alone: of the actors on top of a base, the best score alone that was no worse than the base.
    """

    def __init__(
        self,
        trainer: Trainer,
        collector: Collector,
        evaluation_env: World,
        tracker: RunTracker,
        config: RunConfig,
        *,
        seed: int = 0,
        save: Callable[[str], None] = lambda _: None,
        report: Callable[[Progress], None] = lambda _: None,
        keep: Callable[[Transition], None] = lambda _: None,
        judge_start: bool = False,
        on_base: BaseRun | None = None,
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
            on_base: the base policy that the agent learns on top of, if any.
        """
        self._on_base = on_base
        self.trainer, self.collector, self.tracker, self.config = trainer, collector, tracker, config
        self._env, self._save, self._report = evaluation_env, save, report
        self._keep, self._judge_start = keep, judge_start
        self._rng = np.random.default_rng([seed, 2])
        self._wall_s = self._cpu_s = 0.0
        self._steps_before = 0
        self.best_alone: EvalScore | None = None

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
            collected = self.collector.step(self._who_acts())
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

    def _who_acts(self) -> Actor | OnBase:
        if self._on_base is None:
            return self._act
        return self._on_base.act(self.trainer.steps, self.trainer.std)

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
        if self._on_base is not None:
            return self._evaluate_on_base(self._on_base, episodes)
        evaluation = evaluate(
            self._env, self.trainer.agent.act, episodes, after_episode=lambda _: self._show('evaluating')
        )
        verdict = self._judge(evaluation)
        self._note_evaluation(evaluation, verdict.name.lower())
        if verdict is EvalVerdict.BEST:
            self._save(BEST)
        self._save(LAST)
        return evaluation

    def _evaluate_on_base(self, on_base: BaseRun, episodes: int) -> Evaluation:
        """Evaluate base, both and actor; what is saved as the best, alone or with the base, is no worse than that."""
        standing = on_base.evaluate(
            self._env, episodes, self.trainer.steps, lambda _: self._show('evaluating')
        )
        verdict = EvalVerdict.FINE if standing.share == 0.0 else self._judge(standing.both)
        self._note_evaluation(standing.both, verdict.name.lower(), **standing.row())
        if verdict is EvalVerdict.BEST and standing.both.rate >= standing.base.rate:
            self._save(BOTH)
        if standing.actor is not None and standing.actor.rate >= standing.base.rate:
            alone = standing.actor.score(self.trainer.steps)
            if alone.better_than(self.best_alone):
                self.best_alone = alone
                self._save(BEST)
        self._save(LAST)
        return standing.both

    def _judge(self, evaluation: Evaluation) -> EvalVerdict:
        """Compare an evaluation with the best one; keep the agent, or go back to that of then."""
        best, score = self.tracker.best, evaluation.score(self.trainer.steps)
        verdict = best.judge(score)
        if verdict is EvalVerdict.BEST:
            best.keep(score, self.trainer.agent.state_dict())
        elif verdict is EvalVerdict.COLLAPSED:
            self._collapse(score)
        return verdict

    def _note_evaluation(self, evaluation: Evaluation, verdict: str, **more: float) -> None:
        low, high = evaluation.interval
        line: dict[str, float | str] = {
            **self._spent(),
            'updates': self.trainer.agent.updates,
            'episodes': evaluation.episodes,
            'success': evaluation.rate,
            'low': low,
            'high': high,
            'mean_steps': evaluation.mean_steps,
            'verdict': verdict,
            **more,
        }
        if evaluation.images is not None:
            line |= evaluation.images.row()
        self.tracker.write(EVALUATION, line)

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
        self.env, self._evaluation_env = settings.make_env(labelled=True), settings.make_env()
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
        base = load_base(settings.base, settings.observation, spec) if settings.base else None
        self.on_base = base_run(self.agent, base)
        going_on = resume and not self.directory.is_new
        if going_on:
            self.directory.require_same(settings.plain(), FREE_ON_RESUME)
        else:
            self.directory.begin(settings.plain())
        operator = None if settings.operator == 'none' else ScriptedOperator(self.env, settings.human)
        self._collector = Collector(self.env, human=operator, seed=settings.seed)
        self.human = MadeUpSession(1.0 / float(self.env.policy_fields()['control_rate_hz']))
        """Counts what the run costs a human."""
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
            keep=self._keep,
            judge_start=policy is not None,
            on_base=self.on_base,
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

    def policy(self, *, on_base: bool = False) -> Policy:
        """Return the present policy, to act alone or on top of its base."""
        fields = manifest_fields(self.env, self.trainer.config.std_schedule)
        fields |= {
            'name': f'{self.settings.env} {self.settings.preset}',
            'version': self.agent.updates,
        }
        if on_base and self.on_base is not None:
            return self.on_base.policy(**fields)
        return self.agent.policy(**fields)

    def close(self) -> None:
        """Write everything out and free the environments."""
        self.tracker.close()
        self.directory.close()
        self.env.close()
        self._evaluation_env.close()

    def _keep(self, transition: Transition) -> None:
        self._count(transition)
        self.directory.record(transition, ONLINE)

    def _count(self, transition: Transition) -> None:
        """Count what a step has cost a human, and the label that ends an episode, where a human gives it."""
        self.human.step(by_human=transition.intervened)
        if transition.terminated:
            success = transition.reward > 0.0
            labelled = self.settings.labels == LABELS_HUMAN
            outcomes = session.Outcome
            self.human.end(outcomes.SUCCESS if success else outcomes.FAILURE, labelled=labelled)
        elif transition.truncated:
            self.human.end(session.Outcome.TIME_LIMIT)

    def _demonstrate(self) -> None:
        text = self.settings.demos
        if text.isdigit():
            skill, seed = Skill.of(self.settings.human), self.settings.seed + 1_000
            # Nobody keeps a demonstration that did not succeed, whoever judges the rest.
            env = self._evaluation_env if self.settings.labels == LABELS_HUMAN else self.env
            beside = None if self.on_base is None else self.on_base.acting
            for episode in demonstrate(env, int(text), seed=seed, skill=skill, beside=beside):
                for transition in episode:
                    self._count(transition)
                    self.directory.record(transition, DEMO)
                    self.trainer.add(transition, DEMO, demo=True)
            return
        directory = Path(text)
        header = read_header(directory)
        names = ('run', 'demonstrations')
        self.env.observation_spec.require_same(header.observation, names)
        require_same_task(self.env.task_spec, header.task, names)
        for entry in read_buffer(directory):
            if isinstance(entry.output, Transition):
                self._count(entry.output)
                self.trainer.add(entry.output, entry.stream, demo=True)
                self.directory.record(entry.output, DEMO)

    def _save(self, name: str) -> None:
        """Keep the present agent and its policy as `BEST` or `LAST`."""
        self.directory.sync()
        best = self.tracker.best.score
        self.tracker.save(
            best=name in (BEST, BOTH) and self.tracker.best.score is not None,
            episodes=self._collector.episode,
            notes=to_json({} if best is None else asdict(best)),
        )
        policy = self.policy(on_base=name != BEST)
        save_policy(self.directory.path / name, policy, critics=self.agent.critics, overwrite=True)

    def _take_up(self) -> None:
        """Go on where the last save was; transitions that came after it are learned from too."""
        for transition in self.directory.recorded(DEMO):
            self._count(transition)
            self.trainer.add(transition, DEMO, demo=True)
        episode = 0
        for transition in self.directory.recorded(ONLINE):
            self._count(transition)
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
        if self.on_base is not None:
            self.run.best_alone = self.on_base.take_up(read_table(self.directory.path / f'{EVALUATION}.csv'))
        if lines:
            self.run.spent_before(float(lines[-1]['wall_s']), float(lines[-1]['cpu_s']))
