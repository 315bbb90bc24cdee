# SPDX-License-Identifier: Apache-2.0
"""What decides a run in the simulation: environment, human, agent, every value by its name; and the run's directory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
import json
from pathlib import Path
from typing import Any

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import find_policy, NO_POLICY
from hilserl_learner.agents.common import (
    agent_class,
    refuse_old_names,
    with_new_names,
)
from hilserl_learner.data.collect import World
from hilserl_learner.data.store import (
    BufferHeader,
    BufferWriter,
    Entry,
    Part,
    read_part,
    write_header,
    write_whole,
)
from hilserl_learner.errors import CheckpointError, LearnerError
from hilserl_learner.training.on_base import agent_on
from hilserl_learner.training.trainer import TrainerConfig, WITH_POLICY
from so101_contract.action import ActionSpec
from so101_contract.observation_spec import (
    DEFAULT_OBSERVATION,
    get_observation,
    OBSERVATIONS,
    ObservationSpec,
)
from so101_contract.transition import Transition
from so101_fetch.env import FetchEnv
from so101_fetch.observed import PIXELS, STATE
from so101_fetch.registration import find_arguments
from so101_interfaces_py.files import read_file
from so101_interfaces_py.params import check_bounds, describe, from_mapping, param
from so101_sim.env import ArmEnv
from so101_sim.human.labels import LabelJudge
from so101_sim.human.traits import HUMANS, Traits
from so101_sim.registration import ENVIRONMENTS
from so101_sim.scene.presets import get_preset, with_nominal

LABELS_TRUTH, LABELS_HUMAN = 'truth', 'human'

CONFIG = 'config.json'
"""File in the directory of a run that holds its settings."""

DEMO, ONLINE = 'demo', 'online'
"""Parts of its buffer."""

FREE_ON_RESUME = ('run', 'steps', 'device')
"""Settings that may differ when a run goes on."""


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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a run.

    Attributes:
        env: id of the environment.
        preset: difficulty.
        observation: name of what is observed.
        demos: number of scripted demonstrations, or the path of a buffer.
        operator: 'none', 'scripted', or what the one who helps is like: a name of `HUMANS`.
        labels: who says that the task is done in training: 'truth', or 'human', the operator by what it sees.
        agent: name of the agent.
        policy: stored policy to begin with: its path, or `default` for the one that is shipped; empty for none.
        base: stored policy to learn on top of, likewise.
        seed: of everything.
        device: of the agent.
        human: what the operator is like.
        agent_options: values of the agent's configuration that differ from the defaults.
        trainer: how experience becomes updates.
        run: how long, how often.
    """

    env: str = 'SO101Lift-v0'
    preset: str = 'easy'
    observation: str = DEFAULT_OBSERVATION
    demos: str = '20'
    operator: str = 'scripted'
    labels: str = 'truth'
    agent: str = 'hil'
    policy: str = ''
    base: str = ''
    seed: int = 0
    device: str = 'cpu'
    human: Traits = field(default_factory=Traits)
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
        agent = agent_on(str(given.get('base', cls.base)), str(given.get('agent', cls.agent)))
        given['agent'] = agent
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
            'human': Traits,
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
            human=from_mapping(
                Traits, {**_traits_of(str(given.get('operator', ''))).plain(), **split['human']}
            ),
        )

    def make_env(self, *, labelled: bool = False) -> World:
        """Return a new environment; `labelled`: one that is judged as the settings say, and not by the truth."""
        made = make_env(self.env, self.preset, self.observation)
        if labelled and self.labels == LABELS_HUMAN:
            if not isinstance(made, ArmEnv):
                raise LearnerError(
                    f'expected labels of a human for a task of our own arm, got {self.env}; use --labels truth'
                )
            preset = made.preset
            made.judge = LabelJudge(preset.task, self.human, preset.max_steps, preset.control.rate_hz)
        return made

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for a file; what older runs do not have is there only where it was chosen."""
        usual = {'base': '', 'labels': LABELS_TRUTH, 'human': Traits().plain()}
        return {name: value for name, value in asdict(self).items() if usual.get(name) != value}


def read_config(run: Path) -> dict[str, Any]:
    """Return the settings of a run, also of one that was begun when some of them had other names.

    Raises:
        CheckpointError: there are none, or they are damaged.
    """
    path = run / CONFIG
    try:
        settings = json.loads(read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f'expected the settings of a run in {path}, got {error}; restore the file'
        ) from error
    if not isinstance(settings, dict):
        raise CheckpointError(
            f'expected the settings of a run in {path}, got {settings!r:.40}; restore the file'
        )
    named = with_new_names(settings)
    if isinstance(trainer := named.get('trainer'), dict):
        # Values that came later: a run that is older than hindsight has none.
        named['trainer'] = {'hindsight': TrainerConfig.hindsight, **trainer}
    return named


class RunDirectory:
    """What a run keeps on disk, so that it can be killed at any moment and goes on.

    RUN/config.json              every setting of the run
    RUN/train.csv, ...           its log, see log
    RUN/best/, RUN/last/         policies, see drqv2_policy_node.store
    RUN/checkpoints/             agent, counters, random states, see checkpoint
    RUN/buffer/demo, online      every transition, see data.store; it is there before it is learned from
    """

    def __init__(self, path: Path, observation: ObservationSpec, action: ActionSpec) -> None:
        """Open it; nothing is written yet."""
        self.path = path
        self._observation, self._action = observation, action
        self._writers: dict[str, BufferWriter] = {}

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
        before, now = read_config(self.path), json.loads(json.dumps(config))
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

    def record(self, transition: Transition, part: str) -> None:
        """Append a transition; killing the process after this does not lose it."""
        if part not in self._writers:
            self._writers[part] = BufferWriter(self.path / 'buffer' / part)
        self._writers[part].append(Entry(part, transition))

    def recorded(self, part: str) -> Iterator[Transition]:
        """Yield the transitions of earlier lives of the run."""
        directory = self.path / 'buffer' / part
        if directory.exists():
            for entry in read_part(directory, self._observation):
                if isinstance(entry.output, Transition):
                    yield entry.output

    def sync(self) -> None:
        """Wait until every transition is on the disk."""
        for writer in self._writers.values():
            writer.sync()

    def close(self) -> None:
        """Bring everything to the disk."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def make_env(
    env: str,
    preset: str,
    observation: str,
    latency_s: float | None = None,
    nominal: Iterable[str] = (),
    *,
    reward: str | None = None,
) -> World:
    """Return the environment of that id.

    Args:
        env: its id, or the name or file of a task.
        preset: difficulty.
        observation: name of what is observed.
        latency_s: from observation to action [s]; the preset's own by default.
        nominal: parts of the scene that are not the preset's, but those of the nominal scene.
        reward: name of a reward; the environment's own by default.

    Raises:
        LearnerError: there is none with a camera of that id, or it has no such difficulty.
        PresetError: there is no such preset, or no such part.
    """
    nominal = tuple(nominal)
    if is_fetch(env):
        if preset != Settings.preset or latency_s is not None or nominal:
            raise LearnerError(
                f'expected the preset {Settings.preset!r} for {env}, without latency and nominal parts, got '
                f'{preset!r}, {latency_s} and {list(nominal)}; the Fetch environments are as they were published'
            )
        return FetchEnv(**find_arguments(env), observation=observation, reward=reward or 'sparse')
    known = [name for name, arguments in ENVIRONMENTS.items() if arguments.get('images', True)]
    if env.startswith('SO101') and env not in known:
        raise LearnerError(f'expected one of the environments {known}, got {env!r}; name one of them')
    arguments = dict(ENVIRONMENTS.get(env, {'task': env}))
    chosen = with_nominal(get_preset(preset, str(arguments.pop('task'))), nominal)
    if latency_s is not None:
        chosen = replace(chosen, control=replace(chosen.control, latency_s=latency_s))
    return ArmEnv(preset=chosen, observation=get_observation(observation), reward=reward, **arguments)


