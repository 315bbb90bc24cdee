# SPDX-License-Identifier: Apache-2.0
"""Parameters of learner_node: its own, the trainer's, and those of the agent that is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilserl_learner.agents.common import agent_class, AGENTS, refuse_old_names
from hilserl_learner.live.identity import DEFAULT_AGENT, observation_of, RunIdentity
from hilserl_learner.training.trainer import TrainerConfig
from so101_contract.action import ActionSpec
from so101_contract.manifest import StepUnit, Workspace
from so101_contract.observation_spec import (
    CONTROL_RATE_HZ,
    DEFAULT_OBSERVATION,
    OBSERVATIONS,
    ObservationSpec,
)
from so101_contract.task.files import told_task
from so101_contract.task.spec import TaskSpec
from so101_description.cameras import CAMERA_PRESETS
from so101_description.tcp import TCP_PRESETS
from so101_interfaces_py.params import check_bounds, describe, param, ParameterError
from so101_kinematics.config import KinematicsConfig

_KINEMATICS = KinematicsConfig()


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Where the learner keeps its things, what it begins with, and how often it tells."""

    directory: str = param(
        'runs/live',
        doc='Directory of the run: experience, checkpoints and logs. What is there already goes on, where it was made '
        'with the same.',
    )
    scene: str = param(
        '',
        doc='Whose experience it is: the simulated arm with task and preset, or the real one with its calibration; '
        'empty: nobody says, and what is there is not compared.',
    )
    origin: str = param('', doc='Run whose weights and experience a new run begins with; empty: none.')
    policy: str = param(
        'none',
        doc='Folder of the policy to begin with; default: the one that is shipped; none: fresh networks.',
    )
    demos: str = param('none', doc='Buffer of demonstrations that ingest wrote; none: without.')
    agent: str = param(DEFAULT_AGENT, doc='Who learns; each has parameters of its own.', choices=AGENTS)
    arms: tuple[str, ...] = param(
        ('',), doc='Namespaces of the arms to learn from, under that of this node; an empty one is its own.'
    )
    observation: str = param(
        DEFAULT_OBSERVATION, doc='What the session observes.', choices=tuple(OBSERVATIONS)
    )
    task: str = param('', doc='What is to be done: name or file of a task; empty: nobody says.')
    cameras: tuple[str, ...] = param(
        ('',), doc='Cameras that are observed; empty: those of the task, or else of the observation.'
    )
    tcp: str = param('so101', doc='Tool centre point that actions move.', choices=tuple(TCP_PRESETS))
    camera: str = param('nexus', doc='Where the wrist camera is mounted.', choices=tuple(CAMERA_PRESETS))
    action_scale_m: float = param(
        0.02, doc='Displacement for 1.0 along each axis.', unit='m', lo=0.0001, hi=0.1
    )
    control_rate_hz: float = param(CONTROL_RATE_HZ, doc='Steps per second.', unit='Hz', lo=1.0, hi=100.0)
    ik_profile: str = param(
        _KINEMATICS.profile,
        doc='Controller that executes the actions: profile of kinematics_node.',
        choices=('setpoint', 'pick101'),
    )
    workspace_min: tuple[float, float, float] = param(
        _KINEMATICS.workspace_min, doc='Lower corner of the box that the TCP stays in.', unit='m'
    )
    workspace_max: tuple[float, float, float] = param(
        _KINEMATICS.workspace_max, doc='Upper corner of the box that the TCP stays in.', unit='m'
    )
    reset_pose: tuple[float, float, float, float, float, float] = param(
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        doc='Joints at the start of an episode, for the manifest until an episode has begun.',
        unit='rad',
    )
    success_reward: float = param(
        1.0,
        doc='What a late label that makes an episode a success adds to its last reward.',
        lo=0.0,
        hi=1000.0,
    )
    failure_reward: float = param(0.0, doc='The same for a failure.', lo=-1000.0, hi=0.0)
    q_bound: float = param(
        1.0, doc='Largest return that the task gives; values above it raise an alarm.', lo=0.0, hi=1e6
    )
    pretrain_updates: int = param(
        0,
        doc='Updates on the demonstrations before the first step, on top of the wished ratio.',
        lo=0,
        hi=10**7,
    )
    publish_s: float = param(
        1.0, doc='Time between two publications of weights.', unit='s', lo=0.1, hi=3600.0
    )
    save_s: float = param(300.0, doc='Time between two checkpoints.', unit='s', lo=1.0, hi=86400.0)
    keep_checkpoints: int = param(3, doc='How many of the newest checkpoints are kept.', lo=2, hi=1000)
    log_s: float = param(10.0, doc='Time between two lines of the log.', unit='s', lo=0.5, hi=3600.0)
    sync_s: float = param(
        1.0,
        doc='Time between two syncs of new experience to the disk: what a power cut may cost. A killed process '
        'costs nothing.',
        unit='s',
        lo=0.05,
        hi=3600.0,
    )
    device: str = param('cpu', doc='Where the agent lives and frames are kept: cpu, cuda, or cuda:1.')
    threads: int = param(1, doc='Threads of torch; 0: its own choice.', lo=0, hi=256)
    yields: bool = param(
        True,
        doc='Whether training gets a core only while nothing else wants it, so that the arm does not notice.',
    )
    seed: int = param(0, doc='Of fresh networks and of sampling.', lo=0, hi=2**31 - 1)

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)

    @property
    def run(self) -> Path:
        """Directory of the run."""
        return Path(self.directory).expanduser()

    @property
    def identity(self) -> RunIdentity | None:
        """What the run is made with; None where nobody says whose experience it is."""
        return RunIdentity.of(vars(self)) if self.scene else None

    @property
    def observation_spec(self) -> ObservationSpec:
        """What the session observes."""
        return observation_of(vars(self))

    @property
    def task_spec(self) -> TaskSpec | None:
        """What is to be done; None where nobody says."""
        return told_task(self.task, self.cameras)

    @property
    def action_spec(self) -> ActionSpec:
        """What an action means."""
        return ActionSpec(translation_scale_m=(self.action_scale_m,) * 3)

    @property
    def manifest_fields(self) -> dict[str, Any]:
        """What `Policy.create` wants to know, without name, version and noise schedule."""
        return {
            'observation': self.observation_spec,
            'action': self.action_spec,
            'control_rate_hz': self.control_rate_hz,
            'ik_profile': self.ik_profile,
            'reset_pose': self.reset_pose,
            'workspace': Workspace(low=self.workspace_min, high=self.workspace_max),
            'std_unit': StepUnit.ENV_STEPS,
            'calibration_id': None,
            'source_sha256': None,
            'task': None if (task := self.task_spec) is None else task.meaning,
        }


def node_configs(given: Mapping[str, Any]) -> tuple[type, ...]:
    """Return the configurations of a learner that these parameters are given: its own, the trainer's, the agent's.

    Args:
        given: parameters by name; which agent there is says `agent`.

    Raises:
        ParameterError: a parameter has an old name, or is one of another agent.
    """
    refuse_old_names(given)
    name = given.get('agent', AGENTS[0])
    if name not in AGENTS:
        return LearnerConfig, TrainerConfig  # the first of them refuses it
    configs = (LearnerConfig, TrainerConfig, agent_class(name).config_type)
    known = [parameter for config in configs for parameter in describe(config)]
    for other in AGENTS:
        foreign = sorted((describe(agent_class(other).config_type).keys() & given.keys()) - set(known))
        if foreign:
            raise ParameterError(
                f'expected parameters of the agent {name}, which are {", ".join(describe(configs[-1]))}, got '
                f'{", ".join(foreign)} of {other}; leave that out, or set agent:={other}'
            )
    return configs
