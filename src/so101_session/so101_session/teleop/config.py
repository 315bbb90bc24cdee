# SPDX-License-Identifier: Apache-2.0
"""Parameters of teleop_node."""

from dataclasses import dataclass

from so101_contract.action import ActionSpec
from so101_contract.config import STICK_DEAD_ZONE
from so101_contract.observation_spec import CONTROL_RATE_HZ
from so101_description.tcp import TCP_PRESETS
from so101_interfaces_py.params import check_bounds, param
from so101_kinematics.config import KinematicsConfig
from so101_session.teleop.devices.keys import DEFAULT_KEYS, KeyMap
from so101_session.teleop.devices.pads import PADS, PadSettings

DEVICES = ('keyboard', 'gamepad', 'joy', 'leader')


@dataclass(frozen=True, kw_only=True)
class TeleopConfig:
    """What a human drives with, and how fast."""

    device: str = param('keyboard', doc='What the human drives with.', choices=DEVICES)
    rate_hz: float = param(
        CONTROL_RATE_HZ,
        doc="Actions per second while no step comes; the session's rate.",
        unit='Hz',
        lo=1.0,
        hi=50.0,
    )
    poll_rate_hz: float = param(50.0, doc='How often the device is read.', unit='Hz', lo=20.0, hi=200.0)
    tcp: str = param('so101', doc='Tool centre point that a leader arm moves.', choices=tuple(TCP_PRESETS))
    action_scale_m: float = param(
        0.02,
        doc='Largest displacement of one step along an axis; as in session_node.',
        unit='m',
        lo=0.001,
        hi=0.1,
    )
    speed: float = param(
        0.5,
        doc='Share of the largest displacement that a key, or a stick at its end, asks for.',
        lo=0.01,
        hi=1.0,
    )
    gripper_speed: float = param(
        1.2,
        doc='How fast a key or a trigger moves the gripper, in full strokes.',
        unit='1/s',
        lo=0.05,
        hi=10.0,
    )
    joint_timeout_s: float = param(
        0.2, doc='With joint_states older than this a leader arm does not lead.', unit='s', lo=0.02, hi=5.0
    )

    keys: tuple[str, ...] = param(DEFAULT_KEYS, doc='What each key does; see docs/teleop.md.')

    pad: str = param('auto', doc='Which pad; auto goes by its name.', choices=('auto', *PADS))
    pad_path: str = param('', doc='Joystick to read; empty: the first one in /dev/input.')
    pad_changes: tuple[str, ...] = param(
        ('',), doc='Axes and buttons that are elsewhere: x=1 (axis), 3=discard (button).'
    )
    deadzone: float = param(
        STICK_DEAD_ZONE, doc="Share of a stick's way that counts as rest.", lo=0.0, hi=0.9
    )
    deadman: bool = param(True, doc='A pad moves the arm only while its right shoulder button is held.')

    leader_port: str = param('', doc="Port of the leader arm's bus.")
    leader_calibration: str = param('', doc="The leader's calibration: a file, or the name of the arm.")
    leader_torque: float = param(
        0.3, doc='Share of the full torque with which the leader follows as a shadow.', lo=0.05, hi=1.0
    )
    leader_supply_max_v: float = param(
        8.4, doc='Above this voltage the leader stays limp; 14.0 for 12 V servos.', unit='V', lo=5.0, hi=16.0
    )
    leader_align_speed_rad_s: float = param(
        0.6,
        doc='Speed of a joint of the leader on its way to the pose of the follower.',
        unit='rad/s',
        lo=0.05,
        hi=2.0,
    )
    leader_speed_rad_s: float = param(
        2.0, doc='Fastest that a joint of the leader shadows.', unit='rad/s', lo=0.1, hi=4.0
    )
    leader_pull_rad: float = param(
        0.2,
        doc='A joint that is held this far from where the leader was led takes over.',
        unit='rad',
        lo=0.05,
        hi=1.5,
    )
    leader_pull_s: float = param(0.12, doc='For this long.', unit='s', lo=0.0, hi=5.0)
    leader_leash_m: float = param(
        0.06,
        doc='How far the leader may be ahead of the follower before its clutch slips.',
        unit='m',
        lo=0.01,
        hi=0.5,
    )
    locked_joints: tuple[str, ...] = param(
        ('',),
        doc="Joints of the follower that do not move; as in kinematics_node. The leader's count for nothing.",
    )
    events_from: str = param(
        'auto',
        doc='Beside a leader arm, which has no buttons: auto is the keyboard in a terminal, else a gamepad.',
        choices=('auto', 'none', 'keyboard', 'gamepad'),
    )

    def __post_init__(self) -> None:
        """Check each value; what keys and pads mean as well."""
        check_bounds(self)
        KeyMap.parse(self.keys)
        self.pad_settings.make()
        self.locks()

    @property
    def period_s(self) -> float:
        """Length of a step [s]."""
        return 1.0 / self.rate_hz

    @property
    def action(self) -> ActionSpec:
        """What can be asked for in one step."""
        return ActionSpec(translation_scale_m=(self.action_scale_m,) * 3)

    @property
    def pad_settings(self) -> PadSettings:
        """Which pad, and what it does."""
        return PadSettings(
            pad=self.pad,
            changes=self.pad_changes,
            deadzone=self.deadzone,
            speed=self.speed,
            needs_deadman=self.deadman,
        )

    def locks(self) -> dict[str, float | None]:
        """Return the locked joints and their positions [rad]; None where a joint is locked wherever it is."""
        return KinematicsConfig(locked_joints=self.locked_joints).locks()
