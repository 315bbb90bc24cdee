# SPDX-License-Identifier: Apache-2.0
"""Puts a training run together from its settings, and takes it up again where it was stopped."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from drqv2_policy_node.named_policy import find_policy, NO_POLICY
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import load_policy
from hilserl_learner.agents.common import agent_class, make_agent, refuse_old_names
from hilserl_learner.buffer_store import read_buffer, read_header
from hilserl_learner.checkpoint import Facts, to_json
from hilserl_learner.collect import Collector, demonstrate, Watcher
from hilserl_learner.errors import LearnerError
from hilserl_learner.run_dir import DEMO, mark_notes, mark_of, ONLINE, RunDirectory
from hilserl_learner.run_log import read_table, RunLog, TRAIN
from hilserl_learner.surroundings import manifest_fields
from hilserl_learner.train_run import Outcome, Progress, RunConfig, TrainRun
from hilserl_learner.trainer import agent_part, Trainer, TrainerConfig, WITH_POLICY
from so101_contract.presets import DEFAULT_OBSERVATION, get_observation
from so101_contract.transition import Transition
from so101_interfaces_py.params import describe, from_mapping
from so101_sim.env import ArmEnv
from so101_sim.envs import ENVIRONMENTS
from so101_sim.presets import get_preset, with_nominal

FREE_ON_RESUME = ('run', 'steps', 'device')
"""Settings that may differ when a run goes on."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a run.

    Attributes:
        env: id of the environment.
        preset: difficulty.
        observation: name of what is observed.
        demos: number of scripted demonstrations, or the path of a buffer.
        operator: 'scripted' or 'none'.
        agent: name of the agent.
        policy: stored policy to begin with: its path, or `default` for the one that is shipped; empty for none.
        seed: of everything.
        device: of the agent.
        agent_options: values of the agent's configuration that differ from the defaults.
        trainer: how experience becomes updates.
        run: how long, how often.
    """

    env: str = 'SO101Lift-v0'
    preset: str = 'easy'
    observation: str = DEFAULT_OBSERVATION
    demos: str = '20'
    operator: str = 'scripted'
    agent: str = 'hil'
    policy: str = ''
    seed: int = 0
    device: str = 'cpu'
    agent_options: Mapping[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @classmethod
    def with_options(cls, options: Mapping[str, str], **given: Any) -> 'Settings':
        """Return settings in which single values of agent, trainer and run are given by name, as text.

        Raises:
            LearnerError: nothing has a value of that name, or it would have no effect.
            ParameterError: the text is no value for it, or the name is one of before.
        """
        refuse_old_names(options)
        agent = str(given.get('agent', cls.agent))
        for name in WITH_POLICY.keys() & options.keys():
            if given.get('policy', cls.policy) not in NO_POLICY:
                raise LearnerError(
                    f'expected {WITH_POLICY[name]} for an agent that begins with a policy, got {name}, which has no '
                    f'effect there; set {WITH_POLICY[name]}={options[name]}'
                )
        homes = {
            'agent': agent_class(agent).config_type,
            'trainer': TrainerConfig,
            'run': RunConfig,
        }
        split: dict[str, dict[str, Any]] = {name: {} for name in homes}
        for name, text in options.items():
            owners = [home for home, kind in homes.items() if name in describe(kind)]
            if not owners:
                known = sorted(name for kind in homes.values() for name in describe(kind))
                raise LearnerError(f'expected one of the values {known}, got {name!r}; correct its name')
            split[owners[0]][name] = _parsed(homes[owners[0]], name, text)
        return cls(
            **given,
            agent_options=split['agent'],
            trainer=from_mapping(TrainerConfig, split['trainer']),
            run=from_mapping(RunConfig, split['run']),
        )

    def make_env(self) -> ArmEnv:
        """Return a new environment."""
        return make_env(self.env, self.preset, self.observation)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for a file."""
        return asdict(self)


def make_env(
    env: str,
    preset: str,
    observation: str,
    latency_s: float | None = None,
    nominal: Iterable[str] = (),
) -> ArmEnv:
    """Return the environment of that id.

    Args:
        env: its id.
        preset: difficulty.
        observation: name of what is observed.
        latency_s: from observation to action [s]; the preset's own by default.
        nominal: parts of the scene that are not the preset's, but those of the nominal scene.

    Raises:
        LearnerError: there is none with a camera of that id.
        PresetError: there is no such preset, or no such part.
    """
    known = [name for name, arguments in ENVIRONMENTS.items() if arguments.get('images', True)]
    if env not in known:
        raise LearnerError(f'expected one of the environments {known}, got {env!r}; name one of them')
    arguments = dict(ENVIRONMENTS[env])
    chosen = with_nominal(get_preset(preset, str(arguments.pop('task'))), nominal)
    if latency_s is not None:
        chosen = replace(chosen, chain=replace(chosen.chain, latency_s=latency_s))
    return ArmEnv(preset=chosen, observation=get_observation(observation), **arguments)


