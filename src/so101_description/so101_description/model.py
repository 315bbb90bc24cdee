# SPDX-License-Identifier: Apache-2.0
"""The SO-101 as a MuJoCo model: the official one with the TCP, wrist camera and meshes that are asked for.

Bodies, joints, actuators and finger pads keep their official names. The official `gripperframe` site and
`wrist_cam` camera are replaced by the site `tcp` and the camera `gripper_cam`, since the official ones mean
something else in every version.
"""

from importlib import resources
from pathlib import Path
from typing import get_args, Literal

import mujoco

from so101_description.cameras import CameraPreset, get_camera
from so101_description.errors import DescriptionError, MeshError
from so101_description.official import check_joints, official_mjcf
from so101_description.tcp import get_tcp, GRIPPER_BODY, TcpPreset

Visuals = Literal['decimated', 'full', 'none']
Collision = bool | Literal['pads']

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
