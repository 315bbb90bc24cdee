# SPDX-License-Identifier: Apache-2.0
"""Latency of the FK and IK services between two processes, beside an empty service of the same kind.

The empty service (std_srvs/Trigger, rclpy, a process of its own) is what any answer in Python costs over DDS.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
import subprocess
import sys
import time
from typing import Any

import numpy as np
from processes import isolate
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from report import Parser, Report, Row
from so101_interfaces.srv import ComputeFk, ComputeIk
from std_srvs.srv import Trigger

from so101_bringup import programs
from so101_contract.joints import ARM_JOINTS, JOINT_LIMITS_RAD, JOINT_NAMES
from so101_interfaces_py import topics
from so101_interfaces_py.conversions import joint_state
from so101_interfaces_py.spin import run_node
from so101_kinematics.fk import ForwardKinematics

EMPTY_SERVICE = 'bench/empty'
WARM_UP = 20
SERVICE_TIMEOUT_S = 20.0


def serve_empty() -> None:
    """Answer the empty service until interrupted."""

    def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = True
        return response

    def make_node() -> Node:
        node = Node('bench_empty')
        node.create_service(Trigger, EMPTY_SERVICE, answer)
        return node

    run_node(make_node)


def run(n: int, seed: int = 0) -> dict[str, list[float]]:
    """Call each service n times, in turn, and return latencies [s] by service."""
    kinematics = programs.NodeSpec('kinematics_node', 'so101_kinematics', 'kinematics_node')
    processes = [
        subprocess.Popen([programs.executable_path(kinematics), *programs.ros_arguments(kinematics, '', '')]),
        subprocess.Popen([sys.executable, Path(__file__).resolve(), '--serve-empty']),
    ]
    rclpy.init()
    node = Node('bench_kinematics')
    try:
        calls = _calls(node, np.random.default_rng(seed))
        latencies: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(n + WARM_UP):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                if number >= WARM_UP:
                    latencies[name].append(time.perf_counter() - started)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(5.0)
        rclpy.try_shutdown()
    return latencies


def _calls(node: Node, random: np.random.Generator) -> dict[str, Callable[[], Any]]:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    fk = ForwardKinematics()
    limits = np.array([JOINT_LIMITS_RAD[name] for name in JOINT_NAMES])

    def call(client: Any, request: Any) -> Any:
        future = client.call_async(request)
        deadline = time.monotonic() + 5.0
        # Not spin_until_future_complete: as of rclpy 7.1.5 each call of it makes the next one slower.
        while not future.done() and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=1.0)
        if future.result() is None:
            raise TimeoutError(f'{client.srv_name} did not answer within 5 s.')
        return future.result()

    def client_of(kind: Any, name: str) -> Any:
        client = node.create_client(kind, name)
        if not client.wait_for_service(SERVICE_TIMEOUT_S):
            raise TimeoutError(f'{name} did not come up within {SERVICE_TIMEOUT_S:.0f} s.')
        return client

    def pose() -> np.ndarray:
        q: np.ndarray = random.uniform(limits[:, 0], limits[:, 1])
        return q

    def ik_request() -> ComputeIk.Request:
        request = ComputeIk.Request(mode=ComputeIk.Request.POSITION)
        target = fk.pose(pose()).position
        point = request.target.position
        point.x, point.y, point.z = (float(value) for value in target)
        request.seed = joint_state(ARM_JOINTS, pose()[:5])
        return request

    empty = client_of(Trigger, EMPTY_SERVICE)
    fk_client = client_of(ComputeFk, topics.FK_SERVICE)
    ik_client = client_of(ComputeIk, topics.IK_SERVICE)
    return {
        'empty': lambda: call(empty, Trigger.Request()),
        'fk': lambda: call(fk_client, ComputeFk.Request(joints=joint_state(JOINT_NAMES, pose()))),
        'ik': lambda: call(ik_client, ik_request()),
    }


def main() -> int:
    """Command line."""
    parser = Parser(__doc__)
    parser.number('--n', 500, 'calls of each service', quick=50)
    parser.add_argument('--serve-empty', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_empty:
        serve_empty()
        return 0
    isolate()
    found = run(options.n)
    titles = {'ik': 'IK call', 'fk': 'FK call', 'empty': 'call of an empty service'}
    rows = {name: Row.of(title, 'ms', found[name], 1e3) for name, title in titles.items()}
    empty = rows.pop('empty')
    beside = [row.beside('an empty service', empty.value) for row in rows.values()]
    return Report('kinematics_node', [*beside, empty]).finish(options)


if __name__ == '__main__':
    sys.exit(main())
