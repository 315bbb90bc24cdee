# SPDX-License-Identifier: Apache-2.0
"""Parameters of session_node."""

from dataclasses import dataclass
import math

from so101_contract.config import LONG_INTERVENTION_STEPS
from so101_contract.errors import TaskError
from so101_contract.observation_spec import CONTROL_RATE_HZ, DEFAULT_OBSERVATION, OBSERVATIONS
from so101_contract.task.reward import RewardSource, sources_of
from so101_contract.task_report import AtPoint
from so101_description.tcp import TCP_PRESETS
from so101_interfaces_py.params import check_bounds, param, ParameterError
from so101_kinematics.config import KinematicsConfig

START = AtPoint()
"""Where episodes begin unless a task or a parameter says otherwise."""


RETRY_S = 3.0
"""A reset that got stuck is tried again after this time."""

FAREWELL_S = 1.5
"""Time between the last event and the end of the node, for those who listen."""

PATIENCE_S = 1.0
"""An episode that nobody drives is not spoken of before this time."""

PAUSED = 'paused; the arm holds until you press Pause again'


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """The control clock, who may drive, and what an episode is."""

    task: str = param(
        '',
        doc='What is to be done: name or file of a task; empty: nothing is said, and the parameters decide.',
    )
    cameras: tuple[str, ...] = param(
        ('',), doc='Cameras that are observed; empty: those of the task, or else of the observation.'
    )
    rate_hz: float = param(CONTROL_RATE_HZ, doc='Steps per second.', unit='Hz', lo=1.0, hi=50.0)
    observation: str = param(
        DEFAULT_OBSERVATION, doc='What policy and learner see.', choices=tuple(OBSERVATIONS)
    )
    tcp: str = param('so101', doc='Tool centre point that actions move.', choices=tuple(TCP_PRESETS))
    action_scale_m: float = param(
        0.02,
        doc='Largest displacement of one step along an axis; a human is cut to it too.',
        unit='m',
        lo=0.001,
        hi=0.1,
    )
    image_stamps: str = param(
        'camera_info',
        doc='Where the stamps of images are learned from: camera_info, or image for a camera without it.',
        choices=('camera_info', 'image'),
    )
    camera_timeout_s: float = param(
        0.5, doc='Without a newer image than this the episode is cut short.', unit='s', lo=0.05, hi=10.0
    )
    joint_timeout_s: float = param(
        0.3,
        doc='Without newer joint_states, or a sign of kinematics_node, the episode is cut short.',
        unit='s',
        lo=0.02,
        hi=10.0,
    )

    episodes: int = param(
        0, doc='The node ends after so many episodes that count; 0: no end.', lo=0, hi=1_000_000
    )
    auto: bool = param(True, doc='Begin the next episode by itself; false: wait for session/start_episode.')
    autostart: bool = param(
        False,
        doc='Begin the first episode too without Start, beside an arm that switches itself on and has not moved yet; '
        'after a stop Start is needed in any case.',
    )
    time_limit_steps: int = param(
        0,
        doc='Actions of an episode; 0: the limit of the simulated task, else that of the task, else 100.',
        lo=0,
        hi=100_000,
    )
    reward_source: str = param(
        'operator',
        doc='Who says that the task is done, beside session/end_episode: operator (nobody), sim (the ground truth of '
        'the twin), classifier, gripper, or several with commas between, which must agree.',
    )
    put_back: bool = param(
        False,
        doc='After an episode the arm puts the object back by itself, where the task says how; a human is asked only '
        'where it cannot.',
    )
    simulated: bool = param(
        False, doc='The scene is that of the twin, which arranges it anew (sim/reset) before each episode.'
    )
    success_reward: float = param(1.0, doc='What a success adds to the last reward.', lo=-1000.0, hi=1000.0)
    failure_reward: float = param(0.0, doc='What a failure adds to the last reward.', lo=-1000.0, hi=1000.0)
    step_reward: float = param(0.0, doc='Reward of every step.', lo=-1000.0, hi=1000.0)
    no_answer_s: float = param(
        3.0,
        doc='An episode whose policy has not answered for this long is cut short.',
        unit='s',
        lo=0.2,
        hi=600.0,
    )

    stall_steps: int = param(
        5,
        doc='A control clock that is later than so many steps has stood still: the episode is cut short.',
        lo=2,
        hi=1000,
    )
    auto_takeover: bool = param(True, doc='Whoever sends teleop/ee_delta takes over, without asking.')
    give_back_s: float = param(
        0.0,
        doc='A human that took over without asking and is silent for this long gives back; 0: never.',
        unit='s',
        lo=0.0,
        hi=60.0,
    )
    teleop_timeout_s: float = param(
        0.3,
        doc='A human that is silent for longer no longer drives: the arm holds.',
        unit='s',
        lo=0.05,
        hi=5.0,
    )
    long_intervention_steps: int = param(
        LONG_INTERVENTION_STEPS, doc='An intervention of more steps in a row is warned of.', lo=1, hi=100_000
    )
    dwell_steps: int = param(3, doc='An intervention lasts at least so many steps.', lo=1, hi=100)
    gripper_ramp: float = param(
        0.2, doc='After a hand-over the opening changes by no more than this in a step.', lo=0.01, hi=1.0
    )
    gripper_ramp_steps: int = param(
        5, doc='For so many steps after a hand-over the opening is ramped.', lo=0, hi=100
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)
        try:
            sources_of(self.reward_source)
        except TaskError as error:
            raise ParameterError(f'reward_source: {error}') from error

    @property
    def arranges_scene(self) -> bool:
        """Whether the scene is arranged anew by the twin, and not by a human."""
        return self.simulated or RewardSource.SIM in sources_of(self.reward_source)

    @property
    def period_s(self) -> float:
        """Length of a step [s]."""
        return 1.0 / self.rate_hz


