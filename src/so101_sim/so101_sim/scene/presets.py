# SPDX-License-Identifier: Apache-2.0
"""Everything that makes up a task on an arm, by name: how hard it is, and how far from the nominal simulation.

| preset | cube | differs |
|---|---|---|
| easy | +-3 cm | |
| wide | +-7 cm, +-45 deg | colour of the cube, light, camera jitter |
| gap | +-7 cm, +-45 deg | stands in for a real arm: soft, lagging servos with 1 deg of play, camera moved by 1 cm and 3 deg, gripper 8 mm from where kinematics believe it, other light and table |
| room-N | +-7 cm, +-45 deg | a room of its own for each number: table with a pattern, walls, lamp, camera, gripper, servos, size and mass of the cube; see `rooms` |
| rooms | +-7 cm, +-45 deg | another room below 10000 in each episode, to train for rooms that are never seen |
| pick101 | stages 3 (default), 0 and 4 of pick-101 | its TCP, camera, 50 Hz controller, servos, success and reward |
"""  # noqa: E501

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
import math
from types import MappingProxyType

from so101_contract.observation_spec import ObservationSpec, robobase_spec
from so101_contract.task.files import get_task
from so101_contract.task.spec import DEFAULT_TASK, Goal, ObjectKind, TaskScene, TaskSpec
from so101_driver.gate.config import GateConfig
from so101_kinematics.config import KinematicsConfig
from so101_sim.errors import PresetError
from so101_sim.scene.rooms import draw_room, FIRST_UNSEEN, number_of, ROOM, ROOMS
from so101_sim.scene.scene import SceneConfig
from so101_sim.scene.servo import SERVOS
from so101_sim.scene.start import AtPoint, AtPose, NearCube, Start, Variation
from so101_sim.tasks import Lift, Task, task_of


