# SPDX-License-Identifier: Apache-2.0
"""The learner on one host, the arm on another: two network namespaces joined by a cable of 100 Mbit/s and 2 ms."""

import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

from so101_interfaces_py.graph import variables

SESSION = Path(__file__).with_name('fake_session.py')
HOSTS = ('so101arm', 'so101gpu')

WATCH = """
import json, sys, time
import rclpy
from so101_interfaces.msg import LearnerStatus, PolicyWeights
from drqv2_policy_node.store import unpack
from drqv2_policy_node.weights import WeightsReceiver
from so101_interfaces_py import qos, topics

rclpy.init()
node = rclpy.create_node('watcher')
receiver, statuses, delays_s, versions = WeightsReceiver(), [], [], []

def on_weights(message):
    received = receiver.push(message)
    if received is not None:
        delays_s.append(time.time() - received.stamp_ns / 1e9)
        unpack(received.manifest, received.payload).self_test()
        versions.append(received.version)

node.create_subscription(PolicyWeights, topics.WEIGHTS, on_weights, qos.WEIGHTS)
node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, statuses.append, qos.LATCHED)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end and not (statuses and statuses[-1].env_steps >= 30 and len(versions) >= 6):
    rclpy.spin_once(node, timeout_sec=0.1)
last = statuses[-1] if statuses else LearnerStatus()
print(json.dumps({'steps': last.env_steps, 'ages_s': [s.data_age for s in statuses if s.data_age > 0.0], 'gaps': last.gaps, 'updates': last.updates,
                  'versions': versions, 'delays_s': delays_s}))
"""


def ip(*arguments):
    return subprocess.run(['ip', *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def hosts():
    if os.geteuid() != 0 or shutil.which('ip') is None:
        pytest.skip('two hosts are emulated by network namespaces, which needs root and iproute2')
    for name in HOSTS:
        ip('netns', 'del', name)
    if any(ip('netns', 'add', name).returncode for name in HOSTS):
        pytest.skip('this kernel, or this container, makes no network namespaces')
    arm, gpu = HOSTS
    ip('link', 'add', 'veth0', 'netns', arm, 'type', 'veth', 'peer', 'name', 'veth0', 'netns', gpu)
    for number, name in enumerate(HOSTS, start=1):
        ip('-n', name, 'addr', 'add', f'10.77.0.{number}/24', 'dev', 'veth0')
        for device in ('lo', 'veth0'):
            ip('-n', name, 'link', 'set', device, 'up')
        ip('-n', name, 'route', 'add', '224.0.0.0/4', 'dev', 'veth0')
        subprocess.run(
            [
                'tc',
                '-n',
                name,
                'qdisc',
                'add',
                'dev',
                'veth0',
                'root',
                'netem',
                'delay',
                '2ms',
                'rate',
                '100mbit',
            ],
            capture_output=True,
            check=False,
        )
    yield HOSTS
    for name in HOSTS:
        ip('netns', 'del', name)


def on(host, *command, **options):
    environment = {
        **os.environ,
        **variables('lan'),
        'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.Popen(['ip', 'netns', 'exec', host, *map(str, command)], env=environment, **options)


def test_B20_the_learner_may_live_on_another_host(hosts, tmp_path):
    arm, gpu = hosts
    parameters = {
        'directory': tmp_path / 'run',
        'width': 16,
        'num_critics': 2,
        'batch_size': 8,
        'start_steps': 10,
        'publish_s': 0.5,
    }
    given = [item for name, value in parameters.items() for item in ('-p', f'{name}:={value}')]
    python = sys.executable
    processes = [
        on(gpu, python, '-m', 'hilserl_learner.live.node', '--ros-args', *given),
        on(arm, python, SESSION, '--size', 240, 320, stdout=subprocess.DEVNULL),
    ]
    try:
        watcher = on(arm, python, '-c', WATCH, 600.0, stdout=subprocess.PIPE, text=True)
        processes.append(watcher)
        seen = json.loads(watcher.communicate(timeout=800)[0].splitlines()[-1])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert seen['steps'] >= 30
    assert seen['updates'] > 0
    assert 0.0 < min(seen['ages_s']) < 1.0  # not each one: other tests may keep the processor busy
    assert min(seen['delays_s']) < 1.0
    assert len(seen['versions']) >= 6
