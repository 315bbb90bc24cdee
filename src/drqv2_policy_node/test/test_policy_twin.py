# SPDX-License-Identifier: Apache-2.0
"""A policy in closed loop on the twin: twin, driver, kinematics and policy are the real processes; only the session is
played here, by the smallest thing that sends steps and passes answers on."""

import contextlib
from dataclasses import dataclass
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from geometry_msgs.msg import PoseStamped
from random_policies import random_policy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import Image, JointState
import snapshots
from so101_interfaces.msg import EeDelta, PolicyStatus, Step
from std_msgs.msg import String

from drqv2_policy_node.acting import Observed
from drqv2_policy_node.networks import NetworkSpec
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.robobase.convert import convert, PICK101, read_source
from drqv2_policy_node.store import save_policy
from so101_contract.assembly import Assembler
from so101_contract.joints import VelocityEstimator
from so101_contract.messages import image_sample, joint_sample, MissingJointError, step_record
from so101_contract.observation import observation_digest
from so101_interfaces_py import qos, topics
from so101_kinematics.fk import state_function
from so101_sim import render
from so101_sim.env import ArmEnv
from so101_sim.errors import RenderError
from so101_sim.in_process_arm import InProcessArm, Reading
from so101_testing.graph import Graph

STEPS = 40


@dataclass
class Case:
    """A policy, and the parameters of the graph that it needs."""

    policy: Policy
    preset: str
    rate_hz: float
    node: dict[str, object]
    kinematics: dict[str, object]


def fresh(_):
    return Case(random_policy(3), 'easy', 10.0, {}, {})


def converted(folder):
    """A snapshot of RoboBase with random weights, through the converter, with pick-101's manifest fields."""
    spec = NetworkSpec(image_size=84, mlp=(16, 24), bottleneck=8)
    config = {**snapshots.CONFIG, 'visual_observation_shape': [84, 84]}
    snapshots.write(folder / 'snapshot.pt', snapshots.agent_state(spec), config=config)
    policy = convert(read_source(folder / 'snapshot.pt'), PICK101, 'converted')
    node = {
        'observation': 'robobase',
        'tcp': 'pick101',
        'camera': 'pick101',
        'control_rate_hz': 50.0,
        'ik_profile': 'pick101',
    }
    return Case(policy, 'pick101', 50.0, node, {'tcp': 'pick101', 'profile': 'pick101'})


class PlayedSession:
    """Names the newest messages in a step, ten times a second, and passes the policy's answers on."""

    def __init__(self, case):
        self.case, self.spec = case, case.policy.manifest.observation
        self.node = rclpy.create_node('played_session')
        self.joints, self.answers, self.observed = {}, {}, {}
        self.statuses, self.poses, self.keys = [], [], []
        self.assembler = Assembler(self.spec, state_function(self.spec))
        self.lock = threading.Lock()
        self.velocity = VelocityEstimator()
        self.joint_stamp = self.image_stamp = None
        self.left = 0
        node = self.node
        self.steps = node.create_publisher(Step, topics.STEP, qos.EVENT)
        self.commands = node.create_publisher(EeDelta, topics.EE_DELTA_CMD, qos.COMMAND)
        node.create_subscription(JointState, topics.JOINT_STATES, self.on_joints, qos.STATE_EVERY)
        node.create_subscription(Image, topics.IMAGE, self.on_image, qos.IMAGE_EVERY)
        node.create_subscription(EeDelta, topics.POLICY_EE_DELTA, self.on_answer, qos.COMMAND)
        node.create_subscription(String, topics.POLICY_OBSERVED, self.on_observed, qos.EVENT)
        node.create_subscription(PolicyStatus, topics.POLICY_STATUS, self.statuses.append, qos.LATCHED)
        node.create_subscription(PoseStamped, topics.TCP_POSE, self.poses.append, qos.STATE_SUBSCRIBER)
        node.create_timer(1.0 / case.rate_hz, self.tick)

    def push(self, record):
        with self.lock:
            self.assembler.push(record)

    def on_joints(self, message):
        try:
            sample = joint_sample(message, self.velocity)
        except MissingJointError:  # a servo was late
            return
        self.joints[sample.stamp_ns] = sample
        self.joint_stamp = message.header.stamp
        self.push(sample)

    def on_image(self, message):
        self.push(image_sample(message, self.spec.cameras[0]))
        self.image_stamp = message.header.stamp

    def on_answer(self, message):
        self.answers[message.index] = message
        self.commands.publish(message)

    def on_observed(self, message):
        observed = Observed.from_json(message.data)
        self.observed[observed.index] = observed

    def tick(self):
        if not self.left or self.joint_stamp is None or self.image_stamp is None:
            return
        message = Step(episode=1, index=len(self.keys), joint_stamp=self.joint_stamp)
        message.image_stamps = [self.image_stamp]
        message.header.stamp = self.node.get_clock().now().to_msg()
        self.steps.publish(message)
        record = step_record(message)
        self.push(record)
        self.keys.append(record)
        self.left -= 1

    def wait_until(self, condition, what, timeout=600.0):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f'{what}; last status {self.statuses[-1:]}'
            time.sleep(0.01)


