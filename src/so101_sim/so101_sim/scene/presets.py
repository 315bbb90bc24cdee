# SPDX-License-Identifier: Apache-2.0
"""Everything that makes up a task on an arm, by name: how hard it is, and how far from the nominal simulation.

| preset | cube | differs |
|---|---|---|
| easy | +-3 cm | |
| wide | +-7 cm, +-45 deg | colour of the cube, light, camera jitter |
| gap | +-7 cm, +-45 deg | stands in for a real arm: soft, lagging servos with 1 deg of play, camera moved by 1 cm and 3 deg, gripper 8 mm from where kinematics believe it, other light and table |
| pick101 | stages 3 (default), 0 and 4 of pick-101 | its TCP, camera, 50 Hz controller, servos, success and reward |
"""  # noqa: E501

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
import math
from types import MappingProxyType

from so101_contract.observation_spec import ObservationSpec, robobase_spec
from so101_driver.gate.config import GateConfig
from so101_kinematics.config import KinematicsConfig
from so101_sim.errors import PresetError
from so101_sim.scene.scene import SceneConfig
from so101_sim.scene.servo import SERVOS
from so101_sim.scene.start import AtPoint, AtPose, NearCube, Start, Variation
from so101_sim.tasks import Lift, Place, Task, TASKS


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


WIDE_START = Start(
    cube_x=(0.18, 0.32),
    cube_y=(-0.07, 0.07),
    cube_yaw=(-math.pi / 4, math.pi / 4),
    arm=AtPoint(spread=(0.04, 0.04, 0.015)),
)
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
        'light': ('table_rgb', 'light_direction', 'light_strength', 'ambient'),
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
_WIDE = Preset(name='wide', start=WIDE_START, variation=WIDE_VARIATION)
_GAP = Preset(name='gap', start=WIDE_START, variation=WIDE_VARIATION, scene=GAP_SCENE)


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

TRAY_POSITION = (0.23, 0.14)


def get_preset(name: str = 'easy', task: str = 'lift') -> Preset:
    """Return a task at a difficulty.

    Raises:
        PresetError: there is no such preset or task, or the preset is for lifting only.
    """
    if name not in PRESETS:
        raise PresetError(f'expected one of the presets {list(PRESETS)}, got {name!r}; name one of them')
    if task not in TASKS:
        raise PresetError(f'expected one of the tasks {list(TASKS)}, got {task!r}; name one of them')
    preset = PRESETS[name]
    if task == 'lift':
        return preset
    if name.startswith('pick101'):
        raise PresetError(
            f'expected the task lift for the preset {name!r}, got {task!r}; pick-101 only lifts'
        )
    return replace(
        preset,
        task=Place(),
        scene=replace(preset.scene, tray_position=TRAY_POSITION),
        start=replace(preset.start, cube_y=(preset.start.cube_y[0] - 0.02, preset.start.cube_y[1] - 0.02)),
        max_steps=150,
    )
