# SPDX-License-Identifier: Apache-2.0
"""session_node on the twin, with the real arm_node and kinematics_node, each a process of its own."""

from dataclasses import replace
import signal
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.serialization import serialize_message
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, PolicyStatus, SessionStatus, Step
from so101_interfaces.srv import EndEpisode, StartEpisode
from std_srvs.srv import SetBool

from so101_contract.action import ActionSpec
from so101_contract.errors import ContractError
from so101_contract.messages import joint_message, JointSample
from so101_contract.observation_spec import get_observation
from so101_contract.session import Driver, SessionState, to_record
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import stamp_to_ns
from so101_session.session.node import SessionNode, to_action

# Generous where a machine without spare processor time would show.
PATIENT = {'joint_timeout_s': '1.0', 'camera_timeout_s': '2.0', 'no_answer_s': '5.0', 'stall_steps': '50'}
PARAMETERS = {**PATIENT, 'reward_source': 'sim', 'auto': 'false', 'time_limit_steps': '30', 'episodes': '3'}


def test_what_is_not_finite_or_in_another_frame_is_no_action():
    def message(x=0.01, opening=0.5, source=EeDelta.SOURCE_POLICY, frame_id='base_link'):
        said = EeDelta(episode=1, index=2, gripper=opening, source=source)
        said.header.frame_id, said.translation.x = frame_id, x
        return said

    assert to_action(message(), 'base_link').translation.tolist() == [0.01, 0.0, 0.0]
    for wrong in ({'x': float('nan')}, {'opening': float('nan')}, {'frame_id': 'tool'}, {'source': 9}):
        with pytest.raises(ContractError):
            to_action(message(**wrong), 'base_link')
    gone = to_action(message(x=0.0, source=EeDelta.SOURCE_NONE, frame_id=''), 'base_link')
    assert gone.source == EeDelta.SOURCE_NONE


def test_joints_without_a_mute_one_are_no_observation_and_the_sentence_names_it(ros):
    node = SessionNode()
    sample = JointSample(5_000_000_000, np.zeros(6), np.zeros(6))
    node._on_joints(serialize_message(joint_message(sample)))
    assert node._senses.joints.stamp_ns == sample.stamp_ns
    later = replace(sample, stamp_ns=6_000_000_000)
    node._on_joints(serialize_message(joint_message(later, without=('elbow_flex',))))
    assert node._senses.joints.stamp_ns == sample.stamp_ns
    assert 'with elbow_flex' in str(node._senses.joints.silent(time.monotonic() + 10.0))
    node.destroy_node()


