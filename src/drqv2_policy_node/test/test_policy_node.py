# SPDX-License-Identifier: Apache-2.0
"""The real node in a process of its own, over DDS; a feeder plays arm, camera, session and learner."""

from contextlib import contextmanager
from dataclasses import replace
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from random_policies import random_policy
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from so101_interfaces.msg import EeDelta, PolicyStatus

from drqv2_policy_node.acting import noise_source
from drqv2_policy_node.store import save_policy
from so101_contract.action import ActionSpec
from so101_contract.observation import observation_digest
from so101_contract.observation_spec import get_observation
from so101_interfaces_py import qos, topics
from so101_testing.policy_feeder import Feeder

SPEC = get_observation('compact')
PATIENT = {
    'max_step_age_s': 5.0,
    'max_joint_age_s': 5.0,
    'max_image_age_s': 5.0,
}  # the suite's machine is busy
RATE_HZ = 20.0


@contextmanager
def node(log, namespace, **parameters):
    words = [sys.executable, '-m', 'drqv2_policy_node.policy_node', '--ros-args', '-r', f'__ns:=/{namespace}']
    for name, value in {**PATIENT, **parameters}.items():
        words += ['-p', f'{name}:={str(value).lower() if isinstance(value, bool) else value}']
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(words, env=environment, stdout=log.open('w'), stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(20.0)


class Graph:
    """A node that knows a policy, its feeder, and what it logs."""

    def __init__(self, feeder, process, log, policy):
        self.feeder, self.process, self.log, self.policy = feeder, process, log, policy
        self.version = 0
        self.policies = {0: policy}

    def run(self, steps, **start):
        """Let an episode pass; return its number."""
        episode = self.feeder.begin_episode(steps, **start)
        self.feeder.finish_episode()
        return episode

    def answered(self, episode):
        return sorted(key for key in self.feeder.answers if key[0] == episode)

    def send(self, policy, **options):
        self.version += 1
        self.policies[self.version] = policy
        self.feeder.send_policy(policy, self.version, **options)
        return self.version

    def send_and_wait(self, policy, **options):
        version = self.send(policy, **options)
        self.feeder.wait_until(lambda: self.feeder.statuses[-1].version == version, f'version {version}')
        return version

    def wait_for_log(self, text):
        self.feeder.wait_until(lambda: text in self.log.read_text(), f'{text!r} in the log')

    def call(self, kind, name, request):
        client = self.feeder.node.create_client(kind, name)
        self.feeder.wait_until(client.service_is_ready, name)
        future = client.call_async(request)
        self.feeder.wait_until(future.done, f'an answer of {name}')
        return future.result()

    def set_mode(self, mode):
        parameter = Parameter('mode', value=mode).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        return self.call(SetParameters, 'policy_node/set_parameters', request).results[0]

    def parameters(self):
        names = ['policy', 'mode', 'observation', 'tcp', 'camera', 'control_rate_hz', 'ik_profile', 'max_std']
        return self.call(
            GetParameters, 'policy_node/get_parameters', GetParameters.Request(names=names)
        ).values

    def check_recomputes(self, key):
        """The answer is what the policy of exactly the version that it names says to what was sent."""
        answer, observed = self.feeder.answers[key], self.feeder.observed[key]
        seen = self.feeder.observation(key)
        assert observed.sha256 == observation_digest(seen)
        action = self.policies[observed.version].act(seen)
        wire = ActionSpec().to_wire(action)
        vector = answer.translation
        assert [vector.x, vector.y, vector.z, answer.gripper] == [*wire.translation.tolist(), wire.opening]
        return observed.version


@pytest.fixture(scope='module')
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp('policy')
    policy = random_policy(0)
    save_policy(folder / 'policy', policy)
    log = folder / 'log'
    with (
        node(log, 'left', policy=folder / 'policy') as process,
        Feeder(SPEC, namespace='left', rate_hz=RATE_HZ, image_size=(320, 240)) as feeder,
    ):
        feeder.wait_for_node()
        feeder.wait_until(lambda: feeder.statuses[-1].policy, 'the policy')
        yield Graph(feeder, process, log, policy)


def test_B10_every_answer_is_bit_exactly_what_the_policy_says_to_the_rebuilt_observation(graph):
    episode = graph.run(20)
    keys = graph.answered(episode)
    assert len(keys) >= 18  # a picture may be lost on the way
    for key in keys:
        graph.check_recomputes(key)


def test_the_answer_names_its_step_frame_and_source(graph):
    episode = graph.run(3)
    answer = graph.feeder.answers[episode, 0]
    assert (answer.header.frame_id, answer.source) == ('base_link', answer.SOURCE_POLICY)


def test_the_status_tells_latency_saturation_and_what_acts(graph):
    before = graph.feeder.statuses[-1].actions
    graph.run(5)
    graph.feeder.wait_until(lambda: graph.feeder.statuses[-1].actions > before, 'a new status')
    status = graph.feeder.statuses[-1]
    assert status.observation_hash == SPEC.hash
    assert 0.0 < status.latency_p50 <= status.latency_p95 < 5.0
    assert 0.0 <= status.saturation <= 1.0
    assert status.input_age > 0.0


def test_what_a_base_says_is_told_beside_the_answer(tmp_path):
    base = random_policy(5)
    save_policy(tmp_path / 'bc', base)
    log, told = tmp_path / 'log', {}
    with (
        node(log, 'based', base=tmp_path / 'bc'),
        Feeder(SPEC, namespace='based', rate_hz=RATE_HZ, image_size=(320, 240)) as feeder,
    ):

        def hear(message):
            told[int(message.episode), int(message.index)] = message

        feeder.node.create_subscription(EeDelta, topics.POLICY_BASE, hear, qos.EVENT)
        feeder.wait_for_node()
        feeder.wait_until(lambda: feeder.statuses[-1].base.endswith('/bc'), 'the base')
        feeder.begin_episode(5)
        feeder.finish_episode()
        feeder.wait_until(lambda: told.keys() & feeder.answers.keys(), 'a word of the base')
        for key in told.keys() & feeder.answers.keys():
            wire = ActionSpec().to_wire(base.act(feeder.observation(key)))
            for message in (told[key], feeder.answers[key]):
                vector = message.translation
                assert [vector.x, vector.y, vector.z] == wire.translation.tolist()
            assert told[key].source == EeDelta.SOURCE_POLICY
        feeder.wait_until(lambda: feeder.statuses[-1].actor_share == 0.0, 'a share')


def test_steps_whose_pictures_are_missing_are_held_and_the_reason_told(graph):
    graph.feeder.lose_images = True
    holds = graph.feeder.statuses[-1].holds
    episode = graph.run(8)
    graph.feeder.lose_images = False
    assert len(graph.answered(episode)) <= 1
    assert any(
        'image' in status.reason and status.mode == status.MODE_HOLD for status in graph.feeder.statuses
    )
    graph.feeder.wait_until(lambda: graph.feeder.statuses[-1].holds >= holds + 7, 'the count of holds')
    assert len(graph.answered(graph.run(8))) >= 6


def test_B11_damaged_weights_are_refused_and_the_present_ones_stay(graph):
    present = graph.feeder.statuses[-1].version
    graph.send(random_policy(31), damage=True)
    graph.wait_for_log(f'weights {graph.version} refused (1 so far), the present policy stays')
    episode = graph.run(4)
    assert {graph.check_recomputes(key) for key in graph.answered(episode)} == {present}


def test_weights_for_another_tcp_are_refused_with_a_readable_difference(graph):
    other = random_policy(32, observation=replace(SPEC, tcp='pick101'))
    graph.send(other)
    graph.wait_for_log('observation.tcp: "pick101" policy, "so101" running')
    assert graph.feeder.statuses[-1].version != graph.version


def test_B10_weights_of_the_learner_act_from_the_next_step_on(graph):
    version = graph.send_and_wait(random_policy(33))
    episode = graph.run(4)
    assert {graph.check_recomputes(key) for key in graph.answered(episode)} == {version}
    graph.feeder.wait_until(lambda: graph.feeder.statuses[-1].weights_age > 0.0, 'the age of the weights')


def test_B24_weights_change_no_parameter(graph):
    before = graph.parameters()
    graph.send_and_wait(
        random_policy(34, name='greedy', std_schedule='linear(0.9,0.5,10)', reset_pose=(0.1,) * 6)
    )
    assert graph.parameters() == before


def test_swapping_under_load_leaves_each_action_to_one_version_and_no_gap(graph):
    feeder = graph.feeder
    first = graph.version + 1
    episode = feeder.begin_episode(60)
    for seed in range(8):
        graph.send(random_policy(100 + seed))
        time.sleep(0.25)
    feeder.finish_episode()
    keys = graph.answered(episode)
    versions = [graph.check_recomputes(key) for key in keys]
    assert versions == sorted(versions)
    assert len(set(versions) - {first - 1}) >= 6
    assert len(keys) >= 56


def test_explore_adds_the_noise_of_the_schedule_at_the_step_of_the_learner(graph):
    policy = random_policy(35, std_schedule='linear(0.2,0.1,1000)')
    graph.send_and_wait(policy)
    graph.feeder.send_env_steps(500)
    assert graph.set_mode('explore').successful
    graph.feeder.wait_until(
        lambda: graph.feeder.statuses[-1].noise_std == pytest.approx(0.15), 'the noise in the status'
    )
    episode = graph.run(4)
    assert graph.set_mode('eval').successful
    for key in graph.answered(episode):
        observed, seen = graph.feeder.observed[key], graph.feeder.observation(key)
        assert observed.std == pytest.approx(0.15)
        stamp = graph.feeder.answers[key].header.stamp
        assert stamp.sec > 0
        noisy = policy.act(
            seen, std=observed.std, rng=noise_source(observed.seed, graph.feeder.stamp_ns(key))
        )
        vector = graph.feeder.answers[key].translation
        np.testing.assert_allclose([vector.x, vector.y, vector.z], 0.02 * noisy[:3].astype(float), rtol=1e-12)


def test_hold_mode_answers_nothing_until_another_mode_is_set(graph):
    assert graph.set_mode('hold').successful
    assert graph.answered(graph.run(4)) == []
    assert not graph.set_mode('dance').successful
    assert graph.set_mode('eval').successful
    assert graph.answered(graph.run(4))


def test_an_episode_of_another_contract_is_held_with_a_sentence(graph):
    other = get_observation('full')
    assert graph.answered(graph.run(4, observation_hash=other.hash, action_hash=ActionSpec().hash)) == []
    said = next(status.reason for status in reversed(graph.feeder.statuses) if 'contract' in status.reason)
    assert 'expected a session with the observation of this node' in said
    assert graph.answered(graph.run(4, observation_hash=SPEC.hash, action_hash=ActionSpec().hash))


def test_A13_an_interrupt_ends_it_with_code_0(graph):
    graph.process.send_signal(signal.SIGINT)
    assert graph.process.wait(120.0) == 0


@pytest.fixture(scope='module')
def late(tmp_path_factory):
    """A node without a policy that starts after the learner has published; no picture has come yet."""
    log = tmp_path_factory.mktemp('late') / 'log'
    with Feeder(SPEC, namespace='right', rate_hz=RATE_HZ, image_size=(320, 240)) as feeder:
        feeder.lose_images = True
        graph = Graph(feeder, None, log, None)
        graph.send(random_policy(5, encoder='robobase'))  # several pieces
        with node(log, 'right'):
            feeder.wait_for_node()
            yield graph


def test_a_policy_counts_as_there_only_when_there_is_something_to_see(late):
    late.feeder.wait_until(lambda: late.feeder.statuses[-1].reason.endswith('waiting for gripper_cam'), 'it')
    status = late.feeder.statuses[-1]
    assert (status.mode, status.policy) == (PolicyStatus.MODE_HOLD, '')
    assert late.answered(late.run(3)) == []


def test_B10_weights_that_were_sent_before_the_node_started_arrive(late):
    late.feeder.lose_images = False
    late.feeder.wait_until(lambda: late.feeder.statuses[-1].version == 1, 'the weights')
    assert {late.check_recomputes(key) for key in late.answered(late.run(4))} == {1}


def test_B10_without_a_policy_it_answers_nothing_and_says_so(tmp_path):
    log = tmp_path / 'log'
    with (
        node(log, 'none', follow_learner=False) as process,
        Feeder(SPEC, namespace='none', rate_hz=RATE_HZ, image_size=(320, 240)) as feeder,
    ):
        feeder.wait_for_node()
        feeder.wait_until(lambda: feeder.statuses[-1].reason == 'no policy yet', 'inputs')
        alone = Graph(feeder, process, log, None)
        alone.send(random_policy(5))
        assert alone.answered(alone.run(4)) == []
        assert feeder.statuses[-1].mode == PolicyStatus.MODE_HOLD


def test_a_stored_policy_for_something_else_ends_the_node_with_every_difference(tmp_path):
    other = random_policy(
        6,
        observation=replace(get_observation('full'), tcp='pick101', camera_preset='pick101'),
        control_rate_hz=50.0,
        ik_profile='pick101',
    )
    save_policy(tmp_path / 'policy', other)
    log = tmp_path / 'log'
    with node(log, 'other', policy=tmp_path / 'policy') as process:
        assert process.wait(200.0) == 1
    text = log.read_text()
    for line in (
        'observation.tcp: "pick101" policy, "so101" running',
        'observation.camera_preset: "pick101" policy, "nexus" running',
        'control_rate_hz: 50.0 policy, 10.0 running',
        'ik_profile: pick101 policy, setpoint running',
    ):
        assert line in text
    assert 'Traceback' not in text