@dataclass(frozen=True, kw_only=True)
class ResetConfig:
    """How the arm comes back to where episodes begin."""

    reset_step_deg: float = param(
        8.0,
        doc='Largest motion of a joint in a tenth of a second on the way back.',
        unit='deg',
        lo=0.5,
        hi=10.0,
    )
    reset_tolerance_m: float = param(
        0.015, doc='Distance from the start that counts as there.', unit='m', lo=0.002, hi=0.1
    )
    reset_timeout_s: float = param(
        12.0, doc='A way back that takes longer is reported as stuck.', unit='s', lo=1.0, hi=120.0
    )
    safe_height_m: float = param(
        0.085, doc='The TCP rises to this height before it goes sideways.', unit='m', lo=0.0, hi=0.4
    )
    start_from: str = param(
        'auto',
        doc='Where episodes begin. parameters: those below. auto: as the simulated task says, or the task, else those '
        'below.',
        choices=('auto', 'parameters'),
    )
    start_xyz: tuple[float, float, float] = param(
        START.centre, doc='Centre of the start of the TCP.', unit='m', lo=-0.5, hi=0.6
    )
    start_spread_m: tuple[float, float, float] = param(
        START.spread, doc='Largest distance from it along each axis.', unit='m', lo=0.0, hi=0.2
    )
    start_pitch_deg: float = param(
        math.degrees(START.pitch),
        doc='Approach below the horizontal at the start.',
        unit='deg',
        lo=-90.0,
        hi=120.0,
    )
    start_roll_deg: float = param(0.0, doc='wrist_roll at the start.', unit='deg', lo=-157.0, hi=162.0)
    start_opening: tuple[float, float] = param(
        START.opening, doc='Range of the opening at the start, 0 closed .. 1 open.', lo=0.0, hi=1.0
    )
    locked_joints: tuple[str, ...] = param(
        ('',), doc='Joints that do not move on the way back either; as in kinematics_node.'
    )
    reset_pause_s: float = param(
        0.0,
        doc='Time between the reset and the episode, for a human to arrange the scene.',
        unit='s',
        lo=0.0,
        hi=600.0,
    )
    seed: int = param(0, doc='Of the starts that are drawn.', lo=0, hi=2**31 - 1)

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)
        self.locks()

    def locks(self) -> dict[str, float | None]:
        """Return the locked joints and their positions [rad]; None where a joint is locked wherever it is."""
        return KinematicsConfig(locked_joints=self.locked_joints).locks()
