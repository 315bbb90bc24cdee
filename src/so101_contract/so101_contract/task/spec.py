# SPDX-License-Identifier: Apache-2.0
"""What a task is: what to do, with which cameras, from where, for how long, who judges it, and its simulation.

It is written by people as a file (`files`), and every part takes what it says from here: session, policy, learner,
recorder, simulation and page. Bags, buffers and policies carry its hash beside that of the observation. What decides
nothing of what is learned, the sentences for the human and the devices, is not part of the hash; nor are the cameras,
which the hash of the observation covers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
import math
import re
from typing import ClassVar

from so101_contract.errors import ManifestError, SpecMismatchError, TaskError
from so101_contract.observation_spec import CameraSpec, Crop, get_observation, ObservationSpec
from so101_contract.record import Record
from so101_contract.task.reward import Grip, RewardSource, sources_of
from so101_contract.task_report import AtPoint
from so101_interfaces_py.topics import CAMERAS

DEFAULT_TASK = 'lift'

FURTHEST_M, LONGEST_S, MOST_CAMERAS, LONGEST_TEXT = 0.6, 3600.0, 8, 300
"""Bounds of what a task may say: reach of the arm [m], length of an episode [s], cameras, characters of a sentence."""

_NAME = re.compile(r'[a-z][a-z0-9_]{0,39}')

Vector3 = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Workspace(Record):
    """The box that the TCP's target stays in.

    Attributes:
        low: smallest x, y, z in the base frame [m].
        high: largest x, y, z [m].
    """

    KIND: ClassVar[str] = 'so101_contract/workspace/1'
    ERROR = ManifestError

    low: Vector3
    high: Vector3

    def __post_init__(self) -> None:
        """Check that it holds a volume."""
        super().__post_init__()
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise self.ERROR(
                f'expected a workspace with low < high, got {self.low} and {self.high}; swap them'
            )

    def holds(self, point: Vector3) -> bool:
        """Whether a point lies in it [m]."""
        return all(low <= x <= high for low, x, high in zip(self.low, point, self.high, strict=True))


class GripperKind(Enum):
    """What the gripper does in the task."""

    JAW = 'jaw'
    """It opens and closes as the actions say."""
    CLOSED = 'closed'
    """It stays closed, whatever an action says: for pushing."""


class Ending(Enum):
    """What ends an episode, beside a human's word and what makes it impossible to go on."""

    SUCCESS = 'success'
    FAILURE = 'failure'
    TIME_LIMIT = 'time_limit'


class Goal(Enum):
    """What the simulation knows how to judge."""

    LIFT = 'lift'
    PLACE = 'place'
    PUSH = 'push'


class ObjectKind(Enum):
    """What lies on the simulated table."""

    CUBE = 'cube'
    CAN = 'can'


@dataclass(frozen=True, kw_only=True)
class TaskCamera(Record):
    """A camera of the task.

    Attributes:
        name: `wrist`, `front`, or another word; its topics begin with `topic`.
        device: where its pictures come from on a real arm; empty: told when the stack is started.
        crop: which part of its pictures is seen [px]; None: the centre square.
        size: edge of the picture that networks see [px]; 0: as the observation says.
    """

    KIND: ClassVar[str] = 'so101_contract/task_camera/1'
    ERROR = TaskError

    name: str
    device: str = ''
    crop: Crop | None = None
    size: int = 0

    def __post_init__(self) -> None:
        """Check name and size."""
        super().__post_init__()
        if not _NAME.fullmatch(self.name):
            raise TaskError(
                f'expected a camera name of small letters, digits and _, got {self.name!r}; rename it'
            )
        if not 0 <= self.size <= 512 or len(self.device) > LONGEST_TEXT:
            raise TaskError(
                f'expected a size of 8 to 512 px, or 0, and a short device, got {self.size} for {self.name}'
            )

    @property
    def topic(self) -> str:
        """What its topics begin with; its name in an observation."""
        return CAMERAS.get(self.name, self.name)

    def spec(self, usual: int) -> CameraSpec:
        """Return the camera of an observation, whose pictures have the usual edge [px] unless this one says another."""
        return CameraSpec(self.topic, self.size or usual, self.crop)