class Graph:
    """The processes, a policy that answers every step, and what is heard."""

    def __init__(self, start, directory):
        link = directory / 'arm'
        twin = {'link': link, 'camera_width': 64, 'camera_height': 64}
        self.start_program = start
        self.processes = {'twin': self.start('so101_sim', 'twin_node', twin)}
        deadline = time.monotonic() + 60.0
        while not link.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        arm = {
            'port': link,
            'calibration': f'{link}.json',
            'enable_at_start': 'true',
            'reading_timeout_s': '5.0',
        }
        self.processes['arm'] = self.start('so101_driver', 'arm_node', arm)
        self.processes['kinematics'] = self.start('so101_kinematics', 'kinematics_node', {})
        self.processes['session'] = self.start('so101_session', 'session_node', PARAMETERS)
        self.node = rclpy.create_node('test_session')
        self.heard = {}
        for topic, kind, profile in (
            (topics.STEP, Step, qos.EVENT),
            (topics.EPISODE_EVENT, EpisodeEvent, qos.EVENT),
            (topics.EE_DELTA_CMD, EeDelta, qos.EVENT),
            (topics.ARM_STATUS, ArmStatus, qos.LATCHED),
            (topics.SESSION_STATUS, SessionStatus, qos.LATCHED),
        ):
            kept = self.heard[topic] = []
            self.node.create_subscription(kind, topic, kept.append, profile)
        self.policy = self.node.create_publisher(EeDelta, topics.POLICY_EE_DELTA, qos.COMMAND)
        self.human = self.node.create_publisher(EeDelta, topics.TELEOP_EE_DELTA, qos.COMMAND)
        self.policy_status = self.node.create_publisher(PolicyStatus, topics.POLICY_STATUS, qos.LATCHED)
        self.node.create_subscription(Step, topics.STEP, self.answer, qos.EVENT)
        self.node.create_timer(1.0, self.is_there)
        self.answering = True
        self.enable, self.enable_s = self.node.create_client(SetBool, topics.ARM_ENABLE_SERVICE), 0.0

    def start(self, package, executable, parameters):
        words = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
        return self.start_program(package, executable, '--ros-args', *words)

    def is_there(self):
        if self.answering:
            self.policy_status.publish(PolicyStatus(mode=PolicyStatus.MODE_EVAL, policy='test'))

    def delta(self, y, **fields):
        message = EeDelta(gripper=0.5, **fields)
        message.header.frame_id = 'base_link'
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.translation.y = y
        return message

    def answer(self, step):
        if self.answering and not (step.terminated or step.truncated):
            self.policy.publish(self.delta(0.004, episode=step.episode, index=step.index, source=1))

    def spin_until(self, condition, timeout=600.0):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, self.status
            rclpy.spin_once(self.node, timeout_sec=0.02)
            self.look_after_the_arm()

    def spin_for(self, duration):
        end = time.monotonic() + duration
        self.spin_until(lambda: time.monotonic() >= end)

    def look_after_the_arm(self):
        """A twin that gets no processor time stops the arm; enable it again, as a human does."""
        kept = self.heard[topics.ARM_STATUS]
        if (
            kept
            and kept[-1].state in (ArmStatus.FAULT, ArmStatus.DISABLED)
            and time.monotonic() > self.enable_s
        ):
            self.enable_s = time.monotonic() + 1.0
            self.enable.call_async(SetBool.Request(data=True))

    def call(self, kind, name, request):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(200.0)
        future = client.call_async(request)
        self.spin_until(future.done)
        return future.result()

    def begin(self):
        """Press Start, again where something is still missing; return what it was answered."""
        while True:
            answer = self.call(StartEpisode, topics.START_EPISODE_SERVICE, StartEpisode.Request())
            if answer.success:
                return answer
            self.spin_for(0.1)

    @property
    def status(self):
        kept = self.heard[topics.SESSION_STATUS]
        return to_record(kept[-1]) if kept else None

    def of(self, topic, episode):
        return [message for message in self.heard[topic] if message.episode == episode]

    def kinds(self, episode):
        return [event.kind for event in self.of(topics.EPISODE_EVENT, episode)]


@pytest.fixture(scope='module')
def graph(start, tmp_path_factory):
    rclpy.init()
    yield Graph(start, tmp_path_factory.mktemp('session'))
    rclpy.try_shutdown()


def test_P25_an_episode_begins_with_a_reset_and_its_start_says_what_is_in_force(graph):
    answer = graph.begin()
    assert (answer.success, answer.episode) == (True, 1)
    graph.spin_until(lambda: len(graph.of(topics.STEP, 1)) > 5 and EpisodeEvent.START in graph.kinds(1))
    (start,) = [event for event in graph.of(topics.EPISODE_EVENT, 1) if event.kind == EpisodeEvent.START]
    assert start.observation_hash == get_observation('compact').hash
    assert start.action_hash == ActionSpec().hash
    assert start.calibration_id == graph.heard[topics.ARM_STATUS][-1].calibration_id != ''


def test_P24_steps_name_measurements_that_were_fresh(graph):
    graph.spin_until(lambda: graph.of(topics.STEP, 1)[-1].truncated)
    steps = graph.of(topics.STEP, 1)
    assert [step.index for step in steps] == list(range(31))
    for step in steps:
        tick = stamp_to_ns(step.header.stamp)
        assert 0 <= tick - stamp_to_ns(step.joint_stamp) < 1.1e9
        assert 0 <= tick - stamp_to_ns(step.image_stamps[0]) < 2.1e9


