# SPDX-License-Identifier: Apache-2.0
"""The session as a ROS node: callbacks tell the state machine what comes, and carry out what it wants."""

from collections.abc import Callable
from dataclasses import replace
import sys
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
import numpy as np
import numpy.typing as npt
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState
from so101_interfaces.msg import (
    ArmStatus,
    EeDelta,
    EpisodeEvent,
    PolicyStatus,
    SessionStatus,
    Step,
    TaskReport,
)
from so101_interfaces.srv import EndEpisode, StartEpisode
from std_srvs.srv import SetBool, Trigger

from so101_contract import session as session_status
from so101_contract import task_report
from so101_contract.action import ActionSpec
from so101_contract.errors import ActionError, ContractError
from so101_contract.joints import JOINT_NAMES
from so101_contract.messages import (
    action_message,
    action_record,
    EpisodeEventRecord,
    event_message,
    ExecutedAction,
    step_message,
    StepRecord,
)
from so101_contract.observation_spec import get_observation
from so101_contract.session import EventKind, Outcome, SessionState, Source
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions, joint_state, ns_to_stamp
from so101_interfaces_py.params import load_configs, ParameterError
from so101_interfaces_py.spin import run_node, stop_spinning
from so101_session.session import clock
from so101_session.session.arbiter import Stop
from so101_session.session.clock import Jitter, Problem, Senses, stamp_of
from so101_session.session.config import ResetConfig, SessionConfig
from so101_session.session.episode import Event, SessionError
from so101_session.session.machine import Effect, Finish, Session
from so101_session.session.reset import MoveTo, ReleaseController, ResetScene

DRIVABLE = (ArmStatus.ENABLED, ArmStatus.HOLD)
"""States of the arm in which it follows, or will follow, a command."""


def to_action(message: EeDelta, frame_id: str) -> ExecutedAction:
    """Read what a policy or a human wants.

    Raises:
        ContractError: it is not finite, of an unknown source, or in another frame than `frame_id`; nothing, said by
            nobody, has no frame.
    """
    action = action_record(message)
    nothing = action.source is Source.NONE and not action.translation.any()
    if message.header.frame_id != frame_id and not nothing:
        raise ActionError(f'expected a displacement in {frame_id}, got one in {message.header.frame_id}')
    return action


def arm_problem(status: ArmStatus) -> Problem | None:
    """Return why the arm cannot be driven, or nothing."""
    if status.state in DRIVABLE:
        return None
    return Problem(f'the arm is not enabled: {status.reason or "arm/enable switches it on"}')


LABELS = frozenset({Outcome.SUCCESS, Outcome.FAILURE, Outcome.DISCARD, Outcome.TIME_LIMIT})
"""What a human may call an episode; an abort is the session's own word."""


class SessionServices:
    """Passes requests on and answers with a sentence where something is refused."""

    def __init__(self, node: Any, session: Session, do: Callable[[list[Effect]], None]) -> None:
        """Offer the services on a node; `do` carries out what the session wants."""
        self._session, self._do = session, do
        node.create_service(StartEpisode, topics.START_EPISODE_SERVICE, self._start)
        node.create_service(EndEpisode, topics.END_EPISODE_SERVICE, self._end)
        node.create_service(SetBool, topics.INTERVENE_SERVICE, self._intervene)
        node.create_service(SetBool, topics.PAUSE_SERVICE, self._pause)
        node.create_service(Trigger, topics.RESET_SERVICE, self._reset)

    def _start(self, request: Any, response: Any) -> Any:
        def start() -> None:
            response.episode = self._session.start_episode(request.skip_reset)

        return _answer(response, start)

    def _end(self, request: Any, response: Any) -> Any:
        if request.outcome not in LABELS:
            response.message = (
                f'expected an outcome out of {sorted(LABELS)} (EndEpisode.srv), got {request.outcome}'
            )
            return response
        outcome, number, reason = Outcome(request.outcome), request.episode, request.reason
        return _answer(response, lambda: self._do(self._session.end_episode(outcome, number, reason)))

    def _intervene(self, request: Any, response: Any) -> Any:
        said = 'the human takes over' if request.data else 'the human gives back'
        return _answer(
            response, lambda: self._do(self._session.intervene(request.data, time.monotonic())), said
        )

    def _pause(self, request: Any, response: Any) -> Any:
        self._session.paused = request.data
        response.success = True
        response.message = 'pausing after this step' if request.data else 'going on'
        return response

    def _reset(self, _: Any, response: Any) -> Any:
        return _answer(response, self._session.reset_scene, 'the arm goes back to the start')


def _answer(response: Any, ask: Callable[[], object], message: str = '') -> Any:
    """Ask the session, and say so, or why it refuses."""
    try:
        ask()
    except SessionError as error:
        response.message = str(error)
        return response
    response.success, response.message = True, message
    return response


