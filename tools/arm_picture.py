# SPDX-License-Identifier: Apache-2.0
"""Makes a picture of the arm: `python tools/arm_picture.py arm.png --pose reach --cube --inset`."""

import argparse
from collections.abc import Mapping, Sequence
import math
from pathlib import Path
import re
import sys
from types import MappingProxyType

import cv2
import mujoco
import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_contract.orientation import matrix_to_quat
from so101_description.cameras import CAMERA_PRESETS, CameraPreset
from so101_description.errors import DescriptionError
from so101_description.model import arm_index, build_spec, COLLISION_GROUP
from so101_description.pose import Pose
from so101_description.tcp import get_tcp, GRIPPER_BODY, TCP_PRESETS, TcpPreset
from so101_description.urdf import write_atomically
from so101_sim.errors import RenderError
from so101_sim.render import Renderer, UInt8Array

POSES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        'zero': (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        'rest': (0.0, -1.7, 1.55, 1.0, 0.0, 0.0),
        # the gripper above the table, pointing 60 degrees down, the jaw open for a cube
        'reach': (0.25, -0.15, 0.55, 0.647, 0.0, 0.5),
    }
)
"""Joint positions [rad] by name, in `JOINT_NAMES` order."""

WRIST = 'wrist'
VIEWS: Mapping[str, tuple[float, float, float] | None] = MappingProxyType(
    {
        'three-quarter': (0.65, -1.0, 0.58),
        'side': (0.0, -1.0, 0.12),
        'top': (-1e-3, 0.0, 1.0),  # not quite vertical, so that forward is up
        WRIST: None,
    }
)
"""Direction from the arm to the eye by name; None for the arm's own camera."""

EYE, TABLE = 'eye', 'table'
BACKGROUND = (0.925, 0.94, 0.957)
"""RGB of the table and of what is behind it."""

SHADOW_MAP = 4096
KEY_LIGHT = (0.45, 0.55, -1.0)  # where it shines to
FOVY_DEG = 28.0
FILLED = 0.84  # part of the picture's width or height that the arm fills
CUBE_HALF_M = 0.0125
CUBE_RGBA = (0.85, 0.18, 0.16, 1.0)
AXIS_M, AXIS_RADIUS_M = 0.05, 0.0015
INSET_HEIGHT, INSET_WIDTH = 0.40, 0.33  # at most these parts of the picture's
INSET_MARGIN, INSET_FRAME, INSET_ASPECT = 0.035, 0.007, 4 / 3


def parse_pose(words: Sequence[str]) -> tuple[float, ...]:
    """Return six joint positions [rad] from a name of `POSES`, or from six numbers.

    Raises:
        DescriptionError: it is neither, or a joint is beyond its limits.
    """
    text = ' '.join(words)
    if text in POSES:
        return POSES[text]
    try:
        pose = tuple(float(word) for word in text.replace(',', ' ').split())
    except ValueError:
        pose = ()
    if len(pose) != len(JOINT_NAMES):
        raise DescriptionError(
            f'expected a pose as one of {list(POSES)} or as {len(JOINT_NAMES)} numbers in rad '
            f'({" ".join(JOINT_NAMES)}), got {text!r}; give one of them'
        )
    for name, value in zip(JOINT_NAMES, pose, strict=True):
        lower, upper = JOINT_LIMITS_RAD[name]
        if not lower <= value <= upper:
            raise DescriptionError(
                f'expected {name} between {lower:.3f} and {upper:.3f} rad, got {value:g}; correct it'
            )
    return pose


