# SPDX-License-Identifier: Apache-2.0
"""The real node in a process of its own, over DDS and TCP: it acts through a server, and holds when that does not do."""

from contextlib import contextmanager
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from servers import Policy, ZmqServer
from so101_interfaces.msg import ChunkStatus, EeDelta, PolicyStatus
from std_msgs.msg import String

from so101_contract.observation_spec import get_observation
from so101_driver.calibration.lerobot_units import JointScale
from so101_interfaces_py import qos, topics
from so101_kinematics.fk import ForwardKinematics
from so101_testing.policy_feeder import ARM, Feeder
from vla_policy_node.wire import encode, Encoding

SPEC = get_observation('compact')
RATE_HZ = 10.0
PATIENT = {
    'max_step_age_s': 5.0,
    'max_joint_age_s': 5.0,
    'max_image_age_s': 5.0,
    'max_first_rad': 0.5,
}  # the suite's machine is busy, and the feeder's arm wobbles
SCALE = JointScale('degrees')


def node_process(log, namespace, **parameters):
    words = [
        sys.executable,
        '-m',
        'vla_policy_node.vla_policy_node',
        '--ros-args',
        '-r',
        f'__ns:=/{namespace}',
    ]
    for name, value in {**PATIENT, **parameters}.items():
        words += ['-p', f'{name}:={value}']
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(words, env=environment, stdout=log.open('w'), stderr=subprocess.STDOUT)


@contextmanager
def node(log, namespace, **parameters):
    process = node_process(log, namespace, **parameters)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30.0)


def steady(data):
    """Targets that pan to one side and open the gripper."""
    arm = data['observation']['state']['single_arm'].reshape(5)
    targets = np.tile(np.append(arm, 80.0), (16, 1))
    targets[:, 0] = np.append(np.linspace(targets[0, 0], 8.0, 4), [8.0] * 12)
    return targets


class Rig:
    """A node, its feeder, and a server whose answers the test decides."""

    def __init__(self, feeder, server, process, log):
        self.feeder, self.server, self.process, self.log = feeder, server, process, log
        self.policy = server.reply
        self.chunks = []
        feeder.node.create_subscription(ChunkStatus, topics.POLICY_CHUNKS, self.chunks.append, qos.LATCHED)
        self.instruction = feeder.node.create_publisher(String, topics.POLICY_INSTRUCTION, qos.EVENT)
        self.executed = feeder.node.create_publisher(EeDelta, topics.EE_DELTA_CMD, qos.COMMAND)

    def run(self, steps):
        """Let an episode pass; return the indices of the steps that were answered."""
        episode = self.feeder.begin_episode(steps)
        self.feeder.finish_episode(120.0)
        return sorted(index for number, index in self.feeder.answers if number == episode)

    def wait(self, condition, what):
        self.feeder.wait_until(condition, what, 120.0)

    def holds_with(self, text):
        """Run an episode; whether no step was answered, and the status said why."""
        before = len(self.feeder.statuses)
        answered = self.run(12)
        said = [status.reason for status in self.feeder.statuses[before:]]
        assert any(text in reason for reason in said), (text, said)
        return not answered

    def in_use(self):
        """Wait until the server's answers are good again."""
        self.policy.answer = None

        def good():
            episode = self.feeder.begin_episode(8)
            self.feeder.finish_episode(120.0)
            return any(number == episode for number, _ in self.feeder.answers)

        self.wait(good, 'actions')


@pytest.fixture(scope='module')
def rig(tmp_path_factory):
    log = tmp_path_factory.mktemp('vla') / 'log'
    with (
        ZmqServer(Policy(steady)) as server,
        node(
            log, 'vla', server=server.address, units='degrees', instruction='lift', timeout_s=1.0
        ) as process,
        Feeder(SPEC, namespace='vla', rate_hz=RATE_HZ, image_size=(64, 48)) as feeder,
    ):
        feeder.wait_for_node()
        made = Rig(feeder, server, process, log)
        made.wait(lambda: feeder.statuses[-1].mode == PolicyStatus.MODE_EVAL, 'the server')
        yield made


def test_it_acts_and_moves_the_tcp_towards_the_targets(rig):
    answered = rig.run(20)
    assert len(answered) >= 15
    fk = ForwardKinematics('so101')
    left = fk.pose(ARM + np.array([0.1, 0, 0, 0, 0, 0])).position - fk.pose(ARM).position
    actions = list(rig.feeder.answers.values())
    moves = np.array([[a.translation.x, a.translation.y, a.translation.z] for a in actions])
    assert moves.sum(axis=0) @ left > 0.5 * left @ left
    assert np.abs(moves).max() <= 0.02
    action = actions[-1]
    assert action.gripper == pytest.approx(0.8, abs=0.01)
    assert action.source == EeDelta.SOURCE_POLICY


def test_the_server_is_shown_what_the_steps_name_and_told_what_to_do(rig):
    rig.run(6)
    observation = rig.policy.seen[-1]['observation']
    assert observation['video']['front'].shape == (1, 1, 48, 64, 3)
    assert observation['language']['annotation.human.task_description'] == [['lift']]
    degrees = np.append(observation['state']['single_arm'], observation['state']['gripper'])
    np.testing.assert_allclose(SCALE.to_rad(degrees[None])[0], ARM, atol=0.03)
    assert rig.policy.resets >= 1


