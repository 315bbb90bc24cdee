# SPDX-License-Identifier: Apache-2.0
"""The operator's page as a ROS node like the others: it reads topics, and drives through those of teleoperation."""

import os
import queue
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import (
    ArmStatus,
    EeDelta,
    EpisodeEvent,
    LearnerStatus,
    PolicyStatus,
    SessionStatus,
    Step,
)
from visualization_msgs.msg import MarkerArray

from so101_console.access import Access, AccessError
from so101_console.actions import Actions
from so101_console.arm_model import ArmModel
from so101_console.backend import PageBackend
from so101_console.console_config import ConsoleConfig
from so101_console.drive import Hand, Wheel
from so101_console.flights import Flights
from so101_console.frames import Frames
from so101_console.picture import Picture
from so101_console.server import application, Server, ServerError
from so101_contract.action import ActionSpec, EeDeltaValue
from so101_contract.frames import BASE_FRAME
from so101_contract.session_status import to_record
from so101_interfaces_py import qos, topics
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node, stop_spinning

CONFIG = (ConsoleConfig,)
TOKEN_VARIABLE = 'SO101_CONSOLE_TOKEN'


class ConsoleNode(Node):
    """Callbacks store; the server's thread reads; one timer drives while a page does."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('console_node', **node_options)
        config = load_config(self, ConsoleConfig)
        access = Access(config.host, config.token or os.environ.get(TOKEN_VARIABLE, ''))
        arm = ArmModel('so101')
        self._frames = Frames(config.jpeg_quality)
        self._picture = Picture(arm.poses)
        self._wheel = Wheel(config.silence_s)
        self._hand = Hand(ActionSpec(), config.speed, config.rate_hz)
        self._backend = PageBackend(arm, self._picture, self._frames, Flights(config.bags), self._wheel)
        self._actions = Actions(self, self._picture.say)
        self._subscribe()
        self._backend.wake = self._wake
        self._deltas = self.create_publisher(EeDelta, topics.TELEOP_EE_DELTA, qos.COMMAND)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0 / config.rate_hz, self._tick, clock=clock)
        frame_period_s = 1.0 / config.camera_rate_hz if config.camera_rate_hz else 0.0
        app = application(self._backend, access, 1.0 / config.state_rate_hz, frame_period_s)
        self._server = Server(app, config.host, config.port)
        self._server.start(stop_spinning)
        secret = f'/?token={access.token}' if access.token else ''
        self.get_logger().info(f'the page is http://{config.host}:{self._server.port}{secret}')

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def _subscribe(self) -> None:
        picture, newest = self._picture, self._picture.newest
        state = qos.STATE_SUBSCRIBER
        # What comes often is kept as it came: most of it is never looked at.
        self.create_subscription(Image, topics.IMAGE, self._frames.add, qos.IMAGE, raw=True)
        self.create_subscription(JointState, topics.JOINT_STATES, newest.keep('joints'), state, raw=True)
        self.create_subscription(PoseStamped, topics.TCP_POSE, newest.keep('tcp'), state, raw=True)
        self.create_subscription(MarkerArray, topics.MARKERS, newest.keep('markers'), qos.MARKERS, raw=True)
        self.create_subscription(ArmStatus, topics.ARM_STATUS, picture.on_arm, qos.LATCHED)
        self.create_subscription(Step, topics.STEP, picture.on_step, qos.EVENT)
        self.create_subscription(EeDelta, topics.EE_DELTA_CMD, self._on_command, qos.EVENT)
        self.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, self._on_event, qos.EVENT)
        self.create_subscription(
            SessionStatus, topics.SESSION_STATUS, lambda m: picture.on_session(to_record(m)), qos.LATCHED
        )
        self.create_subscription(PolicyStatus, topics.POLICY_STATUS, picture.on_policy, qos.LATCHED)
        self.create_subscription(LearnerStatus, topics.LEARNER_STATUS, picture.on_learner, qos.LATCHED)
        self.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, picture.on_diagnostics, qos.DIAGNOSTICS)

    # --- callbacks ---

    def _on_command(self, message: EeDelta) -> None:
        self._hand.commanded(message.gripper)
        self._picture.on_command(message)

    def _on_event(self, message: EpisodeEvent) -> None:
        self._picture.on_event(message)
        ended = message.kind == EpisodeEvent.INTERVENTION_END
        if ended and self._picture.policy_is_there and self._wheel.drop():
            # A page that went on to speak would take over the next episode without being asked to.
            self._picture.say('Control is back with the policy; take over again when it needs you.')

    def _wake(self) -> None:
        """Have the node's thread look at what a page asked for; called by the server's."""
        if self.executor is not None:  # else the tick looks, once the node spins
            self.executor.create_task(self._take_asked)

    def _take_asked(self) -> None:
        while True:
            try:
                what = self._backend.asked.get_nowait()
            except queue.Empty:
                return
            if what == 'hold':
                # Whether or not the tick has seen by now that nobody drives.
                self._say_gone()
            else:
                self._actions.ask(self._picture.meaning(what))

    # --- the tick ---

    def _tick(self) -> None:
        self._take_asked()
        if self._wheel.driver is None:
            self._hand.let_go()
            return
        wish = self._wheel.wish(time.monotonic())
        if wish is None:
            if self._hand.acting:
                self._say_gone()
            return  # silent from now on: whatever listens to teleop/ee_delta lets the arm hold
        self._say(self._hand.move(wish))

    def _say_gone(self) -> None:
        """Say that the person is gone, so that the arm stops at once and not with the end of the step."""
        self._say(self._hand.hold(), EeDelta.SOURCE_NONE)

    def _say(self, value: EeDeltaValue, source: int = EeDelta.SOURCE_TELEOP) -> None:
        message = EeDelta(gripper=value.opening, source=source)
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = BASE_FRAME
        vector = message.translation
        vector.x, vector.y, vector.z = value.translation.tolist()
        self._deltas.publish(message)


def main() -> None:
    """Run the node."""
    sys.exit(run_node(ConsoleNode, (AccessError, ServerError, ParameterError)))


if __name__ == '__main__':
    main()
