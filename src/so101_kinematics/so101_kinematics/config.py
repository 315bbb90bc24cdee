# SPDX-License-Identifier: Apache-2.0
"""Parameters of kinematics_node: every number of the end-effector controller, its box, and what is shown beside it."""

from dataclasses import dataclass
import math
from typing import Self

import numpy as np
import numpy.typing as npt

from so101_contract.config import ContractConfig
from so101_contract.joints import ARM_JOINTS, BASE_FRAME, JOINT_LIMITS_RAD
from so101_description.cameras import CAMERA_PRESETS
from so101_description.tcp import TCP_PRESETS
from so101_interfaces_py.params import check_bounds, param, ParameterError
from so101_kinematics.errors import WorkspaceError
from so101_kinematics.fk import Array


@dataclass(frozen=True)
class Workspace:
    """A box in the base frame that the TCP may move in.

    Attributes:
        lower: smallest x, y, z [m].
        upper: largest x, y, z [m].
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the corners."""
        corners = np.array([self.lower, self.upper], dtype=np.float64)
        if corners.shape != (2, 3) or not np.isfinite(corners).all() or not (corners[0] < corners[1]).all():
            raise WorkspaceError(
                f'expected a workspace with three finite bounds, each lower one below its upper one [m], '
                f'got {self.lower} and {self.upper}; correct them'
            )

    def clamp(self, point: npt.ArrayLike) -> tuple[Array, bool]:
        """Return the point (3,) of the box closest to a point (3,) [m], and whether that is another one."""
        wanted = np.asarray(point, dtype=np.float64)
        inside = np.minimum(np.maximum(wanted, self.lower), self.upper)
        return inside, bool((inside != wanted).any())

    def extended_to(self, point: npt.ArrayLike) -> Self:
        """Return the smallest box that holds this one and a point (3,) [m].

        An arm that starts outside its workspace must not be drawn into it on its own, but may be driven
        there: the box that reaches out to where it is lets it stay and come in, and not go further out.
        """
        lower = np.minimum(self.lower, point)
        upper = np.maximum(self.upper, point)
        return type(self)(tuple(lower.tolist()), tuple(upper.tolist()))


_CONTRACT = ContractConfig()

PICK101_TCP = 'pick101'
PICK101_RATE_HZ = 50.0
PICK101_WORKSPACE = Workspace((0.10, -0.30, 0.01), (0.50, 0.30, 0.40))
"""What policies of ggand0/pick-101 were trained with: TCP preset, control rate [Hz], and box of the TCP [m]."""