@dataclass(frozen=True, kw_only=True)
class ArmControl:
    """How an action reaches the servos.

    Attributes:
        rate_hz: rate of actions [Hz].
        kinematics: the end-effector controller, as kinematics_node runs it.
        gate: limits of the driver, as arm_node applies them; None where joint goals go to the servos untouched.
        latency_s: from the observation to the moment when the controller gets the action [s].
    """

    rate_hz: float = 10.0
    kinematics: KinematicsConfig = field(default_factory=KinematicsConfig)
    gate: GateConfig | None = field(default_factory=GateConfig)
    latency_s: float = 0.02

    def __post_init__(self) -> None:
        """Check that the rates fit together."""
        ticks = self.kinematics.rate_hz / self.rate_hz
        if abs(ticks - round(ticks)) > 1e-9 or round(ticks) < 1:
            raise PresetError(
                f'expected a control rate of which the controller does a whole multiple '
                f'({self.kinematics.rate_hz} Hz), got {self.rate_hz} Hz; correct one'
            )
        if not 0.0 <= self.latency_s < 1.0 / self.rate_hz:
            raise PresetError(
                f'expected a latency shorter than a step of {1.0 / self.rate_hz} s, got {self.latency_s} s'
            )

    @property
    def ticks(self) -> int:
        """Controller periods in one step."""
        return round(self.kinematics.rate_hz / self.rate_hz)

    @property
    def latency_ticks(self) -> int:
        """Controller periods before the action arrives."""
        return round(self.latency_s * self.kinematics.rate_hz)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A task at one difficulty.

    Attributes:
        name: what parameters call it.
        task: what is to be done.
        scene: what stands where.
        start: reset distribution.
        variation: what else differs between episodes.
        control: how actions reach the servos.
        observation: what a policy sees.
        max_steps: steps after which an episode is cut off.
        reward: name of its usual reward.
        start_spread: how much wider than the task says the starts of the arm are spread, along each axis.
        spec: the task as its file says it; None where none does.
        rooms: each episode is in another of so many rooms; 0: all are in the scene.
    """

    name: str
    task: Task = field(default_factory=Lift)
    scene: SceneConfig = field(default_factory=SceneConfig)
    start: Start = field(default_factory=Start)
    variation: Variation = field(default_factory=Variation)
    control: ArmControl = field(default_factory=ArmControl)
    observation: ObservationSpec = field(default_factory=ObservationSpec)
    max_steps: int = 100
    reward: str = 'sparse'
    start_spread: tuple[float, float, float] = (1.0, 1.0, 1.0)
    spec: TaskSpec | None = None
    rooms: int = 0

    def room(self, number: int) -> 'Preset':
        """Return the preset in the room of that number."""
        return replace(self, scene=draw_room(number, self.scene))


WIDE_START = Start(
    cube_x=(0.18, 0.32),
    cube_y=(-0.07, 0.07),
    cube_yaw=(-math.pi / 4, math.pi / 4),
    arm=AtPoint(spread=(0.04, 0.04, 0.015)),
)
WIDE_SPREAD = (2.0, 2.0, 1.5)
WIDE_VARIATION = Variation(
    cube_hue=True,
    table_shade=0.15,
    light_turn_rad=0.4,
    light_change=0.3,
    camera_shift_m=0.002,
    camera_turn_deg=1.0,
)
NOMINAL_SCENE = SceneConfig()
GAP_SCENE = SceneConfig(
    servo=replace(SERVOS['sts3215_7v4_soft'], lag_s=0.06, backlash_rad=math.radians(1.0)),
    camera_shift_m=(0.006, -0.006, 0.0055),
    camera_turn_deg=(2.0, -2.0, 1.0),
    gripper_shift_m=(0.005, 0.004, -0.005),
    table_rgb=(0.36, 0.27, 0.19),
    light_direction=(0.6, -0.5, -0.6),
    light_strength=0.75,
    ambient=0.22,
)
SCENE_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        'servos': ('servo',),
        'gripper': ('gripper_shift_m',),
        'camera': ('camera_shift_m', 'camera_turn_deg'),
        'light': ('table_rgb', 'table_pattern', 'walls', 'light_direction', 'light_strength', 'ambient'),
    }
)
"""In what the preset gap differs from the nominal scene: fields of the scene by a name for them."""


def with_nominal(preset: Preset, parts: Iterable[str]) -> Preset:
    """Return the preset with parts of its scene as they are in the nominal one, to see what a difference costs.

    Raises:
        PresetError: there is no such part.
    """
    values = {}
    for part in parts:
        if part not in SCENE_PARTS:
            raise PresetError(
                f'expected one of the parts {list(SCENE_PARTS)} of a scene, got {part!r}; name one of them'
            )
        values.update({name: getattr(NOMINAL_SCENE, name) for name in SCENE_PARTS[part]})
    return replace(preset, scene=replace(preset.scene, **values))


_EASY = Preset(name='easy')
_WIDE = Preset(name='wide', start=WIDE_START, variation=WIDE_VARIATION, start_spread=WIDE_SPREAD)
_GAP = replace(_WIDE, name='gap', scene=GAP_SCENE)


def _pick101(name: str, start: Start) -> Preset:
    """Return a preset with the numbers of pick-101's lift environment."""
    return Preset(
        name=name,
        task=Lift(height_m=0.08, hold_steps=10, max_gripper_rad=0.25),
        scene=SceneConfig(
            tcp='pick101',
            camera='pick101',
            servo=SERVOS['official'],
            cube_friction=0.5,
            noslip_iterations=3,
        ),
        start=start,
        control=ArmControl(
            rate_hz=50.0,
            kinematics=KinematicsConfig(profile='pick101', tcp='pick101', max_gripper_speed=20.0),
            gate=None,
            latency_s=0.0,
        ),
        observation=robobase_spec(),
        max_steps=200,
        reward='pick101',
    )


