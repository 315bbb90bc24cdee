# SPDX-License-Identifier: Apache-2.0
"""docs/remote.md as it is written: the actor on one machine and the learner on another, which are network namespaces."""

import json
import os
import signal
import subprocess

import pytest

pytest.importorskip('rclpy')

STEPS, PATIENCE_S = 15, 900.0

WATCH = """
import json, sys, time
import rclpy
from so101_interfaces.msg import LearnerStatus, PolicyStatus
from so101_interfaces_py import qos, topics

rclpy.init()
node = rclpy.create_node('remote_watcher')
heard = {}
node.create_subscription(LearnerStatus, topics.LEARNER_STATUS, lambda m: heard.update(steps=m.env_steps), qos.LATCHED)
node.create_subscription(PolicyStatus, topics.POLICY_STATUS, lambda m: heard.update(version=m.version), qos.LATCHED)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end and not (heard.get('steps', 0) >= int(sys.argv[2]) and heard.get('version', 0) > 0):
    rclpy.spin_once(node, timeout_sec=0.2)
print(json.dumps(heard))
"""


def test_the_learner_on_another_machine_learns_from_the_arm_and_the_arm_gets_its_policies(hosts, tmp_path):
    from so101_interfaces_py import graph

    near, far = hosts
    plain = {k: v for k, v in os.environ.items() if k not in (graph.RANGE, graph.PEERS, graph.PROFILES)}
    up = ('-m', 'so101_bringup.cli', 'up', '--stack')
    actor_log, learner_log = (tmp_path / f'{name}.txt' for name in ('actor', 'learner'))
    processes = []
    try:
        for machine, other, log, words in (
            (far, near, learner_log, ('learner', f'run:={tmp_path / "run"}')),
            (near, far, actor_log, ('actor', 'console:=false')),
        ):
            with log.open('w') as file:
                out = {'cwd': tmp_path, 'stdout': file, 'stderr': subprocess.STDOUT}
                processes.append(machine.start(*up, *words, f'network:={other.address}', env=plain, **out))
        reached = plain | graph.variables(far.address, plain)
        watcher = near.start('-c', WATCH, PATIENCE_S, STEPS, env=reached, stdout=subprocess.PIPE, text=True)
        processes.append(watcher)
        heard = json.loads(watcher.communicate(timeout=PATIENCE_S + 300)[0].splitlines()[-1])
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in processes:
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    said = f'{heard}\n{actor_log.read_text()[-3000:]}\n{learner_log.read_text()[-3000:]}'
    assert heard.get('steps', 0) >= STEPS, said
    assert heard.get('version', 0) > 0, said
    assert (tmp_path / 'run' / 'online').is_dir(), 'the run lies where the learner is'