@pytest.fixture(scope='module', params=[fresh, converted], ids=lambda case: case.__name__)
def episode(tmp_path_factory, request):
    """An episode of a policy with random weights on the twin."""
    try:
        render.backend()
    except RenderError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp('twin')
    case = request.param(folder)
    save_policy(folder / 'policy', case.policy)
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, '-m', 'drqv2_policy_node.policy_node', '--ros-args']
    patient = {'max_step_age_s': 5.0, 'max_joint_age_s': 5.0, 'input_wait_s': 1.0}
    for name, value in {'policy': folder / 'policy', **patient, **case.node}.items():
        words += ['-p', f'{name}:={value}']
    rclpy.init()
    session = PlayedSession(case)
    process = subprocess.Popen(words, env=environment)
    thread = threading.Thread(target=lambda: _spin(session.node), daemon=True)
    thread.start()
    try:
        session.wait_until(
            lambda: session.statuses, 'the policy node'
        )  # importing torch starves a busy machine
        with Graph(
            'arm', 'kinematics', parameters={'kinematics': case.kinematics, 'twin': {'preset': case.preset}}
        ):
            session.wait_until(
                lambda: session.statuses[-1].policy and session.poses and session.image_stamp is not None,
                'the graph is up',
            )
            session.left = 10_000  # as many as it takes: a busy machine loses pictures
            session.wait_until(lambda: len(session.observed) >= STEPS, 'the answers')
            session.left = 0
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20.0)
        rclpy.try_shutdown()
        thread.join(10.0)
    return session


def _spin(node):
    with contextlib.suppress(ExternalShutdownException):
        rclpy.spin(node)


def test_a_policy_moves_the_arm_of_the_twin(episode):
    places = np.array([[p.pose.position.x, p.pose.position.y, p.pose.position.z] for p in episode.poses])
    assert np.linalg.norm(places - places[0], axis=1).max() > 0.01


def test_its_observations_are_those_that_a_second_listener_rebuilds_bit_for_bit(episode):
    compared = 0
    for index, observed in episode.observed.items():
        if episode.assembler.ready(1, index):  # this listener may lose a picture too
            assert observed.sha256 == observation_digest(episode.assembler.observation(1, index))
            compared += 1
    assert compared >= STEPS // 2


def test_the_state_that_it_is_fed_equals_that_of_the_environment_for_the_same_readings(episode, monkeypatch):
    env = ArmEnv(preset=episode.case.preset, images=False, observation=episode.spec)
    for index in episode.observed:
        if not episode.assembler.ready(1, index):
            continue
        joints = episode.joints[episode.keys[index].joint_stamp_ns]
        reading = Reading(joints.stamp_ns, joints.position, joints.velocity)
        monkeypatch.setattr(InProcessArm, 'reading', property(lambda _, reading=reading: reading))
        env.reset(seed=0)
        fed = episode.assembler.observation(1, index).state[-1]
        assert np.abs(fed - env.observation().state[-1]).max() <= 1e-6


def test_F5_the_gripper_that_is_fed_is_that_of_joint_states(episode):
    for step in episode.keys:
        if episode.assembler.ready(1, step.index):
            fed = episode.assembler.observation(1, step.index).state[-1, 5]
            assert fed == pytest.approx(episode.joints[step.joint_stamp_ns].position[5], abs=1e-6)
            assert -0.2 <= fed <= 1.8
