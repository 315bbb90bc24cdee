# SPDX-License-Identifier: Apache-2.0
"""Two arms by namespace, each with a stack of its own in one ROS domain: they work beside each other and stay apart."""

from functools import partial
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen
from xml.etree import ElementTree

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, Image, JointState
from so101_interfaces.msg import ArmStatus, EeDelta, SessionStatus, TaskReport
from so101_interfaces.srv import StartEpisode
from std_msgs.msg import String
from std_srvs.srv import SetBool
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from so101_interfaces_py import qos, topics

ARMS = ('left', 'right')
PLACES = {'left': '0,0.25,0', 'right': '0.5,-0.25,180'}
SHARED = {topics.DIAGNOSTICS, topics.TF, topics.TF_STATIC}
"""One graph has one of each."""
STEP_M = 0.01


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Arm:
    """One stack with session, recorder and console, and a person that drives it."""

    def __init__(self, name, folder):
        self.name, self.bags, self.port = name, folder / name, free_port()
        words = ['--stack', 'teleop', f'namespace:={name}', 'operator:=none', 'tf:=own']
        words += [f'record:={self.bags}', f'console_port:={self.port}', f'place:={PLACES[name]}']
        self.log = (folder / f'{name}.log').open('w+')
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'so101_bringup.cli', 'up', *words],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.node = rclpy.create_node('two_arms', namespace=name)
        self.commands, self.status, self.arm, self.position = [], None, None, None
        listen = self.node.create_subscription
        listen(SessionStatus, topics.SESSION_STATUS, self.on_status, qos.LATCHED)
        listen(ArmStatus, topics.ARM_STATUS, self.on_arm, qos.LATCHED)
        listen(PoseStamped, topics.TCP_POSE, self.on_pose, qos.STATE_SUBSCRIBER)
        listen(EeDelta, topics.EE_DELTA_CMD, self.commands.append, qos.EVENT)
        self.person = self.node.create_publisher(EeDelta, topics.TELEOP_EE_DELTA, qos.COMMAND)
        self.enable = self.node.create_client(SetBool, topics.ARM_ENABLE_SERVICE)
        self.start = self.node.create_client(StartEpisode, topics.START_EPISODE_SERVICE)
        self.said_s = 0.0

    def on_status(self, message):
        self.status = message
        if message.state == SessionStatus.WAITING and self.start.service_is_ready():
            # After such a stop the session waits for Start; refused while something is missing.
            self.start.call_async(StartEpisode.Request())

    @property
    def state(self):
        return None if self.status is None else self.status.state

    def on_arm(self, message):
        if message.state in (ArmStatus.FAULT, ArmStatus.DISABLED) and time.monotonic() > self.said_s + 1.0:
            # A twin that gets no processor time stops the arm; enable it again, as a person does.
            self.said_s = time.monotonic()
            self.enable.call_async(SetBool.Request(data=True))

    def on_pose(self, message):
        point = message.pose.position
        self.position = np.array([point.x, point.y, point.z])

    def push(self, y):
        """Say what the person wants, ten times a second."""
        if time.monotonic() > self.said_s + 0.1:
            self.said_s = time.monotonic()
            message = EeDelta(gripper=0.5, source=EeDelta.SOURCE_TELEOP)
            message.header.frame_id = 'base_link'
            message.header.stamp = self.node.get_clock().now().to_msg()
            message.translation.y = y
            self.person.publish(message)

    @property
    def by_hand(self):
        return [(m.episode, m.index) for m in self.commands if m.source == EeDelta.SOURCE_TELEOP]

    def output(self):
        self.log.seek(0)
        return self.log.read()


class Pair:
    def __init__(self, folder):
        self.arms = [Arm(name, folder) for name in ARMS]

    def spin_until(self, condition, timeout=600):
        end = time.monotonic() + timeout
        while not condition():
            for arm in self.arms:
                assert arm.process.poll() is None, arm.output()
                assert time.monotonic() < end, [(a.name, a.status) for a in self.arms]
                rclpy.spin_once(arm.node, timeout_sec=0.01)

    def drive(self, arm, y):
        """Move one arm sideways until it has come 3 cm far."""
        start = arm.position

        def moved():
            arm.push(y)
            return abs(arm.position[1] - start[1]) > 0.03

        self.spin_until(moved)


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    rclpy.init()
    pair = Pair(tmp_path_factory.mktemp('two_arms'))
    try:
        pair.spin_until(lambda: all(arm.state == SessionStatus.ARMED for arm in pair.arms))
        yield pair
    finally:
        for arm in pair.arms:
            if arm.process.poll() is None:
                arm.process.send_signal(signal.SIGINT)
        for arm in pair.arms:
            arm.process.wait(30.0)
            arm.log.close()
            arm.node.destroy_node()
        rclpy.try_shutdown()


def test_each_stack_serves_its_own_page(pair):
    for arm in pair.arms:
        with urlopen(f'http://127.0.0.1:{arm.port}', timeout=200.0) as answer:
            assert b'SO-101' in answer.read()


