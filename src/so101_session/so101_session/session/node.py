# SPDX-License-Identifier: Apache-2.0
"""The session as a ROS node: callbacks tell the state machine what comes, and carry out what it wants."""

from collections.abc import Callable
from dataclasses import replace
import math
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
import numpy as np
import numpy.typing as npt
from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image, JointState
from so101_interfaces.msg import (
    ArmStatus,
    EeDelta,
    EpisodeEvent,
    PolicyStatus,
    SessionStatus,
    Step,
    SuccessOpinion,
    TaskReport,
)
from std_srvs.srv import Trigger

from so101_bags.messages import Decoders
from so101_contract import session as session_status
from so101_contract import task_report
from so101_contract.action import ActionSpec
from so101_contract.errors import ActionError, ContractError
from so101_contract.human_time import HumanTime
from so101_contract.joints import gripper_rad_to_opening, JOINT_NAMES, VelocityEstimator
from so101_contract.messages import (
    action_message,
    action_record,
    EpisodeEventRecord,
    event_message,
    ExecutedAction,
    joint_sample,
    step_message,
    StepRecord,
)
from so101_contract.session import EventKind, SessionState, Source
from so101_contract.task.files import observed, told_task
from so101_contract.task.reward import Evidence, Opinion, opinion_record, RewardSource, sources_of
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_state, ns_to_stamp, stamp_to_ns
from so101_interfaces_py.endings import leave
from so101_interfaces_py.node import read_message, UNUSABLE
from so101_interfaces_py.params import load_configs, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode, stop_spinning
from so101_interfaces_py.voices import Voices
from so101_session.session import clock
from so101_session.session.arbiter import Stop
from so101_session.session.clock import ArmWatch, Jitter, Problem, Senses, SimulatedClock, stamp_of
from so101_session.session.config import ResetConfig, SessionConfig
from so101_session.session.episode import Event, SessionError
from so101_session.session.machine import Effect, Finish, Session
from so101_session.session.reset import MoveTo, ReleaseController, ResetScene
from so101_session.session.services import SessionServices

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


def gripper_load(status: ArmStatus) -> float:
    """Return the share of its full output that the gripper's motor presses with; NaN where that is not said."""
    loads = dict(zip(status.name, status.load, strict=False))
    return abs(float(loads.get(JOINT_NAMES[-1], math.nan)))


CONFIG = (SessionConfig, ResetConfig)
MOTION_RATE_HZ = 50.0
LOOKS_A_STEP = 10
"""How often in a step it is looked whether the next one is due in simulated time."""
STATUS_PERIOD_S = 0.5
POLICY_TIMEOUT_S = 3.0
"""A policy_node that has not sent its status for this long is not there."""

ARM_TIMEOUT_S = 1.0


