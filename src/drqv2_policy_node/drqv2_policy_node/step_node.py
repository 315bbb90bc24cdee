# SPDX-License-Identifier: Apache-2.0
"""What every policy's node does: hears joints, pictures and steps, answers each step or says why the arm holds."""

import functools
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import EeDelta, EpisodeEvent, PolicyStatus, Step

from drqv2_policy_node.answering import ActingStats, Answer, Answering, Hold, Mode, sentence
from drqv2_policy_node.config import AnsweringConfig
from drqv2_policy_node.policy_requirements import session_mismatch
from so101_contract.errors import ContractError
from so101_contract.joints import VelocityEstimator
from so101_contract.manifest import LiveConfig
from so101_contract.messages import action_message, image_sample, joint_sample, JointSample, step_record
from so101_contract.observation_spec import CameraSpec, ObservationSpec
from so101_contract.session import EventKind, Source
from so101_interfaces_py import qos, topics
from so101_interfaces_py.params import follow
from so101_interfaces_py.spin import SoleNode
from so101_interfaces_py.voices import Voices

TICK_S = 0.02
STATUS_PERIOD_S = 1.0
REASON_LASTS_S = 1.0
"""How long the reason of a single unanswered step is shown [s]; the next answer clears it."""

MODES = {Mode.EVAL: PolicyStatus.MODE_EVAL, Mode.EXPLORE: PolicyStatus.MODE_EXPLORE}