def test_T8_every_step_but_the_last_has_exactly_one_action(graph):
    graph.spin_until(lambda: len(graph.of(topics.EE_DELTA_CMD, 1)) >= 30)
    assert [action.index for action in graph.of(topics.EE_DELTA_CMD, 1)] == list(range(30))
    assert {action.source for action in graph.of(topics.EE_DELTA_CMD, 1)} <= {0, 1}
    graph.spin_until(lambda: EpisodeEvent.TIME_LIMIT in graph.kinds(1))


def test_a_human_takes_over_by_acting_and_a_dead_device_hands_control_to_nobody(graph):
    graph.begin()
    graph.spin_until(lambda: len(graph.of(topics.STEP, 2)) > 3)
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        graph.human.publish(graph.delta(-0.5, source=2))
        graph.spin_for(0.04)
    graph.spin_until(lambda: graph.of(topics.STEP, 2)[-1].truncated)
    actions = graph.of(topics.EE_DELTA_CMD, 2)
    sources = [action.source for action in actions]
    first = sources.index(EeDelta.SOURCE_TELEOP)
    assert sources[first:].count(EeDelta.SOURCE_POLICY) == 0
    assert sources[-1] == EeDelta.SOURCE_NONE
    said = [action.translation.y for action in actions if action.source == EeDelta.SOURCE_TELEOP]
    assert said == pytest.approx([-0.02] * len(said))
    assert EpisodeEvent.INTERVENTION_START in graph.kinds(2)


def test_a_late_label_is_published_for_its_episode(graph):
    request = EndEpisode.Request(outcome=EndEpisode.Request.FAILURE, episode=1, reason='slipped')
    assert graph.call(EndEpisode, topics.END_EPISODE_SERVICE, request).success
    graph.spin_until(lambda: EpisodeEvent.FAILURE in graph.kinds(1))
    refused = graph.call(EndEpisode, topics.END_EPISODE_SERVICE, EndEpisode.Request(outcome=1, episode=77))
    assert not refused.success
    assert '1 to 2' in refused.message
    refused = graph.call(EndEpisode, topics.END_EPISODE_SERVICE, EndEpisode.Request(outcome=9))
    assert 'got 9' in refused.message


def test_a_policy_that_holds_is_no_policy_that_is_there_and_the_session_says_why(graph):
    graph.answering = False
    said = PolicyStatus(
        mode=PolicyStatus.MODE_HOLD, policy='test', reason='the session follows another contract'
    )
    assert graph.call(SetBool, topics.INTERVENE_SERVICE, SetBool.Request(data=False)).success
    graph.policy_status.publish(said)
    answer = graph.begin()

    def told():
        graph.policy_status.publish(said)
        return 'the policy holds: the session follows another contract' in graph.status.sentence

    graph.spin_until(told)
    assert graph.status.state is SessionState.ARMED
    assert not graph.of(topics.STEP, answer.episode)
    request = EndEpisode.Request(outcome=EndEpisode.Request.DISCARD)
    assert graph.call(EndEpisode, topics.END_EPISODE_SERVICE, request).success
    graph.spin_until(lambda: EpisodeEvent.DISCARD in graph.kinds(answer.episode))
    graph.answering = True


def test_a_camera_that_hangs_cuts_the_episode_short_with_the_reason(graph):
    assert graph.call(SetBool, topics.INTERVENE_SERVICE, SetBool.Request(data=False)).success
    graph.begin()
    graph.spin_until(lambda: len(graph.of(topics.STEP, 4)) > 3)
    assert graph.call(SetBool, 'sim/freeze_camera', SetBool.Request(data=True)).success
    graph.spin_until(lambda: EpisodeEvent.ABORT in graph.kinds(4))
    graph.spin_until(lambda: 'the camera gripper_cam has sent no image for' in graph.status.sentence)
    graph.spin_until(lambda: graph.of(topics.STEP, 4)[-1].truncated)  # the event may overtake the step
    assert graph.call(SetBool, 'sim/freeze_camera', SetBool.Request(data=False)).success