@dataclass(frozen=True, kw_only=True)
class TaskStart(Record):
    """Where the TCP is when an episode begins.

    Attributes:
        xyz: centre of the starts in the base frame [m].
        spread_m: largest distance from it along each axis [m].
        pitch_deg: approach below the horizontal [deg].
        roll_deg: wrist_roll [deg]; 0 closes the jaws along the arm's own direction.
        opening: range of the gripper's opening, 0 closed .. 1 open.
    """

    KIND: ClassVar[str] = 'so101_contract/task_start/1'
    ERROR = TaskError

    xyz: Vector3 = AtPoint().centre
    spread_m: Vector3 = AtPoint().spread
    pitch_deg: float = 75.0
    roll_deg: float = 0.0
    opening: tuple[float, float] = AtPoint().opening

    def __post_init__(self) -> None:
        """Check that an arm can be there."""
        super().__post_init__()
        if max(map(abs, self.xyz)) > FURTHEST_M or not all(0.0 <= spread <= 0.2 for spread in self.spread_m):
            raise TaskError(
                f'expected a start within {FURTHEST_M} m and a spread of 0 to 0.2 m, got {self.xyz} and '
                f'{self.spread_m}; correct start'
            )
        if not (-90.0 <= self.pitch_deg <= 120.0 and -157.0 <= self.roll_deg <= 162.0):
            raise TaskError(
                f'expected a pitch of -90 to 120 and a roll of -157 to 162 degrees, got {self.pitch_deg} and '
                f'{self.roll_deg}; correct start'
            )
        if not 0.0 <= self.opening[0] <= self.opening[1] <= 1.0:
            raise TaskError(
                f'expected an opening as [low, high] within 0..1, got {self.opening}; correct start'
            )

    @property
    def arm_start(self) -> AtPoint:
        """How the arm is placed."""
        return AtPoint(
            centre=self.xyz,
            spread=self.spread_m,
            pitch=math.radians(self.pitch_deg),
            roll=math.radians(self.roll_deg),
            opening=self.opening,
        )


@dataclass(frozen=True, kw_only=True)
class TaskReward(Record):
    """Who judges, and for how long the goal has to last.

    Attributes:
        source: who says that the task is done: a name of `so101_contract.task.reward`, or several with commas between.
        hold_s: for how long the goal must stay reached before it counts [s]; what a human says counts at once.
        grip: what it means that the gripper holds something; None: as usual.
    """

    KIND: ClassVar[str] = 'so101_contract/task_reward/1'
    ERROR = TaskError
    OPTIONAL = frozenset({'grip'})

    source: str = RewardSource.SIM.value
    hold_s: float = 0.3
    grip: Grip | None = None

    def __post_init__(self) -> None:
        """Check the source and the time."""
        super().__post_init__()
        sources_of(self.source)
        if not 0.0 <= self.hold_s <= 10.0:
            raise TaskError(f'expected a reward that holds for 0 to 10 s, got {self.hold_s}; correct hold_s')


@dataclass(frozen=True, kw_only=True)
class PutBack(Record):
    """Where the arm puts the object by itself before the next episode, where it can take it.

    Attributes:
        xy: centre of the places for the object's middle in the base frame [m].
        spread_m: largest distance from it along x and y [m].
        height_m: height of the fixed finger's tip above the table when it lets go of the object, or takes it [m].
    """

    KIND: ClassVar[str] = 'so101_contract/put_back/1'
    ERROR = TaskError

    xy: tuple[float, float] = (0.25, 0.0)
    spread_m: tuple[float, float] = (0.03, 0.03)
    height_m: float = 0.018

    def __post_init__(self) -> None:
        """Check that an arm can be there."""
        super().__post_init__()
        if max(map(abs, self.xy)) > FURTHEST_M or not all(0.0 <= spread <= 0.2 for spread in self.spread_m):
            raise TaskError(
                f'expected a place within {FURTHEST_M} m and a spread of 0 to 0.2 m, got {self.xy} and '
                f'{self.spread_m}; correct put_back'
            )
        if not 0.005 <= self.height_m <= 0.1:
            raise TaskError(f'expected a height of 0.005 to 0.1 m, got {self.height_m}; correct put_back')


