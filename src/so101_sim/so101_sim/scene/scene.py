# SPDX-License-Identifier: Apache-2.0
"""The scene: an SO-101 on a table, a cube, and for some tasks a tray. One description, compiled once."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

import mujoco
import numpy as np

from so101_description.cameras import CameraPreset, get_camera
from so101_description.lookup import arm_index, ArmIndex
from so101_description.model import build_spec, CAMERA_NAME, Visuals
from so101_description.pose import Pose
from so101_description.tcp import GRIPPER_BODY
from so101_sim.errors import PresetError
from so101_sim.fingers import Contacts, MOVING_FINGER, set_contacts, STATIC_FINGER
from so101_sim.scene.servo import get_servo, ServoModel, set_servos

PREFIX = 'arm/'
CUBE, TRAY, TABLE, FLOOR, SUN = 'cube', 'tray', 'table', 'floor', 'sun'
OVERVIEW = 'overview'
"""Camera that shows arm and table to people."""

TIMESTEP_S = 0.002
OVERVIEW_EYE, OVERVIEW_TARGET = (0.60, -0.44, 0.34), (0.15, 0.01, 0.085)
TABLE_HALF_SIZE = (0.45, 0.55)
TABLE_CENTRE = (0.22, 0.0)
FLOOR_Z = -0.72
GRID = 2.0  # spacing of the squares that planes are drawn with [m]: a fine grid takes longer to draw than the arm
# Time constant and damping ratio: with MuJoCo's default a finger presses so light a cube 3 mm into the table.
STIFF_CONTACT = (0.006, 1.0)
TRAY_HALF_SIZE, TRAY_WALL, TRAY_HEIGHT = 0.045, 0.003, 0.018

Rgb = tuple[float, float, float]
Vector3 = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What stands where and looks how. Two equal configurations give the same compiled model.

    Attributes:
        contacts: what the gripper touches with.
        servo: the motors.
        tcp: TCP preset; becomes the site `tcp`.
        camera: wrist camera preset.
        visuals: meshes that are drawn.
        cube_half_size: half edge of the cube [m].
        cube_mass: mass of the cube [kg].
        cube_friction: sliding friction of the cube.
        cube_rgb: its colour.
        tray_position: (x, y) of the tray's centre [m], or None without a tray.
        table_rgb: colour of the table.
        light_direction: where the light shines to.
        light_strength: its brightness, 0..1.
        ambient: brightness of what the light does not reach, 0..1.
        camera_shift_m: the camera is mounted this far from the preset, in its own frame (right, up, back) [m].
        camera_turn_deg: and turned about its own axes x, y, z [deg].
        gripper_shift_m: the gripper is mounted this far from where kinematics believe it, in its own frame [m].
        noslip_iterations: MuJoCo's correction of slow slip in contacts.
    """

    contacts: Contacts = 'fingers'
    servo: ServoModel = field(default_factory=lambda: get_servo('sts3215_7v4'))
    tcp: str = 'so101'
    camera: str = 'nexus'
    visuals: Visuals = 'decimated'
    cube_half_size: float = 0.015
    cube_mass: float = 0.03
    cube_friction: float = 1.0
    cube_rgb: Rgb = (0.80, 0.12, 0.10)
    tray_position: tuple[float, float] | None = None
    table_rgb: Rgb = (0.62, 0.60, 0.57)
    light_direction: Vector3 = (-0.35, 0.25, -0.90)
    light_strength: float = 0.55
    ambient: float = 0.40
    camera_shift_m: Vector3 = (0.0, 0.0, 0.0)
    camera_turn_deg: Vector3 = (0.0, 0.0, 0.0)
    gripper_shift_m: Vector3 = (0.0, 0.0, 0.0)
    noslip_iterations: int = 0

    def __post_init__(self) -> None:
        """Check what MuJoCo would not."""
        if not 0.005 <= self.cube_half_size <= 0.03:
            raise PresetError(
                f'expected a cube with half an edge of 0.005 to 0.03 m, which the gripper can hold, '
                f'got {self.cube_half_size}; correct it'
            )
        if not (0.0 < self.cube_mass <= 0.5 and self.cube_friction > 0.0):
            raise PresetError(
                f'expected a cube of up to 0.5 kg with friction, got {self.cube_mass} kg and {self.cube_friction}'
            )

    @property
    def mounted_camera(self) -> CameraPreset:
        """The wrist camera where it really is."""
        preset = get_camera(self.camera)
        turn = Pose.from_euler(self.camera_shift_m, tuple(np.radians(self.camera_turn_deg).tolist()))
        return replace(preset, pose=preset.pose @ turn)


