# SPDX-License-Identifier: Apache-2.0
"""What decides a run in the simulation: environment, human, agent, every value by its name; and the run's directory."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
import json
from pathlib import Path
from typing import Any

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import NO_POLICY
from hilserl_learner.agents.common import (
    agent_class,
    refuse_old_names,
    with_new_names,
)
from hilserl_learner.data.store import (
    BufferHeader,
    BufferWriter,
    Entry,
    Part,
    PartReader,
    write_header,
    write_whole,
)
from hilserl_learner.errors import CheckpointError, LearnerError
from hilserl_learner.training.trainer import TrainerConfig, WITH_POLICY
from so101_contract.action import ActionSpec
from so101_contract.manifest import StepUnit, Workspace
from so101_contract.observation_spec import (
    DEFAULT_OBSERVATION,
    get_observation,
    OBSERVATIONS,
    ObservationSpec,
)
from so101_contract.transition import Transition
from so101_interfaces_py.params import check_bounds, describe, from_mapping, param
from so101_sim.env import ArmEnv
from so101_sim.registration import ENVIRONMENTS
from so101_sim.scene.presets import get_preset, with_nominal

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


def read_config(run: Path) -> dict[str, Any]:
    """Return the settings of a run, also of one that was begun when some of them had other names."""
    return with_new_names(json.loads((run / CONFIG).read_text()))


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
            for entry in PartReader(directory, self._observation).poll():
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
        chosen = replace(chosen, control=replace(chosen.control, latency_s=latency_s))
    return ArmEnv(preset=chosen, observation=get_observation(observation), **arguments)


def observation_name(policy: Policy) -> str:
    """Return the name of the observation that a policy takes.

    Raises:
        LearnerError: it takes one without a name.
    """
    for name in OBSERVATIONS:
        if not get_observation(name).diff(policy.manifest.observation):
            return name
    raise LearnerError(
        f'expected a policy that observes one of {sorted(OBSERVATIONS)}, got another observation; the environments '
        f'here cannot give it what it sees'
    )


def manifest_fields(env: ArmEnv, std_schedule: str) -> dict[str, Any]:
    """Return the fields of `Policy.create` that an environment decides; name, version and hashes are left."""
    control, home = env.preset.control, env.home
    box = control.kinematics.workspace
    low, high = ((float(x), float(y), float(z)) for x, y, z in (box.lower, box.upper))
    return {
        'observation': env.observation_spec,
        'action': env.action_spec,
        'control_rate_hz': control.rate_hz,
        'ik_profile': control.kinematics.profile,
        'reset_pose': tuple(float(angle) for angle in home),
        'workspace': Workspace(low=low, high=high),
        'std_schedule': std_schedule,
        'std_unit': StepUnit.ENV_STEPS,
        'calibration_id': None,
        'source_sha256': None,
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