_PICK101_CUBE = {'cube_x': (0.23, 0.27), 'cube_y': (-0.02, 0.02)}

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _EASY,
            _WIDE,
            _GAP,
            _pick101('pick101', Start(**_PICK101_CUBE, arm=NearCube())),
            _pick101('pick101_stage0', Start(cube_x=(0.37, 0.43), cube_y=(-0.13, -0.07), arm=AtPose())),
            _pick101(
                'pick101_stage4',
                Start(**_PICK101_CUBE, arm=NearCube(offset=(0.0, 0.0, 0.0), away=(0.08, 0.12), height=0.10)),
            ),
        )
    }
)
"""Presets of the task lift by name."""

CAN_HALF_SIZE, CAN_MASS = 0.025, 0.08
"""Half its height and its radius [m], and its mass [kg]: a small tin, half full."""


NAMES = (*PRESETS, ROOMS, ROOM)
"""Of presets, as help and errors tell them; N is a number."""


def get_preset(name: str = 'easy', task: str | TaskSpec = DEFAULT_TASK) -> Preset:
    """Return a task at a difficulty.

    Args:
        name: of the preset.
        task: name or file of a task, or what one says.

    Raises:
        PresetError: there is no such preset, or it is for lifting only.
        TaskError: there is no such task.
    """
    number = number_of(name)
    if name not in PRESETS and name != ROOMS and number is None:
        raise PresetError(f'expected one of the presets {list(NAMES)}, got {name!r}; name one of them')
    spec = get_task(task) if isinstance(task, str) else task
    preset = PRESETS.get(name, replace(_WIDE, name=name))
    if name.startswith('pick101'):
        if spec.simulation.goal is not Goal.LIFT:
            raise PresetError(
                f'expected a task that lifts for the preset {name!r}, got {spec.name!r}; pick-101 only lifts'
            )
        return replace(preset, spec=spec)
    rate_hz = preset.control.rate_hz
    at_work = replace(
        preset,
        task=task_of(spec, rate_hz),
        scene=_scene_of(preset.scene, spec.simulation),
        start=_start_of(preset, spec),
        control=_control_of(preset.control, spec),
        max_steps=spec.steps(rate_hz),
        spec=spec,
    )
    if number is not None:
        return at_work.room(number)
    return replace(at_work.room(0), rooms=FIRST_UNSEEN) if name == ROOMS else at_work


def get_scene_preset(name: str, task: str | TaskSpec) -> Preset:
    """Return a preset whose episodes are all in one scene, as on a running arm.

    Raises:
        PresetError: as `get_preset`, or each of its episodes is in another room.
        TaskError: there is no such task.
    """
    preset = get_preset(name, task)
    if preset.rooms:
        raise PresetError(
            f'expected one scene, got the preset {name!r}, which is another in each episode, to train by; name a room, '
            f'such as room-{FIRST_UNSEEN}'
        )
    return preset


def _scene_of(scene: SceneConfig, task: TaskScene) -> SceneConfig:
    if task.goal is Goal.PLACE:
        scene = replace(scene, tray_position=task.mark)
    elif task.goal is Goal.PUSH:
        scene = replace(scene, mark_position=task.mark, mark_radius=task.radius_m)
    if task.object is ObjectKind.CUBE:
        return scene
    return replace(scene, shape='can', cube_half_size=CAN_HALF_SIZE, cube_mass=CAN_MASS)


def _start_of(preset: Preset, spec: TaskSpec) -> Start:
    """Return where an episode begins: the preset says how far things are spread, the task around what."""
    (dx, dy), start, arm = spec.simulation.shift_m, preset.start, spec.start.arm_start
    x, y, z = (spread * share for spread, share in zip(arm.spread, preset.start_spread, strict=True))
    return replace(
        start,
        cube_x=(start.cube_x[0] + dx, start.cube_x[1] + dx),
        cube_y=(start.cube_y[0] + dy, start.cube_y[1] + dy),
        arm=replace(arm, spread=(x, y, z)),
    )


def _control_of(control: ArmControl, spec: TaskSpec) -> ArmControl:
    box = spec.workspace
    if box is None:
        return control
    kinematics = replace(control.kinematics, workspace_min=box.low, workspace_max=box.high)
    return replace(control, kinematics=kinematics)