def build_scene(
    pose: Sequence[float],
    *,
    tcp: str | TcpPreset | None = None,
    camera: str | CameraPreset = 'nexus',
    cube: bool = False,
) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """Return the arm in a pose, on a table and in light, as a model and its state.

    Args:
        pose: joint positions [rad] in `JOINT_NAMES` order.
        tcp: draw the axes of this TCP: x red, y green, z blue; None draws none.
        camera: the wrist camera.
        cube: put a cube on the table where the gripper points.
    """
    # this TCP, whichever is drawn, lies midway between the open jaws: there the cube goes
    spec = build_spec(tcp='menagerie', camera=camera, collision=False)
    _set_stage(spec)
    if tcp is not None:
        frame = get_tcp(tcp).pose
        for axis in np.eye(3):
            end = frame @ Pose(tuple((AXIS_M * axis).tolist()))
            spec.body(GRIPPER_BODY).add_geom(
                type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                fromto=[*frame.position, *end.position],
                size=[AXIS_RADIUS_M, 0, 0],
                rgba=[*(0.1 + 0.75 * axis), 1],
                mass=0,
                contype=0,
                conaffinity=0,
            )
    if cube:
        body = spec.worldbody.add_body(mocap=True)  # can be moved once it is known where the gripper is
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[CUBE_HALF_M] * 3, rgba=CUBE_RGBA)
    model = spec.compile()
    data = mujoco.MjData(model)
    arm = arm_index(model)
    data.qpos[arm.qpos] = pose
    mujoco.mj_forward(model, data)
    if cube:
        tip, forward = data.site_xpos[arm.tcp_site], data.site_xmat[arm.tcp_site].reshape(3, 3)[:, 0]
        fall = (tip[2] - CUBE_HALF_M) / max(-forward[2], 0.5)
        yaw = math.atan2(forward[1], forward[0])
        data.mocap_pos[:] = (*(tip + fall * forward)[:2], CUBE_HALF_M)
        data.mocap_quat[:] = (math.cos(yaw / 2), 0, 0, math.sin(yaw / 2))
        mujoco.mj_forward(model, data)
    return model, data


def _set_stage(spec: mujoco.MjSpec) -> None:
    """Add what shows the arm: a bright table, a light that casts shadows, and a camera that can be moved."""
    visual, world = spec.visual, spec.worldbody
    visual.quality.shadowsize = SHADOW_MAP
    visual.map.znear = 0.01
    visual.headlight.ambient = (0.55,) * 3
    visual.headlight.diffuse = (0.2,) * 3
    visual.headlight.specular = (0.0,) * 3
    spec.add_texture(
        name='sky',
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        rgb1=BACKGROUND,
        rgb2=BACKGROUND,
        width=32,
        height=192,
    )
    world.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=tuple(-value for value in KEY_LIGHT),
        dir=KEY_LIGHT,
        diffuse=(0.42,) * 3,
        specular=(0.2,) * 3,
        castshadow=True,
    )
    world.add_geom(
        name=TABLE,
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(4.0, 4.0, 4.0),
        rgba=(*BACKGROUND, 1.0),
        contype=0,
        conaffinity=0,
    )
    world.add_camera(name=EYE)


def camera_of_view(
    model: mujoco.MjModel, data: mujoco.MjData, view: str, aspect: float
) -> tuple[Pose, float]:
    """Return where a camera is (looks along -z, y up) and its vertical field of view [deg].

    Args:
        model: a scene with one arm.
        data: its state, after `mj_forward`.
        view: a name of `VIEWS`; from outside, the whole scene is in the picture.
        aspect: width of the picture divided by its height.
    """
    if view not in VIEWS:
        raise DescriptionError(f'expected a view as one of {list(VIEWS)}, got {view!r}; choose one')
    direction = VIEWS[view]
    if direction is None:
        camera = arm_index(model).camera
        rotation = data.cam_xmat[camera].reshape(3, 3)
        return Pose(tuple(data.cam_xpos[camera]), tuple(matrix_to_quat(rotation).tolist())), float(
            model.cam_fovy[camera]
        )
    backward = np.array(direction) / np.linalg.norm(direction)
    right = np.cross((0, 0, 1), backward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(backward, right), backward], axis=1)
    corners = drawn_corners(model, data) @ rotation
    centre = (corners.min(axis=0) + corners.max(axis=0))[:2] / 2
    slope = FILLED * math.tan(math.radians(FOVY_DEG) / 2) * np.array([aspect, 1.0])
    distance = ((np.abs(corners[:, :2] - centre) / slope).max(axis=1) + corners[:, 2]).max()
    position = rotation @ np.array([*centre, distance])
    return Pose(tuple(position.tolist()), tuple(matrix_to_quat(rotation).tolist())), FOVY_DEG


