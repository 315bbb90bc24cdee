# SPDX-License-Identifier: Apache-2.0
"""The simulated human as a ROS node, with its parameters.

It sees the ground truth of the twin, and acts through the topics of teleoperation.

With a session it answers steps: episodes begin and end by `session/event`, it takes over and gives back by
`session/intervene`, and speaks on `teleop/ee_delta` while it acts. Without one (`topic:=ee_delta_cmd`, demonstrations
only) it drives the arm and resets the scene itself. After a fault of the arm it looks, clears the fault, switches the
motors on again, and presses Start (`Recovery`). What a human has stopped it leaves alone.
"""

from collections import deque
from dataclasses import dataclass
import time
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, SessionStatus, Step
from so101_interfaces.msg import TaskReport as TaskReportMessage
from so101_interfaces.srv import EndEpisode, StartEpisode
from std_srvs.srv import SetBool, Trigger

from so101_contract.action import EeDeltaValue
from so101_contract.joints import JOINT_NAMES
from so101_contract.messages import action_message, event_record
from so101_contract.session import Outcome, Source
from so101_contract.task_report import TaskReport, to_record
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions, joint_state
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import check_bounds, follow, live_param, load_configs, param, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode, stop_spinning
from so101_kinematics.ik import InverseKinematics
from so101_sim.errors import SimulationError
from so101_sim.human.expert import Expert, Skill
from so101_sim.human.labels import LabelKind, Labeller
from so101_sim.human.operator import Habits, Operator
from so101_sim.human.recovery import Recovery, RecoveryAction, WITHOUT_POWER_S
from so101_sim.human.session_human import Demonstrations, DemonstrationStage, SessionHuman, Turn
from so101_sim.human.traits import Traits
from so101_sim.scene.presets import get_preset
from so101_sim.scene.servo import FloatArray
from so101_sim.scene.start import home_pose

UNSAID = 20
"""So many labels are kept for a session that is not there yet."""

STALE_S = 0.5
"""Without a newer ground truth than this it does nothing [s]."""

MOMENT_S = 0.04
"""Between the last action of an intervention and giving back [s]; shorter than a step."""

PATIENCE_S = 5.0
"""How long a session may be missing before it is asked for [s]."""


@dataclass(frozen=True, kw_only=True)
class OperatorConfig:
    """What the simulated human does."""

    mode: str = param(
        'intervene',
        doc='intervene: watch, take over when it goes wrong, hand back. demonstrate: one demonstration after another.',
        choices=('intervene', 'demonstrate'),
    )
    topic: str = param(
        topics.TELEOP_EE_DELTA,
        doc='Where its actions go. ee_delta_cmd: demonstrate without a session in between.',
    )
    task: str = param('', doc='Name or file of the task; empty: the one of that name, as the twin says it.')
    rate_hz: float = param(
        10.0, doc='Actions per second; with a session, its steps per second.', unit='Hz', lo=1.0, hi=50.0
    )
    labels: str = param(
        'none',
        doc='Labels that it gives: none; all, by what it sees; corrections, where the reward is not what it saw.',
        choices=tuple(LabelKind),
    )
    episodes: int = param(0, doc='Demonstrations after which the node ends; 0: no end.', lo=0, hi=1_000_000)
    seed: int = param(0, doc='Of all that is left to chance.', lo=0, hi=2**31 - 1)
    patience_s: float = live_param(
        1.5,
        doc='How long nothing may come closer to the goal before it takes over.',
        unit='s',
        lo=0.1,
        hi=60.0,
    )
    shortest_s: float = live_param(0.8, doc='No intervention is shorter.', unit='s', lo=0.1, hi=60.0)
    longest_s: float = live_param(
        3.0,
        doc='After this it hands back, unless it holds the cube, or time runs out.',
        unit='s',
        lo=0.1,
        hi=600.0,
    )
    finish_s: float = live_param(
        3.5,
        doc='It finishes an episode of which no more than this is left; 0: never.',
        unit='s',
        lo=0.0,
        hi=600.0,
    )

    def __post_init__(self) -> None:
        """Check each value, and that a session or an arm listens."""
        check_bounds(self)
        if self.mode == 'intervene' and not self.with_session:
            raise ParameterError(
                f'expected topic {topics.TELEOP_EE_DELTA} for the mode intervene, got {self.topic}; '
                f'only a session can tell an operator from a policy'
            )
        if self.shortest_s > self.longest_s:
            raise ParameterError(
                f'expected shortest_s up to longest_s, got {self.shortest_s} and {self.longest_s} s; correct one'
            )

    @property
    def with_session(self) -> bool:
        """Whether a session says what an episode is."""
        return self.topic != topics.EE_DELTA_CMD

    def habits(self, attention: float) -> Habits:
        """Return when it acts, for who watches an episode with this probability."""
        return Habits(
            attention=attention,
            patience_steps=max(1, round(self.patience_s * self.rate_hz)),
            shortest_steps=max(1, round(self.shortest_s * self.rate_hz)),
            longest_steps=max(1, round(self.longest_s * self.rate_hz)),
            finish_steps=round(self.finish_s * self.rate_hz),
        )


