# SPDX-License-Identifier: Apache-2.0
"""A human drives: one node for keyboard, gamepad, joy and leader arm. It reads no camera and waits for nothing."""

from collections.abc import Callable
import sys
import time
from typing import Any, Protocol

from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState
from sensor_msgs.msg import Joy as JoyMessage
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, SessionStatus, Step
from so101_interfaces.srv import EndEpisode, StartEpisode
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from so101_contract import session as session_status
from so101_contract.action import EeDeltaValue
from so101_contract.errors import ContractError
from so101_contract.joints import gripper_rad_to_opening, JOINT_NAMES
from so101_contract.messages import action_message, action_record
from so101_contract.session import Source
from so101_driver.calibration.calibration import CalibrationError
from so101_driver.calibration.files import find_calibration
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode, stop_spinning
from so101_session.teleop.config import TeleopConfig
from so101_session.teleop.devices.base import Axes, Combined, Device, DeviceError, Event, Feedback, STILL
from so101_session.teleop.devices.keyboard import Keyboard
from so101_session.teleop.devices.leader import Leader, leader_arm, Shadow, Tracker
from so101_session.teleop.devices.pads import Gamepad, Joy
from so101_session.teleop.pilot import Hand, Pilot, Turn
from so101_session.teleop.report import TeleopReport
from so101_session.teleop.terminal import Terminal


def make_device(config: TeleopConfig) -> Device:
    """Return the device, opened.

    Raises:
        DeviceError: it is missing, or cannot be used.
    """
    makers: dict[str, Callable[[TeleopConfig], Device]] = {
        'keyboard': lambda chosen: _keyboard(chosen, motion=True),
        'gamepad': _gamepad,
        'joy': lambda chosen: Joy(chosen.pad_settings),
        'leader': _leader,
    }
    return makers[config.device](config)


def _keyboard(config: TeleopConfig, *, motion: bool) -> Device:
    return Keyboard(Terminal(), config.keys, config.speed, motion)


def _gamepad(config: TeleopConfig) -> Device:
    return Gamepad(config.pad_path, config.pad_settings)


def _leader(config: TeleopConfig) -> Device:
    if not config.leader_port:
        raise DeviceError(
            'expected the port of the leader arm, got none; say leader_port:=/dev/..., as ./so101 doctor lists them'
        )
    try:
        calibration = find_calibration(config.leader_calibration, kind='leader')
    except CalibrationError as error:
        raise DeviceError(f'the leader arm needs its calibration: {error}') from error
    leader = Leader(
        leader_arm(config.leader_port, calibration, config.leader_torque, config.leader_supply_max_v),
        Tracker(config.tcp, config.action.translation_scale_m, config.leader_leash_m, config.locks()),
        Shadow(
            config.leader_align_speed_rad_s,
            config.leader_speed_rad_s,
            config.leader_pull_rad,
            config.leader_pull_s,
        ),
    )
    try:
        return Combined(leader, _askers(config))
    except DeviceError:
        leader.close()
        raise


def _askers(config: TeleopConfig) -> list[Device]:
    """Return what asks for events beside a leader, which has no buttons."""
    if reads_pad(config):
        return [_gamepad(config)]
    return [] if config.events_from == 'none' else [_keyboard(config, motion=False)]


def reads_pad(config: TeleopConfig) -> bool:
    """Whether a gamepad asks for events beside a leader arm."""
    at_terminal = sys.stdin is not None and sys.stdin.isatty()
    return config.events_from == 'gamepad' or (config.events_from == 'auto' and not at_terminal)


CONFIG = (TeleopConfig,)
JOY, MOST_AXIS = 'joy', 1.01
SHOW_PERIOD_S = 0.1
_OUTCOMES = {
    Event.SUCCESS: EndEpisode.Request.SUCCESS,
    Event.FAILURE: EndEpisode.Request.FAILURE,
    Event.DISCARD: EndEpisode.Request.DISCARD,
}


class Screen(Protocol):
    """Where a human is told what goes on."""

    def show(self, node: 'TeleopNode') -> None:
        """Show the state, many times a second."""

    def say(self, sentence: str) -> None:
        """Say something that happened."""


