# SPDX-License-Identifier: Apache-2.0
"""The learner on one host, the arm on another: two network namespaces joined by a cable of 100 Mbit/s and 2 ms."""

import json
import os
from pathlib import Path
import subprocess

import pytest

pytest.importorskip('rclpy')

from so101_interfaces_py.graph import variables
from so101_testing.hosts import CABLE, MULTICAST

SESSION = Path(__file__).with_name('fake_session.py')

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


def test_B20_the_learner_may_live_on_another_host(hosts, tmp_path):
    arm, gpu = hosts
    for host in hosts:
        host.ip('route', 'add', MULTICAST, 'dev', CABLE)
        host.slow_down('delay', '2ms', 'rate', '100mbit')
    parameters = {
        'directory': tmp_path / 'run',
        'width': 16,
        'num_critics': 2,
        'batch_size': 8,
        'start_steps': 10,
        'publish_s': 0.5,
    }
    given = [item for name, value in parameters.items() for item in ('-p', f'{name}:={value}')]
    env = {**os.environ, **variables('lan')}
    processes = [
        gpu.start('-m', 'hilserl_learner.live.node', '--ros-args', *given, env=env),
        arm.start(SESSION, '--size', 240, 320, env=env, stdout=subprocess.DEVNULL),
    ]
    try:
        watcher = arm.start('-c', WATCH, 600.0, env=env, stdout=subprocess.PIPE, text=True)
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
