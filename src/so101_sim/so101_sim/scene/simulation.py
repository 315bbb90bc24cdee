# SPDX-License-Identifier: Apache-2.0
"""One scene that runs: its physics, its motors, and what can be done to it. Environment and twin share this."""

from collections.abc import Sequence

import mujoco
import numpy as np
import numpy.typing as npt

from so101_contract.joints import limits_arrays, NUM_JOINTS
from so101_sim.errors import SimulationError
from so101_sim.scene.ground_truth import GroundTruth, measure
from so101_sim.scene.rooms import enter
from so101_sim.scene.scene import load_scene, scene_index, SceneConfig
from so101_sim.scene.servo import BoolArray, FloatArray, ServoBank, ServoLimits

SETTLE_S = 0.2
"""How long everything may come to rest after it was placed [s]."""


class Simulation:
    """The physics of one scene; not safe to share between threads.

    Attributes:
        config: what the scene was built from.
        model: the compiled scene, owned by this simulation.
        data: its state.
        index: where things are in both.
    """

    def __init__(self, config: SceneConfig | None = None) -> None:
        """Build the scene; it starts with the arm at zero and the cube in front of it."""
        self.config = SceneConfig() if config is None else config
        self.model = load_scene(self.config)
        self.index = scene_index(self.model)
        self.data = mujoco.MjData(self.model)
        self.servos = ServoBank(self.model, self.index.arm, self.config.servo)
        self._lower, self._upper = limits_arrays()
        self._reset_time = 0.0
        mujoco.mj_forward(self.model, self.data)
        self.servos.reset(self.data)

    @property
    def timestep_s(self) -> float:
        """Length of a physics step [s]."""
        return float(self.model.opt.timestep)

    @property
    def joint_positions(self) -> FloatArray:
        """Joint positions (6,) [rad], exact."""
        return np.asarray(self.data.qpos[self.index.arm.qpos], dtype=np.float64)

    @property
    def joint_velocities(self) -> FloatArray:
        """Joint velocities (6,) [rad/s], exact."""
        return np.asarray(self.data.qvel[self.index.arm.qvel], dtype=np.float64)

    def enter(self, config: SceneConfig) -> None:
        """Become another scene of the same parts, such as the next room; model and state stay the same objects."""
        self.config = config
        enter(self.model, load_scene(config))
        self.servos = ServoBank(self.model, self.index.arm, config.servo)

    def reset(
        self,
        q: npt.ArrayLike,
        cube_position: Sequence[float],
        cube_yaw: float = 0.0,
        settle_s: float = SETTLE_S,
    ) -> None:
        """Put arm and cube somewhere, at rest, and let them settle with the arm holding its pose.

        Args:
            q: (6,) joint positions [rad]; clipped into the limits.
            cube_position: x, y, z of the cube's centre [m].
            cube_yaw: turn of the cube about the vertical [rad].
            settle_s: how long [s].

        Raises:
            SimulationError: wrong shapes or values that are not finite.
        """
        pose = np.array(q, dtype=np.float64)
        place = np.array([*cube_position, cube_yaw], dtype=np.float64)
        if pose.shape != (NUM_JOINTS,) or place.shape != (4,) or not np.isfinite([*pose, *place]).all():
            raise SimulationError(
                f'expected {NUM_JOINTS} joint positions, a cube position and a yaw, all finite, '
                f'got {pose.tolist()} and {place.tolist()}; correct the start of the episode'
            )
        mujoco.mj_resetData(self.model, self.data)
        pose = np.clip(pose, self._lower, self._upper)
        self.data.qpos[self.index.arm.qpos] = pose
        self._set_cube(place[:3], cube_yaw)
        mujoco.mj_forward(self.model, self.data)
        self.servos.reset(self.data)
        self.servos.step(self.data, round(settle_s / self.timestep_s), pose)
        self.start_clock()

    def place_cube(self, position: Sequence[float], yaw: float = 0.0) -> None:
        """Put the cube somewhere, at rest, while everything else goes on, as a human would."""
        self._set_cube(np.asarray(position, dtype=np.float64), yaw)
        mujoco.mj_forward(self.model, self.data)

    def start_clock(self) -> None:
        """Count the time of `truth` from now on."""
        self._reset_time = float(self.data.time)

    def step(
        self,
        steps: int,
        goals: FloatArray,
        torque: BoolArray | None = None,
        limits: ServoLimits | None = None,
    ) -> None:
        """Let the physics run for some steps; see `ServoBank.step`."""
        self.servos.step(self.data, steps, goals, torque, limits)

    def truth(self) -> GroundTruth:
        """Return what is the case now."""
        return measure(self.model, self.data, self.index, self._reset_time)

    def _set_cube(self, position: FloatArray, yaw: float) -> None:
        place, speed = self.index.cube_qpos, self.index.cube_qvel
        self.data.qpos[place : place + 3] = position
        self.data.qpos[place + 3 : place + 7] = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        self.data.qvel[speed : speed + 6] = 0.0
