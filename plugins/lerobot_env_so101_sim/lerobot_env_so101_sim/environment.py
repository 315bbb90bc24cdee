# SPDX-License-Identifier: Apache-2.0
"""The simulated arm as LeRobot's robots are: six joints and pictures in, six joint targets out, in LeRobot's units.

So a policy that was trained on what `lerobot-record` recorded acts here without a change. What moves the arm is what
does so in training, `so101_sim.in_process_arm`: the driver's limits, its ticks, and the latency of the preset.
With `control='delta'` an action is one of this project's own, as `./so101 export` writes it: x, y, z in -1..1 of the
largest displacement, and the opening of the gripper, 0..1.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from lerobot_env_so101_sim.checkout import use_checkout

use_checkout()

from so101_contract.action import ActionSpec, AXES, EeDeltaValue  # noqa: E402
from so101_contract.image import preprocess  # noqa: E402
from so101_contract.joints import JOINT_NAMES, limits_arrays  # noqa: E402
from so101_driver.calibration.lerobot_units import DEGREES, JointScale, RANGE  # noqa: E402
from so101_sim.env import ArmEnv, WRIST_CAMERA  # noqa: E402
from so101_sim.framed import OVERSAMPLING  # noqa: E402
from so101_sim.tasks import Judge  # noqa: E402

JOINTS, DELTA = 'joints', 'delta'
CONTROLS = (JOINTS, DELTA)
TASKS = {'lift': 'Lift the cube', 'place': 'Put the cube on the tray'}
"""What a policy that reads is told."""

Observation = dict[str, Any]


class LeRobotArm(gym.Env[Observation, npt.NDArray[np.float32]]):
    """One task on one simulated arm, as lerobot-eval wants it.

    Attributes:
        task: its name.
        task_description: what a policy that reads is told.
    """

    metadata: dict[str, Any] = {'render_modes': ['rgb_array'], 'render_fps': 10}  # noqa: RUF012  (Gymnasium's form)
    render_mode = 'rgb_array'

    def __init__(
        self,
        *,
        task: str = 'lift',
        preset: str = 'easy',
        control: str = JOINTS,
        use_degrees: bool = True,
        width: int = 320,
        height: int = 240,
    ) -> None:
        """Build the environment.

        Args:
            task: 'lift' or 'place'.
            preset: how hard: easy, wide or gap.
            control: what an action is, 'joints' or 'delta'.
            use_degrees: joints in degrees, else -100..100.
            width: of the wrist pictures [px]; the twin's are 320 x 240.
            height: the same.
        """
        if control not in CONTROLS:
            raise ValueError(f'expected control to be one of {CONTROLS}, got {control!r}')
        self._env = ArmEnv(task=task, preset=preset, images=False, reward='sparse', render_mode='rgb_array')
        self._control, self._size = control, (width, height)
        self._scale = JointScale(DEGREES if use_degrees else RANGE)
        self._judge = Judge(self._env.preset.task)
        self._steps = 0
        self._goal = np.zeros(len(JOINT_NAMES))
        self.task, self.task_description = task, TASKS[task]
        self.metadata = {**self.metadata, 'render_fps': round(self._env.preset.control.rate_hz)}
        size = len(JOINT_NAMES) if control == JOINTS else len(AXES)
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        picture = gym.spaces.Box(0, 255, (height, width, 3), np.uint8)
        self.observation_space = gym.spaces.Dict(
            {
                'agent_pos': gym.spaces.Box(-np.inf, np.inf, (len(JOINT_NAMES),), np.float32),
                'pixels': gym.spaces.Dict({WRIST_CAMERA: picture}),
            }
        )

    @property
    def _max_episode_steps(self) -> int:
        """The name under which lerobot-eval asks."""
        return self._env.preset.max_steps

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; what LeRobot says beside the seed is about its own wrappers."""
        super().reset(seed=seed)
        self._env.reset(seed=seed)
        self._judge.reset()
        self._steps = 0
        self._goal = self._env.arm.reading.position
        return self._observe(), {'is_success': False}

    def step(self, action: npt.NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute an action; one that is not finite ends the program, as it would the driver's patience."""
        wanted = np.asarray(action, dtype=np.float64)
        if wanted.shape != self.action_space.shape or not np.isfinite(wanted).all():
            raise ValueError(f'expected {self.action_space.shape[0]} finite numbers, got {wanted.tolist()}')
        if self._control == JOINTS:
            self._drive(self._scale.to_rad(wanted[None])[0])
        else:
            self._act(wanted)
        self._steps += 1
        status = self._judge.judge(self._env.truth())
        over = status.success or status.failure
        info = {'is_success': status.success}
        return (
            self._observe(),
            float(status.success),
            over,
            self._steps >= self._max_episode_steps and not over,
            info,
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """Return a picture of the arm on its table."""
        picture = self._env.render()
        assert picture is not None
        return picture

    def close(self) -> None:
        """Free what drawing needs."""
        self._env.close()

    def _drive(self, goal: npt.NDArray[np.float64]) -> None:
        """Send the joints somewhere, as late as the preset has actions arrive."""
        control, before = self._env.preset.control, self._goal
        self._goal = np.clip(goal, *limits_arrays())  # as the gate has it
        for tick in range(control.ticks):
            self._env.arm.drive(before if tick < control.latency_ticks else self._goal)

    def _act(self, wanted: npt.NDArray[np.float64]) -> None:
        largest = np.array(ActionSpec().translation_scale_m)
        displacement = np.clip(wanted[:3], -1.0, 1.0) * largest
        self._env.arm.run(EeDeltaValue(displacement, float(np.clip(wanted[3], 0.0, 1.0))))

    def _observe(self) -> Observation:
        joints = self._scale.from_rad(self._env.arm.reading.position[None])[0]
        return {'agent_pos': joints.astype(np.float32), 'pixels': {WRIST_CAMERA: self._picture()}}

    def _picture(self) -> npt.NDArray[np.uint8]:
        width, height = self._size
        if width != height:
            return self._env.picture(WRIST_CAMERA, width, height)
        # A square is what networks of this project see: drawn larger and averaged, as their training has it.
        large = self._env.picture(WRIST_CAMERA, width * OVERSAMPLING, height * OVERSAMPLING)
        return np.ascontiguousarray(preprocess(large, size=width).transpose(1, 2, 0))
