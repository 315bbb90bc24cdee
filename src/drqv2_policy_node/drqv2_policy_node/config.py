# SPDX-License-Identifier: Apache-2.0
"""Parameters of policy_node, and those that every policy's node has."""

from dataclasses import dataclass

from drqv2_policy_node.answering import Mode, Timing
from so101_contract.observation_spec import CONTROL_RATE_HZ, DEFAULT_OBSERVATION, OBSERVATIONS
from so101_description.cameras import CAMERA_PRESETS
from so101_description.tcp import TCP_PRESETS
from so101_interfaces_py.params import check_bounds, live_param, param
from so101_kinematics.config import KinematicsConfig

_KINEMATICS = KinematicsConfig()


@dataclass(frozen=True, kw_only=True)
class AnsweringConfig:
    """What a policy's node answers, in which contract, and when it rather does not."""

    mode: str = live_param(
        'eval', doc='hold: answer nothing. eval: the mean action. explore: with noise.', choices=tuple(Mode)
    )
    task: str = param('', doc='What is to be done: name or file of a task; empty: nobody says.')
    cameras: tuple[str, ...] = param(
        ('',), doc='Cameras that are observed; empty: those of the task, or else of the observation.'
    )
    observation: str = param(
        DEFAULT_OBSERVATION, doc='What the session observes.', choices=tuple(OBSERVATIONS)
    )
    tcp: str = param('so101', doc='Tool centre point that actions move.', choices=tuple(TCP_PRESETS))
    camera: str = param(
        '',
        doc='Where the wrist camera is mounted; empty: as the observation says.',
        choices=('', *CAMERA_PRESETS),
    )
    control_rate_hz: float = param(CONTROL_RATE_HZ, doc='Steps per second.', unit='Hz', lo=1.0, hi=100.0)
    ik_profile: str = param(
        _KINEMATICS.profile,
        doc='Controller that executes the actions: profile of kinematics_node.',
        choices=('setpoint', 'pick101'),
    )
    action_scale_m: float = param(
        0.02, doc='Displacement for 1.0 along each axis.', unit='m', lo=0.0001, hi=0.1
    )
    workspace_min: tuple[float, float, float] = param(
        _KINEMATICS.workspace_min,
        doc='Lower corner of the box that the TCP stays in; compared only.',
        unit='m',
    )
    workspace_max: tuple[float, float, float] = param(
        _KINEMATICS.workspace_max,
        doc='Upper corner of the box that the TCP stays in; compared only.',
        unit='m',
    )
    max_step_age_s: float = param(
        0.1, doc='A step that comes later than this is not answered.', unit='s', lo=0.01, hi=5.0
    )
    input_wait_s: float = param(
        0.08, doc='How long an input that a step names may be on its way.', unit='s', lo=0.0, hi=1.0
    )
    max_joint_age_s: float = param(
        0.1, doc='With a joint reading older than this at the step, hold.', unit='s', lo=0.01, hi=5.0
    )
    max_image_age_s: float = param(
        0.5, doc='With an image older than this at the step, hold.', unit='s', lo=0.02, hi=10.0
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)

    @property
    def timing(self) -> Timing:
        """How old things may be."""
        step, wait, joints, image = (
            round(seconds * 1e9)
            for seconds in (
                self.max_step_age_s,
                self.input_wait_s,
                self.max_joint_age_s,
                self.max_image_age_s,
            )
        )
        return Timing(step_ns=step, wait_ns=wait, joints_ns=joints, image_ns=image)


@dataclass(frozen=True, kw_only=True)
class PolicyNodeConfig(AnsweringConfig):
    """Which policy acts."""

    policy: str = param(
        'none',
        doc='Folder of the policy to begin with; default: the one that is shipped; none: wait for the learner.',
    )
    base: str = param(
        'none',
        doc='Folder of the base policy that is acted on top of, or default; server: what vla_policy_node passes on; '
        'none: no base.',
    )
    follow_learner: bool = param(True, doc='Take the weights that the learner publishes.')
    max_std: float = live_param(
        0.2, doc='Largest exploration noise in network units, whatever the schedule says.', lo=0.0, hi=1.0
    )
    seed: int = param(0, doc='Of the exploration noise.', lo=0, hi=2**31 - 1)
    torch_threads: int = param(1, doc='Threads of the network.', lo=1, hi=64)