@dataclass(frozen=True, kw_only=True)
class TaskScene(Record):
    """What the task is in the simulation; how hard it is there says the preset.

    Attributes:
        goal: what is judged.
        object: what lies on the table.
        shift_m: where it lies, from where the preset has it, along x and y [m].
        mark: x, y of the tray, or of the mark on the table, in the base frame [m]; not used for lifting.
        height_m: height of the object's centre above the table that counts as lifted [m].
        radius_m: how far from the mark its centre may lie when it was pushed there [m].
    """

    KIND: ClassVar[str] = 'so101_contract/task_scene/1'
    ERROR = TaskError

    goal: Goal = Goal.LIFT
    object: ObjectKind = ObjectKind.CUBE
    shift_m: tuple[float, float] = (0.0, 0.0)
    mark: tuple[float, float] = (0.23, 0.14)
    height_m: float = 0.06
    radius_m: float = 0.025

    def __post_init__(self) -> None:
        """Check that the arm could do it."""
        super().__post_init__()
        if max(map(abs, self.shift_m)) > 0.2 or max(map(abs, self.mark)) > FURTHEST_M:
            raise TaskError(
                f'expected a shift within 0.2 m and a mark within {FURTHEST_M} m, got {self.shift_m} and {self.mark}; '
                f'correct simulation'
            )
        if not (0.03 <= self.height_m <= 0.2 and 0.005 <= self.radius_m <= 0.1):
            raise TaskError(
                f'expected a height of 0.03 to 0.2 m and a radius of 0.005 to 0.1 m, got {self.height_m} and '
                f'{self.radius_m}; correct simulation'
            )
        if self.object is ObjectKind.CAN and self.goal is not Goal.PUSH:
            raise TaskError(
                f'expected the goal push for a can, which is wider than the gripper, got {self.goal.value}; '
                f'correct simulation'
            )


