# SPDX-License-Identifier: Apache-2.0
"""The tasks as Gymnasium environments, on the same contract as the ROS graph.

Observations and actions are those of `so101_contract`: `state` (T, D) float32 and one (T, 3, S, S) uint8 image stack
per camera, oldest first; actions (4,) in network units. What moves the arm between two observations is `InProcessArm`:
the end-effector controller and the driver's limits. Everything random comes from the seed of `reset`, so equal seeds
give equal bits, images included.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from so101_contract.action import ActionSpec
from so101_contract.image import preprocess
from so101_contract.joints import gripper_rad_to_opening, limits_arrays
from so101_contract.observation import build_state, JOINT_MARGIN_RAD, MAX_REACH_M, Observation, stack_window
from so101_contract.observation_spec import ObservationSpec
from so101_kinematics.ik import InverseKinematics
from so101_sim.errors import PresetError
from so101_sim.in_process_arm import InProcessArm
from so101_sim.render import Renderer
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.scene.presets import get_preset, Preset
from so101_sim.scene.scene import OVERVIEW
from so101_sim.scene.simulation import Simulation
from so101_sim.scene.start import home_pose, Varier
from so101_sim.tasks import get_reward, Judge, Moment, RewardFunction, Status

OVERSAMPLING = 2
"""Pictures are drawn this many times larger than networks see them and averaged down, as a camera's are: without it
edges are jagged where the real picture's are smooth (33 instead of 42 dB from a 640 x 480 frame's crop)."""

FILM_SIZE = (640, 480)
MAX_JOINT_SPEED = 20.0
"""No joint gets this fast, whatever hits it [rad/s]."""

WRIST_CAMERA = 'gripper_cam'
NOTHING: Mapping[str, Any] = {}


class ArmEnv(gym.Env[dict[str, npt.NDArray[Any]], npt.NDArray[np.float32]]):
    """One task on one simulated arm."""

    metadata: dict[str, Any] = {'render_modes': ['rgb_array'], 'render_fps': 10}  # noqa: RUF012  (Gymnasium's form)

    def __init__(
        self,
        *,
        task: str = 'lift',
        preset: str | Preset = 'easy',
        images: bool = True,
        privileged: bool = False,
        reward: str | RewardFunction | None = None,
        observation: ObservationSpec | None = None,
        action: ActionSpec | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Build the environment.

        Args:
            task: 'lift' or 'place'; not used where `preset` is a preset.
            preset: name of a difficulty, or a preset.
            images: False leaves the cameras out.
            privileged: True adds the cube's position to the state, which no real arm can know.
            reward: name of a reward or a function; the preset's own by default.
            observation: what is observed; the preset's own by default.
            action: what the four numbers mean.
            render_mode: 'rgb_array' for `render`.
        """
        self.preset = get_preset(preset, task) if isinstance(preset, str) else preset
        self.action_spec = ActionSpec() if action is None else action
        self.observation_spec = _observation_spec(self.preset, observation, images, privileged)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, 'render_fps': self.preset.control.rate_hz}
        self._reward = get_reward(self.preset.reward if reward is None else reward)
        self.simulation = Simulation(self.preset.scene)
        self.arm = InProcessArm(self.simulation, self.preset.control)
        self._ik = InverseKinematics(self.arm.fk)
        self.home = home_pose(self._ik)
        index = self.simulation.index
        self._varier = Varier(self.simulation.model, index, self.preset.scene)
        self._judge = Judge(self.preset.task)
        self._renderers: dict[str, Renderer] = {}
        self._frames: list[dict[str, npt.NDArray[Any]]] = []
        self._last_action = np.zeros(4)
        self._steps: int | None = None
        self._over = True
        self.action_space = gym.spaces.Box(
            self.action_spec.low.astype(np.float32),
            self.action_spec.high.astype(np.float32),
            dtype=np.float32,
        )
        spaces = _spaces(self.observation_spec)
        self.observation_space = cast('gym.Space[dict[str, npt.NDArray[Any]]]', gym.spaces.Dict(spaces))

    # ---- Gymnasium ---------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: makes this and the following episodes repeatable.
            options: `q` (6,) joint positions [rad], `cube_position` (3,) [m], `cube_yaw` [rad]: instead of drawn ones.
        """
        super().reset(seed=seed)
        given = NOTHING if options is None else options
        unknown = sorted(set(given) - {'q', 'cube_position', 'cube_yaw'})
        if unknown:
            raise PresetError(f'expected reset options among q, cube_position and cube_yaw, got {unknown}')
        q, cube, yaw = self.preset.start.sample(self.np_random, self._ik, self.preset.scene.cube_half_size)
        self._varier.apply(self.preset.variation, self.np_random)
        q, yaw = np.asarray(given.get('q', q), dtype=np.float64), float(given.get('cube_yaw', yaw))
        self.simulation.reset(q, given.get('cube_position', cube), yaw)
        self.arm.reset(gripper_rad_to_opening(float(q[-1])))
        self._judge.reset()
        self._steps, self._over = 0, False
        self._last_action = np.zeros(4)
        self._frames = [self._frame()]
        return self._observation(), {'status': Status()}

    def step(
        self, action: npt.NDArray[Any]
    ) -> tuple[dict[str, npt.NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Execute one action in network units (4,); what lies outside the action space is cut and reported."""
        if self._steps is None or self._over:
            raise gym.error.ResetNeeded('expected reset before step: there is no running episode; call reset')
        wire = self.action_spec.to_wire(action, present_opening=self.arm.commanded_opening)
        self.arm.run(wire)
        self._steps += 1
        truth = self.simulation.truth()
        status = self._judge.judge(truth)
        executed = self.action_spec.from_wire(
            wire.translation, wire.opening, present_opening=self.arm.commanded_opening
        ).values
        if self._steps == 1:
            self._last_action = executed
        moment = Moment(truth, status, executed, self._last_action, wire.opening)
        terms = self._reward(moment, self.preset.task)
        self._last_action = executed
        self._frames = [*self._frames[-self.observation_spec.frame_stack :], self._frame()]
        terminated = status.success or status.failure
        truncated = self._steps >= self.preset.max_steps and not terminated
        self._over = terminated or truncated
        info = {
            'is_success': status.success,
            'status': status,
            'reward_terms': terms,
            'executed_action': executed.astype(np.float32),
            'clipped': wire.clipped,
        }
        return self._observation(), float(sum(terms.values())), terminated, truncated, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Return a picture of the arm on its table (480, 640, 3), or None without a render mode."""
        return None if self.render_mode is None else self.picture(OVERVIEW, *FILM_SIZE)

    def close(self) -> None:
        """Free what drawing needs."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    # ---- beyond Gymnasium --------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the episode has ended, or none has begun."""
        return self._over

    def truth(self) -> GroundTruth:
        """Return the ground truth, for rewards, scripted operators and evaluation; a policy must not see it."""
        return self.simulation.truth()

    def observation(self) -> Observation:
        """Return the present observation in the form that policies take."""
        window = stack_window(self._frames, self.observation_spec.frame_stack)
        return Observation(
            state=np.stack([frame['state'] for frame in window]),
            images={
                name: np.stack([frame[name] for frame in window])
                for name in self.observation_spec.camera_names
            },
        )

    def picture(self, camera: str, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Return what a camera of the scene sees now (height, width, 3), RGB."""
        name = self.simulation.model.camera(self.simulation.index.arm.camera).name
        wanted = name if camera == WRIST_CAMERA else camera
        return self._renderer(f'{width}x{height}', width, height).draw(self.simulation.data, wanted)

    # ---- inside ------------------------------------------------------------------------------------------

    def _observation(self) -> dict[str, npt.NDArray[Any]]:
        observed = self.observation()
        return {'state': observed.state, **observed.images}

    def _frame(self) -> dict[str, npt.NDArray[Any]]:
        reading = self.arm.reading
        tcp = self.arm.fk.pose(reading.position)
        extras = {}
        if self.observation_spec.privileged:
            truth = self.simulation.truth()
            extras = {'cube_pos': truth.cube_position, 'cube_quat': truth.cube_quat_wxyz}
        frame: dict[str, npt.NDArray[Any]] = {
            'state': build_state(
                self.observation_spec,
                joint_pos=reading.position,
                joint_vel=reading.velocity,
                tcp_pos=tcp.position,
                tcp_rotation=tcp.rotation,
                extras=extras,
            )
        }
        for camera in self.observation_spec.cameras:
            size = camera.size * OVERSAMPLING
            picture = self._renderer(camera.name, size, size).draw(
                self.simulation.data, self.simulation.index.arm.camera
            )
            frame[camera.name] = preprocess(picture, size=camera.size)
        return frame

    def _renderer(self, key: str, width: int, height: int) -> Renderer:
        if key not in self._renderers:
            self._renderers[key] = Renderer(self.simulation.model, width, height)
        return self._renderers[key]


def _observation_spec(
    preset: Preset, wish: ObservationSpec | None, images: bool, privileged: bool
) -> ObservationSpec:
    """Return the spec of an environment, checked against what the scene can give."""
    spec = preset.observation if wish is None else wish
    if privileged and not spec.privileged:
        from so101_contract.observation_spec import StateBlock

        spec = replace(spec, state=(*spec.state, StateBlock.named('cube_pos')))
    if not images:
        spec = replace(spec, cameras=())
    if not privileged:
        spec.require_deployable()
    if spec.tcp != preset.control.kinematics.tcp or spec.camera_preset != preset.scene.camera:
        raise PresetError(
            f'expected an observation with the TCP {preset.control.kinematics.tcp!r} and the camera preset '
            f'{preset.scene.camera!r} of the preset {preset.name!r}, got {spec.tcp!r} and {spec.camera_preset!r}; '
            f'change one of them'
        )
    others = [name for name in spec.camera_names if name != WRIST_CAMERA]
    if others or any(camera.crop is not None for camera in spec.cameras):
        raise PresetError(
            f'expected {WRIST_CAMERA!r} without a crop as the only camera, got {list(spec.camera_names)}; '
            f'the simulation draws the centre square of the wrist camera'
        )
    return spec


def _spaces(spec: ObservationSpec) -> dict[str, gym.spaces.Space[Any]]:
    stack = spec.frame_stack
    bounds = [np.broadcast_to(_block_bounds(block.name), (block.size, 2)) for block in spec.state]
    low, high = np.tile(np.concatenate(bounds), (stack, 1, 1)).astype(np.float32).transpose(2, 0, 1)
    spaces: dict[str, gym.spaces.Space[Any]] = {'state': gym.spaces.Box(low, high, dtype=np.float32)}
    for camera in spec.cameras:
        spaces[camera.name] = gym.spaces.Box(0, 255, (stack, 3, camera.size, camera.size), np.uint8)
    return spaces


def _block_bounds(name: str) -> npt.NDArray[np.float64]:
    """Return what the entries of a state block cannot exceed, (size, 2) or (1, 2)."""
    if name == 'joint_pos':
        low, high = limits_arrays()
        return np.stack([low - JOINT_MARGIN_RAD, high + JOINT_MARGIN_RAD], axis=1)
    if name == 'gripper_opening':
        return np.array([[-0.2, 1.2]])
    largest = {
        'joint_vel': MAX_JOINT_SPEED,
        'tcp_euler': np.pi,
        'cube_pos': MAX_REACH_M,
        'tcp_pos': MAX_REACH_M,
    }
    return np.array([[-1.0, 1.0]]) * largest.get(name, 1.0)
