# SPDX-License-Identifier: Apache-2.0
"""The scene: an SO-101 on a table, a cube or a can, and for some tasks a tray or a mark. One description.

The official model closes the gripper's mouth: the convex hull of each jaw fills it, so that a cube is pushed away
instead of gripped. So the hulls of the two jaws are replaced; the other links keep theirs.

| contacts | the jaws are | 3 cm cube held |
|---|---|---|
| fingers | boxes along the real inner faces, palm and jaw root included | as with the real, flat jaws |
| pads | two thin plates at the finger tips, nothing else | yes, but things pass through the rest of the gripper |
| official | hulls and 2.5 mm pads, as the vendor's model has them | hardly: it touches at two points |
"""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import get_args, Literal

import mujoco
import numpy as np

from so101_description.cameras import CameraPreset, FRONT_VIEW, get_camera
from so101_description.model import (
    arm_index,
    ArmIndex,
    build_spec,
    COLLISION_GROUP,
    FINGER_PADS,
    Visuals,
)
from so101_description.pose import Pose
from so101_description.tcp import GRIPPER_BODY
from so101_interfaces_py.topics import FRONT_CAMERA
from so101_sim.errors import PresetError
from so101_sim.scene.servo import get_servo, ServoModel, set_servos
from so101_sim.scene.surroundings import add_surroundings, GREY_WALLS, Pattern, Rgb, SUN, TABLE, Vector3

PREFIX = 'arm/'
CUBE, TRAY, MARK = 'cube', 'tray', 'mark'

OVERVIEW = 'overview'
"""Camera that shows arm and table from outside."""

FRONT = FRONT_CAMERA
"""Fixed camera before the table, on a small tripod, as a hobbyist would put it: it looks over the cube at the arm."""

FRONT_EYE, FRONT_TARGET = (0.56, 0.10, 0.30), (0.22, 0.0, 0.03)
TIMESTEP_S = 0.002
OVERVIEW_EYE, OVERVIEW_TARGET = (0.60, -0.44, 0.34), (0.15, 0.01, 0.085)
# Time constant and damping ratio: with MuJoCo's default a finger presses so light a cube 3 mm into the table.
STIFF_CONTACT = (0.006, 1.0)
TRAY_HALF_SIZE, TRAY_WALL, TRAY_HEIGHT = 0.045, 0.003, 0.018
MARK_HEIGHT = 0.0006  # what is drawn at the height of the table itself flickers