@dataclass(frozen=True, kw_only=True)
class TaskSpec(Record):
    """A task.

    Attributes:
        name: short, of small letters, digits and _.
        instruction: what is to be done, in words.
        cameras: in the order of the observation.
        workspace: box that the TCP stays in; None: that of kinematics_node.
        start: where episodes begin.
        time_limit_s: length of an episode after which it is cut short [s].
        ends: what ends an episode.
        reward: who judges.
        gripper: what the gripper does.
        human: what the human does between two episodes; empty: nothing.
        put_back: where the arm puts the object back by itself; None: it does not.
        simulation: what the task is there.
    """

    KIND: ClassVar[str] = 'so101_contract/task/1'
    ERROR = TaskError
    OPTIONAL: ClassVar[frozenset[str]] = frozenset({'put_back'})

    name: str
    instruction: str
    cameras: tuple[TaskCamera, ...] = (TaskCamera(name='wrist'),)
    workspace: Workspace | None = None
    start: TaskStart = field(default_factory=TaskStart)
    time_limit_s: float = 10.0
    ends: tuple[Ending, ...] = tuple(Ending)
    reward: TaskReward = field(default_factory=TaskReward)
    gripper: GripperKind = GripperKind.JAW
    human: str = ''
    put_back: PutBack | None = None
    simulation: TaskScene = field(default_factory=TaskScene)

    def __post_init__(self) -> None:
        """Check what belongs together."""
        super().__post_init__()
        if not _NAME.fullmatch(self.name):
            raise TaskError(
                f'expected a name of up to 40 small letters, digits and _, got {self.name[:60]!r}; rename it'
            )
        if not 0 < len(self.instruction) <= LONGEST_TEXT or len(self.human) > LONGEST_TEXT:
            raise TaskError(
                f'expected an instruction, and a part of the human, of up to {LONGEST_TEXT} characters, got '
                f'{len(self.instruction)} and {len(self.human)}; say what is to be done in a sentence'
            )
        topics = [camera.topic for camera in self.cameras]
        if len(topics) > MOST_CAMERAS or len(set(topics)) != len(topics):
            raise TaskError(
                f'expected up to {MOST_CAMERAS} cameras, each once, got {[camera.name for camera in self.cameras]}'
            )
        if not 0.5 <= self.time_limit_s <= LONGEST_S or Ending.TIME_LIMIT not in self.ends:
            raise TaskError(
                f'expected time_limit among the ends and one of 0.5 to {LONGEST_S:.0f} s, got '
                f'{[end.value for end in self.ends]} and {self.time_limit_s}; an episode must end some time'
            )
        if self.put_back is not None and self.keeps_closed:
            raise TaskError(
                'expected a gripper that opens for put_back, got closed; take put_back out, or correct gripper'
            )
        if self.workspace is not None and not self.workspace.holds(self.start.xyz):
            raise TaskError(
                f'expected a start within the workspace {self.workspace.low} to {self.workspace.high}, got '
                f'{self.start.xyz}; correct one of them'
            )

    def canonical(self) -> str:
        """Return the text that is hashed: of what decides what is learned."""
        return super(TaskSpec, self.meaning).canonical()

    @property
    def meaning(self) -> 'TaskSpec':
        """The task without what decides nothing: what policies and buffers carry."""
        return replace(self, cameras=(), human='', put_back=None)

    @property
    def keeps_closed(self) -> bool:
        """Whether the gripper stays closed whatever an action says."""
        return self.gripper is GripperKind.CLOSED

    def steps(self, rate_hz: float) -> int:
        """Return the actions of an episode at so many steps per second [Hz]."""
        return max(1, round(self.time_limit_s * rate_hz))

    def hold_steps(self, rate_hz: float) -> int:
        """Return for how many steps the goal must stay reached."""
        return max(1, round(self.reward.hold_s * rate_hz))

    def with_cameras(self, words: Sequence[str]) -> 'TaskSpec':
        """Return the task with other cameras: `name`, or `name=device`; empty words leave it as it is.

        A camera that the task names keeps its crop and size.
        """
        known = {camera.name: camera for camera in self.cameras}
        cameras = []
        for word in filter(None, words):
            name, _, device = word.partition('=')
            camera = known.get(name) or TaskCamera(name=name)
            cameras.append(replace(camera, device=device) if device else camera)
        return replace(self, cameras=tuple(cameras)) if cameras else self

    def observe(
        self, name: str, *, tcp: str | None = None, camera_preset: str | None = None
    ) -> ObservationSpec:
        """Return the observation of a name, of the cameras of this task.

        Raises:
            ContractError: there is none of that name.
        """
        spec = get_observation(name, tcp=tcp, camera_preset=camera_preset)
        return replace(spec, cameras=tuple(camera.spec(spec.image_size) for camera in self.cameras))


def require_same_task(
    mine: TaskSpec | None, theirs: TaskSpec | None, names: tuple[str, str] = ('here', 'there')
) -> None:
    """Refuse another task; what says none, since it is older than tasks, is taken.

    Raises:
        SpecMismatchError: the message lists every field that differs, with both values.
    """
    if mine is None or theirs is None or mine.hash == theirs.hash:
        return
    lines = mine.meaning.diff(theirs.meaning, names)
    raise SpecMismatchError(
        f'expected the task {mine.name} on both sides, got the differences below; name the task that this was '
        f'made with as task:=, or use other files:\n  ' + '\n  '.join(lines)
    )
