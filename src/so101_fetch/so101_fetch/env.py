# SPDX-License-Identifier: Apache-2.0
"""The Fetch tasks as Gymnasium environments, in the contract of our own arm's: `so101_sim.env.ArmEnv`.

Observations are `state` (T, D) float32 and, where there are cameras, one (T, 3, S, S) uint8 stack each; actions are in
network units, (4,) for the hand or (7,) for six joints and the gripper. An episode ends at success, or after 50 steps.
Everything random comes from the seed of `reset`: equal seeds give equal bits.

| reward | a step earns | an episode ends |
|---|---|---|
| sparse | 1 at success | at success, or after 50 steps |
| classic | 0 at the goal, else -1, as Gymnasium-Robotics gives | after 50 steps; success is to be there in the end |
| dense | minus the distance [m], as there | as with classic |
"""

from collections.abc import Mapping
from typing import Any, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from so101_contract.action import ActionSpec
from so101_contract.manifest import StepUnit, Workspace
from so101_contract.observation_spec import ObservationSpec
from so101_contract.task.spec import TaskSpec
from so101_fetch.arm import FetchArm, FetchTruth
from so101_fetch.errors import FetchError
from so101_fetch.expert import FetchExpert, FetchOperator
from so101_fetch.model import DRIVEN, Kinematics, Variant
from so101_fetch.observed import build_state, FRAME, LARGEST, observation_spec, STATE
from so101_fetch.tasks import get_task, MAX_STEPS, RATE_HZ, REACHED_M
from so101_interfaces_py.topics import FRONT_CAMERA
from so101_sim.framed import FILM_SIZE, FramedEnv, image_spaces, Observed
from so101_sim.human.expert import Skill
from so101_sim.human.traits import Traits

REWARDS = ('sparse', 'classic', 'dense')
"""Names of the rewards, the default first."""

STEP_M, STEP_RAD = 0.05, 0.1
"""Displacement of the hand [m], and increment of a joint [rad], for an action of 1."""

Step = tuple[Observed, float, bool, bool, dict[str, Any]]


def action_spec(variant: Variant) -> ActionSpec:
    """Return what an action of a variant means."""
    joints = (STEP_RAD,) * len(DRIVEN) if variant.is_joint else None
    return ActionSpec(translation_scale_m=(STEP_M,) * 3, frame_id=FRAME, joint_scale_rad=joints)