class TeleopNode(SoleNode):
    """Reads the device, answers steps while the human acts, and passes on what the human asks for."""

    def __init__(self, screen: Screen | None = None, **node_options: Any) -> None:
        super().__init__('teleop_node', **node_options)
        self.config: TeleopConfig = load_config(self, TeleopConfig)
        self.status: session_status.SessionStatus | None = None
        self.report = TeleopReport(self.config.rate_hz, self.config.tcp)
        self._screen = screen
        self._joints: Any = None
        self._joints_s = float('-inf')
        self._executed: Axes = STILL
        self._intervening = False
        self._note = ''
        self._step = (0, 0)
        self._arm_state: int | None = None
        self._make_clients()
        self._device = make_device(self.config)
        try:
            hand = Hand(self.config.action, self.config.gripper_speed * self.config.period_s)
            self.pilot = Pilot(self._device, hand, self.config.period_s)
            self._listen()
        except BaseException:
            self._device.close()
            raise
        self.say(f'{self.config.device}: ready')

    def close(self) -> None:
        """Let go of the device; the terminal and the leader are as they were."""
        self._device.close()

    def say(self, sentence: str) -> None:
        """Tell the human."""
        if self._screen is None:
            self.get_logger().info(sentence)
        else:
            self._screen.say(sentence)

    def _make_clients(self) -> None:
        self._intervene = self.create_client(SetBool, topics.INTERVENE_SERVICE)
        self._start = self.create_client(StartEpisode, topics.START_EPISODE_SERVICE)
        self._end = self.create_client(EndEpisode, topics.END_EPISODE_SERVICE)
        self._reset = self.create_client(Trigger, topics.RESET_SERVICE)
        self._pause = self.create_client(SetBool, topics.PAUSE_SERVICE)
        self._see = {
            Event.SUCCESS_NOW: self.create_client(Trigger, topics.SUCCESS_NOW_SERVICE),
            Event.NOT_YET: self.create_client(Trigger, topics.NOT_YET_SERVICE),
        }
        self._e_stop = self.create_client(SetBool, topics.ARM_E_STOP_SERVICE)
        self._clear_fault = self.create_client(Trigger, topics.ARM_CLEAR_FAULT_SERVICE)
        self._enable = self.create_client(SetBool, topics.ARM_ENABLE_SERVICE)

    def _listen(self) -> None:
        self._actions = self.create_publisher(EeDelta, topics.TELEOP_EE_DELTA, qos.COMMAND)
        self._device_name = self.create_publisher(String, topics.TELEOP_DEVICE, qos.LATCHED)
        self._reads: str | None = None
        self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, qos.STATE_SUBSCRIBER)
        # All of them: what was executed is summed up.
        self.create_subscription(EeDelta, topics.EE_DELTA_CMD, self._on_executed, qos.EVENT)
        self.create_subscription(Step, topics.STEP, self._on_step, qos.EVENT)
        self.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, self._on_event, qos.EVENT)
        self.create_subscription(SessionStatus, topics.SESSION_STATUS, self._on_status, qos.LATCHED)
        self.create_subscription(ArmStatus, topics.ARM_STATUS, self._on_arm, qos.LATCHED)
        if isinstance(self._device, Joy):
            self.create_subscription(JoyMessage, JOY, self._on_joy, qos.STATE_SUBSCRIBER)
        # The steady clock: a step of the system's time must not stop the human.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / self.config.poll_rate_hz, self._tick, clock=clock)
        if self._screen is not None:
            self.create_timer(SHOW_PERIOD_S, self._show, clock=clock)

    # --- what comes ---

    def _on_joints(self, message: JointState) -> None:
        self._joints = joint_positions(message, JOINT_NAMES)
        self._joints_s = time.monotonic()
        self.pilot.hand.measured(gripper_rad_to_opening(float(self._joints[-1])))

    def _on_executed(self, message: EeDelta) -> None:
        action = action_record(message)
        dx, dy, dz = action.translation.tolist()
        x, y, z = self._executed
        self._executed = (x + dx, y + dy, z + dz)
        self.pilot.hand.commanded(action.opening)
        if action.source is Source.TELEOP:
            self.report.executed((action.episode, action.index), (dx, dy, dz), time.monotonic())

    def _on_step(self, message: Step) -> None:
        over = message.terminated or message.truncated
        now = time.monotonic()
        self._step = (message.episode, message.index)
        self._do(self.pilot.step(message.episode, message.index, over, self._feedback(now), now), now)

    def _on_event(self, message: EpisodeEvent) -> None:
        if message.kind == EpisodeEvent.INTERVENTION_START:
            self._intervening = True
        elif message.kind == EpisodeEvent.INTERVENTION_END:
            self._intervening = False

    def _on_status(self, message: SessionStatus) -> None:
        status = session_status.to_record(message)
        if self.status is None:  # who joins late has missed the event
            self._intervening = status.intervening
        self.status = status

    def _on_arm(self, message: ArmStatus) -> None:
        self._arm_state = message.state

    def _on_joy(self, message: JoyMessage) -> None:
        assert isinstance(self._device, Joy)
        if not all(abs(axis) <= MOST_AXIS for axis in message.axes):
            raise ContractError(f'expected axes of a joystick from -1 to 1, got {list(message.axes)}')
        self._device.hear(message.axes, message.buttons, time.monotonic())

    # --- the tick ---

    def _tick(self) -> None:
        now = time.monotonic()
        self._do(self.pilot.tick(self._feedback(now), now), now)

    def _feedback(self, now: float) -> Feedback:
        fresh = now - self._joints_s <= self.config.joint_timeout_s
        return Feedback(
            joints_rad=self._joints if fresh else None,
            opening=self.pilot.hand.opening,
            executed_m=self._executed,
            intervening=self._intervening,
        )

    def _do(self, turn: Turn, now: float) -> None:
        if turn.say is not None:
            self._publish(turn.say.value, step=(turn.say.episode, turn.say.index))
            self.report.said(turn.say, now)
        elif turn.rest is not None:
            self._publish(turn.rest.value, step=self._step, gone=turn.rest.gone or turn.quit)
        self.report.tick(self.pilot.state, self._joints, now)
        for event in turn.events:
            self._ask(event)
        self._tell()
        if turn.quit:
            stop_spinning()

    def _publish(self, value: EeDeltaValue, *, step: tuple[int, int], gone: bool = False) -> None:
        source = Source.NONE if gone else Source.TELEOP
        now_ns = self.get_clock().now().nanoseconds
        episode, index = step
        self._actions.publish(action_message(value, source, now_ns, episode=episode, index=index))

    def _show(self) -> None:
        if self._screen is not None:
            self._screen.show(self)

    def _tell(self) -> None:
        """Say when the device dies or comes back; what it says otherwise is for the screen."""
        state = self.pilot.state
        reads = self._reading(alive=state.alive)
        if reads != self._reads:  # whoever reads such a device too leaves it alone meanwhile
            self._reads = reads
            self._device_name.publish(String(data=reads))
        note = '' if state.alive else state.note
        if note != self._note:
            self._note = note
            self.say(
                f'{self.config.device}: {note}; the arm holds' if note else f'{self.config.device}: ready'
            )

    def _reading(self, *, alive: bool) -> str:
        """Return which device is read and there; beside a leader arm that may be a pad."""
        if self.config.device == 'leader':
            return 'gamepad' if reads_pad(self.config) else 'leader'
        return self.config.device if alive else ''

    # --- what the human asks for ---

    def _ask(self, event: Event) -> None:
        if event in (Event.TAKEOVER, Event.GIVE_BACK):
            self._call(event, self._intervene, SetBool.Request(data=event is Event.TAKEOVER))
        elif event in _OUTCOMES:
            self._call(event, self._end, EndEpisode.Request(outcome=_OUTCOMES[event]))
        elif event is Event.START:
            self._call(event, self._start, StartEpisode.Request())
        elif event in self._see:
            self._call(event, self._see[event], Trigger.Request())
        elif event is Event.RESET:
            self._call(event, self._reset, Trigger.Request())
        elif event is Event.PAUSE:
            paused = self.status is not None and self.status.paused
            self._call(event, self._pause, SetBool.Request(data=not paused))
        elif event is Event.RECOVER:
            self._recover(event)
        else:
            self._call(event, self._e_stop, SetBool.Request(data=True))

    def _recover(self, event: Event) -> None:
        """Do the next thing that an arm needs which does not move: each is asked for by itself."""
        if self._arm_state == ArmStatus.E_STOP:
            self._call(event, self._e_stop, SetBool.Request(data=False))
        elif self._arm_state == ArmStatus.FAULT:
            self._call(event, self._clear_fault, Trigger.Request())
        elif self._arm_state == ArmStatus.DISABLED:
            self._call(event, self._enable, SetBool.Request(data=True))
        else:
            self.say('recover: the arm is ready, or its driver says nothing')

    def _call(self, event: Event, client: Any, request: Any) -> None:
        if not client.service_is_ready():
            self.say(f'{event}: nobody offers {client.srv_name}; does its node run?')
            return

        def answered(future: Any) -> None:
            result = None if future.exception() is not None else future.result()
            if result is None:
                self.say(f'{event}: {client.srv_name} failed')
            else:
                self.say(f'{event}: {"" if result.success else "refused, "}{result.message or "done"}')

        client.call_async(request).add_done_callback(answered)


def main() -> None:
    """Run the node."""
    leave(run_node(TeleopNode, (DeviceError, ParameterError)))


if __name__ == '__main__':
    main()
