# SPDX-License-Identifier: Apache-2.0
"""The operator's page as a ROS node like the others: it reads topics, and drives through those of teleoperation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
import os
import queue
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from so101_interfaces.msg import (
    ArmStatus,
    ChunkStatus,
    ClassifierStatus,
    EeDelta,
    EpisodeEvent,
    LearnerStatus,
    PolicyStatus,
    SessionStatus,
    Step,
    SuccessOpinion,
    TaskReport,
)
from so101_interfaces.srv import EndEpisode, StartEpisode
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from so101_console.access import Access, AccessError, is_loopback, near_address, TOKEN_VARIABLE
from so101_console.archive.browser import EpisodeBrowser
from so101_console.archive.memory import Memory
from so101_console.arm_model import ArmModel
from so101_console.backend import code_picture, PageBackend
from so101_console.coach import CoachConfig
from so101_console.frames import Frames
from so101_console.headline import SCRIPTED
from so101_console.operator_input import JogCommands, Wheel
from so101_console.page_state import PageState
from so101_console.scene.drawings import Drawings, PlannedStart
from so101_console.server import application, Server, ServerError
from so101_contract.action import ActionSpec, EeDeltaValue
from so101_contract.messages import action_message, event_record
from so101_contract.observation_spec import CONTROL_RATE_HZ
from so101_contract.session import Source, to_record
from so101_contract.task.files import all_cameras, told_task
from so101_interfaces_py import qos, topics
from so101_interfaces_py.endings import leave
from so101_interfaces_py.node import Node
from so101_interfaces_py.params import check_bounds, follow, load_configs, param, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode, stop_spinning


@dataclass(frozen=True)
class ConsoleConfig:
    """Where the page is served and how often it is told what."""

    host: str = param(
        '127.0.0.1',
        doc='Address to serve on; any other than this machine needs a token (SO101_CONSOLE_TOKEN).',
    )
    port: int = param(8101, doc='Port to serve on; 0 takes a free one.', lo=0, hi=65535)
    token: str = param(
        '', doc='Secret that a browser must know; empty: the one in SO101_CONSOLE_TOKEN, or none.'
    )
    rate_hz: float = param(
        2.0 * CONTROL_RATE_HZ,
        doc='How often the graph hears what the human at the page wants.',
        unit='Hz',
        lo=1.0,
        hi=50.0,
    )
    state_rate_hz: float = param(
        10.0, doc='How often a page hears how things are.', unit='Hz', lo=1.0, hi=30.0
    )
    camera_rate_hz: float = param(
        10.0, doc='Most pictures per second sent to a page.', unit='Hz', lo=0.0, hi=30.0
    )
    jpeg_quality: int = param(80, doc='Of the pictures sent to a page.', lo=10, hi=100)
    silence_s: float = param(
        0.2, doc='A page that drives and is silent for so long drives no more.', unit='s', lo=0.05, hi=1.0
    )
    speed: float = param(
        0.5, doc='Of the hand at full stick, as a share of the largest action.', lo=0.05, hi=1.0
    )
    task: str = param(
        '', doc='What is to be done, which the page shows: name or file of a task; empty: nothing.'
    )
    cameras: tuple[str, ...] = param(
        ('',), doc='Cameras whose pictures are shown; empty: those of the task, or else the wrist camera.'
    )
    bags: str = param(
        'bags',
        doc='Folder of the bags whose episodes can be looked at again, beside that of a recorder that runs.',
    )
    runs: str = param('runs', doc='Folder of the runs that the page lists.')

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)


Say = Callable[[str], None]


@dataclass(frozen=True)
class Action:
    """One button.

    Attributes:
        service: Its name.
        kind: Its type.
        fields: Of the request.
    """

    service: str
    kind: type[Any]
    fields: Mapping[str, Any] = field(default_factory=dict)


ACTIONS: Mapping[str, Action] = {
    'e_stop': Action(topics.ARM_E_STOP_SERVICE, SetBool, {'data': True}),
    'take': Action(topics.INTERVENE_SERVICE, SetBool, {'data': True}),
    'give': Action(topics.INTERVENE_SERVICE, SetBool, {'data': False}),
    'success': Action(topics.END_EPISODE_SERVICE, EndEpisode, {'outcome': EndEpisode.Request.SUCCESS}),
    'failure': Action(topics.END_EPISODE_SERVICE, EndEpisode, {'outcome': EndEpisode.Request.FAILURE}),
    'discard': Action(topics.END_EPISODE_SERVICE, EndEpisode, {'outcome': EndEpisode.Request.DISCARD}),
    'success_now': Action(topics.SUCCESS_NOW_SERVICE, Trigger),
    'not_yet': Action(topics.NOT_YET_SERVICE, Trigger),
    'doubt_success': Action(topics.CLASSIFIER_ANSWER_SERVICE, SetBool, {'data': True}),
    'doubt_other': Action(topics.CLASSIFIER_ANSWER_SERVICE, SetBool, {'data': False}),
    'train_classifier': Action(topics.CLASSIFIER_TRAIN_SERVICE, Trigger),
    'learner_save': Action(topics.LEARNER_SAVE_SERVICE, Trigger),
    'learner_pause': Action(topics.LEARNER_PAUSE_SERVICE, SetBool, {'data': True}),
    'learner_resume': Action(topics.LEARNER_PAUSE_SERVICE, SetBool, {'data': False}),
    'start': Action(topics.START_EPISODE_SERVICE, StartEpisode),
    'reset': Action(topics.RESET_SERVICE, Trigger),
    'enable': Action(topics.ARM_ENABLE_SERVICE, SetBool, {'data': True}),
    'release': Action(topics.ARM_ENABLE_SERVICE, SetBool, {'data': False}),
    'park': Action(topics.ARM_PARK_SERVICE, Trigger),
    'clear': Action(topics.ARM_E_STOP_SERVICE, SetBool, {'data': False}),
    'clear_fault': Action(topics.ARM_CLEAR_FAULT_SERVICE, Trigger),
    'pause': Action(topics.PAUSE_SERVICE, SetBool, {'data': True}),
    'resume': Action(topics.PAUSE_SERVICE, SetBool, {'data': False}),
}


class Actions:
    """The clients of a node, one for each service."""

    def __init__(self, node: Node, say: Say) -> None:
        self._node = node
        self._say = say
        self._clients = {name: node.create_client(a.kind, a.service) for name, a in _services().items()}

    def ask(self, name: str, **more: Any) -> None:
        """Call the service of a button, with `more` in its request; its answer is said where it is a refusal."""
        action = ACTIONS[name]
        client = self._clients[action.service]
        if not client.service_is_ready():
            self._say(f'Nobody offers {action.service}: the node that does is not running.')
            return
        request = action.kind.Request(**action.fields, **more)
        client.call_async(request).add_done_callback(lambda future: self._answered(name, future))

    def _answered(self, name: str, future: Future) -> None:
        response = future.result()
        if response is not None and not response.success:
            self._say(
                f'{name.replace("_", " ").capitalize()}: {response.message or "refused without a reason"}'
            )


def _services() -> dict[str, Action]:
    return {action.service: action for action in ACTIONS.values()}


CONFIG = (ConsoleConfig, CoachConfig)
TCP = 'so101'
"""TCP preset of the arm that is drawn."""
DEVICE_PERIOD_S = 0.5
PAD_DEVICES = ('gamepad', 'joy')
DEVICE_NAMES = {
    'keyboard': 'the keys of a terminal',
    'gamepad': 'a gamepad',
    'joy': 'a gamepad',
    'leader': 'the leader arm',
}


class ConsoleNode(SoleNode):
    """Callbacks store; the server's thread reads; one timer drives while a page does."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('console_node', **node_options)
        config, coach = load_configs(self, ConsoleConfig, CoachConfig)
        access = Access(config.host, config.token or os.environ.get(TOKEN_VARIABLE, ''))
        arm = ArmModel(TCP)
        task = told_task(config.task)
        self._frames = {name: Frames(config.jpeg_quality) for name in all_cameras(task, config.cameras)}
        self._page_state = PageState(arm.poses, self.drop)
        self._page_state.memory = memory = Memory(tuple(self._frames))
        for name, frames in self._frames.items():
            frames.keep = partial(memory.picture, name)
        self._teach(coach)
        follow(self, coach, self._teach)
        self._wheel = Wheel(config.silence_s)
        self._jog = JogCommands(ActionSpec(), config.speed, config.rate_hz)
        planned = PlannedStart(TCP, None if task is None else task.start.arm_start, arm.poses)
        cameras = [topics.CAMERAS.get(name, name) for name in self._frames]
        self._drawings = Drawings(self._page_state.newest, cameras, arm.gripper, planned)
        self._backend = PageBackend(
            arm,
            self._page_state,
            self._frames,
            EpisodeBrowser(config.bags),
            self._wheel,
            task=task,
            drawings=self._drawings,
            runs=config.runs,
        )
        self._actions = Actions(self, self._page_state.say)
        self._subscribe()
        self._backend.wake = self._wake
        self._instructions = self.create_publisher(String, topics.POLICY_INSTRUCTION, qos.EVENT)
        self._backend.instruct = lambda text: self._instructions.publish(String(data=text))
        self._deltas = self.create_publisher(EeDelta, topics.TELEOP_EE_DELTA, qos.COMMAND)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._device = ''
        self._timer = self.create_timer(1.0 / config.rate_hz, self._tick, clock=clock)
        self.create_timer(DEVICE_PERIOD_S, self._look_for_device, clock=clock)
        frame_period_s = 1.0 / config.camera_rate_hz if config.camera_rate_hz else 0.0
        app = application(self._backend, access, 1.0 / config.state_rate_hz, frame_period_s)
        self._server = Server(app, config.host, config.port)
        self._server.start(stop_spinning)
        secret = f'/?token={access.token}' if access.token else ''
        address = f'http://{near_address(config.host)}:{self._server.port}{secret}'
        if secret and not is_loopback(config.host):
            self._backend.phone_code = code_picture(address)
        self.get_logger().info(f'the page is {address}')

    def _teach(self, coach: CoachConfig) -> None:
        self._page_state.coach = coach

    def close(self) -> None:
        """Stop serving."""
        self._server.close()
        self._backend.close()

    def _subscribe(self) -> None:
        page_state, newest = self._page_state, self._page_state.newest
        state = qos.STATE_SUBSCRIBER
        # What comes often is kept as it came: most of it is never looked at.
        for name, frames in self._frames.items():
            camera = topics.CAMERAS.get(name, name)
            self.create_subscription(Image, f'{camera}/image_raw', frames.add, qos.IMAGE, raw=True)
            lens = self._drawings.hear(f'{camera}/camera_info')
            self.create_subscription(CameraInfo, f'{camera}/camera_info', lens, qos.IMAGE, raw=True)
        self.create_subscription(JointState, topics.JOINT_STATES, newest.keep('joints'), state, raw=True)
        self.create_subscription(PoseStamped, topics.TCP_POSE, newest.keep('tcp'), state, raw=True)
        self.create_subscription(MarkerArray, topics.MARKERS, newest.keep('markers'), qos.MARKERS, raw=True)
        policy, human = (
            self._drawings.hear(topics.POLICY_EE_DELTA),
            self._drawings.hear(topics.TELEOP_EE_DELTA),
        )
        self.create_subscription(EeDelta, topics.POLICY_EE_DELTA, policy, qos.COMMAND, raw=True)
        self.create_subscription(EeDelta, topics.TELEOP_EE_DELTA, human, qos.COMMAND, raw=True)
        opinion, task = self._drawings.hear(topics.SUCCESS_OPINION), self._drawings.hear(topics.SIM_TASK)
        self.create_subscription(SuccessOpinion, topics.SUCCESS_OPINION, opinion, qos.EVENT, raw=True)
        self.create_subscription(TaskReport, topics.SIM_TASK, task, state, raw=True)
        self.create_subscription(TFMessage, topics.TF_STATIC, self._drawings.frames.hear, qos.LATCHED_EVERY)
        self.create_subscription(ArmStatus, topics.ARM_STATUS, page_state.on_arm, qos.LATCHED)
        self.create_subscription(Step, topics.STEP, page_state.on_step, qos.EVENT)
        self.create_subscription(EeDelta, topics.EE_DELTA_CMD, self._on_command, qos.EVENT)
        self.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, self._on_event, qos.EVENT)
        self.create_subscription(
            SessionStatus, topics.SESSION_STATUS, lambda m: page_state.on_session(to_record(m)), qos.LATCHED
        )
        self.create_subscription(PolicyStatus, topics.POLICY_STATUS, page_state.on_policy, qos.LATCHED)
        self.create_subscription(LearnerStatus, topics.LEARNER_STATUS, page_state.on_learner, qos.LATCHED)
        self.create_subscription(
            ClassifierStatus, topics.CLASSIFIER_STATUS, page_state.classifier.hear, qos.LATCHED
        )
        self.create_subscription(ChunkStatus, topics.POLICY_CHUNKS, page_state.model.hear, qos.LATCHED)
        self.create_subscription(
            CompressedImage, topics.CLASSIFIER_DOUBT, self._backend.on_doubt, qos.LATCHED
        )
        self.create_subscription(
            DiagnosticStatus, topics.RECORDER_STATUS, page_state.recorder.hear, qos.LATCHED
        )
        self.create_subscription(
            DiagnosticArray, topics.DIAGNOSTICS, page_state.on_diagnostics, qos.DIAGNOSTICS
        )
        self.create_subscription(String, topics.TELEOP_DEVICE, self._on_device, qos.LATCHED)

    # --- callbacks ---

    def _on_command(self, message: EeDelta) -> None:
        self._jog.commanded(message.gripper)
        self._page_state.on_command(message)

    def _on_event(self, message: EpisodeEvent) -> None:
        self._page_state.on_event(message)
        self._backend.help.hear(event_record(message).kind, message.episode)
        ended = message.kind == EpisodeEvent.INTERVENTION_END
        if ended and self._page_state.policy_is_there and self._wheel.drop():
            # A page that went on to speak would take over the next episode without being asked to.
            self._page_state.say('Control is back with the policy; take over again when it needs you.')

    def _on_device(self, message: String) -> None:
        self._backend.pad_owner = 'teleop_node' if message.data in PAD_DEVICES else ''
        self._device = message.data

    def _look_for_device(self) -> None:
        """A device whose node is gone takes its pad along, whatever it said last."""
        if not self.count_publishers(topics.TELEOP_DEVICE):
            self._backend.pad_owner = self._device = ''
        humans = {speaker.node_name for speaker in self.get_publishers_info_by_topic(topics.TELEOP_EE_DELTA)}
        scripted = humans - {self.get_name()} == {'operator_node'}
        self._page_state.simulated = bool(self.count_publishers(topics.SIM_TASK))
        self._page_state.human = SCRIPTED if scripted else DEVICE_NAMES.get(self._device, '')

    def _wake(self) -> None:
        """Have the node's thread look at what a page asked for; called by the server's."""
        if self.executor is not None:  # else the tick looks, once the node spins
            self.executor.create_task(self._take_asked)

    def _take_asked(self) -> None:
        while not self._backend.labels.empty():  # nobody else takes from it
            outcome, episode = self._backend.labels.get()
            self._actions.ask(outcome, episode=episode, reason='corrected at the page')
        while True:
            try:
                what = self._backend.asked.get_nowait()
            except queue.Empty:
                return
            if what == 'hold':
                # Whether or not the tick has seen by now that nobody drives.
                self._say_gone()
            else:
                self._actions.ask(self._page_state.meaning(what))

    # --- the tick ---

    def _tick(self) -> None:
        self._take_asked()
        if self._wheel.driver is None:
            self._jog.let_go()
            return
        wish = self._wheel.wish(time.monotonic())
        if wish is None:
            if self._jog.acting:
                self._say_gone()
            return  # silent from now on: whatever listens to teleop/ee_delta lets the arm hold
        self._say(self._jog.move(wish))

    def _say_gone(self) -> None:
        """Say that the human is gone, so that the arm stops at once and not with the end of the step."""
        self._say(self._jog.hold(), Source.NONE)

    def _say(self, value: EeDeltaValue, source: Source = Source.TELEOP) -> None:
        self._deltas.publish(action_message(value, source, self.get_clock().now().nanoseconds))


def main() -> None:
    """Run the node."""
    leave(run_node(ConsoleNode, (AccessError, ServerError, ParameterError)))


if __name__ == '__main__':
    main()
