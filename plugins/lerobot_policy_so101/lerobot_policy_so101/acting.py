# SPDX-License-Identifier: Apache-2.0
"""From LeRobot's observation to joint targets, with a policy that sees more and says displacements of the hand.

In the graph policy_node builds the observation from stamped messages and kinematics_node turns the action into joint
goals, fifty times a second. Here both happen once a step, of the same parts: velocities are those over the last step,
whose length is the policy's own (LeRobot does not tell the time), and the joint target is where the controller would
be at the end of the step.
"""

from typing import Any

from lerobot_env_so101_sim.checkout import use_checkout
import numpy as np
import numpy.typing as npt

use_checkout()

from drqv2_policy_node.policy import Policy  # noqa: E402
from drqv2_policy_node.store import load_policy  # noqa: E402
from so101_contract.image import preprocess  # noqa: E402
from so101_contract.joints import gripper_rad_to_opening, VelocityEstimator  # noqa: E402
from so101_contract.messages import ExecutedAction  # noqa: E402
from so101_contract.observation import build_state, Frame, observation_of  # noqa: E402
from so101_contract.session import NO_EPISODE, Source  # noqa: E402
from so101_driver.calibration.lerobot_units import DEGREES, FloatArray, JointScale, RANGE  # noqa: E402
from so101_kinematics.config import KinematicsConfig  # noqa: E402
from so101_kinematics.ee_controller import EeController  # noqa: E402
from so101_kinematics.fk import ForwardKinematics  # noqa: E402

__all__ = ['Hand', 'load_policy']

Pixels = npt.NDArray[np.uint8]


class Hand:
    """One arm that a policy drives, step by step.

    Args:
        policy: decides.
        use_degrees: joints in degrees, else -100..100.
    """

    def __init__(self, policy: Policy, use_degrees: bool = True) -> None:
        self._policy = policy
        manifest = policy.manifest
        self._spec = manifest.observation
        self._scale = JointScale(DEGREES if use_degrees else RANGE)
        self._config = KinematicsConfig(profile=manifest.ik_profile, tcp=self._spec.tcp)
        self._fk = ForwardKinematics(self._spec.tcp)
        self._period_s = 1.0 / manifest.control_rate_hz
        self._ticks = round(self._config.rate_hz / manifest.control_rate_hz)
        self.reset()

    def reset(self) -> None:
        """Begin another episode."""
        self._controller: EeController | None = None
        self._velocity = VelocityEstimator()
        self._frames: tuple[Frame, ...] = ()
        self._steps, self._opening = 0, 0.0

    def act(self, joints: npt.ArrayLike, picture: Pixels) -> FloatArray:
        """Return joint targets (6,) for joints (6,) and a wrist picture (height, width, 3), in LeRobot's units."""
        q = self._scale.to_rad(np.asarray(joints, dtype=np.float64)[None])[0]
        self._look(q, picture)
        action = self._policy.manifest.action.to_wire(
            self._policy.act(observation_of(self._frames)), present_opening=self._opening
        )
        self._opening = action.opening
        goal = self._lead(q, action)
        self._steps += 1
        return self._scale.from_rad(goal[None])[0]

    def _look(self, q: FloatArray, picture: Pixels) -> None:
        stamp_ns = round(self._steps * self._period_s * 1e9)
        pose = self._fk.pose(q[:5])
        state = build_state(
            self._spec,
            joint_pos=q,
            joint_vel=self._velocity.update(stamp_ns, q),
            tcp_pos=pose.position,
            tcp_rotation=pose.rotation,
        )
        images = {c.name: preprocess(picture, size=c.size, crop=c.crop) for c in self._spec.cameras}
        frame = Frame(NO_EPISODE, self._steps, stamp_ns, state, images)
        stack = self._spec.frame_stack
        self._frames = (*self._frames, frame)[-stack:] if self._frames else (frame,) * stack

    def _lead(self, q: FloatArray, action: Any) -> FloatArray:
        """Return where the controller is at the end of the step."""
        if self._controller is None:
            self._opening = gripper_rad_to_opening(float(q[-1]))
            self._controller = EeController(self._config, self._fk)
            self._controller.reseed(q, q)
        begin, goal = self._steps * self._period_s, q
        executed: ExecutedAction | None = ExecutedAction(
            NO_EPISODE, self._steps, action.translation, action.opening, Source.POLICY, round(begin * 1e9)
        )
        for tick in range(self._ticks):
            now = begin + tick / self._config.rate_hz
            command = self._controller.update(now, q, now, executed)
            executed, goal = None, q if command.q_goal is None else command.q_goal
        return goal
