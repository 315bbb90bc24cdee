# SPDX-License-Identifier: Apache-2.0
"""The policy as a ROS node: steps in, actions out, each from exactly the messages that its step names."""

from dataclasses import replace
import functools
import sys
import time
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import EeDelta, EpisodeEvent, LearnerStatus, PolicyStatus, PolicyWeights, Step
from std_msgs.msg import String
import torch

from drqv2_policy_node.acting import (
    Acting,
    ActingStats,
    Decision,
    exploration_std,
    Hold,
    Installed,
    LIMITS,
    Mode,
    Observed,
    sentence,
)
from drqv2_policy_node.config import PolicyNodeConfig
from drqv2_policy_node.policy_requirements import live_config, session_mismatch, start_remark
from drqv2_policy_node.store import find_policy, load_policy
from drqv2_policy_node.weights import examine, Loaded, WeightsLoader
from so101_contract.assembly import Assembler
from so101_contract.errors import ContractError
from so101_contract.joints import VelocityEstimator
from so101_contract.messages import action_message, image_sample, joint_sample, step_record
from so101_contract.observation import observation_digest
from so101_contract.observation_spec import CameraSpec
from so101_contract.session import EventKind, Source
from so101_interfaces_py import qos, topics
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node
from so101_kinematics.fk import state_function

CONFIG = (PolicyNodeConfig,)
TICK_S = 0.02
STATUS_PERIOD_S = 1.0
REASON_LASTS_S = 1.0
"""How long the reason of a single unanswered step is shown [s]; the next answer clears it."""

SWITCH_INTERVAL_S = 0.0005
"""How long another thread of this process may keep an action waiting [s]."""

MODES = {Mode.EVAL: PolicyStatus.MODE_EVAL, Mode.EXPLORE: PolicyStatus.MODE_EXPLORE}