Contacts = Literal['fingers', 'pads', 'official']
Shape = Literal['cube', 'can']


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What stands where and looks how. Two equal configurations give the same compiled model.

    Attributes:
        contacts: what the gripper touches with.
        servo: the motors.
        tcp: TCP preset; becomes the site `tcp`.
        camera: wrist camera preset.
        visuals: meshes that are drawn.
        shape: what lies there: a cube, or a can as wide as it is high; the code calls both the cube.
        cube_half_size: half edge of the cube [m].
        cube_mass: mass of the cube [kg].
        cube_friction: sliding friction of the cube.
        cube_rgb: its colour.
        tray_position: (x, y) of the tray's centre [m], or None without a tray.
        mark_position: (x, y) of the centre of a mark on the table [m], or None without one.
        mark_radius: its radius [m].
        table_rgb: colour of the table.
        table_pattern: pattern on it, or None for none.
        walls: colours of what is seen far away, above and below.
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
    shape: Shape = 'cube'
    cube_half_size: float = 0.015
    cube_mass: float = 0.03
    cube_friction: float = 1.0
    cube_rgb: Rgb = (0.80, 0.12, 0.10)
    tray_position: tuple[float, float] | None = None
    mark_position: tuple[float, float] | None = None
    mark_radius: float = 0.03
    table_rgb: Rgb = (0.62, 0.60, 0.57)
    table_pattern: Pattern | None = None
    walls: tuple[Rgb, Rgb] = GREY_WALLS
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
        table_geom: of the table.
        light: the one light.
        tray_geoms: floor and walls of the tray; empty without one.
        goal_body: the tray or the mark; -1 without either.
    """

    arm: ArmIndex
    cube_qpos: int
    cube_qvel: int
    cube_body: int
    cube_geom: int
    static_finger: int
    moving_finger: int
    table_geom: int
    light: int
    tray_geoms: frozenset[int]
    goal_body: int


def build_scene(config: SceneConfig) -> mujoco.MjSpec:
    """Assemble the scene as an editable spec."""
    spec = mujoco.MjSpec()
    spec.modelname = 'so101_scene'
    _set_options(spec, config)
    add_surroundings(
        spec,
        table_rgb=config.table_rgb,
        pattern=config.table_pattern,
        walls=config.walls,
        light_direction=config.light_direction,
        light_strength=config.light_strength,
    )
    _add_cameras(spec)
    _add_cube(spec, config)
    if config.tray_position is not None:
        _add_tray(spec, config.tray_position)
    if config.mark_position is not None:
        _add_mark(spec, config.mark_position, config.mark_radius)
    spec.attach(_build_arm(config), prefix=PREFIX, frame=spec.worldbody.add_frame())
    return spec


def load_scene(config: SceneConfig) -> mujoco.MjModel:
    """Compile the scene. Every call returns a model of its own, which may be changed."""
    return _copied(_compiled(config))


def scene_index(model: mujoco.MjModel) -> SceneIndex:
    """Find everything in a compiled scene."""
    bodies = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, i) or '' for i in model.geom_bodyid]
    touching = [i for i in range(model.ngeom) if model.geom_contype[i] or model.geom_conaffinity[i]]
    return SceneIndex(
        arm=arm_index(model, PREFIX),
        cube_qpos=int(model.joint(CUBE).qposadr[0]),
        cube_qvel=int(model.joint(CUBE).dofadr[0]),
        cube_body=model.body(CUBE).id,
        cube_geom=model.geom(CUBE).id,
        static_finger=model.geom(PREFIX + STATIC_FINGER).id,
        moving_finger=model.geom(PREFIX + MOVING_FINGER).id,
        table_geom=model.geom(TABLE).id,
        light=model.light(SUN).id,
        tray_geoms=frozenset(i for i in touching if bodies[i] == TRAY),
        goal_body=max(mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in (TRAY, MARK)),
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


def _add_cameras(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    camera = world.add_camera(name=OVERVIEW, pos=OVERVIEW_EYE, fovy=36.0)
    camera.quat = _looking(OVERVIEW_EYE, OVERVIEW_TARGET)
    front = world.add_camera(name=FRONT, pos=FRONT_EYE, fovy=FRONT_VIEW.fovy_deg)
    front.quat = _looking(FRONT_EYE, FRONT_TARGET)


def _add_cube(spec: mujoco.MjSpec, config: SceneConfig) -> None:
    half = config.cube_half_size
    body = spec.worldbody.add_body(name=CUBE, pos=(0.25, 0.0, half))
    body.add_freejoint(name=CUBE)
    body.add_geom(
        name=CUBE,
        type=mujoco.mjtGeom.mjGEOM_BOX if config.shape == 'cube' else mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(half,) * 3,
        mass=config.cube_mass,
        rgba=(*config.cube_rgb, 1.0),
        friction=(config.cube_friction, 0.02, 0.001),
        condim=4,
        solref=STIFF_CONTACT,
    )


def _add_mark(spec: mujoco.MjSpec, position: tuple[float, float], radius: float) -> None:
    body = spec.worldbody.add_body(name=MARK, pos=(*position, 0.0))
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=(0.0, 0.0, MARK_HEIGHT),
        size=(radius, MARK_HEIGHT, 0.0),
        rgba=(0.13, 0.50, 0.22, 1.0),
        contype=0,
        conaffinity=0,
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


def front_pose() -> Pose:
    """Return the pose of the front camera (MuJoCo's frame: looks along -z) in the base of the arm."""
    return Pose(FRONT_EYE, _looking(FRONT_EYE, FRONT_TARGET))


def _looking(eye: Vector3, target: Vector3) -> tuple[float, ...]:
    """Return the quaternion of a camera at `eye` that looks at `target`, upright."""
    back = np.array(eye) - np.array(target)
    back = back / np.linalg.norm(back)
    right = np.cross((0.0, 0.0, 1.0), back)
    right = right / np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    return Pose.from_matrix(T).quat_wxyz


STATIC_JAW_BODY = 'gripper'
MOVING_JAW_BODY = 'moving_jaw_so101_v1'
STATIC_FINGER, MOVING_FINGER = FINGER_PADS
JAW_MESHES = ('wrist_roll_follower_so101_v1', 'moving_jaw_so101_v1')
# Rubber on plastic; torsional friction keeps a cube from spinning between two edges.
FINGER_FRICTION = (1.0, 0.02, 0.001)
# Inner faces as measured on the meshes, ends of their middle lines [m]. Static jaw, in the gripper body (x, z); moving
# jaw, in its own body (x, y), whose fingers lie in the plane z = 0.0189.
_STATIC_TIP, _STATIC_ROOT = (-0.0079, -0.104), (-0.0147, -0.040)
_MOVING_TIP, _MOVING_ROOT = (-0.0123, -0.082), (-0.0083, -0.050)
_JAW_PLANE_Z = 0.0189
_HALF_THICKNESS, _HALF_WIDTH = 0.0025, 0.006
# Position and half sizes of what is behind the fingers.
_PALM = ((-0.010, 0.0, -0.0205), (0.025, 0.024, 0.0175))
_JAW_ROOT = ((-0.0004, -0.0325, _JAW_PLANE_Z), (0.0079, 0.0175, 0.0105))
_PAD_HALF_SIZE = (0.002, 0.008, 0.012)


def set_contacts(spec: mujoco.MjSpec, contacts: Contacts) -> None:
    """Replace the contact shapes of the jaws in a robot that still has the official ones.

    Args:
        spec: the robot, built with `collision=True`.
        contacts: which shapes.

    Raises:
        PresetError: there are no such contacts.
    """
    if contacts not in get_args(Contacts):
        raise PresetError(f'expected contacts as one of {get_args(Contacts)}, got {contacts!r}; choose one')
    if contacts == 'official':
        return
    for geom in [geom for geom in spec.geoms if geom.group == COLLISION_GROUP]:
        if geom.name not in FINGER_PADS and (contacts == 'pads' or geom.meshname in JAW_MESHES):
            spec.delete(geom)
    if contacts == 'pads':
        for name in FINGER_PADS:
            spec.geom(name).size = _PAD_HALF_SIZE
        return
    _set_static_finger(spec.geom(STATIC_FINGER))
    _set_moving_finger(spec.geom(MOVING_FINGER))
    _add_box(spec.body(STATIC_JAW_BODY), 'palm', *_PALM)
    _add_box(spec.body(MOVING_JAW_BODY), 'jaw_root', *_JAW_ROOT)


def _set_static_finger(geom: mujoco.MjsGeom) -> None:
    """A box whose +x face is the inner face of the static jaw, its z axis along the finger."""
    tip, root = np.array(_STATIC_TIP), np.array(_STATIC_ROOT)
    along = (root - tip) / np.linalg.norm(root - tip)
    centre = (tip + root) / 2 - _HALF_THICKNESS * np.array([along[1], -along[0]])
    angle = float(np.arctan2(along[0], along[1]))
    geom.pos = (centre[0], 0.0, centre[1])
    geom.quat = (np.cos(angle / 2), 0.0, np.sin(angle / 2), 0.0)
    geom.size = (_HALF_THICKNESS, _HALF_WIDTH, float(np.linalg.norm(root - tip)) / 2)
    geom.friction, geom.condim = FINGER_FRICTION, 4


def _set_moving_finger(geom: mujoco.MjsGeom) -> None:
    """A box whose -x face is the inner face of the moving jaw, its y axis along the finger."""
    tip, root = np.array(_MOVING_TIP), np.array(_MOVING_ROOT)
    along = (root - tip) / np.linalg.norm(root - tip)
    centre = (tip + root) / 2 + _HALF_THICKNESS * np.array([along[1], -along[0]])
    angle = float(-np.arctan2(along[0], along[1]))
    geom.pos = (centre[0], centre[1], _JAW_PLANE_Z)
    geom.quat = (np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2))
    geom.size = (_HALF_THICKNESS, float(np.linalg.norm(root - tip)) / 2, _HALF_WIDTH)
    geom.friction, geom.condim = FINGER_FRICTION, 4


def _add_box(
    body: mujoco.MjsBody, name: str, position: tuple[float, ...], half_size: tuple[float, ...]
) -> None:
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=position,
        size=half_size,
        group=COLLISION_GROUP,
        friction=FINGER_FRICTION,
        mass=0.0,
    )