class FetchEnv(FramedEnv):
    """One task of the Fetch robot in one of its kinematics."""

    metadata: dict[str, Any] = {'render_modes': ['rgb_array'], 'render_fps': RATE_HZ}  # noqa: RUF012  (Gymnasium's form)
    reset_options = frozenset({'goal', 'place'})
    """The goal (3,) [m], and where the object lies, x and y (2,) [m]."""

    def __init__(
        self,
        *,
        task: str = 'PickAndPlace',
        kinematics: str = 'cartesian',
        ratio: float = 1.0,
        observation: str = STATE,
        reward: str = 'sparse',
        render_mode: str | None = None,
    ) -> None:
        """Build the environment.

        Args:
            task: PickAndPlace, Push, Slide or Reach.
            kinematics: cartesian, coupled or joint.
            ratio: of the coupling of roll and lift; 0 locks the roll.
            observation: state or pixels.
            reward: sparse, classic or dense.
            render_mode: 'rgb_array' for `render`.

        Raises:
            FetchError: there is none of that name.
        """
        if kinematics not in tuple(Kinematics) or reward not in REWARDS:
            raise FetchError(
                f'expected one of the kinematics {[str(one) for one in Kinematics]} and of the rewards '
                f'{list(REWARDS)}, got {kinematics!r} and {reward!r}; name one of each'
            )
        self.task = get_task(task)
        self.variant = Variant(kinematics=Kinematics(kinematics), ratio=ratio)
        self.reward = reward
        self.arm = FetchArm(self.task, self.variant)
        super().__init__(
            observation_spec(self.task, self.variant, observation),
            action_spec(self.variant),
            (self.arm.model, self.arm.data),
            render_mode,
        )
        self._steps = 0
        self.observation_space = _space(self.observation_spec)

    # ---- Gymnasium ---------------------------------------------------------------------------------------

    def _restart(self, given: Mapping[str, Any]) -> dict[str, Any]:
        start = self.arm.start
        place = self.task.object_place(self.np_random, start) if self.task.has_object else None
        goal = self.task.goal(self.np_random, start)
        if place is not None and 'place' in given:
            place = np.asarray(given['place'], dtype=np.float64)
        self.arm.reset(place, np.asarray(given.get('goal', goal), dtype=np.float64))
        self._steps = 0
        return {'is_success': False}

    def step(self, action: npt.NDArray[Any]) -> Step:
        """Execute one action in network units; what lies outside the action space is cut and reported."""
        self._require_running()
        wire = self.action_spec.to_wire(action)
        self.arm.run(wire)
        self._steps += 1
        distance = self.arm.truth().distance
        reached = self.arm.finite and distance < REACHED_M
        terminated = (reached and self.reward == 'sparse') or not self.arm.finite
        truncated = self._steps >= MAX_STEPS and not terminated
        self._over = terminated or truncated
        info = {
            'is_success': reached,
            'distance': distance,
            'clipped': wire.clipped,
            'coupling_error': self.arm.coupling_error,
        }
        return self._go_on(), self._worth(reached, distance), terminated, truncated, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Return a picture of the arm at its table (480, 640, 3), or None without a render mode."""
        return None if self.render_mode is None else self.picture(FRONT_CAMERA, *FILM_SIZE)

    # ---- what training and evaluation ask for ------------------------------------------------------------

    @property
    def task_spec(self) -> TaskSpec | None:
        """None: task files are of the SO-101."""
        return None

    @property
    def instruction(self) -> str:
        """What a vision-language-action model is told."""
        return self.task.instruction

    def truth(self) -> FetchTruth:
        """Return where everything is, for experts and evaluation; a policy must not see it."""
        return self.arm.truth()

    def expert(self, skill: Skill) -> FetchExpert:
        """Return who demonstrates here."""
        return FetchExpert(self.arm, self.action_spec, skill)

    def operator(self, traits: Traits) -> FetchOperator:
        """Return who takes over here; of a human's traits, only how well it acts counts."""
        return FetchOperator(self.expert(Skill.of(traits)))

    def policy_fields(self) -> dict[str, Any]:
        """Return what the manifest of a policy says that was trained here, beside observation and action."""
        low, high = np.array(self.arm.start) - 0.5, np.array(self.arm.start) + 0.5
        box = [(float(x), float(y), float(z)) for x, y, z in (low, high)]
        return {
            'control_rate_hz': RATE_HZ,
            'ik_profile': f'fetch {self.variant.kinematics}',
            'reset_pose': tuple(float(angle) for angle in self.arm.data.qpos[self.arm.arm_q]),
            'workspace': Workspace(low=box[0], high=box[1]),
            'std_unit': StepUnit.ENV_STEPS,
            'calibration_id': None,
            'source_sha256': None,
            'task': None,
        }

    # ---- inside ------------------------------------------------------------------------------------------

    def _worth(self, reached: bool, distance: float) -> float:
        if self.reward == 'dense':
            return -distance
        return float(reached) - (1.0 if self.reward == 'classic' else 0.0)

    def _frame(self) -> Observed:
        return {'state': build_state(self.observation_spec, self.arm.values()), **self._images()}


def _space(spec: ObservationSpec) -> 'gym.Space[Observed]':
    state = gym.spaces.Box(-LARGEST, LARGEST, (spec.frame_stack, spec.state_size), np.float32)
    return cast('gym.Space[Observed]', gym.spaces.Dict({'state': state, **image_spaces(spec)}))