class Frames:
    """What is published in which frame, and how the frames hang together."""

    def __init__(self, arms):
        self.parents, self.where, self.said, self.links = {}, {}, {}, {}
        for arm in arms:
            listen = arm.node.create_subscription
            listen(TFMessage, topics.TF, self.on_tf, 100)
            listen(TFMessage, topics.TF_STATIC, self.on_tf, qos.LATCHED_EVERY)
            stamped = ((PoseStamped, topics.TCP_POSE, 10), (Image, topics.IMAGE, qos.IMAGE))
            stamped += ((CameraInfo, 'gripper_cam/camera_info', qos.IMAGE),)
            stamped += ((JointState, topics.JOINT_STATES, 10), (TaskReport, topics.SIM_TASK, 10))
            for kind, topic, profile in stamped:
                listen(kind, topic, partial(self.hear, arm.name, topic), profile)
            listen(MarkerArray, topics.MARKERS, partial(self.on_markers, arm.name), qos.MARKERS)
            listen(String, topics.ROBOT_DESCRIPTION, partial(self.on_urdf, arm.name), qos.LATCHED)

    def on_tf(self, message):
        for one in message.transforms:
            self.parents[one.child_frame_id] = one.header.frame_id
            self.where[one.child_frame_id] = one.transform

    def hear(self, arm, topic, message):
        self.said[arm, topic] = message.header.frame_id

    def on_markers(self, arm, message):
        self.said[arm, topics.MARKERS] = message.markers[0].header.frame_id

    def on_urdf(self, arm, message):
        self.links[arm] = {link.get('name') for link in ElementTree.fromstring(message.data).iter('link')}

    def root(self, frame):
        return self.root(self.parents[frame]) if frame in self.parents else frame


def test_what_each_arm_publishes_is_in_a_frame_of_its_own_and_all_stand_in_one_world(pair):
    frames = Frames(pair.arms)
    # What is latched comes from several nodes, and from each when it is found.
    pair.spin_until(
        lambda: (
            len(frames.said) == 6 * len(ARMS)
            and len(frames.links) == len(ARMS)
            and set().union(*frames.links.values()) <= set(frames.parents)
        )
    )
    for (arm, topic), frame in frames.said.items():
        assert frame.startswith(f'{arm}/'), (topic, frame)
        assert frames.root(frame) == 'world', (topic, frame)
    for arm, links in frames.links.items():  # RViz finds each link of the description on /tf: see above
        assert all(link.startswith(f'{arm}/') for link in links)
    right = frames.where['right/base_link']
    assert (right.translation.x, right.translation.y) == (0.5, -0.25)
    assert abs(right.rotation.z) == pytest.approx(1.0)


def test_a_person_at_one_arm_moves_that_arm_only(pair):
    left, right = pair.arms
    before = right.position
    pair.drive(left, STEP_M)
    assert left.state == SessionStatus.RUNNING
    assert right.state == SessionStatus.ARMED
    assert right.by_hand == []
    assert np.linalg.norm(right.position - before) < 0.005


def test_both_sessions_run_at_once_and_answer_each_their_own_person(pair):
    left, right = pair.arms
    began = {arm.name: len(arm.by_hand) for arm in pair.arms}

    def both():
        left.push(-STEP_M)
        right.push(STEP_M)
        return all(len(arm.by_hand) >= began[arm.name] + 15 for arm in pair.arms)

    pair.spin_until(both)
    for arm, sign in ((left, -1.0), (right, 1.0)):
        said = [m.translation.y for m in arm.commands[-10:] if m.source == EeDelta.SOURCE_TELEOP]
        assert said
        assert all(y == sign * STEP_M for y in said), arm.name
        assert len(arm.by_hand) == len(set(arm.by_hand)), 'one action a step'


def test_each_bag_holds_its_own_arm_and_nothing_of_the_other(pair):
    pair.spin_until(lambda: all(arm.status.driver == SessionStatus.NOBODY for arm in pair.arms))
    for arm in pair.arms:
        arm.process.send_signal(signal.SIGINT)
    for arm in pair.arms:
        assert arm.process.wait(200.0) == 0, arm.output()
        assert 'Traceback' not in arm.output()
        (bag,) = arm.bags.iterdir()
        with Reader(bag) as reader:
            names = set(reader.topics)
            assert {name for name in names if not name.startswith(f'/{arm.name}/')} <= SHARED
            own = {f'/{arm.name}/{name}' for name in (topics.STEP, topics.EE_DELTA_CMD, topics.IMAGE)}
            assert own <= names
            command = f'/{arm.name}/{topics.EE_DELTA_CMD}'
            wanted = [c for c in reader.connections if c.topic == command]
            stored = [deserialize_message(data, EeDelta) for _, _, data in reader.messages(wanted)]
        by_hand = [(m.episode, m.index) for m in stored if m.source == EeDelta.SOURCE_TELEOP]
        assert by_hand[: len(arm.by_hand)] == arm.by_hand
