# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest

from so101_interfaces_py import graph
from so101_interfaces_py.graph import TakenError
from so101_interfaces_py.voices import one_too_many, Speaker, UNKNOWN, Voice, voice_of

HOLDS = """
import os, sys, time
from so101_interfaces_py import graph
held = graph.claim(int(os.environ['ROS_DOMAIN_ID']), '/here', 'arm_node')
print('held', flush=True)
time.sleep(600)
"""
ISOLATES = """
import sys, time
from so101_interfaces_py.graph import isolate
print(isolate(anew=sys.argv[1] == 'anew'), flush=True)
time.sleep(600)
"""
STACK = Voice(('kinematics_node', 'session_node'))
DEVICES = Voice(('console_node', 'teleop_node'), others=1)


class Running:
    """A Python program that says one line and goes on until the end of the test."""

    def __init__(self, program, *words):
        path = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, '-c', program, *words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': path},
        )
        self.said = self.process.stdout.readline().strip()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def run():
    running = []

    def start(*words):
        running.append(Running(*words))
        return running[-1]

    yield start
    for one in running:
        one.kill()


def speakers(*names):
    return [Speaker(name, '/', bytes([1, 15, 0, number]) + bytes(12)) for number, name in enumerate(names)]


# ---- one of each -----------------------------------------------------------------------------------------


def test_a_name_is_taken_by_one_process_and_free_as_soon_as_that_is_killed(run):
    domain = graph.domain_of()
    first = run(HOLDS)
    assert first.said == 'held'
    with pytest.raises(
        TakenError, match=rf'arm_node runs already in namespace /here, .*process {first.process.pid}'
    ):
        graph.claim(domain, 'here', 'arm_node')
    for free in (('', 'arm_node'), ('/there', 'arm_node'), ('/here', 'camera_node')):
        graph.claim(domain, *free).close()
    first.kill()
    graph.claim(domain, '/here', 'arm_node').close()


def test_no_arm_starts_in_a_domain_of_tests_and_no_test_in_one_of_an_arm(run, monkeypatch):
    domain = int(run(ISOLATES, 'anew').said)
    with pytest.raises(TakenError, match=f'ROS domain {domain} is in use by tests'):
        graph.claim(domain, '', 'arm_node')
    spare = next(d for d in graph.TEST_DOMAINS if graph._take_domain(d))
    graph._kept.pop().close()
    monkeypatch.delenv(graph.TEST_DOMAIN)
    with graph.claim(spare, '', 'arm_node'):
        assert graph._take_domain(spare) == ''


def test_each_process_of_tests_has_a_domain_and_its_children_have_the_same(run):
    own = graph.domain_of()
    assert own >= 100
    assert run(ISOLATES, 'same').said == str(own)
    others = {int(run(ISOLATES, 'anew').said) for _ in range(3)}
    assert len(others | {own}) == 4
    assert others <= set(graph.TEST_DOMAINS)


# ---- from which machines ---------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path):
    folder = tmp_path / graph.PROFILE_FOLDER
    folder.mkdir(parents=True)
    for name in (graph.CLOSED_PROFILE, graph.OPEN_PROFILE):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ('network', 'range_', 'peers', 'file'),
    [
        ('loopback', 'SYSTEM_DEFAULT', '', 'fastdds.xml'),  # the profile says it all
        ('lan', 'SUBNET', '', 'fastdds_lan.xml'),
        ('10.0.0.7, arm.local', 'LOCALHOST', '10.0.0.7;arm.local', 'fastdds_lan.xml'),
    ],
)
def test_a_network_is_said_in_the_words_of_ros(installed, tmp_path, network, range_, peers, file):
    given = {'AMENT_PREFIX_PATH': str(tmp_path), graph.PROFILES: str(installed / 'fastdds.xml')}
    found = given | graph.variables(network, given)
    assert (found[graph.RANGE], found[graph.PEERS]) == (range_, peers)
    assert found[graph.PROFILES] == str(installed / file)
    assert graph.is_open(found) == (network != 'loopback')
    again = dict(found)
    graph.settle(again)  # as each node does
    assert again == found


@pytest.mark.parametrize(
    'more', [{graph.PROFILES: '/home/me/fastdds.xml'}, {'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'}]
)
def test_where_our_profile_does_not_decide_the_range_keeps_others_out(tmp_path, installed, more):
    given = {'AMENT_PREFIX_PATH': str(tmp_path), **more}
    graph.settle(given)
    assert given[graph.RANGE] == 'LOCALHOST'
    assert given[graph.PROFILES] == more.get(graph.PROFILES, str(installed / 'fastdds.xml'))
    given[graph.RANGE] = 'SYSTEM_DEFAULT'  # nor is that taken for closed
    assert graph.is_open(given)


def test_who_says_nothing_stays_on_this_machine_and_who_opens_it_does_not(tmp_path, installed):
    for said in ({}, {graph.RANGE: 'LOCALHOST'}):
        given = {'AMENT_PREFIX_PATH': str(tmp_path), **said}
        graph.settle(given)
        assert (given[graph.RANGE], Path(given[graph.PROFILES]).name) == ('SYSTEM_DEFAULT', 'fastdds.xml')
        assert not graph.is_open(given)
    given |= {graph.RANGE: 'SUBNET'}
    graph.settle(given)
    assert (given[graph.RANGE], Path(given[graph.PROFILES]).name) == ('SUBNET', 'fastdds_lan.xml')


# ---- one voice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('voice', 'names', 'too_many'),
    [
        (STACK, (), False),
        (STACK, ('kinematics_node', 'session_node'), False),
        (STACK, ('rig',), False),  # a controller of one's own, in place of the stack's
        (STACK, ('rig', 'other'), True),
        (STACK, ('kinematics_node', 'rig'), True),
        (STACK, ('kinematics_node', 'kinematics_node'), True),
        (STACK, ('kinematics_node', UNKNOWN), True),
        (STACK, ('kinematics_node', 'friend_1'), False),
        (DEVICES, ('console_node', 'teleop_node', 'spacemouse'), False),
        (DEVICES, ('console_node', 'spacemouse', 'other'), True),
    ],
)
def test_each_of_the_stack_may_speak_once_and_nobody_beside_them(voice, names, too_many):
    found = one_too_many(voice, speakers(*names), trusted=('friend_*',))
    assert bool(found) == too_many
    assert found in ([], sorted(f'/{name}' for name in names))


def test_what_moves_the_arm_is_listened_to_with_care_in_every_namespace():
    for topic in (
        'joint_command',
        'left/ee_delta_cmd',
        '/a/b/session/step',
        'learner/weights',
        'arm/clear_fault',
    ):
        assert voice_of(topic) is not None
    assert voice_of('gripper_cam/image_raw') is None
    assert voice_of('my_joint_command') is None