@dataclass(frozen=True)
class SceneIndex:
    """Where things are in the compiled scene.

    Attributes:
        arm: the arm.
        cube_qpos: first of the seven places of the cube in `data.qpos`.
        cube_qvel: first of its six places in `data.qvel`.
        cube_body: of the cube.
        cube_geom: of the cube.
        static_finger: geom of the static jaw's finger.
        moving_finger: geom of the moving jaw's finger.
        gripper_geoms: geoms of both jaws.
        arm_geoms: geoms of the whole arm that touch things.
        table_geom: of the table.
        light: the one light.
        tray_geoms: floor and walls of the tray; empty without one.
    """

    arm: ArmIndex
    cube_qpos: int
    cube_qvel: int
    cube_body: int
    cube_geom: int
    static_finger: int
    moving_finger: int
    gripper_geoms: frozenset[int]
    arm_geoms: frozenset[int]
    table_geom: int
    light: int
    tray_geoms: frozenset[int]


def build_scene(config: SceneConfig) -> mujoco.MjSpec:
    """Assemble the scene as an editable spec."""
    spec = mujoco.MjSpec()
    spec.modelname = 'so101_scene'
    _set_options(spec, config)
    _add_surroundings(spec, config)
    _add_cube(spec, config)
    if config.tray_position is not None:
        _add_tray(spec, config.tray_position)
    spec.attach(_build_arm(config), prefix=PREFIX, frame=spec.worldbody.add_frame())
    return spec


def load_scene(config: SceneConfig) -> mujoco.MjModel:
    """Compile the scene. Every call returns a model of its own, which may be changed."""
    return _copied(_compiled(config))


def scene_index(model: mujoco.MjModel) -> SceneIndex:
    """Find everything in a compiled scene."""
    bodies = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, i) or '' for i in model.geom_bodyid]
    touching = [i for i in range(model.ngeom) if model.geom_contype[i] or model.geom_conaffinity[i]]
    jaws = {PREFIX + GRIPPER_BODY, PREFIX + 'moving_jaw_so101_v1'}
    return SceneIndex(
        arm=arm_index(model, PREFIX),
        cube_qpos=int(model.joint(CUBE).qposadr[0]),
        cube_qvel=int(model.joint(CUBE).dofadr[0]),
        cube_body=model.body(CUBE).id,
        cube_geom=model.geom(CUBE).id,
        static_finger=model.geom(PREFIX + STATIC_FINGER).id,
        moving_finger=model.geom(PREFIX + MOVING_FINGER).id,
        gripper_geoms=frozenset(i for i in touching if bodies[i] in jaws),
        arm_geoms=frozenset(i for i in touching if bodies[i].startswith(PREFIX)),
        table_geom=model.geom(TABLE).id,
        light=model.light(SUN).id,
        tray_geoms=frozenset(i for i in touching if bodies[i] == TRAY),
    )


@lru_cache(maxsize=8)
def _compiled(config: SceneConfig) -> mujoco.MjModel:
    return build_scene(config).compile()


def _copied(model: mujoco.MjModel) -> mujoco.MjModel:
    return model.__copy__()


def _set_options(spec: mujoco.MjSpec, config: SceneConfig) -> None:
    option = spec.option
    option.timestep = TIMESTEP_S
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # Elliptic cones and a high ratio of friction to normal impedance keep a gripped cube from creeping out.
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 10.0
    option.noslip_iterations = config.noslip_iterations
    visual = spec.visual
    # No shadow, no mirror, no multisampling: on a processor they cost more than everything else in the picture.
    visual.quality.shadowsize = 0
    visual.quality.offsamples = 0
    visual.global_.offwidth, visual.global_.offheight = 1280, 960
    visual.map.znear = 0.002
    visual.map.zfar = 8.0
    visual.headlight.ambient = (config.ambient,) * 3
    visual.headlight.diffuse = (0.15,) * 3
    visual.headlight.specular = (0.0,) * 3