class PolicyNode(Node):
    """Answers session/step with policy/ee_delta.

    It acts in the callback of whichever message completes a step's inputs: waiting for a timer would add half its
    period to every action.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__('policy_node', **node_options)
        self._config = load_config(self, PolicyNodeConfig)
        torch.set_num_threads(self._config.torch_threads)
        self._live = live_config(self._config)
        assert self._live.observation is not None
        self._spec = self._live.observation
        self._assembler = Assembler(self._spec, state_function(self._spec), limits=LIMITS)
        self._acting = Acting(
            self._assembler,
            timing=self._config.timing,
            mode=Mode(self._config.mode),
            seed=self._config.seed,
        )
        self._stats = ActingStats()
        self._velocity = VelocityEstimator()
        self._loaded: Loaded | None = None  # the policy in use
        self._arrived: Loaded | None = None  # assigned by the loader's thread
        self._unheard = {topics.JOINT_STATES, *self._spec.camera_names}  # inputs that have not come yet
        self._remarks: tuple[str, ...] = ()
        self._env_steps = 0
        self._came_ns = 0  # when the step that waits came
        self._trouble = ''
        self._trouble_until = self._next_status = float('-inf')
        self._said: tuple[Any, ...] = ()

        self._actions = self.create_publisher(EeDelta, topics.POLICY_EE_DELTA, qos.COMMAND)
        self._status = self.create_publisher(PolicyStatus, topics.POLICY_STATUS, qos.LATCHED)
        self._observed = self.create_publisher(String, topics.POLICY_OBSERVED, qos.EVENT)
        self._load_from_disk()
        self._loader = WeightsLoader(lambda: self._live, self._on_arrived)
        self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, qos.STATE_EVERY)
        for camera in self._spec.cameras:
            receive = functools.partial(self._on_image, camera)
            self.create_subscription(Image, f'{camera.name}/image_raw', receive, qos.IMAGE_EVERY)
        self.create_subscription(Step, topics.STEP, self._on_step, qos.EVENT)
        self.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, self._on_event, qos.EVENT)
        self.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_learner, qos.LATCHED)
        if self._config.follow_learner:
            self.create_subscription(PolicyWeights, topics.WEIGHTS, self._loader.put, qos.WEIGHTS)
        self.add_on_set_parameters_callback(self._on_parameters)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(TICK_S, self._tick, clock=clock)

    def close(self) -> None:
        """End the loader's thread."""
        self._loader.close()

    # --- inputs ---

    def _on_joints(self, message: JointState) -> None:
        try:
            self._assembler.push(joint_sample(message, self._velocity))
            self._unheard.discard(topics.JOINT_STATES)
        except ContractError as error:
            self._warn(f'{topics.JOINT_STATES}: {error}')
        self._answer()

    def _on_image(self, camera: CameraSpec, message: Image) -> None:
        # Scaled down on arrival, not at the step: a third of a millisecond that no action waits for.
        try:
            self._assembler.push(image_sample(message, camera))
            self._unheard.discard(camera.name)
        except ContractError as error:
            self._warn(f'{camera.name}: {error}')
        self._answer()

    def _on_step(self, message: Step) -> None:
        now_ns = time.monotonic_ns()
        self._install()
        try:
            unanswered = self._acting.begin(step_record(message), now_ns)
        except ContractError as error:
            self._warn(f'{topics.STEP}: {error}')
            return
        if unanswered is not None:
            self._hold(unanswered)
        self._came_ns = now_ns
        self._answer()

    def _on_event(self, message: EpisodeEvent) -> None:
        if message.kind != EventKind.START:
            return
        self._acting.mismatch = session_mismatch(self._live, message.observation_hash, message.action_hash)
        if message.calibration_id and message.calibration_id != self._live.calibration_id:
            self._live = replace(self._live, calibration_id=message.calibration_id)
            if self._loaded is not None:
                self._remark(tuple(self._loaded.policy.manifest.check_recommended(self._live)))

    def _on_learner(self, message: LearnerStatus) -> None:
        self._env_steps = int(message.env_steps)
        self._set_noise()

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        values = {parameter.name: parameter.value for parameter in parameters if parameter.name == 'mode'}
        try:
            self._config = replace(self._config, **values)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._acting.mode = Mode(self._config.mode)
        return SetParametersResult(successful=True)

    # --- answers ---

    def _answer(self) -> None:
        """Act, hold, or wait for an input."""
        step_ns = self._acting.pending_stamp_ns
        if step_ns is None:
            return
        now = self.get_clock().now()
        answer = self._acting.decide(time.monotonic_ns(), now.nanoseconds - step_ns)
        if isinstance(answer, Decision):
            self._publish(answer, now.nanoseconds)
        elif answer is not None:
            self._hold(answer)

    def _publish(self, decision: Decision, stamp_ns: int) -> None:
        step, frame_id = decision.step, decision.by.action.frame_id
        self._actions.publish(
            action_message(
                decision.wire,
                Source.POLICY,
                stamp_ns,
                episode=step.episode,
                index=step.index,
                frame_id=frame_id,
            )
        )
        latency_s = (time.monotonic_ns() - self._came_ns) * 1e-9
        self._stats.acted(latency_s, decision.action, decision.input_ns * 1e-9)
        self._trouble = ''
        if self._observed.get_subscription_count():
            self._observed.publish(String(data=_observed(decision, latency_s).to_json(indent=None)))
        if step.index == 0 and self._loaded is not None and 'joint_pos' in self._spec.block_names:
            joints = decision.observation.state[-1, self._spec.slice_of('joint_pos')]
            remark = start_remark(self._loaded.policy.manifest, joints)
            if remark:
                self.get_logger().warning(remark, throttle_duration_sec=60.0)

    def _hold(self, hold: Hold) -> None:
        self._stats.holds += 1
        self._trouble, self._trouble_until = str(hold), time.monotonic() + REASON_LASTS_S
        self.get_logger().warning(
            f'holding at step {hold.step.index} of episode {hold.step.episode}: {hold}',
            throttle_duration_sec=2.0,
        )

    # --- policies ---

    def _load_from_disk(self) -> None:
        folder = find_policy(self._config.policy, self._config.observation)
        if folder is not None:
            self._arrived = examine(load_policy(folder), self._live)
        elif self._config.follow_learner:
            self.get_logger().info('no policy to begin with: waiting for the learner')

    def _on_arrived(self, loaded: Loaded) -> None:
        """Take a policy from the loader's thread; the next action is its own."""
        self._arrived = loaded

    def _install(self) -> None:
        """Exchange the policy for the newest one, between two actions; the first one once there is something to see."""
        if self._unheard or self._arrived is None:
            wanted = sorted(self._unheard) or (['the learner'] if self._config.follow_learner else [])
            self._acting.waiting_for = f'waiting for {", ".join(wanted)}' if wanted else ''
            return
        loaded, self._arrived = self._arrived, None
        first, self._loaded = self._loaded is None or self._loaded.version == 0, loaded
        manifest = loaded.policy.manifest
        self._acting.installed = Installed(
            policy=loaded.policy,
            action=manifest.action,
            name=manifest.name,
            version=loaded.version,
            std=0.0,
            observation_hash=manifest.observation.hash,
            stamp_ns=loaded.stamp_ns,
        )
        self._set_noise()
        self._remark(loaded.remarks)
        if first:
            self.get_logger().info(f'policy {manifest.name}, version {loaded.version}')

    def _set_noise(self) -> None:
        loaded, installed = self._loaded, self._acting.installed
        if loaded is None or installed is None:
            return
        std = exploration_std(
            loaded.schedule,
            loaded.policy.manifest.std_unit,
            updates=loaded.step,
            env_steps=self._env_steps,
            limit=self._config.max_std,
        )
        self._acting.installed = replace(installed, std=std)

    def _remark(self, remarks: tuple[str, ...]) -> None:
        """Tell the user what differs from training, once."""
        if remarks and remarks != self._remarks:
            self.get_logger().warning('not as in training: ' + '; '.join(remarks))
        self._remarks = remarks

    # --- status ---

    def _tick(self) -> None:
        self._install()
        self._answer()
        now_s = time.monotonic()
        installed, reason = self._acting.installed, self._reason(now_s)
        said = (self._acting.mode, reason, installed and (installed.name, installed.version))
        if said != self._said or now_s >= self._next_status:
            self._said, self._next_status = said, now_s + STATUS_PERIOD_S
            self._status.publish(self._status_message(reason))

    def _reason(self, now_s: float) -> str:
        """Return why it holds; empty where it does not. Between steps it does not hold."""
        standing = self._acting.standing
        if standing is not None:
            return sentence(*standing)
        return self._trouble if now_s < self._trouble_until else ''

    def _status_message(self, reason: str) -> PolicyStatus:
        mode, installed, stats = self._acting.mode, self._acting.installed, self._stats
        now = self.get_clock().now()
        message = PolicyStatus(
            mode=PolicyStatus.MODE_HOLD if reason else MODES[mode],
            reason=reason,
            latency_p50=stats.latency_s(50),
            latency_p95=stats.latency_s(95),
            saturation=stats.saturation,
            input_age=stats.input_age_s,
            weights_age=float('nan'),
            actions=stats.actions,
            holds=stats.holds,
        )
        message.header.stamp = now.to_msg()
        if installed is not None:
            message.policy, message.version = installed.name, installed.version
            message.observation_hash = installed.observation_hash
            message.noise_std = installed.std if mode is Mode.EXPLORE else 0.0
            if installed.stamp_ns is not None:
                message.weights_age = (now.nanoseconds - installed.stamp_ns) * 1e-9
        return message

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=1.0)


def _observed(decision: Decision, latency_s: float) -> Observed:
    return Observed(
        episode=decision.step.episode,
        index=decision.step.index,
        sha256=observation_digest(decision.observation),
        version=decision.by.version,
        std=decision.std,
        seed=decision.seed,
        latency_s=latency_s,
    )


def main() -> None:
    """Run the node."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sys.exit(run_node(PolicyNode, (ContractError, ParameterError)))


if __name__ == '__main__':
    main()
