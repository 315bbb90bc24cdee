# SPDX-License-Identifier: Apache-2.0
"""The twin: one scene behind a virtual servo bus, and its cameras, without ROS.

Threads: the bus serves the pseudo-terminal and steps the physics (`MujocoDynamics`); the camera draws in another one,
on a copy of the state (`CameraThread`); tasks are judged by whoever calls `judge`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
import logging
from pathlib import Path
import threading
import time
from typing import Self

import mujoco
import numpy as np

from so101_contract.joints import JOINT_NAMES
from so101_contract.task_report import Status, TaskState
from so101_description.model import CAMERA_NAME
from so101_driver.calibration.calibration import ArmCalibration
from so101_driver.emulator.arm import calibrated_arm, virtual_calibration, VirtualArm
from so101_driver.emulator.dynamics import Motion, MotionLimits
from so101_driver.gate.config import GateConfig
from so101_interfaces_py.topics import FRONT_CAMERA, WRIST_CAMERA
from so101_sim.errors import RenderError
from so101_sim.render import Renderer, UInt8Array
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.scene.presets import Preset
from so101_sim.scene.scene import FRONT, load_scene, PREFIX
from so101_sim.scene.servo import BoolArray, FloatArray, ServoLimits
from so101_sim.scene.simulation import Simulation
from so101_sim.scene.start import Varier
from so101_sim.tasks import dense, get_reward, Judge, Moment

logger = logging.getLogger(__name__)
PARKED_CUBE = (0.25, 0.0)

CLEARANCE_M = 0.05
"""A cube is not put closer to the gripper than this [m]."""

ATTEMPTS = 50
_NO_ACTION = np.zeros(4)
START_TIMEOUT_S = 30.0
JOIN_TIMEOUT_S = 5.0
RATE_WINDOW_S, RATE_WINDOW_FRAMES = 2.0, 20

OnFrame = Callable[[UInt8Array, float], None]
SIMULATED_CAMERAS = (WRIST_CAMERA, FRONT_CAMERA)
"""The cameras that the twin has, as their topics begin."""


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

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self, cube: Sequence[float] | None = None, yaw: float = 0.0) -> GroundTruth:
        """Put the cube somewhere new and begin another episode; the arm is the driver's and stays as it is.

        Args:
            cube: where its centre goes [m]; drawn from the preset's distribution by default.
            yaw: its turn about the vertical [rad], if `cube` is given.
        """
        place, turn = (np.array(cube), yaw) if cube is not None else self._draw_place()
        with self.dynamics.lock:
            self._varier.apply(self.preset.variation, self._rng)
            self.simulation.place_cube(place.tolist(), turn)
        return self.go_on()

    def go_on(self) -> GroundTruth:
        """Begin another episode with everything where it is: somebody has put the object back."""
        with self.dynamics.lock:
            self.simulation.start_clock()
            truth = self.simulation.truth()
        self._judge.reset()
        self._resets += 1
        self._task_state = TaskState(truth, Status(), 0.0, self._resets)
        return truth

    def truth(self) -> GroundTruth:
        """Return the scene as it is now."""
        with self.dynamics.lock:
            return self.simulation.truth()

    def judge(self) -> TaskState:
        """Judge one more control step; call it at the rate of the preset's control."""
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


class MujocoDynamics:
    """`ServoDynamics` of the virtual arm, with a scene around the arm.

    The bus calls `step` from its own thread. Whoever else touches the simulation holds `lock`.

    Attributes:
        lock: held while the simulation changes.
    """

    def __init__(self, simulation: Simulation, calibration: ArmCalibration) -> None:
        """Prepare.

        Args:
            simulation: the arm and what is around it.
            calibration: what the servos' EEPROM holds: it says which encoder angle is which joint position.
        """
        self.lock = threading.Lock()
        self._simulation = simulation
        middle = (calibration.range_min + calibration.range_max) // 2
        at_middle, beside = calibration.ticks_to_rad(middle), calibration.ticks_to_rad(middle + 1)
        self._rad_per_tick = beside - at_middle
        offsets = np.array([calibration[name].homing_offset for name in JOINT_NAMES])
        self._zero_ticks = middle + offsets - at_middle / self._rad_per_tick
        self._left_s = 0.0
        self._clock = RateClock(RATE_WINDOW_S)

    @property
    def simulated_s(self) -> float:
        """Time that has been simulated [s]."""
        return self._clock.simulated_s

    @property
    def real_time_factor(self) -> float:
        """Simulated time per time, over the last seconds; 1.0 keeps up."""
        return self._clock.rate

    def step(self, dt: float, goals: FloatArray, torque: BoolArray, limits: MotionLimits) -> Motion:
        """Advance by `dt`; see `ServoDynamics`. What is shorter than a physics step is made up for next time."""
        self._left_s += dt
        steps = int(self._left_s / self._simulation.timestep_s)
        self._left_s -= steps * self._simulation.timestep_s
        scale = np.abs(self._rad_per_tick)
        bounds = ServoLimits(limits.duty, limits.speed * scale, limits.acceleration * scale)
        with self.lock:
            if steps:
                self._simulation.step(steps, self.to_rad(goals), torque, bounds)
            position = self._simulation.joint_positions.copy()
            velocity = self._simulation.joint_velocities.copy()
            load = self._simulation.servos.loads(self._simulation.data)
        self._clock.advance(steps * self._simulation.timestep_s)
        sign = np.sign(self._rad_per_tick)
        return Motion(self.to_ticks(position), velocity / self._rad_per_tick, load * sign)

    def to_rad(self, ticks: FloatArray) -> FloatArray:
        """Turn encoder angles (6,) [ticks] into joint positions [rad]."""
        return np.asarray((ticks - self._zero_ticks) * self._rad_per_tick)

    def to_ticks(self, rad: FloatArray) -> FloatArray:
        """Turn joint positions (6,) [rad] into encoder angles [ticks]."""
        return np.asarray(rad / self._rad_per_tick + self._zero_ticks)


