# SPDX-License-Identifier: Apache-2.0
"""The twin: one scene behind a virtual servo bus, without ROS.

Threads: the bus serves the pseudo-terminal and steps the physics; a camera may draw in another one, on a copy of the
state; tasks are judged by whoever calls `judge`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import mujoco
import numpy as np

from so101_contract.task_report import Status, TaskState, Truth
from so101_driver.calibration import ArmCalibration
from so101_driver.emulator import VirtualArm
from so101_driver.gate_config import GateConfig
from so101_driver.virtual_arm import calibrated_arm, virtual_calibration
from so101_sim.dynamics import MujocoDynamics
from so101_sim.presets import Preset
from so101_sim.rewards import dense, get_reward, Moment
from so101_sim.scene import CAMERA_NAME, load_scene, PREFIX
from so101_sim.servo import FloatArray
from so101_sim.simulation import Simulation
from so101_sim.task import Judge
from so101_sim.variation import Varier

__all__ = ['TaskState', 'Twin']

PARKED_CUBE = (0.25, 0.0)
CLEARANCE_M = 0.05
"""A cube is not put closer to the gripper than this [m]."""

ATTEMPTS = 50
_NO_ACTION = np.zeros(4)


class Twin:
    """A simulated arm that a driver opens like a real one; a context manager that serves until its end."""

    def __init__(
        self,
        preset: Preset,
        *,
        link: Path | str | None = None,
        calibration: ArmCalibration | None = None,
        pose_rad: Sequence[float] | None = None,
        seed: int = 0,
        pacing: bool = True,
    ) -> None:
        """Build everything; the bus answers from `start` on.

        Args:
            preset: task, scene and reset distribution.
            link: path under which the arm appears; a temporary one by default.
            calibration: what the servos hold; a perfectly assembled arm's by default.
            pose_rad: joint positions at the start (6,) [rad]; the driver's rest pose by default.
            seed: of where cubes are put.
            pacing: take the time that bytes need on a real wire.
        """
        self.preset = preset
        self.calibration = virtual_calibration() if calibration is None else calibration
        self.simulation = Simulation(preset.scene)
        self._rng = np.random.default_rng(seed)
        self._varier = Varier(self.simulation.model, self.simulation.index, preset.scene)
        self._judge = Judge(preset.task)
        self._reward = get_reward(preset.reward)
        self._resets = 0
        pose = np.array(GateConfig().rest_rad if pose_rad is None else pose_rad)
        self.simulation.reset(pose, (*PARKED_CUBE, preset.scene.cube_half_size), settle_s=0.0)
        self.dynamics = MujocoDynamics(self.simulation, self.calibration)
        self.arm: VirtualArm = calibrated_arm(self.calibration, pose, link=link, pacing=pacing)
        self.arm.dynamics = self.dynamics
        self._task_state = TaskState(self.simulation.truth(), Status(), 0.0, 0)

    @property
    def task_state(self) -> TaskState:
        """What `judge` found last."""
        return self._task_state

    def start(self) -> None:
        """Begin to serve and to simulate."""
        self.arm.start()

    def close(self) -> None:
        """End serving."""
        self.arm.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def reset(self, cube: Sequence[float] | None = None, yaw: float = 0.0) -> Truth:
        """Put the cube somewhere new and begin another episode; the arm is the driver's and stays as it is.

        Args:
            cube: where its centre goes [m]; drawn from the preset's distribution by default.
            yaw: its turn about the vertical [rad], if `cube` is given.
        """
        place, turn = (np.array(cube), yaw) if cube is not None else self._draw_place()
        with self.dynamics.lock:
            self._varier.apply(self.preset.variation, self._rng)
            self.simulation.place_cube(place.tolist(), turn)
            self.simulation.start_clock()
            truth = self.simulation.truth()
        self._judge.reset()
        self._resets += 1
        self._task_state = TaskState(truth, Status(), 0.0, self._resets)
        return truth

    def truth(self) -> Truth:
        """Return the scene as it is now."""
        with self.dynamics.lock:
            return self.simulation.truth()

    def judge(self) -> TaskState:
        """Judge one more control step; call it at the rate of the preset's chain."""
        truth = self.truth()
        if not self._task_state.status.success:  # success stays until the next reset
            status = self._judge.judge(truth)
            moment = Moment(truth, status, _NO_ACTION, _NO_ACTION, truth.opening)
            reward = float(sum(self._reward(moment, self.preset.task).values()))
            terms = dense(moment, self.preset.task)
            self._task_state = TaskState(truth, status, reward, self._resets, terms)
        else:
            self._task_state = replace(self._task_state, truth=truth, reward=0.0, terms={})
        return self._task_state

    def _draw_place(self) -> tuple[FloatArray, float]:
        """Return a place for the cube (3,) [m] that the gripper does not stand on, and a yaw [rad]."""
        gripper = np.array(self.truth().grip_position)
        best: tuple[FloatArray, float] | None = None
        farthest = -1.0
        for _ in range(ATTEMPTS):
            cube, yaw = self.preset.start.sample_cube(self._rng, self.preset.scene.cube_half_size)
            distance = float(np.linalg.norm(cube - gripper))
            if distance > CLEARANCE_M:
                return cube, yaw
            if distance > farthest:
                best, farthest = (cube, yaw), distance
        assert best is not None
        return best  # the gripper stands in the middle of all places: as far from it as there is one


class SceneCopy:
    """A copy of a twin's scene that another thread draws from.

    Attributes:
        model: looks like the twin's when `update` was called last.
        data: the positions of that moment.
    """

    def __init__(self, twin: Twin) -> None:
        """Compile the same scene once more."""
        self._twin = twin
        self.model = load_scene(twin.preset.scene)
        self.data = mujoco.MjData(self.model)
        self.camera = self.model.camera(PREFIX + CAMERA_NAME).id

    def update(self) -> None:
        """Take over what the twin's scene looks like now; holds up the physics for some microseconds only."""
        source = self._twin.simulation
        with self._twin.dynamics.lock:
            self.data.qpos[:] = source.data.qpos
            for name in ('geom_rgba', 'light_dir', 'light_diffuse', 'cam_pos', 'cam_quat'):
                getattr(self.model, name)[:] = getattr(source.model, name)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
