# SPDX-License-Identifier: Apache-2.0
"""The ground truth of a simulated task (`so101_interfaces/msg/TaskReport` on `sim/task`), and back.

The twin publishes it; the session ends episodes by it, whoever plays the human acts by it, and rewards are computed
from it, live and from bags. It also says how the arm is placed when an episode begins (`ArmStart`): the session leads
the arm there, and the simulated environment begins with it. Messages are taken by the names of their fields, so that
those of ROS and those of a bag reader do alike; this package imports neither.
"""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, fields
import json
import math
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from so101_contract.errors import ContractError
from so101_contract.joints import BASE_FRAME, gripper_opening_to_rad, JOINT_NAMES, limits_arrays, NUM_JOINTS

FloatArray: TypeAlias = npt.NDArray[np.float64]
Range = tuple[float, float]

GRIP_PITCH_RAD = math.radians(75.0)
"""Approach below the horizontal with which cubes are gripped best. The flatter, the more the moving jaw presses on the
cube's far top edge: at 65 degrees a third of the cubes slip out. A vertical gripper does not rise above 9 cm."""

HOME_TCP = (0.22, 0.0, 0.105)
"""Where the TCP waits between episodes, in the base frame [m]."""


class Solution(Protocol):
    """What a solver finds."""

    @property
    def success(self) -> bool:
        """Whether the target is reached."""

    @property
    def q(self) -> FloatArray:
        """Joint positions (6,) [rad]."""


class Solver(Protocol):
    """Inverse kinematics of the TCP."""

    def solve(
        self,
        position: npt.ArrayLike,
        seed: npt.ArrayLike,
        *,
        pitch: float | None = None,
        locked: Iterable[str] = (),
    ) -> Solution:
        """Find joint positions that reach a position (3,) [m], from a seed (6,) [rad]."""


@dataclass(frozen=True, kw_only=True)
class AtPose:
    """The arm starts in one pose.

    Attributes:
        q: (6,) joint positions [rad].
        spread: largest change of each joint, either way [rad].
    """

    q: tuple[float, ...] = (0.0,) * NUM_JOINTS
    spread: float = 0.0

    def sample(self, rng: np.random.Generator, ik: Solver, cube: FloatArray) -> FloatArray | None:
        """Return the pose."""
        del ik, cube
        return np.clip(
            np.array(self.q) + rng.uniform(-self.spread, self.spread, NUM_JOINTS), *limits_arrays()
        )


@dataclass(frozen=True, kw_only=True)
class AtPoint:
    """The TCP starts around a point.

    Attributes:
        centre: x, y, z [m].
        spread: largest distance from it along each axis [m].
        pitch: approach below the horizontal [rad].
        pitch_spread: largest change of it, either way [rad].
        roll: wrist_roll [rad]; 0 closes the jaws along the arm's own direction.
        opening: range of the gripper's opening, 0 closed .. 1 open.
    """

    centre: tuple[float, float, float] = HOME_TCP
    spread: tuple[float, float, float] = (0.02, 0.02, 0.01)
    pitch: float = GRIP_PITCH_RAD
    pitch_spread: float = 0.0
    roll: float = 0.0
    opening: Range = (0.4, 0.7)

    def sample(self, rng: np.random.Generator, ik: Solver, cube: FloatArray) -> FloatArray | None:
        """Return joint positions near the point, or None where this draw cannot be reached."""
        del cube
        target = np.array(self.centre) + rng.uniform(-1.0, 1.0, 3) * self.spread
        pitch = self.pitch + rng.uniform(-self.pitch_spread, self.pitch_spread)
        return _solved(ik, target, pitch, self.roll, float(rng.uniform(*self.opening)))