CONFIG = (SessionConfig, ResetConfig)
MOTION_RATE_HZ = 50.0
STATUS_PERIOD_S = 0.5
POLICY_TIMEOUT_S = 3.0
"""A policy_node that has not sent its status for this long is not there."""

ARM_TIMEOUT_S = 1.0


class SessionNode(Node):
    """Callbacks tell the session what comes; what it wants to be done is carried out at once."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('session_node', **node_options)
        config, reset = load_configs(self, SessionConfig, ResetConfig)
        self._config: SessionConfig = config
        self._observation = get_observation(config.observation, tcp=config.tcp)
        self._action = ActionSpec(translation_scale_m=(config.action_scale_m,) * 3)
        self._jitter = Jitter(config.period_s)
        self._senses = Senses.of(
            self._observation.camera_names,
            joint_timeout_s=config.joint_timeout_s,
            camera_timeout_s=config.camera_timeout_s,
        )
        self._session = Session(config, reset, self._action, self._senses, self._report)
        self._joints: bytes | None = None
        self._arm_s = self._policy_s = self._policy_status_s = float('-inf')
        self._task: bytes | task_report.TaskReport | None = None
        self._calibration_id = ''
        self._said: tuple[object, ...] = ()
        self._next_status = 0.0

        self._steps = self.create_publisher(Step, topics.STEP, qos.EVENT)
        self._events = self.create_publisher(EpisodeEvent, topics.EPISODE_EVENT, qos.EVENT)
        # Deeper than its readers that act on the newest only: who learns from actions must get every one.
        self._commands = self.create_publisher(EeDelta, topics.EE_DELTA_CMD, qos.EVENT)
        self._joint_command = self.create_publisher(JointState, topics.JOINT_COMMAND, qos.COMMAND)
        self._status = self.create_publisher(SessionStatus, topics.SESSION_STATUS, qos.LATCHED)
        self._listen()
        self._reseed = self.create_client(Trigger, topics.RESEED_SERVICE)
        self._hold = self.create_client(Trigger, topics.HOLD_SERVICE)
        self._reset_scene = self.create_client(Trigger, topics.SIM_RESET_SERVICE)
        SessionServices(self, self._session, self._do)
        # The steady clock: a step of the system's time must not stall the arm.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(config.period_s, self._tick, clock=clock)
        self.create_timer(1.0 / MOTION_RATE_HZ, self._motion, clock=clock)
        self.get_logger().info(f'{config.rate_hz:.0f} Hz, observation {config.observation}, TCP {config.tcp}')

    def _listen(self) -> None:
        """Subscribe; of what comes often only the stamp is read."""
        state = qos.STATE_SUBSCRIBER
        senses = self._senses
        self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, state, raw=True)
        self.create_subscription(
            PoseStamped, topics.TCP_POSE, lambda data: self._heard(senses.kinematics, data), state, raw=True
        )
        kind, topic = (
            (CameraInfo, 'camera_info')
            if self._config.image_stamps == 'camera_info'
            else (Image, 'image_raw')
        )
        for camera, source in zip(self._observation.camera_names, senses.cameras, strict=True):
            self.create_subscription(
                kind,
                f'{camera}/{topic}',
                lambda data, source=source: self._heard(source, data),
                qos.IMAGE,
                raw=True,
            )
        self.create_subscription(ArmStatus, topics.ARM_STATUS, self._on_arm, qos.LATCHED)
        self.create_subscription(PolicyStatus, topics.POLICY_STATUS, self._on_policy_status, qos.LATCHED)
        self.create_subscription(EeDelta, topics.POLICY_EE_DELTA, self._on_policy, qos.COMMAND)
        self.create_subscription(EeDelta, topics.TELEOP_EE_DELTA, self._on_teleop, qos.COMMAND)
        if self._config.reward_source == 'sim':
            self.create_subscription(TaskReport, topics.SIM_TASK, self._on_task, state, raw=True)

    # --- what comes ---

    def _heard(self, source: clock.Source, data: bytes) -> None:
        source.heard(stamp_of(data), time.monotonic())

    def _on_joints(self, data: bytes) -> None:
        self._joints = data
        self._heard(self._senses.joints, data)

    def _on_arm(self, message: ArmStatus) -> None:
        self._arm_s = time.monotonic()
        self._calibration_id = message.calibration_id
        self._senses.arm = arm_problem(message)

    def _on_policy_status(self, message: PolicyStatus) -> None:
        self._policy_status_s = time.monotonic()
        holds = message.mode == PolicyStatus.MODE_HOLD
        self._session.policy_holds = (message.reason or 'it does not say why') if holds else ''
        # One that holds is there and drives nothing: no episode begins for it.
        self._policy_s = float('-inf') if holds else self._policy_status_s

    def _on_task(self, data: bytes) -> None:
        self._task = data

    def _on_policy(self, message: EeDelta) -> None:
        self._policy_s = time.monotonic()
        self._session.policy_holds = ''
        self._say(message, self._session.policy)

    def _on_teleop(self, message: EeDelta) -> None:
        self._say(message, self._session.teleop)

    def _say(self, message: EeDelta, tell: Callable[[ExecutedAction, float], list[Effect]]) -> None:
        try:
            action = to_action(message, self._action.frame_id)
        except ContractError:
            self._session.arbiter.refuse()
            return
        self._do(tell(action, time.monotonic()))

    # --- time passes ---

    def _tick(self) -> None:
        now_s = time.monotonic()
        self._jitter.tick(now_s)
        if ARM_TIMEOUT_S < now_s - self._arm_s < float('inf'):
            self._senses.arm = Problem('arm_node has sent no status', now_s - self._arm_s)
        self._session.policy_alive = now_s - self._policy_s <= POLICY_TIMEOUT_S
        if now_s - self._policy_status_s > POLICY_TIMEOUT_S:
            self._session.policy_holds = ''  # it is not there any more
        now_ns = self.get_clock().now().nanoseconds
        self._do(self._session.tick(now_s, now_ns, self._positions()))
        self._publish_status(now_s)

    def _motion(self) -> None:
        now_s = time.monotonic()
        self._do(self._session.poll(now_s))
        if self._session.state is SessionState.RESETTING:
            positions = self._positions()
            if positions is not None:
                self._do(self._session.motion(now_s, positions))

    # --- what is to be done ---

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            now_ns = self.get_clock().now().nanoseconds
            if isinstance(effect, StepRecord):
                self._steps.publish(step_message(effect))
            elif isinstance(effect, ExecutedAction):
                self._commands.publish(self._command(effect, now_ns))
            elif isinstance(effect, Event):
                self._publish_event(effect, now_ns)
            elif isinstance(effect, MoveTo):
                self._joint_command.publish(
                    joint_state(JOINT_NAMES, effect.goal.tolist(), ns_to_stamp(now_ns))
                )
            elif isinstance(effect, ReleaseController):
                self._call(self._reseed, self._session.controller_released)
            elif isinstance(effect, Stop):
                self._call(self._hold, lambda: None)
            elif isinstance(effect, ResetScene):
                self._call(self._reset_scene, lambda: None)
            elif isinstance(effect, Finish):
                self.get_logger().info(f'finished: {self._session.account}')
                stop_spinning()
            elif effect.warning:
                self.get_logger().warning(effect.sentence)
            else:
                self.get_logger().info(effect.sentence)

    def _command(self, action: ExecutedAction, now_ns: int) -> EeDelta:
        return action_message(
            action,
            action.source,
            now_ns,
            episode=action.episode,
            index=action.index,
            frame_id=self._action.frame_id,
        )

    def _publish_event(self, event: Event, now_ns: int) -> None:
        said = EpisodeEventRecord(event.episode, event.kind, now_ns, event.index, event.reason)
        if event.kind is EventKind.START:
            said = replace(
                said,
                observation_hash=self._observation.hash,
                action_hash=self._action.hash,
                calibration_id=self._calibration_id,
            )
        self._events.publish(event_message(said))

    def _call(self, client: Any, done: Any) -> None:
        if not client.service_is_ready():
            return

        def answered(future: Any) -> None:
            if future.exception() is None and future.result().success:
                done()

        client.call_async(Trigger.Request()).add_done_callback(answered)

    def _publish_status(self, now_s: float) -> None:
        session = self._session
        said = (session.state, session.driver, session.sentence, session.paused)
        if said == self._said and now_s < self._next_status:
            return
        self._said, self._next_status = said, now_s + STATUS_PERIOD_S
        message = session_status.from_record(session.status(self._jitter), SessionStatus())
        message.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(message)

    # --- helpers ---

    def _positions(self) -> npt.NDArray[np.float64] | None:
        if self._joints is None:
            return None
        try:
            return joint_positions(deserialize_message(self._joints, JointState), JOINT_NAMES)
        except (KeyError, ValueError) as error:
            self.get_logger().warning(f'joint_states: {error}', throttle_duration_sec=1.0)
            return None

    def _report(self) -> task_report.TaskReport | None:
        """Return what the simulation said last; it is read when somebody asks."""
        if isinstance(self._task, bytes):
            try:
                self._task = task_report.to_record(deserialize_message(self._task, TaskReport))
            except ContractError as error:
                self.get_logger().warning(str(error), throttle_duration_sec=1.0)
                self._task = None
        return self._task


def main() -> None:
    """Run the node."""
    sys.exit(run_node(SessionNode, (SessionError, ContractError, ParameterError), urgent=True))


if __name__ == '__main__':
    main()
