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
from so101_contract.joints import gripper_rad_to_opening, limits_arrays
from so101_contract.manifest import StepUnit, Workspace
from so101_contract.observation import build_state, JOINT_MARGIN_RAD, MAX_REACH_M
from so101_contract.observation_spec import ObservationSpec
from so101_contract.task.spec import DEFAULT_TASK, TaskSpec
from so101_interfaces_py.topics import FRONT_CAMERA, WRIST_CAMERA
from so101_kinematics.ik import InverseKinematics
from so101_sim.errors import PresetError
from so101_sim.framed import FILM_SIZE, FramedEnv, image_spaces, Observed
from so101_sim.human.expert import Expert, Skill
from so101_sim.human.operator import Habits, Operator
from so101_sim.human.traits import Traits
from so101_sim.in_process_arm import InProcessArm
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.scene.presets import get_preset, Preset
from so101_sim.scene.scene import OVERVIEW
from so101_sim.scene.simulation import Simulation
from so101_sim.scene.start import home_pose, Varier
from so101_sim.tasks import get_reward, Judge, Moment, RewardFunction, Status

MAX_JOINT_SPEED = 20.0
"""No joint gets this fast, whatever hits it [rad/s]."""


class ArmEnv(FramedEnv):
    """One task on one simulated arm."""

    metadata: dict[str, Any] = {'render_modes': ['rgb_array'], 'render_fps': 10}  # noqa: RUF012  (Gymnasium's form)
    reset_options = frozenset({'q', 'cube_position', 'cube_yaw'})
    """Joint positions (6,) [rad], where the cube lies (3,) [m] and how it is turned [rad]."""

    def __init__(
        self,
        *,
        task: str | TaskSpec = DEFAULT_TASK,
        preset: str | Preset = 'easy',
        images: bool = True,
        privileged: bool = False,
        reward: str | RewardFunction | None = None,
        observation: ObservationSpec | None = None,
        action: ActionSpec | None = None,
        render_mode: str | None = None,
        judge: Judge | None = None,
    ) -> None:
        """Build the environment.

        Args:
            task: name or file of a task, or what one says; not used where `preset` is a preset.
            preset: name of a difficulty, or a preset.
            images: False leaves the cameras out.
            privileged: True adds the cube's position to the state, which no real arm can know.
            reward: name of a reward or a function; the preset's own by default.
            observation: what is observed; the preset's own by default.
            action: what the four numbers mean.
            render_mode: 'rgb_array' for `render`.
            judge: says when the task is done; the truth does by default.
        """
        self.preset = get_preset(preset, task) if isinstance(preset, str) else preset
        self.simulation = Simulation(self.preset.scene)
        super().__init__(
            _observation_spec(self.preset, observation, images, privileged),
            ActionSpec() if action is None else action,
            (self.simulation.model, self.simulation.data),
            render_mode,
        )
        self.metadata = {**self.metadata, 'render_fps': self.preset.control.rate_hz}
        self._reward = get_reward(self.preset.reward if reward is None else reward)
        self.arm = InProcessArm(self.simulation, self.preset.control)
        self._ik = InverseKinematics(self.arm.fk)
        self.home = home_pose(self._ik)
        index = self.simulation.index
        self._varier = Varier(self.simulation.model, index, self.preset.scene)
        self.judge = Judge(self.preset.task) if judge is None else judge
        """Says when the task is done."""
        spec = self.preset.spec
        self._closed = spec is not None and spec.keeps_closed
        self._last_action = np.zeros(4)
        self._steps = 0
        spaces = _spaces(self.observation_spec)
        self.observation_space = cast('gym.Space[dict[str, npt.NDArray[Any]]]', gym.spaces.Dict(spaces))

    # ---- Gymnasium ---------------------------------------------------------------------------------------

    def _restart(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if self.preset.rooms:
            self._enter(int(self.np_random.integers(self.preset.rooms)))
        q, cube, yaw = self.preset.start.sample(self.np_random, self._ik, self.preset.scene.cube_half_size)
        self._varier.apply(self.preset.variation, self.np_random)
        q, yaw = np.asarray(given.get('q', q), dtype=np.float64), float(given.get('cube_yaw', yaw))
        self.simulation.reset(q, given.get('cube_position', cube), yaw)
        self.arm.reset(gripper_rad_to_opening(float(q[-1])))
        self.judge.reset()
        self._steps = 0
        self._last_action = np.zeros(4)
        return {'status': Status()}

    def step(self, action: npt.NDArray[Any]) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Execute one action in network units (4,); what lies outside the action space is cut and reported."""
        self._require_running()
        wire = self.action_spec.to_wire(action, present_opening=self.arm.commanded_opening)
        if self._closed:
            wire = replace(wire, opening=0.0)
        self.arm.run(wire)
        self._steps += 1
        truth = self.simulation.truth()
        status = self.judge.judge(truth)
        executed = self.action_spec.from_wire(
            wire.translation, wire.opening, present_opening=self.arm.commanded_opening
        ).values
        if self._steps == 1:
            self._last_action = executed
        moment = Moment(truth, status, executed, self._last_action, wire.opening)
        terms = self._reward(moment, self.preset.task)
        self._last_action = executed
        observed = self._go_on()
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
        return observed, float(sum(terms.values())), terminated, truncated, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Return a picture of the arm on its table (480, 640, 3), or None without a render mode."""
        return None if self.render_mode is None else self.picture(OVERVIEW, *FILM_SIZE)

    # ---- beyond Gymnasium --------------------------------------------------------------------------------

    @property
    def task_spec(self) -> TaskSpec | None:
        """What is to be done; None where nobody said."""
        return self.preset.spec

    def truth(self) -> GroundTruth:
        """Return the ground truth, for rewards, scripted operators and evaluation; a policy must not see it."""
        return self.simulation.truth()

    def expert(self, skill: Skill) -> Expert:
        """Return who demonstrates here."""
        return Expert(self.preset.task, self.action_spec, skill)

    def operator(self, traits: Traits) -> Operator:
        """Return who takes over here, a human like this."""
        return Operator(
            self.preset.task,
            self.action_spec,
            Skill.of(traits),
            Habits(attention=traits.attention),
            traits=traits,
            rate_hz=self.preset.control.rate_hz,
        )

    def policy_fields(self) -> dict[str, Any]:
        """Return what the manifest of a policy says that was trained here, beside observation and action."""
        control = self.preset.control
        box = control.kinematics.workspace
        low, high = ((float(x), float(y), float(z)) for x, y, z in (box.lower, box.upper))
        return {
            'control_rate_hz': control.rate_hz,
            'ik_profile': control.kinematics.profile,
            'reset_pose': tuple(float(angle) for angle in self.home),
            'workspace': Workspace(low=low, high=high),
            'std_unit': StepUnit.ENV_STEPS,
            'calibration_id': None,
            'source_sha256': None,
            'task': None if self.task_spec is None else self.task_spec.meaning,
        }

    def picture(self, camera: str, width: int, height: int) -> npt.NDArray[np.uint8]:
        """Return what a camera of the scene sees now (height, width, 3), RGB."""
        name = self.simulation.model.camera(self.simulation.index.arm.camera).name
        wanted = name if camera == WRIST_CAMERA else camera
        return super().picture(wanted, width, height)

    # ---- inside ------------------------------------------------------------------------------------------

    def _enter(self, number: int) -> None:
        """Go on in another room."""
        self.preset = self.preset.room(number)
        self.simulation.enter(self.preset.scene)
        self._varier = Varier(self.simulation.model, self.simulation.index, self.preset.scene)
        self._surfaces_changed()

    def _frame(self) -> Observed:
        reading = self.arm.reading
        tcp = self.arm.fk.pose(reading.position)
        extras = {}
        if self.observation_spec.privileged:
            truth = self.simulation.truth()
            extras = {'cube_pos': truth.cube_position, 'cube_quat': truth.cube_quat_wxyz}
        state = build_state(
            self.observation_spec,
            joint_pos=reading.position,
            joint_vel=reading.velocity,
            tcp_pos=tcp.position,
            tcp_rotation=tcp.rotation,
            extras=extras,
        )
        return {'state': state, **self._images()}


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
    if set(spec.camera_names) - {WRIST_CAMERA, FRONT_CAMERA}:
        raise PresetError(
            f'expected cameras out of {WRIST_CAMERA!r} and {FRONT_CAMERA!r}, which the simulation has, got '
            f'{list(spec.camera_names)}; leave the others out'
        )
    return spec


def _spaces(spec: ObservationSpec) -> dict[str, gym.spaces.Space[Any]]:
    stack = spec.frame_stack
    bounds = [np.broadcast_to(_block_bounds(block.name), (block.size, 2)) for block in spec.state]
    low, high = np.tile(np.concatenate(bounds), (stack, 1, 1)).astype(np.float32).transpose(2, 0, 1)
    spaces: dict[str, gym.spaces.Space[Any]] = {'state': gym.spaces.Box(low, high, dtype=np.float32)}
    return spaces | image_spaces(spec)


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