def _add_surroundings(spec: mujoco.MjSpec, config: SceneConfig) -> None:
    world = spec.worldbody
    spec.add_texture(
        name='sky',
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.75, 0.78, 0.82),
        rgb2=(0.45, 0.48, 0.52),
        width=32,
        height=192,
    )
    world.add_light(
        name=SUN,
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=tuple(-1.5 * value for value in config.light_direction),
        dir=config.light_direction,
        diffuse=(config.light_strength,) * 3,
        specular=(0.15,) * 3,
        castshadow=False,
    )
    world.add_geom(
        name=TABLE,
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=(*TABLE_CENTRE, 0.0),
        size=(*TABLE_HALF_SIZE, GRID),
        rgba=(*config.table_rgb, 1.0),
    )
    world.add_geom(
        name=FLOOR,
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=(0.0, 0.0, FLOOR_Z),
        size=(4.0, 4.0, GRID),
        rgba=(0.35, 0.33, 0.31, 1.0),
        contype=0,
        conaffinity=0,
    )
    camera = world.add_camera(name=OVERVIEW, pos=OVERVIEW_EYE, fovy=36.0)
    camera.quat = _looking(OVERVIEW_EYE, OVERVIEW_TARGET)


def _add_cube(spec: mujoco.MjSpec, config: SceneConfig) -> None:
    half = config.cube_half_size
    body = spec.worldbody.add_body(name=CUBE, pos=(0.25, 0.0, half))
    body.add_freejoint(name=CUBE)
    body.add_geom(
        name=CUBE,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(half,) * 3,
        mass=config.cube_mass,
        rgba=(*config.cube_rgb, 1.0),
        friction=(config.cube_friction, 0.02, 0.001),
        condim=4,
        solref=STIFF_CONTACT,
    )


def _add_tray(spec: mujoco.MjSpec, position: tuple[float, float]) -> None:
    half, wall, height = TRAY_HALF_SIZE, TRAY_WALL, TRAY_HEIGHT
    body = spec.worldbody.add_body(name=TRAY, pos=(*position, 0.0))
    colour = (0.16, 0.30, 0.52, 1.0)
    boxes = [((0.0, 0.0, wall / 2), (half, half, wall / 2))]
    for sign in (-1.0, 1.0):
        boxes.append(((sign * (half - wall / 2), 0.0, height / 2), (wall / 2, half, height / 2)))
        boxes.append(((0.0, sign * (half - wall / 2), height / 2), (half, wall / 2, height / 2)))
    for place, size in boxes:
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=place, size=size, rgba=colour)


def _build_arm(config: SceneConfig) -> mujoco.MjSpec:
    arm = build_spec(tcp=config.tcp, camera=config.mounted_camera, visuals=config.visuals, collision=True)
    set_contacts(arm, config.contacts)
    set_servos(arm, config.servo)
    gripper = arm.body(GRIPPER_BODY)
    quat = tuple(float(v) for v in gripper.quat)
    mounted = Pose(tuple(float(v) for v in gripper.pos), quat) @ Pose(config.gripper_shift_m)
    gripper.pos = mounted.position
    return arm


def _looking(eye: Vector3, target: Vector3) -> tuple[float, ...]:
    """Return the quaternion of a camera at `eye` that looks at `target`, upright."""
    back = np.array(eye) - np.array(target)
    back = back / np.linalg.norm(back)
    right = np.cross((0.0, 0.0, 1.0), back)
    right = right / np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    return Pose.from_matrix(T).quat_wxyz


__all__ = ['CAMERA_NAME', 'OVERVIEW', 'SceneConfig', 'SceneIndex', 'build_scene', 'load_scene', 'scene_index']