class StepNode(SoleNode):
    """Answers session/step with policy/ee_delta.

    It acts in the callback of whichever message completes a step's inputs: waiting for a timer would add half its
    period to every action. A subclass says who decides: it loads its configuration, and calls `answer_steps`.
    """

    _config: AnsweringConfig
    _acting: Answering

    def answer_steps(
        self,
        config: AnsweringConfig,
        live: LiveConfig,
        acting: Answering,
        *,
        speaks: tuple[Publisher, Publisher] | None = None,
    ) -> None:
        """Begin.

        Args:
            config: parameters of the node.
            live: the contract that they stand for.
            acting: who decides.
            speaks: where its actions and its status go; None: to the session.
        """
        self._config, self._live, self._acting = config, live, acting
        assert live.observation is not None
        self._spec: ObservationSpec = live.observation
        self._stats = ActingStats()
        self._velocity = VelocityEstimator()
        self._unheard = {topics.JOINT_STATES, *self._spec.camera_names}  # inputs that have not come yet
        self._came_ns = 0  # when the step that waits came
        self._trouble = ''
        self._trouble_until = self._next_status = float('-inf')
        self._said: tuple[Any, ...] = ()
        self._actions, self._status = speaks or (
            self.create_publisher(EeDelta, topics.POLICY_EE_DELTA, qos.COMMAND),
            self.create_publisher(PolicyStatus, topics.POLICY_STATUS, qos.LATCHED),
        )
        self.voices = Voices(self)
        self._subscribe()
        follow(self, config, self._reconfigure)
        self._timer = self.create_timer(TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _subscribe(self) -> None:
        self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, qos.STATE_EVERY)
        for camera in self._spec.cameras:
            receive = functools.partial(self._on_image, camera)
            self.create_subscription(Image, f'{camera.name}/image_raw', receive, qos.IMAGE_EVERY)
        step = self.voices.only(topics.STEP, self._on_step)
        self.create_subscription(Step, topics.STEP, step, qos.EVENT)
        event = self.voices.only(topics.EPISODE_EVENT, self._on_event)
        self.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, event, qos.EVENT)

    # --- what a subclass says ---

    def refresh(self) -> None:
        """Take what came from elsewhere: before each step, and fifty times a second."""

    def seen(self, camera: CameraSpec, message: Image) -> None:
        """Take a picture beside the observation."""

    def read_joints(self, sample: JointSample) -> None:
        """Take a reading beside the observation."""

    def started(self, event: EpisodeEvent) -> None:
        """Take note of the beginning of an episode."""

    def reconfigured(self, before: AnsweringConfig) -> None:
        """Take note of parameters that have changed."""

    def answered(self, answer: Answer, latency_s: float) -> None:
        """Take note of an answer that was sent."""

    def held(self, hold: Hold) -> None:
        """Take note of a step without one."""

    def fill_status(self, message: PolicyStatus) -> None:
        """Say which policy it is."""

    def identity(self) -> tuple[Any, ...]:
        """Return what has to be told at once when it changes."""
        return ()

    # --- inputs ---

    def _on_joints(self, message: JointState) -> None:
        try:
            sample = joint_sample(message, self._velocity)
            self._acting.assembler.push(sample)
            self.read_joints(sample)
            self._unheard.discard(topics.JOINT_STATES)
        except ContractError as error:
            self.warn(f'{topics.JOINT_STATES}: {error}')
        self._answer()

    def _on_image(self, camera: CameraSpec, message: Image) -> None:
        # Scaled down on arrival, not at the step: a third of a millisecond that no action waits for.
        try:
            self._acting.assembler.push(image_sample(message, camera))
            self.seen(camera, message)
            self._unheard.discard(camera.name)
        except ContractError as error:
            self.warn(f'{camera.name}: {error}')
        self._answer()

    def _on_step(self, message: Step) -> None:
        now_ns = time.monotonic_ns()
        self.refresh()
        try:
            unanswered = self._acting.begin(step_record(message), now_ns)
        except ContractError as error:
            self.warn(f'{topics.STEP}: {error}')
            return
        if unanswered is not None:
            self._hold(unanswered)
        self._came_ns = now_ns
        self._answer()

    def _on_event(self, message: EpisodeEvent) -> None:
        if message.kind != EventKind.START:
            return
        hashes = message.observation_hash, message.action_hash, message.task_hash
        self._acting.mismatch = session_mismatch(self._live, *hashes)
        self.started(message)

    def _reconfigure(self, config: AnsweringConfig) -> None:
        before, self._config = self._config, config
        self._acting.mode = Mode(config.mode)
        self.reconfigured(before)

    # --- answers ---

    def _answer(self) -> None:
        """Act, hold, or wait for an input."""
        step_ns = self._acting.pending_stamp_ns
        if step_ns is None:
            return
        now = self.get_clock().now()
        answer = self._acting.decide(time.monotonic_ns(), now.nanoseconds - step_ns)
        if isinstance(answer, Answer):
            self._publish(answer, now.nanoseconds)
        elif answer is not None:
            self._hold(answer)

    def _publish(self, answer: Answer, stamp_ns: int) -> None:
        step = answer.step
        self._actions.publish(
            action_message(
                answer.wire,
                Source.POLICY,
                stamp_ns,
                episode=step.episode,
                index=step.index,
                frame_id=answer.frame_id,
            )
        )
        latency_s = (time.monotonic_ns() - self._came_ns) * 1e-9
        self._stats.acted(latency_s, answer.action, answer.input_ns * 1e-9)
        self._trouble = ''
        self.answered(answer, latency_s)

    def _hold(self, hold: Hold) -> None:
        self._stats.holds += 1
        self._trouble, self._trouble_until = str(hold), time.monotonic() + REASON_LASTS_S
        self.held(hold)
        self.get_logger().warning(
            f'holding at step {hold.step.index} of episode {hold.step.episode}: {hold}',
            throttle_duration_sec=2.0,
        )

    # --- status ---

    def _tick(self) -> None:
        self.refresh()
        self._answer()
        now_s = time.monotonic()
        reason = self._reason(now_s)
        said = (self._acting.mode, reason, self.identity())
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
        stats = self._stats
        message = PolicyStatus(
            mode=PolicyStatus.MODE_HOLD if reason else MODES[self._acting.mode],
            reason=reason,
            latency_p50=stats.latency_s(50),
            latency_p95=stats.latency_s(95),
            saturation=stats.saturation,
            input_age=stats.input_age_s,
            weights_age=float('nan'),
            actions=stats.actions,
            holds=stats.holds,
        )
        message.actor_share = float('nan')
        message.header.stamp = self.get_clock().now().to_msg()
        self.fill_status(message)
        return message

    def warn(self, text: str) -> None:
        """Tell the user, once a second at most."""
        self.get_logger().warning(text, throttle_duration_sec=1.0)
