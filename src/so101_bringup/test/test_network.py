# SPDX-License-Identifier: Apache-2.0
"""Who can reach the nodes, and what a second stack does: real nodes, real DDS, real network namespaces."""

import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as Xml

import pytest

pytest.importorskip('rclpy')

from so101_bringup.network import environment, network_notes
from so101_bringup.options import OptionError, OPTIONS
from so101_interfaces_py import graph
from so101_interfaces_py.spin import look_around
from so101_testing.hosts import CABLE, MULTICAST

CONFIG = Path(__file__).parents[3] / 'config'
PATH = {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
DEFAULTS = {name: option.default for name, option in OPTIONS.items()}
UP = (sys.executable, '-m', 'so101_bringup.cli', 'up', '--stack', 'driver')
TIMEOUT_S = 200.0


def wait_for(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f'not within {TIMEOUT_S} s: {what}'
        time.sleep(0.05)
    return found


def run(words):
    return subprocess.run(
        words, env={**os.environ, **PATH}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def holder(namespace, name='arm_node'):
    return graph._holder(graph._place(graph.domain_of(), namespace, name))


def udp_addresses(pid):
    """Local addresses of the UDP sockets of a process."""
    sockets = set()
    for entry in Path(f'/proc/{pid}/fd').iterdir():
        try:
            sockets.add(os.readlink(entry))
        except FileNotFoundError:  # closed meanwhile
            continue
    lines = [line.split() for line in Path(f'/proc/{pid}/net/udp').read_text().splitlines()[1:]]
    return {fields[1].partition(':')[0] for fields in lines if f'socket:[{fields[9]}]' in sockets}


@pytest.fixture
def first():
    """A driver's stack on the virtual arm."""
    process = subprocess.Popen(
        [*UP, 'namespace:=first'], env={**os.environ, **PATH}, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: holder('first') or process.poll() is not None, 'an arm_node')
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_S)


def test_a_second_stack_refuses_in_a_sentence_and_the_first_goes_on(first):
    arm = holder('first')
    wait_for(lambda: udp_addresses(arm), 'a socket of the arm')
    assert udp_addresses(arm) == {'0100007F'}  # 127.0.0.1 alone, whatever the sockets are for
    words = [*UP, 'namespace:=first']
    second = run(words)
    assert second.returncode != 0
    said = second.stderr.splitlines()[-1]
    assert 'nothing is started: arm_node runs already in namespace /first' in said
    assert f'process {arm}' in said
    assert first.poll() is None
    assert holder('first') == arm


def test_a_node_that_another_program_calls_like_ours_keeps_a_stack_from_starting(ros):
    node = ros.create_node('arm_node', namespace='foreign')
    words = [*UP, 'namespace:=foreign']
    second = run(words)
    assert second.returncode != 0
    assert 'nothing is started: /foreign/arm_node runs already' in second.stderr
    assert '/foreign/arm_node' in [seen.label for seen in look_around()[0]]
    node.destroy_node()


def test_a_second_node_of_a_name_ends_with_a_sentence():
    words = [sys.executable, '-m', 'so101_kinematics.kinematics_node', '--ros-args', '-r', '__ns:=/twice']
    with graph.claim(graph.domain_of(), '/twice', 'kinematics_node'):
        done = run(words)
    assert done.returncode == 1
    assert 'kinematics_node runs already in namespace /twice' in done.stderr
    assert 'Traceback' not in done.stderr


def test_both_profiles_say_the_same_but_for_who_is_reached():
    closed, opened = (
        re.sub(r'\s+', ' ', Xml.tostring(profile(file, strip), encoding='unicode'))
        for file, strip in ((graph.CLOSED_PROFILE, True), (graph.OPEN_PROFILE, False))
    )
    assert closed == opened


def profile(file, strip):
    root = Xml.parse(CONFIG / file).getroot()
    found = []
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition('}')[2] in ('interfaceWhiteList', 'builtin'):
                found.append(child.tag.rpartition('}')[2])
                parent.remove(child)
    assert found == (['interfaceWhiteList', 'builtin'] if strip else [])
    return root


def test_a_network_is_opened_by_its_name_alone_and_that_is_said():
    assert network_notes(DEFAULTS, {}) == []
    (note,) = network_notes({**DEFAULTS, 'network': 'lan'}, {})
    assert 'anybody near with ROS 2 can move the arm' in note
    (note,) = network_notes(DEFAULTS, {graph.RANGE: 'SUBNET'})
    assert 'is not followed' in note
    assert not graph.is_open(environment(DEFAULTS, {graph.RANGE: 'SUBNET'}))
    with pytest.raises(OptionError, match=r"network:=10.0.0.7,no host: expected .* 'no host' is not one"):
        environment({**DEFAULTS, 'network': '10.0.0.7,no host'}, {})


WATCH = """
import sys, time
import rclpy

rclpy.init()
node = rclpy.create_node('watcher')
end = time.monotonic() + 150.0
seen = lambda: {ns for name, ns in node.get_node_names_and_namespaces() if name == 'kinematics_node'}
hear = lambda: [node.count_subscribers(f'/{name}/ee_delta_cmd') for name in ('open', 'closed')]
while time.monotonic() < end and not ('/open' in seen() and hear()[0]):
    time.sleep(0.1)
time.sleep(4.0)  # longer than DDS's heartbeat: who can be found has been
print(sorted(seen()), hear())
"""


def test_another_host_finds_no_topic_unless_the_network_was_opened(hosts):
    near, far = hosts
    for host in hosts:
        host.ip('route', 'add', MULTICAST, 'dev', CABLE)
    # As somebody has it who has set nothing.
    plain = {k: v for k, v in os.environ.items() if k not in (graph.RANGE, graph.PEERS, graph.PROFILES)}

    def node(namespace, **more):
        words = ('-m', 'so101_kinematics.kinematics_node', '--ros-args', '-r', f'__ns:=/{namespace}')
        return near.start(*words, env=plain | more)

    processes = [node('closed'), node('open', **graph.variables('lan', plain))]
    try:
        seen_from = plain | {graph.RANGE: 'SUBNET'}
        processes.append(far.start('-c', WATCH, env=seen_from, stdout=subprocess.PIPE, text=True))
        said = processes[-1].communicate(timeout=TIMEOUT_S)[0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert said.strip() == "['/open'] [1, 0]"