def test_the_instruction_can_be_changed_while_it_runs(rig):
    rig.wait(rig.instruction.get_subscription_count, 'the node')
    rig.instruction.publish(String(data='put it back'))
    rig.wait(lambda: rig.chunks and rig.chunks[-1].instruction == 'put it back', 'the instruction')
    rig.instruction.publish(String(data='x' * 5000))
    rig.run(5)
    said = rig.policy.seen[-1]['observation']['language']['annotation.human.task_description']
    assert said == [['put it back']]


def test_its_status_says_how_the_chunks_are(rig):
    rig.run(10)
    number = rig.chunks[-1].accepted
    rig.wait(lambda: rig.chunks[-1].accepted >= number > 0, 'a status')
    status = rig.chunks[-1]
    assert status.encoding == 'n1.6'
    assert status.server == rig.server.address
    assert 0.0 <= status.latency_p50 <= status.latency_p95
    assert 0.0 <= status.first_distance < 0.3
    assert rig.feeder.statuses[-1].policy == rig.server.address


def frame(value):
    return encode(value, Encoding.N16)


def far(data):
    targets = steady(data)
    targets[:, 0] += 90.0
    return targets


BAD = {
    'NaN': (
        lambda data: frame([{'single_arm': np.full((16, 5), np.nan), 'gripper': np.ones(16)}, {}]),
        'finite',
    ),
    'an object array': (
        lambda _: frame([{'single_arm': {'__ndarray_class__': True, 'as_npy': b'\x93NUMPY\x01\x00|O'}}, {}]),
        'array of numbers',
    ),
    'a giant shape': (
        lambda _: frame([{'single_arm': {'nd': True, 'type': '<f4', 'shape': [1 << 40], 'data': b''}}, {}]),
        'accounts for',
    ),
    'a wrong horizon': (
        lambda _: frame([{'single_arm': np.zeros((8, 5)), 'gripper': np.zeros(8)}, {}]),
        '16 entries',
    ),
    'another robot': (lambda _: frame([{'left_arm': np.zeros((16, 7))}, {}]), 'single_arm and gripper'),
    'a huge frame': (lambda _: bytes(8 << 20), 'at most 1048576'),
    'a pickle': (lambda _: b'\x80\x04K\x01.', 'speaks pickle'),
    'an error': (lambda _: frame({'error': 'CUDA out of memory'}), 'CUDA out of memory'),
    'targets 90 degrees away': (lambda data: frame([split(far(data)), {}]), '90 degrees from the arm'),
    'nothing in time': (lambda _: None, 'in time'),
}


def split(targets):
    return {'single_arm': targets[:, :5], 'gripper': targets[:, 5]}


def memory_mb(pid):
    with open(f'/proc/{pid}/status') as file:
        return next(int(line.split()[1]) for line in file if line.startswith('VmRSS')) / 1024


@pytest.mark.parametrize('what', BAD)
def test_with_a_bad_answer_the_arm_holds_and_it_says_why(rig, what):
    before = memory_mb(rig.process.pid)
    rig.policy.answer, sentence = BAD[what]
    assert rig.holds_with(sentence)
    assert memory_mb(rig.process.pid) < before + 100
    rig.in_use()


def test_a_server_that_is_killed_and_started_again_is_found_again(rig):
    port = rig.server.port
    rig.server.__exit__()
    assert rig.holds_with('does the server run there')
    rig.wait(lambda: rig.feeder.statuses[-1].mode == PolicyStatus.MODE_HOLD, 'the status')
    rig.server = ZmqServer(rig.policy, port)
    rig.server.__enter__()
    rig.in_use()


def test_an_interrupt_ends_it_with_code_0(rig):
    rig.process.send_signal(signal.SIGINT)
    assert rig.process.wait(200.0) == 0
    assert 'Traceback' not in rig.log.read_text()


def test_without_units_it_ends_with_a_sentence(tmp_path):
    log = tmp_path / 'log'
    with node(log, 'unitless') as process:
        assert process.wait(120.0) == 1
    assert 'expected units:=' in log.read_text()
    assert 'Traceback' not in log.read_text()


def test_a_server_whose_first_targets_are_in_other_units_never_moves_the_arm(tmp_path):
    def in_rad(data):
        return JointScale('rad').from_rad(SCALE.to_rad(steady(data)))

    with (
        ZmqServer(Policy(in_rad)) as server,
        node(tmp_path / 'log', 'rad', server=server.address, units='degrees'),
        Feeder(SPEC, namespace='rad', rate_hz=RATE_HZ, image_size=(64, 48)) as feeder,
    ):
        feeder.wait_for_node()
        feeder.wait_until(lambda: feeder.statuses[-1].mode == PolicyStatus.MODE_EVAL, 'the server', 120.0)
        feeder.begin_episode(6)
        feeder.finish_episode(120.0)
        feeder.wait_until(lambda: 'units:=rad' in feeder.statuses[-1].reason, 'the sentence', 120.0)
        assert not feeder.answers
        assert feeder.statuses[-1].mode == PolicyStatus.MODE_HOLD
