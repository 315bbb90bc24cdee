# SPDX-License-Identifier: Apache-2.0
"""The whole graph on the twin with a console and a browser beside it: for screenshots, benchmarks and tests."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from so101_testing.graph import Graph

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
FLAGS = (
    '--no-sandbox',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--enable-unsafe-swiftshader',
)
NODES: Mapping[str, str] = {
    'session': 'so101_session.session.node',
    'teleop': 'so101_session.teleop.node',
    'recorder': 'so101_session.recorder.node',
    'policy': 'drqv2_policy_node.policy_node',
    'learner': 'hilserl_learner.live.node',
    'console': 'so101_console.console_node',
}
"""What can be added to the twin, the arm and kinematics, and the module that it is in."""

PATIENT: Mapping[str, Mapping[str, Any]] = {'arm': {'connect_timeout_s': 300.0, 'reading_timeout_s': 5.0}}
"""For a machine that draws pages beside the simulation: what comes late is no fault of the arm."""
SERVE_TIMEOUT_S = 300.0


class RigError(RuntimeError):
    """Something that the rig needs is missing."""


class ConsoleRig(Graph):
    """A graph on the twin; further nodes are added while it runs."""

    port = 0
    """Where the console serves."""

    def add(self, name: str, **parameters: Any) -> subprocess.Popen[bytes]:
        """Start a node of `NODES`, or one of the graph."""
        if name not in NODES:
            return self.start(name, **parameters)
        if name == 'session':  # the twin's first episode begins by itself, as in ./so101 up
            parameters = {'autostart': True, **parameters}
        words = [sys.executable, '-m', NODES[name], '--ros-args']
        for key, value in parameters.items():
            words += ['-p', f'{key}:={str(value).lower() if isinstance(value, bool) else value}']
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        self._processes[name] = subprocess.Popen(words, env=environment)
        return self._processes[name]

    def console(self, **parameters: Any) -> str:
        """Start the console on a free port and return its address once it serves."""
        self.port = free_port()
        process = self.add('console', port=self.port, **parameters)
        deadline = time.monotonic() + SERVE_TIMEOUT_S
        while not _serves(self.port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RigError(f'expected the console to serve on port {self.port}, it does not; see above')
            time.sleep(0.05)
        return f'http://127.0.0.1:{self.port}'

    def pid(self, name: str) -> int:
        """Return the process id of a node."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """End a node without letting it say good-bye."""
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes.pop(name).wait()


def free_port() -> int:
    """Return a port that nobody serves on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


@contextmanager
def browser() -> Iterator[Any]:
    """Start chromium without a window and yield playwright's browser.

    Raises:
        RigError: it is not installed.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise RigError(f'expected one of {", ".join(BROWSERS)} to be installed, found none; install chromium')
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise RigError(
            'expected playwright, which is not installed; the first ./so101 test installs it'
        ) from error
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield opened
        finally:
            opened.close()


def _serves(port: int) -> bool:
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=2.0)
    try:
        connection.request('GET', '/')
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