@dataclass(frozen=True, kw_only=True)
class NearCube:
    """The TCP starts relative to the cube with both wrist joints given, as pick-101 does.

    Attributes:
        offset: from the cube [m].
        away: range of a horizontal distance in any direction, added to the offset [m].
        height: of the TCP above the table [m] instead of the offset's; None for the offset's.
        wrist_flex: [rad].
        wrist_roll: [rad].
        opening: opening of the gripper.
    """

    offset: tuple[float, float, float] = (0.0, -0.015, 0.035)
    away: Range = (0.0, 0.0)
    height: float | None = None
    wrist_flex: float = math.pi / 2
    wrist_roll: float = math.pi / 2
    opening: float = 0.65

    def sample(self, rng: np.random.Generator, ik: Solver, cube: FloatArray) -> FloatArray | None:
        """Return joint positions near the cube, or None where this draw cannot be reached."""
        direction, distance = rng.uniform(-math.pi, math.pi), rng.uniform(*self.away)
        target = cube + self.offset + distance * np.array([math.cos(direction), math.sin(direction), 0.0])
        if self.height is not None:
            target[2] = self.height
        seed = np.zeros(NUM_JOINTS)
        seed[3], seed[4] = self.wrist_flex, self.wrist_roll
        found = ik.solve(target, seed, locked=('wrist_flex', 'wrist_roll'))
        if not found.success:
            return None
        q = found.q.copy()
        q[-1] = gripper_opening_to_rad(self.opening)
        return q


ArmStart: TypeAlias = AtPose | AtPoint | NearCube


def home_pose(ik: Solver, opening: float = 0.5) -> FloatArray:
    """Return the joint positions (6,) [rad] in which the arm waits between episodes."""
    q = _solved(ik, np.array(HOME_TCP), GRIP_PITCH_RAD, 0.0, opening)
    assert q is not None
    return q


def _solved(ik: Solver, target: FloatArray, pitch: float, roll: float, opening: float) -> FloatArray | None:
    seed = np.zeros(NUM_JOINTS)
    seed[JOINT_NAMES.index('wrist_roll')] = roll
    found = ik.solve(target, seed, pitch=pitch, locked=('wrist_roll',))
    if not found.success:
        return None
    q = found.q.copy()
    q[-1] = gripper_opening_to_rad(opening)
    return q


Vector3 = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
Message = TypeVar('Message')