class SessionNode(SoleNode):
    """Callbacks tell the session what comes; what it wants to be done is carried out at once."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('session_node', **node_options)
        config, reset = load_configs(self, SessionConfig, ResetConfig)
        self._config: SessionConfig = config
        self._task_spec = told_task(config.task, config.cameras)
        self._observation = observed(
            self._task_spec, config.observation, tcp=config.tcp, cameras=config.cameras
        )
        self._action = ActionSpec(translation_scale_m=(config.action_scale_m,) * 3)
        self._jitter = Jitter(config.period_s)
        self._senses = Senses.of(
            self._observation.camera_names,
            joint_timeout_s=config.joint_timeout_s,
            camera_timeout_s=config.camera_timeout_s,
        )
        self._session = Session(
            config, reset, self._action, self._senses, self._report, task=self._task_spec, felt=self._felt
        )
        self._arm_watch = ArmWatch()
        self._read_joints, self._velocity = Decoders().joints(), VelocityEstimator()
        self._positions: npt.NDArray[np.float64] | None = None
        self._arm_s = self._policy_s = self._policy_status_s = float('-inf')
        self._task: bytes | task_report.TaskReport | None = None
        self._opinion: Opinion | None = None
        self._load = math.nan
        self._calibration_id = ''
        self._said: tuple[object, ...] = ()
        self._next_status = 0.0
        self._human = HumanTime()
        self._simulated = SimulatedClock() if config.simulated else None
        self._now: Callable[[], float] = time.monotonic if self._simulated is None else self._simulated.now
        self._due_s = float('-inf')

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
        self._go_on = self.create_client(Trigger, topics.SIM_GO_ON_SERVICE)
        SessionServices(self, self._session, self._do, self._now)
        # The steady clock: a step of the system's time must not stall the arm.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        if config.simulated:
            self.create_timer(config.period_s / LOOKS_A_STEP, self._tick_when_due, clock=clock)
        else:
            self.create_timer(config.period_s, self._tick, clock=clock)
        self.create_timer(1.0 / MOTION_RATE_HZ, self._motion, clock=clock)
        self.get_logger().info(f'{config.rate_hz:.0f} Hz, observation {config.observation}, TCP {config.tcp}')

    def _listen(self) -> None:
        """Subscribe; of pictures and poses only the stamp is read."""
        state = qos.STATE_SUBSCRIBER
        senses = self._senses
        voices = Voices(self)
        joints = voices.only(topics.JOINT_STATES, self._on_joints)
        self.create_subscription(JointState, topics.JOINT_STATES, joints, state, raw=True)
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
        arm = voices.only(topics.ARM_STATUS, self._on_arm)
        self.create_subscription(ArmStatus, topics.ARM_STATUS, arm, qos.LATCHED_EVERY)
        self.create_subscription(PolicyStatus, topics.POLICY_STATUS, self._on_policy_status, qos.LATCHED)
        policy = voices.only(topics.POLICY_EE_DELTA, self._on_policy)
        self.create_subscription(EeDelta, topics.POLICY_EE_DELTA, policy, qos.COMMAND)
        teleop = voices.only(topics.TELEOP_EE_DELTA, self._on_teleop)
        self.create_subscription(EeDelta, topics.TELEOP_EE_DELTA, teleop, qos.COMMAND)
        if RewardSource.CLASSIFIER in sources_of(self._config.reward_source):
            opinion = voices.only(topics.SUCCESS_OPINION, self._on_opinion)
            self.create_subscription(SuccessOpinion, topics.SUCCESS_OPINION, opinion, qos.EVENT)
        if self._config.arranges_scene:
            self.create_subscription(TaskReport, topics.SIM_TASK, self._on_task, state, raw=True)
        if self._simulated is not None:
            self.create_subscription(ClockMessage, topics.SIM_CLOCK, self._on_clock, state)

    # --- what comes ---

    def _heard(self, source: clock.Source, data: bytes) -> None:
        source.heard(stamp_of(data), self._now())

    def _on_joints(self, data: bytes) -> None:
        message = self._read_joints(data)
        mute = [name for name in JOINT_NAMES if name not in message.name]
        if mute:  # five joints are no observation, and no place to start from
            self._senses.joints.lacking = ' and '.join(mute)
            return
        sample = joint_sample(message, self._velocity)
        self._positions = sample.position
        self._senses.joints.heard(sample.stamp_ns, self._now())

    def _on_arm(self, message: ArmStatus) -> None:
        self._arm_s = self._now()
        self._calibration_id = message.calibration_id
        self._load = gripper_load(message)
        self._senses.arm = problem = arm_problem(message)
        stop = self._arm_watch.hear(
            problem,
            latched=message.state in (ArmStatus.E_STOP, ArmStatus.FAULT),
            moved=not math.isnan(message.command_age),
            cycles=message.cycles,
            reconnects=message.reconnects,
            now_s=self._arm_s,
        )
        if stop:
            self._session.arm_stopped(stop)

    def _on_policy_status(self, message: PolicyStatus) -> None:
        self._policy_status_s = self._now()
        holds = message.mode == PolicyStatus.MODE_HOLD
        self._session.policy_holds = (message.reason or 'it does not say why') if holds else ''
        # One that holds is there and drives nothing: no episode begins for it.
        self._policy_s = float('-inf') if holds else self._policy_status_s

    def _on_task(self, data: bytes) -> None:
        self._task = data

    def _on_opinion(self, message: SuccessOpinion) -> None:
        self._opinion = opinion_record(message)

    def _on_clock(self, message: ClockMessage) -> None:
        assert self._simulated is not None
        self._simulated.heard(stamp_to_ns(message.clock) / 1e9)

    def _on_policy(self, message: EeDelta) -> None:
        self._policy_s = self._now()
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
        self._do(tell(action, self._now()))

    # --- time passes ---

    def _tick_when_due(self) -> None:
        now_s = self._now()
        if now_s >= self._due_s:
            period_s = self._config.period_s
            self._due_s = now_s + period_s if now_s > self._due_s + period_s else self._due_s + period_s
            self._tick()

    def _tick(self) -> None:
        now_s = self._now()
        self._jitter.tick(now_s)
        if ARM_TIMEOUT_S < now_s - self._arm_s < float('inf'):
            self._senses.arm = Problem('arm_node has sent no status', now_s - self._arm_s)
        self._session.policy_alive = now_s - self._policy_s <= POLICY_TIMEOUT_S
        if now_s - self._policy_status_s > POLICY_TIMEOUT_S:
            self._session.policy_holds = ''  # it is not there any more
        now_ns = self.get_clock().now().nanoseconds
        self._do(self._session.tick(now_s, now_ns, self._positions))
        self._publish_status(now_s)

    def _motion(self) -> None:
        now_s = self._now()
        self._do(self._session.poll(now_s))
        if self._session.state is SessionState.RESETTING and self._positions is not None:
            self._do(self._session.motion(now_s, self._positions))

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
                self._call(self._go_on if effect.keeps else self._reset_scene, lambda: None)
            elif isinstance(effect, Finish):
                self.get_logger().info('finished')
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
        said = EpisodeEventRecord(
            event.episode, event.kind, now_ns, event.index, event.reason, by_human=event.by_human
        )
        if event.kind is EventKind.START:
            said = replace(
                said,
                observation_hash=self._observation.hash,
                action_hash=self._action.hash,
                calibration_id=self._calibration_id,
                task_hash='' if self._task_spec is None else self._task_spec.hash,
            )
        self._human.event(said)
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
        now = self.get_clock().now()
        status = replace(
            session.status(self._jitter),
            human=self._human.spent(now.nanoseconds),
            human_until_unaided_s=self._human.until_unaided_s,
            resets_by_arm=self._human.by_arm,
            resets_by_human=self._human.by_human,
        )
        message = session_status.from_record(status, SessionStatus())
        message.header.stamp = now.to_msg()
        self._status.publish(message)

    # --- helpers ---

    def _felt(self) -> Evidence:
        """Return what sources of the reward look at, but for what the session knows itself."""
        q = self._positions
        opening = math.nan if q is None else float(gripper_rad_to_opening(float(q[-1])))
        return Evidence(opinion=self._opinion, opening=opening, load=self._load)

    def _summary(self) -> str:
        """Return what came of the session, and what it cost a human."""
        return f'{self._session.account}; {self._human.sentence}'

    def close(self) -> None:
        """Say what came of it, and what it cost a human, also where it was stopped in the middle."""
        if self._session.account.started:
            self.get_logger().info(f'in all: {self._summary()}')

    def _report(self) -> task_report.TaskReport | None:
        """Return what the simulation said last; it is read when somebody asks."""
        if isinstance(self._task, bytes):
            try:
                self._task = task_report.to_record(read_message(self._task, TaskReport))
            except UNUSABLE as error:
                self.drop(topics.SIM_TASK, error)
                self._task = None
        return self._task


def main() -> None:
    """Run the node."""
    leave(run_node(SessionNode, (SessionError, ContractError, ParameterError), urgent=True))


if __name__ == '__main__':
    main()