CONFIG = (OperatorConfig, Traits)


class OperatorNode(SoleNode):
    """Watches or demonstrates."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('operator_node', **node_options)
        config, traits = load_configs(self, OperatorConfig, Traits)
        self._config: OperatorConfig = config
        self._traits: Traits = traits
        self._skill = Skill.of(traits)
        follow(self, config, lambda new: self._change(new, self._traits))
        follow(self, traits, lambda new: self._change(self._config, new))
        self._rng = np.random.default_rng(self._config.seed)
        self._report: TaskReport | None = None
        self._report_s = float('-inf')
        self._positions: FloatArray | None = None
        self._human: SessionHuman | None = None
        self._demonstrations: Demonstrations | None = None
        self._episode = self._index = 0
        self._actions = self.create_publisher(EeDelta, self._config.topic, qos.COMMAND)
        self.create_subscription(TaskReportMessage, topics.SIM_TASK, self._on_task, qos.STATE_SUBSCRIBER)
        self._recovery = Recovery()
        self._waits = self._stopped = False
        clock = self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._giving_back: Any = None
        self._unasked: bool | None = None
        self._unsaid: deque[tuple[Outcome, int]] = deque(maxlen=UNSAID)
        if self._config.with_session:
            self._intervene = self.create_client(SetBool, topics.INTERVENE_SERVICE)
            self._start = self.create_client(StartEpisode, topics.START_EPISODE_SERVICE)
            self._label = self.create_client(EndEpisode, topics.END_EPISODE_SERVICE)
            self.create_subscription(SessionStatus, topics.SESSION_STATUS, self._on_status, qos.LATCHED)
            self.create_subscription(Step, topics.STEP, self._on_step, qos.EVENT)
            self.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, self._on_event, qos.EVENT)
            self.create_timer(PATIENCE_S, self._look, clock=clock)
        else:
            self._joint_command = self.create_publisher(JointState, topics.JOINT_COMMAND, qos.COMMAND)
            self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, qos.STATE_SUBSCRIBER)
            self._reset = self.create_client(Trigger, topics.SIM_RESET_SERVICE)
            self.create_timer(1.0 / self._config.rate_hz, self._tick, clock=clock)
        self._clear_fault = self.create_client(Trigger, topics.ARM_CLEAR_FAULT_SERVICE)
        self._enable = self.create_client(SetBool, topics.ARM_ENABLE_SERVICE)
        self._power = self.create_client(SetBool, topics.SIM_POWER_SERVICE)
        self.create_subscription(ArmStatus, topics.ARM_STATUS, self._on_arm, qos.LATCHED)
        self.get_logger().info(f'{self._config.mode} on {self._config.topic}')

    # --- callbacks ---

    def _change(self, config: OperatorConfig, traits: Traits) -> None:
        """Act with another skill, and for other reasons, from now on."""
        self._config, self._traits, self._skill = config, traits, Skill.of(traits)
        if self._human is not None:
            self._human.change(self._skill, config.habits(traits.attention))
        if self._demonstrations is not None:
            self._demonstrations.change(self._skill)

    def _on_task(self, message: TaskReportMessage) -> None:
        self._report, self._report_s = to_record(message), time.monotonic()

    def _on_arm(self, message: ArmStatus) -> None:
        fault, disabled = message.state == ArmStatus.FAULT, message.state == ArmStatus.DISABLED
        stopped = message.state == ArmStatus.E_STOP
        if stopped and not self._stopped and not self._config.with_session:
            self.get_logger().warning('the arm was stopped, and nobody could ask for more: start me again')
        self._stopped |= stopped
        action = self._recovery.update(
            fault=fault, disabled=disabled, now_s=time.monotonic(), stopped=stopped, waits=self._waits
        )
        if action is None:
            return
        self.get_logger().info(f'{action.value}: {message.reason}')
        if action is RecoveryAction.CLEAR_FAULT and self._clear_fault.service_is_ready():
            self._clear_fault.call_async(Trigger.Request())
        elif action is RecoveryAction.ENABLE and self._enable.service_is_ready():
            self._enable.call_async(SetBool.Request(data=True))
        elif action is RecoveryAction.POWER_CYCLE and self._power.service_is_ready():
            off = self._power.call_async(SetBool.Request(data=False))
            off.add_done_callback(lambda _: self._give_power_later())
        elif action is RecoveryAction.START and self._start.service_is_ready():
            self._start.call_async(StartEpisode.Request())

    def _give_power_later(self) -> None:
        """Give the servos their power back, not before the driver has noticed that they were without it."""

        def give() -> None:
            self.destroy_timer(timer)
            self._power.call_async(SetBool.Request(data=True))

        timer = self.create_timer(WITHOUT_POWER_S, give)

    def _on_joints(self, message: JointState) -> None:
        self._positions = joint_positions(message, JOINT_NAMES)

    # --- with a session ---

    def _on_status(self, message: SessionStatus) -> None:
        self._waits = message.state == SessionStatus.WAITING and not message.paused
        if message.state == SessionStatus.ARMED and (human := self._taking_part()) is not None:
            self._take(human.armed(message.episode))

    def _on_event(self, message: EpisodeEvent) -> None:
        if message.kind == EpisodeEvent.START:
            self._recovery.begun()
        elif message.kind in (EpisodeEvent.ABORT, EpisodeEvent.NEED_RESET) or (
            message.kind == EpisodeEvent.RESET_DONE and message.reason
        ):
            self._recovery.cut_short()
        human = self._taking_part()
        if human is None:
            return
        before = human.account.episodes
        event = event_record(message)
        self._take(human.event(event.kind, event.episode))
        if human.account.episodes > before:
            self.get_logger().info(str(human.account))
        demonstrating = self._config.mode == 'demonstrate'
        if demonstrating and 0 < self._config.episodes <= human.account.episodes:
            stop_spinning()

    def _on_step(self, message: Step) -> None:
        report, human = self._fresh_report(), self._taking_part()
        if report is None or human is None:
            return
        self._episode, self._index = message.episode, message.index
        if self._unasked is not None:
            self._ask(self._unasked)
        over = message.terminated or message.truncated
        self._take(human.step(message.episode, over, report.state.truth))

    def _take(self, turn: Turn) -> None:
        if turn.intervene is not None:
            self.get_logger().info(turn.why)
        self._give_back()
        if turn.intervene:
            self._ask(True)
        if turn.action is not None:
            self._publish(turn.action)
        if turn.label is not None:
            self._unsaid.append((turn.label, turn.episode))
        self._say_labels()
        if turn.intervene is False:
            # A moment later: a service that overtakes the last action would have it take over again.
            self._giving_back = self.create_timer(MOMENT_S, self._give_back, clock=self._steady)

    def _say_labels(self) -> None:
        """Say what is to be said of episodes, once somebody listens: discovery takes its time."""
        while self._unsaid and self._label.service_is_ready():
            label, episode = self._unsaid.popleft()
            self.get_logger().info(f'calls episode {episode} a {label.name.lower()}')
            said = {'outcome': label.value, 'episode': episode}
            self._label.call_async(EndEpisode.Request(**said, reason='the operator says so'))

    def _give_back(self) -> None:
        if self._giving_back is not None:
            self.destroy_timer(self._giving_back)
            self._giving_back = None
            self._ask(False)

    def _ask(self, intervene: bool) -> None:
        ready = self._intervene.service_is_ready()
        self._unasked = None if ready else intervene  # at the next step then: discovery takes its time
        if ready:
            self._intervene.call_async(SetBool.Request(data=intervene))

    def _taking_part(self) -> SessionHuman | None:
        """Return what takes part in the session, once the task is known."""
        if self._human is None and self._report is not None:
            preset = get_preset(self._report.preset, self._config.task or self._report.task)
            config, traits = self._config, self._traits
            actor = (
                Expert(preset.task, skill=self._skill)
                if config.mode == 'demonstrate'
                else Operator(
                    preset.task,
                    skill=self._skill,
                    habits=config.habits(traits.attention),
                    max_steps=preset.max_steps,
                    traits=traits,
                    rate_hz=config.rate_hz,
                )
            )
            labels = Labeller(preset.task, traits, config.rate_hz, LabelKind(config.labels))
            self._human = SessionHuman(actor, self._rng, labels)
        return self._human

    def _look(self) -> None:
        if self._fresh_report() is not None and not self.count_publishers(
            self.resolve_topic_name(topics.STEP)
        ):
            self.get_logger().info(
                f'waiting for {topics.STEP}; does session_node run?', throttle_duration_sec=10.0
            )

    def _fresh_report(self) -> TaskReport | None:
        if self._report is None or time.monotonic() - self._report_s > STALE_S:
            self.get_logger().info(
                f'waiting for {topics.SIM_TASK}; does twin_node run?', throttle_duration_sec=10.0
            )
            return None
        return self._report

    # --- without a session ---

    def _tick(self) -> None:
        report = self._fresh_report()
        if report is not None and not self._stopped:
            self._demonstrate(report)

    def _demonstrate(self, report: TaskReport) -> None:
        if self._positions is None:
            return
        if self._demonstrations is None:
            self._demonstrations = self._new_demonstrations(report)
        demonstrations = self._demonstrations
        before = demonstrations.score.episodes
        order = demonstrations.update(report.state, self._positions, 1.0 / self._config.rate_hz)
        if order.joint_goal is not None:
            stamp = self.get_clock().now().to_msg()
            self._joint_command.publish(joint_state(JOINT_NAMES, order.joint_goal.tolist(), stamp))
        if order.action is not None:
            self._publish(order.action)
            self._index += 1
        if order.reset and self._reset.service_is_ready():
            self._reset.call_async(Trigger.Request())
            self._episode, self._index = self._episode + 1, 0
        if demonstrations.score.episodes > before:
            self.get_logger().info(str(demonstrations.score))
        if demonstrations.stage is DemonstrationStage.DONE:
            stop_spinning()

    def _new_demonstrations(self, report: TaskReport) -> Demonstrations:
        preset = get_preset(report.preset, self._config.task or report.task)
        home = home_pose(InverseKinematics())
        config = self._config
        return Demonstrations(preset, home, skill=self._skill, episodes=config.episodes, seed=config.seed)

    def _publish(self, action: EeDeltaValue) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self._actions.publish(
            action_message(action, Source.TELEOP, now_ns, episode=self._episode, index=self._index)
        )


def main() -> None:
    """Run the node."""
    leave(run_node(OperatorNode, (SimulationError, ParameterError)))


if __name__ == '__main__':
    main()