def _traits_of(operator: str) -> Traits:
    """Return what an operator of that name is like."""
    return HUMANS.get(operator, Traits())


def is_fetch(env: str) -> bool:
    """Return whether an environment is of the Fetch robot, by its id."""
    return env.startswith('Fetch')


def stored(name: str) -> Path:
    """Return the folder of a policy: `default` is the one that is shipped."""
    return find_policy(name, DEFAULT_OBSERVATION) or Path(name)


def default_observation(env: str) -> str:
    """Return the name of what is observed in an environment where nothing is said."""
    return STATE if is_fetch(env) else DEFAULT_OBSERVATION


def observation_name(policy: Policy, env: str = Settings.env) -> str:
    """Return the name of the observation that a policy takes, of those that an environment gives.

    Raises:
        LearnerError: it takes one without a name.
    """
    if is_fetch(env):
        return PIXELS if policy.manifest.observation.cameras else STATE
    for name in OBSERVATIONS:
        if not get_observation(name).diff(policy.manifest.observation):
            return name
    raise LearnerError(
        f'expected a policy that observes one of {sorted(OBSERVATIONS)}, got another observation; the environments '
        f'here cannot give it what it sees'
    )


def manifest_fields(env: World, std_schedule: str) -> dict[str, Any]:
    """Return the fields of `Policy.create` that an environment decides; name, version and hashes are left."""
    return {
        'observation': env.observation_spec,
        'action': env.action_spec,
        'std_schedule': std_schedule,
        **env.policy_fields(),
    }


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
