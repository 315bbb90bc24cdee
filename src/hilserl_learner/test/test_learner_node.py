# SPDX-License-Identifier: Apache-2.0
"""The learner in its own processes, with made-up arms in theirs, over real DDS."""

from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from so101_interfaces.msg import LearnerStatus, PolicyWeights
from std_srvs.srv import Trigger

from drqv2_policy_node.store import unpack
from drqv2_policy_node.weights import WeightsReceiver
from hilserl_learner.data.store import read_buffer
from hilserl_learner.live.identity import read_identity
from hilserl_learner.training.checkpoint import Checkpoints
from so101_contract.transition import Transition
from so101_interfaces_py import qos, topics

SESSION = Path(__file__).with_name('fake_session.py')
ARMS = ('left', 'right')
SCENE = 'simulated arm, lift, easy'


class Watcher:
    """Starts the learner and its arms, and sees what is published."""

    def __init__(self, run, start):
        self.run, self.start = run, start
        self.node = rclpy.create_node('watcher')
        self.first = None
        self.status, self.weights, self.delays_s, self.ages_s = None, [], [], []
        self.receiver = WeightsReceiver()
        self.node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_status, qos.LATCHED)
        self.node.create_subscription(PolicyWeights, topics.WEIGHTS, self._on_weights, qos.WEIGHTS)
        self.arms = [
            subprocess.Popen(
                [sys.executable, str(SESSION), '--rate', '10', '--length', '8', '--namespace', name],
                stdout=subprocess.DEVNULL,
            )
            for name in ARMS
        ]
        self.start_learner()

    def start_learner(self):
        parameters = {
            'directory': self.run,
            'scene': f"'{SCENE}'",
            'arms': '[left, right]',
            'width': 16,
            'num_critics': 2,
            'batch_size': 8,
            'start_steps': 10,
            'capacity': 2000,
            'demo_capacity': 2000,
            'publish_s': 0.5,
            'log_s': 1.0,
        }
        given = [item for name, value in parameters.items() for item in ('-p', f'{name}:={value}')]
        self.status = None
        self.learner = self.start('hilserl_learner', 'learner_node', '--ros-args', *given)

    def _on_status(self, message):
        self.first = self.first or message
        self.status = message
        self.ages_s.append(message.data_age)

    def _on_weights(self, message):
        received = self.receiver.push(message)
        if received is not None:
            self.delays_s.append(time.time() - received.stamp_ns / 1e9)
            self.weights.append(received)

    def wait(self, condition, timeout_s=105.0):
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, self.status
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def wait_for_steps(self, steps):
        self.wait(
            lambda: self.status is not None and self.status.env_steps >= steps and self.status.updates > 0
        )

    def close(self):
        for arm in self.arms:
            arm.kill()
            arm.wait()
        self.node.destroy_node()


@pytest.fixture(scope='module')
def watcher(tmp_path_factory, start):
    rclpy.init()
    watcher = Watcher(tmp_path_factory.mktemp('live') / 'run', start)
    yield watcher
    watcher.close()
    rclpy.try_shutdown()


def stored(run):
    return [entry for entry in read_buffer(run / 'online') if isinstance(entry.output, Transition)]


def test_what_is_not_known_yet_is_told_as_not_a_number_and_never_as_zero(watcher):
    watcher.wait(lambda: watcher.status is not None)
    rates = (
        'updates_per_second',
        'utd',
        'success_rate',
        'intervention_rate',
        'intervention_length',
        'q_bound',
    )
    assert watcher.first.updates == 0
    told = {name: getattr(watcher.first, name) for name in (*rates, 'q_mean', 'critic_loss', 'data_age')}
    assert 0.0 not in told.values(), told


def test_B10_the_first_version_comes_before_any_step_and_is_whole(watcher):
    watcher.wait(lambda: watcher.weights)
    first = watcher.weights[0]
    assert first.version >= 1
    unpack(first.manifest, first.payload).self_test()


def test_B20_transitions_reach_the_learner_and_weights_the_policy_within_a_second(watcher):
    watcher.wait_for_steps(40)
    watcher.wait(lambda: len(watcher.weights) >= 3)
    # Not of each one: other tests may keep the processor busy.
    watcher.wait(lambda: any(0.0 < age_s < 1.0 for age_s in watcher.ages_s))
    watcher.wait(lambda: min(watcher.delays_s) < 1.0)
    versions = [received.version for received in watcher.weights]
    assert versions == sorted(set(versions))
    assert watcher.status.reason == f'Begins a new run in {watcher.run}.'


def test_two_arms_teach_one_learner_and_their_episodes_are_kept_apart(watcher):
    watcher.wait(lambda: len({entry.stream.split()[0] for entry in stored(watcher.run)}) == 2)
    entries = stored(watcher.run)
    assert {entry.stream.split()[0] for entry in entries} == {'/left', '/right'}
    keys = [(entry.stream, entry.output.episode, entry.output.index) for entry in entries]
    assert len(keys) == len(set(keys))


def test_a_checkpoint_is_written_on_request(watcher):
    client = watcher.node.create_client(Trigger, topics.LEARNER_SAVE_SERVICE)
    assert client.wait_for_service(200.0)
    future = client.call_async(Trigger.Request())
    watcher.wait(future.done)
    assert future.result().success
    watcher.wait(lambda: Checkpoints(watcher.run / 'checkpoints').names)


def test_B17_kill_9_of_the_learner_loses_no_acknowledged_transition_and_counters_go_on(watcher):
    updates, steps, version = watcher.status.updates, watcher.status.env_steps, watcher.weights[-1].version
    saved = Checkpoints(watcher.run / 'checkpoints').load().metadata
    watcher.learner.send_signal(signal.SIGKILL)
    watcher.learner.wait()
    assert len(stored(watcher.run)) >= steps
    watcher.start_learner()
    watcher.wait_for_steps(steps + 10)
    assert watcher.status.updates >= saved.updates > 0
    watcher.wait(lambda: watcher.weights[-1].version > version)
    assert watcher.status.env_steps <= len(stored(watcher.run))
    watcher.wait(lambda: watcher.status.updates >= updates)
    went_on = watcher.status.reason
    assert went_on.startswith(f'Goes on with {watcher.run}, ')
    assert int(went_on.split()[-2]) >= steps
    assert read_identity(watcher.run).scene == SCENE


def test_A13_an_interrupt_ends_the_node_and_everything_is_saved(watcher):
    before = Checkpoints(watcher.run / 'checkpoints').names
    watcher.learner.send_signal(signal.SIGINT)
    assert watcher.learner.wait(200.0) == 0
    watcher.wait(lambda: Checkpoints(watcher.run / 'checkpoints').names != before)


def test_a_wrong_parameter_ends_in_one_sentence(watcher, start):
    process = start(
        'hilserl_learner', 'learner_node', '--ros-args', '-p', 'utd:=-1.0', stderr=subprocess.PIPE, text=True
    )
    _, error = process.communicate(timeout=400.0)
    assert process.returncode == 1
    assert 'utd' in error
    assert 'Traceback' not in error
