# SPDX-License-Identifier: Apache-2.0
"""A bag of everything on the running graph, events of services too, whose recorder was killed: checked, mended, used."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from rclpy.service_introspection import ServiceIntrospectionState
from so101_interfaces.msg import EpisodeEvent
from std_srvs.srv import SetBool

from hilserl_learner.data.store import read_buffer
from hilserl_learner.ingest.cli import main as ingest
from so101_bags.check.bag import check_bag
from so101_bags.cli import check_main, fix_main
from so101_bags.storage import BagError, open_bags
from so101_contract.transition import Transition
from so101_interfaces_py import qos, topics
from so101_testing.graph import Graph

LIMIT_S = 300.0
PATIENT = {'time_limit_steps': 3000, 'camera_timeout_s': 10.0, 'joint_timeout_s': 5.0, 'stall_steps': 1000}
PARAMETERS = {
    'arm': {'reading_timeout_s': 10.0, 'command_timeout_s': 5.0},
    'kinematics': {'joint_timeout_s': 1.0, 'command_timeout_s': 2.0},
    'session': {'reward_source': 'sim', 'simulated': True, 'autostart': True, **PATIENT},
    'operator': {'mode': 'demonstrate'},
}
EVENTS = f'/{topics.PAUSE_SERVICE}/_service_event'


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """What is there after three successes, a pause, and kill -9."""
    folder = tmp_path_factory.mktemp('bags') / 'everything'
    rclpy.init()
    node = rclpy.create_node('test_record_all')
    ends = []
    node.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, ends.append, qos.EVENT)
    pause = node.create_client(SetBool, topics.PAUSE_SERVICE)
    pause.configure_introspection(node.get_clock(), qos.EVENT, ServiceIntrospectionState.CONTENTS)

    def until(condition, what):
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, what
            rclpy.spin_once(node, timeout_sec=0.05)

    words = [sys.executable, '-m', 'so101_testing.record_all', folder]
    recorder = subprocess.Popen(
        words, env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    )
    last = time.monotonic() + LIMIT_S
    try:
        until(folder.exists, 'the recorder begins')
        with Graph('arm', 'kinematics', 'session', 'operator', parameters=PARAMETERS):
            until(lambda: [end.kind for end in ends].count(EpisodeEvent.SUCCESS) >= 3, 'three successes')
            # A recorder finds a topic when it does, and what it hears is in the file a chunk later.
            while not whole(folder):
                for held in (True, False):
                    asked = pause.call_async(SetBool.Request(data=held))
                    until(asked.done, 'the session answers')
                began = len(ends)
                until(lambda: len(ends) > began + 4, 'another episode')  # noqa: B023
                assert time.monotonic() < last, (
                    'three successes and the events of the service are in the file'
                )
            assert recorder.poll() is None
            recorder.send_signal(signal.SIGKILL)
            recorder.wait()
    finally:
        recorder.kill()
        recorder.wait()
        node.destroy_node()
        rclpy.try_shutdown()
    return folder


def successes(folder):
    return [episode.outcome for episode in check_bag(folder).episodes].count('success')


def service_events(folder):
    with open_bags(folder) as raw:
        return [message.msgtype for message in raw.messages([EVENTS])]


def whole(folder):
    try:
        return len(service_events(folder)) >= 4 and successes(folder) >= 3
    except BagError:  # no chunk of it is written yet
        return False


def learned(folder):
    return [entry.output for entry in read_buffer(folder) if isinstance(entry.output, Transition)]


def test_it_is_checked_as_it_lies_there(bag, capsys):
    code = check_main([str(bag), '--json'])
    said = json.loads(capsys.readouterr().out)
    assert code in (0, 1)
    assert 'unfinished' in json.dumps(said)
    assert [episode['outcome'] for episode in said['episodes']].count('success') >= 3


def test_events_of_services_are_in_it_and_in_nobodys_way(bag):
    heard = service_events(bag)
    assert set(heard) == {'std_srvs/srv/SetBool_Event'}
    assert len(heard) >= 4, 'request and answer, twice'


def test_it_is_learned_from_as_it_lies_there_and_mended(bag, tmp_path, capsys):
    assert ingest([str(bag), '--out', str(tmp_path / 'as_it_is')]) == 0
    assert fix_main([str(bag), '--out', str(tmp_path / 'mended')]) == 0
    assert ingest([str(tmp_path / 'mended'), '--out', str(tmp_path / 'buffer')]) == 0
    ends = [one for one in learned(tmp_path / 'buffer') if one.terminated]
    assert len(ends) >= 3
    assert all(one.reward == 1.0 for one in ends)
    assert len(learned(tmp_path / 'as_it_is')) == len(learned(tmp_path / 'buffer'))