def drawn_corners(model: mujoco.MjModel, data: mujoco.MjData) -> npt.NDArray[np.float64]:
    """Return the corners (n, 3) [m] of boxes that hold the drawn geoms but the table, one box each."""
    drawn = (model.geom_group < COLLISION_GROUP) & (model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    boxes = model.geom_aabb[drawn]
    corners = boxes[:, None, :3] + signs * boxes[:, None, 3:]
    rotations = data.geom_xmat[drawn].reshape(-1, 3, 3)
    placed = np.einsum('nij,nkj->nki', rotations, corners) + data.geom_xpos[drawn][:, None]
    return np.asarray(placed.reshape(-1, 3))


def draw(
    scene: tuple[mujoco.MjModel, mujoco.MjData],
    eye: Pose,
    fovy: float,
    size: tuple[int, int],
    samples: int = 2,
) -> UInt8Array:
    """Return a picture (height, width, 3), RGB.

    Args:
        scene: what `build_scene` returns.
        eye: pose of MuJoCo's camera frame (looks along -z, y up) in the world.
        fovy: vertical field of view [deg].
        size: width and height of the picture [px].
        samples: pixels drawn along each edge of one; 1 is quick, 2 is smooth.
    """
    if samples < 1:
        raise DescriptionError(f'expected samples of at least 1, got {samples}; correct it')
    model, data = scene
    index = model.camera(EYE).id
    model.cam_pos[index], model.cam_quat[index], model.cam_fovy[index] = eye.position, eye.quat_wxyz, fovy
    mujoco.mj_forward(model, data)
    width, height = size
    with Renderer(model, width * samples, height * samples, shadows=True) as renderer:
        large = renderer.draw(data, index)
    return np.asarray(cv2.resize(large, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _with_inset(picture: UInt8Array, inset: UInt8Array) -> UInt8Array:
    """Lay a framed picture into the upper left corner."""
    height, width = inset.shape[:2]
    margin, frame = (round(min(picture.shape[:2]) * part) for part in (INSET_MARGIN, INSET_FRAME))
    picture = picture.copy()
    picture[margin - frame : margin + height + frame, margin - frame : margin + width + frame] = 255
    picture[margin : margin + height, margin : margin + width] = inset
    return picture


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'([1-9]\d{0,3})x([1-9]\d{0,3})', text)
    if match is None:
        raise argparse.ArgumentTypeError(f'expected WIDTHxHEIGHT in pixels, such as 960x540, got {text!r}')
    return int(match[1]), int(match[2])


def _check_output(path: Path) -> None:
    """Refuse before the work what could not be written after it."""
    if path.suffix.lower() != '.png' or not path.parent.is_dir() or path.is_dir():
        raise DescriptionError(
            f"expected a .png file in a folder that exists, got '{path}'; correct the name or make the folder"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python tools/arm_picture.py',
        usage='%(prog)s OUT.png [options]',  # the file first, or --pose would take it for a number
        description='Make a picture of the SO-101; no display is needed.',
    )
    parser.add_argument('output', type=Path, metavar='OUT.png', help='file to write')
    parser.add_argument(
        '--pose',
        nargs='+',
        default=['reach'],
        metavar='NAME|RAD',
        help=f'{", ".join(POSES)}; or six numbers in rad: {" ".join(JOINT_NAMES)} (reach)',
    )
    parser.add_argument(
        '--view', choices=list(VIEWS), default='three-quarter', help='from where (%(default)s)'
    )
    parser.add_argument(
        '--size', type=_size, default=(960, 540), metavar='WxH', help='size in pixels (960x540)'
    )
    parser.add_argument(
        '--camera', choices=list(CAMERA_PRESETS), default='nexus', help='wrist camera (%(default)s)'
    )
    parser.add_argument('--inset', action='store_true', help="add the wrist camera's picture in a corner")
    parser.add_argument('--tcp', choices=list(TCP_PRESETS), help='draw the axes of this TCP')
    parser.add_argument('--cube', action='store_true', help='put a cube on the table in front of the gripper')
    parser.add_argument(
        '--samples',
        type=int,
        default=2,
        help='pixels drawn along the edge of one: 1 quick, 2 smooth (%(default)s)',
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    width, height = options.size
    try:
        _check_output(options.output)
        scene = build_scene(
            parse_pose(options.pose), tcp=options.tcp, camera=options.camera, cube=options.cube
        )
        view = camera_of_view(*scene, options.view, width / height)
        picture = draw(scene, *view, (width, height), options.samples)
        if options.inset:
            high = max(1, round(min(height * INSET_HEIGHT, width * INSET_WIDTH / INSET_ASPECT)))
            wrist = camera_of_view(*scene, WRIST, INSET_ASPECT)
            picture = _with_inset(
                picture, draw(scene, *wrist, (round(high * INSET_ASPECT), high), options.samples)
            )
        _, content = cv2.imencode('.png', picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
        write_atomically(options.output, content.tobytes())
    except (DescriptionError, RenderError, OSError) as error:
        sys.stderr.write(f'{error}\n')
        return 1
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