class Training:
    """A run with everything that belongs to it."""

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
        found = find_policy(settings.policy, settings.observation)
        policy = None if found is None else load_policy(found)
        self.agent = make_agent(
            settings.agent,
            spec,
            settings.agent_options,
            policy=policy,
            seed=settings.seed,
            device=settings.device,
        )
        trainer = settings.trainer.beginning_with(policy)
        self.trainer = Trainer(self.agent, spec, action, trainer, seed=settings.seed)
        going_on = resume and not self.directory.is_new
        if going_on:
            self.directory.require_same(settings.plain(), FREE_ON_RESUME)
        else:
            self.directory.begin(settings.plain())
        helper = None
        if settings.operator == 'scripted':
            helper = Watcher(self.env)
        self._log = RunLog(directory)
        self._collector = Collector(self.env, helper=helper, seed=settings.seed)
        self.run = TrainRun(
            self.trainer,
            self._collector,
            self._evaluation_env,
            self._log,
            settings.run,
            seed=settings.seed,
            save=self._save,
            report=report,
            keep=self._keep,
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
        fields_ = manifest_fields(self.env, self.trainer.config.std_schedule)
        name = f'{self.settings.env} {self.settings.preset}'
        return self.agent.policy(name=name, version=self.agent.updates, **fields_)

    def close(self) -> None:
        """Write everything out and free the environments."""
        self._log.close()
        self.directory.close()
        self.env.close()
        self._evaluation_env.close()

    # ---- inside ------------------------------------------------------------------------------------------

    def _demonstrate(self) -> None:
        text = self.settings.demos
        if text.isdigit():
            seed = self.settings.seed + 1_000
            for episode in demonstrate(self.env, int(text), seed=seed):
                self._add_demo(episode)
            return
        directory = Path(text)
        header = read_header(directory)
        self.env.observation_spec.require_same(header.observation, ('run', 'demonstrations'))
        for entry in read_buffer(directory):
            if isinstance(entry.output, Transition):
                self.trainer.add(entry.output, entry.stream, demo=True)
                self.directory.record(entry.output, DEMO)

    def _add_demo(self, episode: tuple[Transition, ...]) -> None:
        for transition in episode:
            self.directory.record(transition, DEMO)
            self.trainer.add(transition, DEMO, demo=True)

    def _keep(self, transition: Transition) -> None:
        self.directory.record(transition, ONLINE)

    def _save(self, name: str) -> None:
        facts = Facts(
            updates=self.agent.updates,
            env_steps=self.trainer.steps,
            episodes=self._collector.episode,
            std=self.trainer.std,
            observation_hash=self.env.observation_spec.hash,
            config=to_json(self.settings.plain()),
            notes=mark_notes(self.run.keeper.best),
        )
        self.directory.save(name, self.trainer.state_dict(), facts, self.policy(), self.agent.critics)

    def _take_up(self) -> None:
        """Go on where the last save was; transitions that came after it are learned from too."""
        for transition in self.directory.recorded(DEMO):
            self.trainer.add(transition, DEMO, demo=True)
        episode = 0
        for transition in self.directory.recorded(ONLINE):
            self.trainer.add(transition)
            episode = transition.episode
        saved = self.directory.checkpoints.load()
        if saved is not None:
            steps = self.trainer.steps
            self.trainer.load_state_dict(saved.tensors)
            self.trainer.catch_up(steps)
            best = mark_of(saved.facts.notes)
            if best is not None:
                kept = self.directory.checkpoints.load_best().tensors
                self.run.keeper.keep(best, agent_part(kept))
        self._collector.episode = episode
        lines = read_table(self.directory.path / f'{TRAIN}.csv')
        if lines:
            self.run.spent_before(float(lines[-1]['wall_s']), float(lines[-1]['cpu_s']))


def _parsed(kind: type, name: str, text: str) -> Any:
    """Return the value that a text stands for in the field of a configuration."""
    (declared,) = (item.type for item in fields(kind) if item.name == name)
    if declared is bool or declared == 'bool':
        return {'true': True, 'false': False}.get(text.lower(), text)
    for parse in (int, float):
        if declared is parse or declared == parse.__name__:
            try:
                return parse(text)
            except ValueError:
                return text
    return text
