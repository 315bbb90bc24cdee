# SPDX-License-Identifier: Apache-2.0
"""How an episode begins: where the cube lies, how the arm is placed, and what varies in how the scene looks and weighs.

Domain randomization (Tobin et al., 2017) is a `Variation`: colours, light, the camera's mount, the cube.
"""

import colorsys
from dataclasses import dataclass, field

import mujoco
import numpy as np

from so101_contract.task_report import ArmStart, AtPoint, AtPose, home_pose, HOME_TCP, NearCube
from so101_kinematics.ik import InverseKinematics
from so101_sim.errors import PresetError
from so101_sim.scene.scene import SceneConfig, SceneIndex
from so101_sim.scene.servo import FloatArray

__all__ = ['HOME_TCP', 'ArmStart', 'AtPoint', 'AtPose', 'NearCube', 'Start', 'home_pose']

Range = tuple[float, float]
ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class Start:
    """The reset distribution of a task.

    Attributes:
        cube_x: range of the cube's centre [m].
        cube_y: the same, to the left [m].
        cube_yaw: range of its turn [rad].
        arm: how the arm is placed.
    """

    cube_x: Range = (0.22, 0.28)
    cube_y: Range = (-0.03, 0.03)
    cube_yaw: Range = (0.0, 0.0)
    arm: ArmStart = field(default_factory=AtPoint)

    def sample_cube(self, rng: np.random.Generator, cube_half_size: float) -> tuple[FloatArray, float]:
        """Draw the centre of the cube (3,) [m], and its yaw [rad]."""
        cube = np.array([rng.uniform(*self.cube_x), rng.uniform(*self.cube_y), cube_half_size])
        return cube, float(rng.uniform(*self.cube_yaw))

    def sample(
        self, rng: np.random.Generator, ik: InverseKinematics, cube_half_size: float
    ) -> tuple[FloatArray, FloatArray, float]:
        """Draw a start.

        Returns:
            Joint positions (6,) [rad], centre of the cube (3,) [m], and its yaw [rad].

        Raises:
            PresetError: the arm cannot be placed as this start asks.
        """
        for _ in range(ATTEMPTS):
            cube, yaw = self.sample_cube(rng, cube_half_size)
            q = self.arm.sample(rng, ik, cube)
            if q is not None:
                return q, cube, yaw
        raise PresetError(
            f'expected starts that the arm can reach, got none in {ATTEMPTS} draws of {self}; correct it'
        )


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How much the scene varies around its configuration; by default not at all.

    Attributes:
        cube_hue: the cube has any strong colour.
        table_shade: largest change of the table's brightness, either way.
        light_turn_rad: largest turn of the light's direction.
        light_change: largest change of its strength, as a share.
        camera_shift_m: largest shift of the wrist camera along each of its axes [m].
        camera_turn_deg: largest turn of it about each of its axes [deg].
        cube_mass_change: largest change of the cube's mass, as a share.
        cube_friction_change: largest change of its friction, as a share.
    """

    cube_hue: bool = False
    table_shade: float = 0.0
    light_turn_rad: float = 0.0
    light_change: float = 0.0
    camera_shift_m: float = 0.0
    camera_turn_deg: float = 0.0
    cube_mass_change: float = 0.0
    cube_friction_change: float = 0.0


class Varier:
    """Varies one compiled scene; whatever is not varied has its nominal value after every call."""

    def __init__(self, model: mujoco.MjModel, index: SceneIndex, config: SceneConfig) -> None:
        """Remember the scene as it is now."""
        self._model, self._index, self._config = model, index, config
        self._cube_rgba = model.geom_rgba[index.cube_geom].copy()
        self._table_rgba = model.geom_rgba[index.table_geom].copy()
        self._light_dir = model.light_dir[index.light].copy()
        self._light_diffuse = model.light_diffuse[index.light].copy()
        self._camera_pos = model.cam_pos[index.arm.camera].copy()
        self._camera_quat = model.cam_quat[index.arm.camera].copy()
        self._mass = float(model.body_mass[index.cube_body])
        self._inertia = model.body_inertia[index.cube_body].copy()
        self._friction = float(model.geom_friction[index.cube_geom, 0])

    def apply(self, variation: Variation, rng: np.random.Generator) -> None:
        """Draw one scene. The same generator state gives the same scene, whatever is switched on."""
        model, index = self._model, self._index
        draw = rng.uniform(-1.0, 1.0, size=16)
        model.geom_rgba[index.cube_geom] = self._cube_rgba
        if variation.cube_hue:
            rgb = colorsys.hsv_to_rgb(0.5 + 0.5 * draw[0], 0.75 + 0.2 * draw[1], 0.7 + 0.2 * draw[2])
            model.geom_rgba[index.cube_geom, :3] = rgb
        shade = 1.0 + variation.table_shade * draw[3]
        model.geom_rgba[index.table_geom, :3] = np.clip(self._table_rgba[:3] * shade, 0.0, 1.0)
        model.light_dir[index.light] = _turned(self._light_dir, variation.light_turn_rad * draw[4:7])
        model.light_diffuse[index.light] = self._light_diffuse * (1.0 + variation.light_change * draw[7])
        self._move_camera(variation, draw[8:14])
        mass = 1.0 + variation.cube_mass_change * draw[14]
        model.body_mass[index.cube_body] = self._mass * mass
        model.body_inertia[index.cube_body] = self._inertia * mass
        friction = self._friction * (1.0 + variation.cube_friction_change * draw[15])
        model.geom_friction[index.cube_geom, 0] = friction

    def _move_camera(self, variation: Variation, draw: np.ndarray) -> None:
        camera, rotation = self._index.arm.camera, np.zeros(9)
        mujoco.mju_quat2Mat(rotation, self._camera_quat)
        shift = rotation.reshape(3, 3) @ (variation.camera_shift_m * draw[:3])
        self._model.cam_pos[camera] = self._camera_pos + shift
        turn = np.radians(variation.camera_turn_deg) * draw[3:]
        angle = float(np.linalg.norm(turn))
        local, quat = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(local, turn / angle if angle > 0.0 else np.array([1.0, 0.0, 0.0]), angle)
        mujoco.mju_mulQuat(quat, self._camera_quat, local)
        self._model.cam_quat[camera] = quat


def _turned(vector: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return a vector (3,) after a turn given as axis times angle [rad]."""
    angle = float(np.linalg.norm(turn))
    if angle == 0.0:
        return vector
    axis = turn / angle
    across, along = np.cross(axis, vector), axis * (axis @ vector)
    return np.asarray(along + np.cos(angle) * (vector - along) + np.sin(angle) * across)