class RateClock:
    """Measures how fast simulated time passes."""

    def __init__(self, window_s: float) -> None:
        """Measure over windows of that length [s]."""
        self._window_s = window_s
        self._start: float | None = None
        self._simulated = 0.0
        self.simulated_s = 0.0
        """Simulated time altogether [s]."""
        self.rate = 1.0
        """Simulated time per time in the last whole window; 1 before the first."""

    def advance(self, simulated_s: float, now: float | None = None) -> None:
        """Count simulated time that has passed [s]."""
        now = time.monotonic() if now is None else now
        self.simulated_s += simulated_s
        if self._start is None:
            self._start = now
            return
        self._simulated += simulated_s
        elapsed = now - self._start
        if elapsed >= self._window_s:
            self.rate = self._simulated / elapsed
            self._start, self._simulated = now, 0.0


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
        names = {WRIST_CAMERA: PREFIX + CAMERA_NAME, FRONT_CAMERA: FRONT}
        self.cameras = {topic: self.model.camera(name).id for topic, name in names.items()}

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


class CameraThread:
    """Draws until it is closed. What is frozen repeats nothing: a frozen camera sends no frames.

    All cameras show the same moment: the scene is copied once for them, and there is one context to draw with.
    """

    def __init__(
        self, twin: Twin, width: int, height: int, rate_hz: float, views: Mapping[str, OnFrame]
    ) -> None:
        """Prepare; drawing begins with `start`.

        Args:
            twin: whose scene is drawn.
            width: [px].
            height: [px].
            rate_hz: frames per second [Hz].
            views: of each camera of `SIMULATED_CAMERAS` that is drawn, what gets its pictures (height, width, 3) RGB
                and the time of the state that they show, on the monotonic clock [s]; called in the thread.
        """
        self.frozen: set[str] = set()
        """Cameras whose stream stops, as that of one that hangs does."""
        self.error = ''
        """Why there are no pictures; empty while there are."""
        self._scene = SceneCopy(twin)
        self._size = width, height
        self._period_s = 1.0 / rate_hz
        self._views = dict(views)
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._times: list[float] = []
        self._thread = threading.Thread(target=self._run, name='twin-camera', daemon=True)

    @property
    def rate_hz(self) -> float:
        """Frames per second lately [Hz]; 0 before the second frame, and while frozen."""
        times = self._times[:]
        if len(times) < 2 or time.monotonic() - times[-1] > 5.0 * self._period_s:
            return 0.0
        return (len(times) - 1) / (times[-1] - times[0])

    def start(self) -> None:
        """Begin to draw; return when meshes are uploaded, which holds up every other thread for a moment."""
        self._thread.start()
        self._ready.wait(START_TIMEOUT_S)

    def close(self) -> None:
        """End drawing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        try:
            renderer = Renderer(self._scene.model, *self._size)
        except RenderError as error:
            self.error = str(error)
            logger.error('the camera stays dark: %s', error)
            self._ready.set()
            return
        with renderer:
            self._draw(renderer)
            self._ready.set()
            due = time.monotonic()
            while not self._stop.is_set():
                if not self.frozen.issuperset(self._views):
                    self._draw(renderer)
                due = max(due + self._period_s, time.monotonic() - self._period_s)
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _draw(self, renderer: Renderer) -> None:
        self._scene.update()
        stamp = time.monotonic()
        for name, on_frame in self._views.items():
            if name in self.frozen:
                continue
            picture = renderer.draw(self._scene.data, self._scene.cameras[name])
            if self._stop.is_set():
                return
            on_frame(picture, stamp)
        self._times = [*self._times[-RATE_WINDOW_FRAMES:], stamp]