@dataclass(frozen=True, kw_only=True)
class KinematicsConfig:
    """Parameters of the end-effector controller and of its node."""

    profile: str = param(
        _CONTRACT.ik_profile,
        doc='setpoint: a Cartesian setpoint on a leash. pick101: what pick-101 policies trained with.',
        choices=('setpoint', 'pick101'),
    )
    tcp: str = param(
        _CONTRACT.tcp, doc='Tool centre point that displacements move.', choices=tuple(TCP_PRESETS)
    )
    base_frame: str = param(BASE_FRAME, doc='Frame that displacements are said in; others are refused.')
    rate_hz: float = param(50.0, doc='Control rate.', unit='Hz', lo=10.0, hi=200.0)
    command_timeout_s: float = param(
        0.2, doc='Without a displacement younger than this the arm holds.', unit='s', lo=0.02, hi=5.0
    )
    joint_timeout_s: float = param(
        0.1, doc='With joint readings older than this the arm holds.', unit='s', lo=0.01, hi=1.0
    )
    interpolation_s: float = param(
        0.1,
        doc="A displacement is spread over this time, the session's step; 0 jumps.",
        unit='s',
        lo=0.0,
        hi=1.0,
    )
    leash_m: float = param(
        0.04, doc='How far the setpoint may lead the measured TCP.', unit='m', lo=0.005, hi=0.2
    )
    max_delta_m: float = param(
        0.04, doc='Longer displacements are shortened to this length.', unit='m', lo=0.001, hi=0.2
    )
    workspace_min: tuple[float, float, float] = param(
        _CONTRACT.workspace_min,
        doc='Lower corner of the box that the TCP stays in.',
        unit='m',
        lo=-0.5,
        hi=0.6,
    )
    workspace_max: tuple[float, float, float] = param(
        _CONTRACT.workspace_max,
        doc='Upper corner of the box that the TCP stays in.',
        unit='m',
        lo=-0.5,
        hi=0.6,
    )
    locked_joints: tuple[str, ...] = param(
        ('',),
        doc='Joints that do not move: "wrist_roll=1.57" [rad], or "wrist_roll" for where it is at the start; '
        'an empty string locks nothing.',
    )
    max_joint_lead_rad: float = param(
        0.5, doc='How far a commanded joint may lead its reading.', unit='rad', lo=0.05, hi=2.0
    )
    droop_gain: float = param(
        2.0,
        doc='How fast sag under gravity is taken out while the setpoint rests; 0 leaves it.',
        unit='1/s',
        lo=0.0,
        hi=5.0,
    )
    droop_limit_rad: float = param(
        0.06, doc='Largest sag of one joint that is taken out.', unit='rad', lo=0.0, hi=0.2
    )
    max_gripper_speed: float = param(
        2.0, doc='Largest speed of the gripper, in full strokes.', unit='1/s', lo=0.1, hi=20.0
    )

    def __post_init__(self) -> None:
        """Check every parameter, and those that depend on each other."""
        check_bounds(self)
        if any(low >= high for low, high in zip(self.workspace_min, self.workspace_max, strict=True)):
            raise ParameterError(
                f'workspace_min = {self.workspace_min} is not below workspace_max = {self.workspace_max} '
                f'on every axis.'
            )
        self.locks()
        if self.profile == 'pick101' and (self.tcp != PICK101_TCP or self.rate_hz != PICK101_RATE_HZ):
            raise ParameterError(
                f'profile = pick101 needs tcp = {PICK101_TCP} and rate_hz = {PICK101_RATE_HZ}, as in '
                f'training, got {self.tcp} and {self.rate_hz}.'
            )

    @property
    def workspace(self) -> Workspace:
        """The box that the TCP stays in; pick101 has its own, that of training."""
        if self.profile == 'pick101':
            return PICK101_WORKSPACE
        return Workspace(self.workspace_min, self.workspace_max)

    def locks(self) -> dict[str, float | None]:
        """Return the locked joints and their positions [rad]; None where a joint is locked wherever it is."""
        locks: dict[str, float | None] = {}
        for entry in self.locked_joints:
            if entry:
                name, _, value = entry.partition('=')
                locks[name.strip()] = _lock_position(entry, name.strip(), value)
        return locks


def _lock_position(entry: str, name: str, value: str) -> float | None:
    if name not in ARM_JOINTS:
        raise ParameterError(f'locked_joints names {name!r}; it takes {", ".join(ARM_JOINTS)}.')
    if not value:
        return None
    try:
        position = float(value)
    except ValueError:
        position = math.nan
    low, high = JOINT_LIMITS_RAD[name]
    if not low <= position <= high:
        raise ParameterError(
            f'locked_joints has {entry!r}; {name} takes a number of radians between {low:.4f} and {high:.4f}.'
        )
    return position


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """What the node publishes beside joint commands."""

    publish_tf: bool = param(
        True, doc='Publish /tf and robot_description; false where robot_state_publisher does it.'
    )
    frame_prefix: str = param(
        '',
        doc='Put before every frame that is published, so that two arms share a tree; actions are said without.',
    )
    world_frame: str = param('', doc='Frame that several arms stand in, the parent of the base; empty: none.')
    place: tuple[float, float, float] = param(
        (0.0, 0.0, 0.0),
        doc='Where the base stands in world_frame: x [m], y [m] and turn [deg].',
        lo=-1000.0,
        hi=1000.0,
    )
    camera: str = param(
        _CONTRACT.camera_preset, doc='Where the wrist camera is mounted.', choices=tuple(CAMERA_PRESETS)
    )
    marker_rate_hz: float = param(10.0, doc='Rate of the markers for RViz.', unit='Hz', lo=0.5, hi=50.0)

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)