def test_a_human_that_goes_in_mid_step_stops_the_arm_and_leaves_nothing_wrong_in_the_record(graph):
    graph.begin()
    episode = 5
    graph.spin_until(lambda: len(graph.of(topics.STEP, episode)) > 3)
    heard = graph.heard[topics.EE_DELTA_CMD]

    def is_cut():
        indices = [step.index for step in graph.of(topics.STEP, episode)]
        assert not graph.of(topics.STEP, episode)[-1].truncated
        return len(indices) <= max(indices)

    def act():
        """Move, and be gone as soon as a step has been answered with it; a busy machine may need another try."""
        if heard[-1].source == EeDelta.SOURCE_TELEOP and heard[-1].translation.y:
            graph.human.publish(graph.delta(0.0, source=EeDelta.SOURCE_NONE))
        else:
            graph.human.publish(graph.delta(-0.002, source=EeDelta.SOURCE_TELEOP))
        return is_cut()

    graph.spin_until(act)
    cut = max(step.index for step in graph.of(topics.STEP, episode))
    graph.spin_until(lambda: graph.of(topics.EE_DELTA_CMD, episode)[-1].index > cut)
    steps = {step.index for step in graph.of(topics.STEP, episode)}
    actions = graph.of(topics.EE_DELTA_CMD, episode)
    indices = [action.index for action in actions]
    assert len(indices) == len(set(indices)), 'one action a step'
    (missing,) = set(range(max(steps))) - steps
    assert missing - 1 in indices
    assert missing not in indices
    after = [action for action in actions if action.index > missing]
    assert after
    assert {action.source for action in after} == {EeDelta.SOURCE_NONE}
    assert graph.status.driver is Driver.NOBODY
    graph.call(SetBool, topics.INTERVENE_SERVICE, SetBool.Request(data=False))
    request = EndEpisode.Request(outcome=EndEpisode.Request.DISCARD)
    assert graph.call(EndEpisode, topics.END_EPISODE_SERVICE, request).success
    graph.spin_until(lambda: EpisodeEvent.DISCARD in graph.kinds(episode))


def test_the_node_ends_by_itself_with_0_after_the_wanted_episodes(graph):
    graph.begin()
    graph.spin_until(lambda: len(graph.of(topics.STEP, 6)) > 2)
    request = EndEpisode.Request(outcome=EndEpisode.Request.SUCCESS)
    assert graph.call(EndEpisode, topics.END_EPISODE_SERVICE, request).success
    graph.spin_until(lambda: EpisodeEvent.SUCCESS in graph.kinds(6))
    last = graph.of(topics.STEP, 6)[-1]
    assert (last.terminated, last.truncated, last.reward) == (True, False, 1.0)
    assert graph.processes['session'].wait(120.0) == 0


def test_A12_A13_an_interrupt_ends_the_session_and_the_arm_holds(graph):
    session = graph.start(
        'so101_session', 'session_node', {**PATIENT, 'reward_source': 'sim', 'autostart': 'true'}
    )
    graph.heard[topics.SESSION_STATUS].clear()
    graph.begin()  # it is new beside an arm that has moved
    graph.spin_until(lambda: graph.status is not None and graph.status.state is SessionState.RUNNING)
    session.send_signal(signal.SIGINT)
    assert session.wait(120.0) == 0
    graph.heard[topics.ARM_STATUS].clear()
    graph.spin_for(0.6)
    status = graph.heard[topics.ARM_STATUS][-1]
    assert status.state in (ArmStatus.ENABLED, ArmStatus.HOLD)
    assert all(status.torque)
