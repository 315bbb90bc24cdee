# SPDX-License-Identifier: Apache-2.0
"""How an episode begins: where the cube lies, how the arm is placed, and what varies in how the scene looks and weighs.

Domain randomization (Tobin et al., 2017) is a `Variation`: colours, light, the camera's mount, the cube.
"""

import colorsys
from dataclasses import dataclass, field
import math
from typing import Protocol

import mujoco
import numpy as np

from so101_contract.joints import gripper_opening_to_rad, JOINT_NAMES, limits_arrays, NUM_JOINTS
from so101_kinematics.ik import InverseKinematics
from so101_sim.errors import PresetError
from so101_sim.scene.scene import SceneConfig, SceneIndex
from so101_sim.scene.servo import FloatArray

Range = tuple[float, float]

GRIP_PITCH_RAD = math.radians(75.0)
"""Approach below the horizontal with which cubes are gripped best. The flatter, the more the moving jaw presses on the
cube's far top edge: at 65 degrees a third of the cubes slip out. A vertical gripper does not rise above 9 cm."""

HOME_TCP = (0.22, 0.0, 0.105)
"""Where the TCP waits between episodes, in the base frame [m]."""

ATTEMPTS = 100


class ArmStart(Protocol):
    """A way to place the arm at the start of an episode."""

    def sample(self, rng: np.random.Generator, ik: InverseKinematics, cube: FloatArray) -> FloatArray | None:
        """Return joint positions (6,) [rad], or None where this draw cannot be reached.

        Args:
            rng: randomness.
            ik: solver for the scene's TCP.
            cube: (3,) where the cube will be [m].
        """


@dataclass(frozen=True, kw_only=True)
class AtPose:
    """The arm starts in one pose.

    Attributes:
        q: (6,) joint positions [rad].
        spread: largest change of each joint, either way [rad].
    """

    q: tuple[float, ...] = (0.0,) * NUM_JOINTS
    spread: float = 0.0

    def sample(self, rng: np.random.Generator, ik: InverseKinematics, cube: FloatArray) -> FloatArray | None:
        """Return the pose."""
        del ik, cube
        return np.clip(
            np.array(self.q) + rng.uniform(-self.spread, self.spread, NUM_JOINTS), *limits_arrays()
        )


@dataclass(frozen=True, kw_only=True)
class AtPoint:
    """The TCP starts around a point.

    Attributes:
        centre: x, y, z [m].
        spread: largest distance from it along each axis [m].
        pitch: approach below the horizontal [rad].
        pitch_spread: largest change of it, either way [rad].
        roll: wrist_roll [rad]; 0 closes the jaws along the arm's own direction.
        opening: range of the gripper's opening, 0 closed .. 1 open.
    """

    centre: tuple[float, float, float] = HOME_TCP
    spread: tuple[float, float, float] = (0.02, 0.02, 0.01)
    pitch: float = GRIP_PITCH_RAD
    pitch_spread: float = 0.0
    roll: float = 0.0
    opening: Range = (0.4, 0.7)

    def sample(self, rng: np.random.Generator, ik: InverseKinematics, cube: FloatArray) -> FloatArray | None:
        """Return joint positions near the point."""
        del cube
        target = np.array(self.centre) + rng.uniform(-1.0, 1.0, 3) * self.spread
        pitch = self.pitch + rng.uniform(-self.pitch_spread, self.pitch_spread)
        return _solved(ik, target, pitch, self.roll, float(rng.uniform(*self.opening)))


@dataclass(frozen=True, kw_only=True)
class NearCube:
    """The TCP starts relative to the cube with both wrist joints given, as pick-101 does.

    Attributes:
        offset: from the cube [m].
        away: range of a horizontal distance in any direction, added to the offset [m].
        height: of the TCP above the table [m] instead of the offset's; None for the offset's.
        wrist_flex: [rad].
        wrist_roll: [rad].
        opening: opening of the gripper.
    """

    offset: tuple[float, float, float] = (0.0, -0.015, 0.035)
    away: Range = (0.0, 0.0)
    height: float | None = None
    wrist_flex: float = math.pi / 2
    wrist_roll: float = math.pi / 2
    opening: float = 0.65

    def sample(self, rng: np.random.Generator, ik: InverseKinematics, cube: FloatArray) -> FloatArray | None:
        """Return joint positions near the cube."""
        direction, distance = rng.uniform(-math.pi, math.pi), rng.uniform(*self.away)
        target = cube + self.offset + distance * np.array([math.cos(direction), math.sin(direction), 0.0])
        if self.height is not None:
            target[2] = self.height
        seed = np.zeros(NUM_JOINTS)
        seed[3], seed[4] = self.wrist_flex, self.wrist_roll
        found = ik.solve(target, seed, locked=('wrist_flex', 'wrist_roll'))
        if not found.success:
            return None
        q = found.q.copy()
        q[-1] = gripper_opening_to_rad(self.opening)
        return q


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


def home_pose(ik: InverseKinematics, opening: float = 0.5) -> FloatArray:
    """Return the joint positions (6,) [rad] in which the arm waits between episodes."""
    q = _solved(ik, np.array(HOME_TCP), GRIP_PITCH_RAD, 0.0, opening)
    assert q is not None
    return q


def _solved(
    ik: InverseKinematics, target: FloatArray, pitch: float, roll: float, opening: float
) -> FloatArray | None:
    seed = np.zeros(NUM_JOINTS)
    seed[JOINT_NAMES.index('wrist_roll')] = roll
    found = ik.solve(target, seed, pitch=pitch, locked=('wrist_roll',))
    if not found.success:
        return None
    q = found.q.copy()
    q[-1] = gripper_opening_to_rad(opening)
    return q


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
