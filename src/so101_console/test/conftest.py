# SPDX-License-Identifier: Apache-2.0
"""What the console's graph says, heard in a thread; one graph and one browser for all tests that need them."""

from collections import deque
from pathlib import Path
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

import numpy as np
import pytest

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[2] / 'so101_bags' / 'test'),
]  # its maker of bags


class Ear:
    """A node of this process that keeps what it hears, with the time of arrival [s]."""

    def __init__(self):
        from geometry_msgs.msg import PoseStamped
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node
        from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, SessionStatus

        from so101_interfaces_py import qos, topics

        rclpy.init()
        self.node = Node('console_test')
        self.heard = {}
        for name, kind, topic, profile in (
            ('tcp', PoseStamped, topics.TCP_POSE, qos.STATE_PUBLISHER),
            ('arm', ArmStatus, topics.ARM_STATUS, qos.LATCHED),
            ('event', EpisodeEvent, topics.EPISODE_EVENT, qos.EVENT),
            ('command', EeDelta, topics.EE_DELTA_CMD, qos.EVENT),
            ('teleop', EeDelta, topics.TELEOP_EE_DELTA, qos.EVENT),
            ('session', SessionStatus, topics.SESSION_STATUS, qos.LATCHED),
        ):
            kept = self.heard[name] = deque(maxlen=50_000)
            self.node.create_subscription(
                kind, topic, lambda m, kept=kept: kept.append((time.monotonic(), m)), profile
            )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._open = True
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        while self._open:
            self._executor.spin_once(timeout_sec=0.1)

    def last(self, name):
        return self.heard[name][-1][1] if self.heard[name] else None

    def since(self, name, at):
        return [(t, m) for t, m in list(self.heard[name]) if t >= at]

    def session(self):
        from so101_contract.session import to_record

        message = self.last('session')
        return None if message is None else to_record(message)

    def hand(self):
        point = self.last('tcp').pose.position
        return np.array([point.x, point.y, point.z])

    def call(self, kind, name, request):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(200.0)
        future = client.call_async(request)
        until(future.done, f'{name} answers')
        return future.result()

    def close(self):
        import rclpy

        self._open = False
        self._thread.join(2.0)
        rclpy.try_shutdown()


def until(condition, what, timeout=300.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f'not within {timeout:.0f} s: {what}'
        time.sleep(0.01)
    return time.monotonic()


@pytest.fixture(scope='session')
def wait_until():
    return until


@pytest.fixture(scope='session')
def chromium():
    pytest.importorskip('playwright', reason='the browser tests need playwright')
    from so101_testing.console_rig import browser, RigError

    opened = browser()
    try:
        yield opened.__enter__()
    except RigError as error:
        pytest.skip(str(error))
    opened.__exit__(None, None, None)


@pytest.fixture(scope='session')
def axe(pytestconfig):
    """The text of axe-core, which looks for what people with other eyes, ears and hands cannot use."""
    kept = pytestconfig.cache.mkdir('axe') / 'axe.min.js'
    if not kept.exists():
        npm = shutil.which('npm')
        if npm is None:
            pytest.skip('axe-core comes by npm, which is not installed')
        with tempfile.TemporaryDirectory() as folder:
            try:
                subprocess.run(
                    [npm, 'pack', 'axe-core@4.11.0', '--silent'],
                    cwd=folder, check=True, timeout=600, capture_output=True,
                )  # fmt: skip
            except (subprocess.SubprocessError, OSError) as error:
                pytest.skip(f'axe-core could not be had: {error}')
            with tarfile.open(next(Path(folder).glob('*.tgz'))) as packed:
                kept.write_bytes(packed.extractfile('package/axe.min.js').read())
    return kept.read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def ear():
    pytest.importorskip('rclpy')
    listener = Ear()
    yield listener
    listener.close()