NANOSECONDS = 1_000_000_000
AT_POSE, AT_POINT, NEAR_CUBE = 0, 1, 2
"""Constants of `ArmStart.kind`."""


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The scene at one moment; positions and orientations in the base frame.

    Attributes:
        time_s: since the last reset [s], simulated.
        cube_position: centre of the cube [m].
        cube_quat_wxyz: its orientation.
        cube_speed: speed of its centre [m/s].
        tcp_position: where the tool centre point really is [m], whatever kinematics believe.
        grip_position: the tip of the static finger, on its inner face [m].
        jaw_direction: unit vector from there to the moving finger.
        finger_position: middle of the moving finger [m].
        opening: opening of the gripper, 0 closed .. 1 open.
        touches_static: the static finger touches the cube.
        touches_moving: the moving finger touches the cube.
        on_table: the cube touches the table.
        in_tray: the cube touches the tray.
        tray_position: centre of the tray's floor, or of the mark on the table [m], or None without either.
    """

    time_s: float
    cube_position: Vector3
    cube_quat_wxyz: Quaternion
    cube_speed: float
    tcp_position: Vector3
    grip_position: Vector3
    jaw_direction: Vector3
    finger_position: Vector3
    opening: float
    touches_static: bool
    touches_moving: bool
    on_table: bool
    in_tray: bool
    tray_position: Vector3 | None = None

    @property
    def held(self) -> bool:
        """Whether the cube is between both fingers, touching them."""
        return self.touches_static and self.touches_moving

    @property
    def finite(self) -> bool:
        """Whether the physics has not blown up."""
        return all(map(math.isfinite, (*self.cube_position, *self.tcp_position, self.cube_speed)))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Read the values by name; other names are ignored.

        Raises:
            ContractError: a value is missing.
        """
        names = [each.name for each in fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise ContractError(
                f'expected the ground truth of the scene, got one without {missing}; '
                f'publish and read it with the same version'
            )
        return cls(**{name: _tuples(values[name]) for name in names})


@dataclass(frozen=True)
class Status:
    """Where an episode stands.

    Attributes:
        success: the task is done.
        failure: the task can no longer be done.
        good_steps: for how many steps in a row the goal has been reached.
        dropped: the cube was held at the step before, above the table, and is not any more.
        reason: why it failed; empty otherwise.
    """

    success: bool = False
    failure: bool = False
    good_steps: int = 0
    dropped: bool = False
    reason: str = ''


@dataclass(frozen=True)
class TaskState:
    """The scene, and where the task stands.

    Attributes:
        truth: the scene.
        status: success, failure, and so on, since the last reset.
        reward: of the last control step, by the preset's reward; terms of the action are not known here and are 0.
        resets: how many there were.
        terms: the dense reward of the last control step by name, whatever the preset's reward is; empty before it.
    """

    truth: GroundTruth
    status: Status
    reward: float
    resets: int
    terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskReport:
    """What a `sim/task` message says.

    Attributes:
        stamp_ns: when it was so, on the clock of the graph [ns].
        task: name of the task.
        preset: name of its difficulty.
        state: the scene and where the task stands.
        max_steps: steps after which an episode is cut short; 0 where that is not said.
        arm_start: how the arm is placed when an episode begins.
    """

    stamp_ns: int
    task: str
    preset: str
    state: TaskState
    max_steps: int = 0
    arm_start: ArmStart = field(default_factory=AtPoint)


def to_record(message: Any) -> TaskReport:
    """Read a `TaskReport` message.

    Raises:
        ContractError: it places the arm in a way that is not known or nowhere, or names terms of a reward without their
            values.
    """
    turn = message.cube.orientation
    truth = GroundTruth(
        time_s=float(message.time),
        cube_position=_vector(message.cube.position),
        cube_quat_wxyz=(float(turn.w), float(turn.x), float(turn.y), float(turn.z)),
        cube_speed=float(message.cube_speed),
        tcp_position=_vector(message.tcp),
        grip_position=_vector(message.grip),
        jaw_direction=_vector(message.jaw),
        finger_position=_vector(message.finger),
        opening=float(message.opening),
        touches_static=bool(message.touches_static),
        touches_moving=bool(message.touches_moving),
        on_table=bool(message.on_table),
        in_tray=bool(message.in_tray),
        tray_position=_vector(message.tray) if message.has_tray else None,
    )
    status = Status(
        success=bool(message.success),
        failure=bool(message.failure),
        good_steps=int(message.good_steps),
        dropped=bool(message.dropped),
        reason=str(message.reason),
    )
    names, values = list(map(str, message.reward_names)), list(map(float, message.reward_values))
    if len(names) != len(values):
        raise ContractError(
            f'expected one value for each of {len(names)} terms of a reward, got {len(values)}'
        )
    terms = dict(zip(names, values, strict=True))
    start, stamp = _arm_start(message.arm_start), message.header.stamp
    if not np.isfinite(np.hstack([one for one in astuple(start) if one is not None])).all():
        raise ContractError(f'expected finite numbers of a place to start from, got {start!r:.200}')
    return TaskReport(
        stamp_ns=int(stamp.sec) * NANOSECONDS + int(stamp.nanosec),
        task=str(message.task),
        preset=str(message.preset),
        state=TaskState(truth, status, float(message.reward), int(message.resets), terms),
        max_steps=int(message.max_steps),
        arm_start=start,
    )


def from_record(report: TaskReport, message: Message) -> Message:
    """Fill in an empty `TaskReport` message, and return it."""
    out: Any = message
    state, truth, status = report.state, report.state.truth, report.state.status
    out.header.stamp.sec, out.header.stamp.nanosec = divmod(report.stamp_ns, NANOSECONDS)
    out.header.frame_id = BASE_FRAME
    out.task, out.preset, out.max_steps = report.task, report.preset, report.max_steps
    _fill_arm_start(out.arm_start, report.arm_start)
    out.resets, out.reward = state.resets, float(state.reward)
    out.reward_names, out.reward_values = list(state.terms), [float(term) for term in state.terms.values()]
    out.success, out.failure, out.reason = status.success, status.failure, status.reason
    out.good_steps, out.dropped = status.good_steps, status.dropped
    out.time, out.cube_speed, out.opening = truth.time_s, truth.cube_speed, truth.opening
    turn = out.cube.orientation
    turn.w, turn.x, turn.y, turn.z = truth.cube_quat_wxyz
    for vector, values in (
        (out.cube.position, truth.cube_position),
        (out.tcp, truth.tcp_position),
        (out.grip, truth.grip_position),
        (out.jaw, truth.jaw_direction),
        (out.finger, truth.finger_position),
        (out.tray, truth.tray_position or (0.0, 0.0, 0.0)),
    ):
        vector.x, vector.y, vector.z = values
    out.touches_static, out.touches_moving = truth.touches_static, truth.touches_moving
    out.on_table, out.in_tray, out.has_tray = truth.on_table, truth.in_tray, truth.tray_position is not None
    return message


def from_json(text: str | bytes) -> TaskReport:
    """Read what bags hold that were recorded when `sim/task` was one JSON object in a `std_msgs/String`.

    Raises:
        ContractError: it is something else.
    """
    try:
        values: Mapping[str, Any] = json.loads(text)
        names = {each.name for each in fields(Status)}
        status = Status(**{name: value for name, value in values.items() if name in names})
        terms = {str(name): float(value) for name, value in values.get('reward_terms', {}).items()}
        state = TaskState(
            GroundTruth.from_mapping(values), status, float(values['reward']), int(values['resets']), terms
        )
        return TaskReport(int(values['stamp_ns']), str(values['task']), str(values['preset']), state)
    except (AttributeError, ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ContractError(
            f'expected the ground truth of a simulated task, got something else ({error}); '
            f'let only the twin publish it'
        ) from error


def _arm_start(message: Any) -> ArmStart:
    low, high = (float(value) for value in message.opening)
    if message.kind == AT_POSE:
        q = tuple(float(value) for value in message.joints)
        if len(q) != NUM_JOINTS:
            raise ContractError(f'expected {NUM_JOINTS} joints of a pose to start from, got {len(q)}')
        return AtPose(q=q, spread=float(message.joint_spread))
    if message.kind == AT_POINT:
        return AtPoint(
            centre=_vector(message.point),
            spread=_vector(message.spread),
            pitch=float(message.pitch),
            pitch_spread=float(message.pitch_spread),
            roll=float(message.wrist_roll),
            opening=(low, high),
        )
    if message.kind == NEAR_CUBE:
        nearest, farthest = (float(value) for value in message.away)
        return NearCube(
            offset=_vector(message.point),
            away=(nearest, farthest),
            height=None if math.isnan(message.height) else float(message.height),
            wrist_flex=float(message.wrist_flex),
            wrist_roll=float(message.wrist_roll),
            opening=low,
        )
    raise ContractError(
        f'expected a way to place the arm out of 0, 1, 2 (ArmStart.msg), got {message.kind}; '
        f'publish and read it with the same version'
    )


def _fill_arm_start(out: Any, start: ArmStart) -> None:
    if isinstance(start, AtPose):
        out.kind, out.joints, out.joint_spread = AT_POSE, list(start.q), start.spread
    elif isinstance(start, AtPoint):
        out.kind, out.wrist_roll, out.opening = AT_POINT, start.roll, list(start.opening)
        out.pitch, out.pitch_spread = start.pitch, start.pitch_spread
        out.point.x, out.point.y, out.point.z = start.centre
        out.spread.x, out.spread.y, out.spread.z = start.spread
    else:
        out.kind, out.away, out.opening = NEAR_CUBE, list(start.away), [start.opening] * 2
        out.height = math.nan if start.height is None else start.height
        out.wrist_flex, out.wrist_roll = start.wrist_flex, start.wrist_roll
        out.point.x, out.point.y, out.point.z = start.offset


def _vector(message: Any) -> Vector3:
    return float(message.x), float(message.y), float(message.z)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
