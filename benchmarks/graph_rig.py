# SPDX-License-Identifier: Apache-2.0
"""The running graph on the twin, each node a process of its own, and a client that hears everything with times."""

from collections import deque
from collections.abc import Callable, Mapping
import contextlib
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from types import TracebackType
from typing import Any, Self

import rclpy
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, Step, TaskReport
from so101_interfaces.msg import SessionStatus as SessionStatusMessage
from so101_interfaces.srv import StartEpisode
from std_srvs.srv import SetBool

from so101_contract.session import SessionStatus, to_record
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import stamp_to_ns
from so101_interfaces_py.spin import executor_for
from so101_testing import graph

MODULES: Mapping[str, tuple[str, ...]] = {
    **{name: ('-m', module) for name, module in graph.MODULES.items()},
    'classifier': ('-m', 'hilserl_learner.classifier.node'),
    'console': ('-m', 'so101_console.console_node'),
    'policy': (str(Path(__file__).with_name('graph_policy.py')),),
}
START_S = 60.0
PRIORITY = -10
PERIOD_S = 0.1
"""Of the control clock."""


def stamp_s(message: Any) -> float:
    """Return the stamp of a message [s]."""
    return stamp_to_ns(message.header.stamp) / 1e9


class Program:
    """One process and what it has said."""

    def __init__(self, words: list[str]) -> None:
        self.lines: deque[str] = deque(maxlen=2000)
        self._process = subprocess.Popen(
            words,
            env={
                **os.environ,
                'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
                'PYTHONUNBUFFERED': '1',
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # Before other programs of the machine where that is permitted, so that the figures tell of these alone;
        # threads that it starts from now on inherit it.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, PRIORITY)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code, or None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> float:
        """Send a signal; return the time [s]."""
        self._process.send_signal(number)
        return time.monotonic()

    def end(self, timeout_s: float = 6.0) -> None:
        """End it as Ctrl-C does, by force after a while."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


class Ear:
    """A node of this process that keeps what it hears, with the time of arrival [s]."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = Node('graph_client')
        self.heard: dict[str, deque[tuple[float, Any]]] = {}
        for topic, kind, profile in (
            (topics.STEP, Step, qos.EVENT),
            (topics.EPISODE_EVENT, EpisodeEvent, qos.EVENT),
            (topics.EE_DELTA_CMD, EeDelta, qos.EVENT),
            (topics.POLICY_EE_DELTA, EeDelta, qos.EVENT),
            (topics.ARM_STATUS, ArmStatus, qos.LATCHED),
            (topics.SESSION_STATUS, SessionStatusMessage, qos.LATCHED),
            (topics.SIM_TASK, TaskReport, qos.STATE_PUBLISHER),
        ):
            self._listen(topic, kind, profile, raw=False)
        for topic in (topics.JOINT_COMMAND, topics.JOINT_STATES):
            self._listen(topic, JointState, qos.EVENT, raw=True)
        self.teleop = self.node.create_publisher(EeDelta, topics.TELEOP_EE_DELTA, qos.COMMAND)
        self._executor = executor_for(self.node)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._open = True
        self._thread.start()

    def _listen(self, topic: str, kind: Any, profile: Any, raw: bool) -> None:
        kept: deque[tuple[float, Any]] = deque(maxlen=100_000)
        self.heard[topic] = kept
        self.node.create_subscription(
            kind, topic, lambda message: kept.append((time.monotonic(), message)), profile, raw=raw
        )

    def _spin(self) -> None:
        while self._open:
            self._executor.spin_once(timeout_sec=0.1)

    def since(self, topic: str, since_s: float, until_s: float = float('inf')) -> list[tuple[float, Any]]:
        """Return (arrival [s], message) of a topic between two times."""
        found = [item for item in list(self.heard[topic]) if since_s <= item[0] <= until_s]
        if topic in (topics.JOINT_COMMAND, topics.JOINT_STATES):
            return [(at, deserialize_message(data, JointState)) for at, data in found]
        return found

    def jitter(self, since_s: float, until_s: float = float('inf')) -> list[float]:
        """Return by how much each period between two steps of an episode was off [s]."""
        steps = {(m.episode, m.index): stamp_s(m) for _, m in self.since(topics.STEP, since_s, until_s)}
        before = {(episode, index + 1): stamp for (episode, index), stamp in steps.items()}
        return [abs(steps[key] - before[key] - PERIOD_S) for key in steps.keys() & before.keys()]

    def call(self, kind: Any, name: str, request: Any, timeout_s: float = 20.0) -> Any:
        """Call a service and return its answer."""
        client = self.node.create_client(kind, name)
        if not client.wait_for_service(timeout_s):
            raise TimeoutError(f'{name} did not come up within {timeout_s:.0f} s')
        future = client.call_async(request)
        wait_until(future.done, timeout_s, f'{name} answers')
        self.node.destroy_client(client)
        return future.result()

    def intervene(self, wanted: bool) -> None:
        """Take over, or give back."""
        self.call(SetBool, topics.INTERVENE_SERVICE, SetBool.Request(data=wanted))

    def status(self) -> SessionStatus | None:
        """Return what the session said last."""
        kept = self.heard[topics.SESSION_STATUS]
        return to_record(kept[-1][1]) if kept else None

    def close(self) -> None:
        """End it."""
        self._open = False
        self._thread.join(2.0)
        rclpy.try_shutdown()


class GraphRig:
    """Starts nodes on the twin in an order in which each finds what it needs; a context manager.

    Attributes:
        programs: the processes by name.
        ear: what is heard.
    """

    def __init__(self, *nodes: str, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix='so101-bench-'))
        self._link = self._directory / 'arm'
        self._nodes = nodes
        self._parameters = parameters or {}
        self.programs: dict[str, Program] = {}

    def __enter__(self) -> Self:
        try:
            self.start('twin')
            wait_until(self._link.exists, START_S, 'the twin serves its port')
            self.ear = Ear()
            for name in self._nodes:
                self.start(name)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self, name: str) -> Program:
        """Start a node, or start it again."""
        known: dict[str, Any] = {}
        if name == 'twin':
            known = {'link': str(self._link)}
        elif name == 'arm':
            known = {'port': str(self._link), 'calibration': f'{self._link}.json', 'enable_at_start': True}
        elif name == 'session':
            known = {'reward_source': 'sim', 'autostart': True}
        words = [sys.executable, *MODULES[name], '--ros-args']
        for key, value in {**known, **self._parameters.get(name, {})}.items():
            words += ['-p', f'{key}:={str(value).lower() if isinstance(value, bool) else value}']
        self.programs[name] = Program(words)
        return self.programs[name]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The arm parks on the twin, so the twin goes last.
        for name in sorted(self.programs, key=lambda name: (name == 'twin', name == 'arm')):
            self.programs[name].end()
        if hasattr(self, 'ear'):
            self.ear.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def keep_enabled(self) -> bool:
        """Enable an arm that has stopped, as a human does; return whether that was needed."""
        kept = self.ear.heard[topics.ARM_STATUS]

        def stopped() -> bool:
            return bool(kept) and kept[-1][1].state in (ArmStatus.FAULT, ArmStatus.DISABLED)

        if not stopped():
            return False
        self.ear.call(SetBool, topics.ARM_ENABLE_SERVICE, SetBool.Request(data=True))
        with contextlib.suppress(TimeoutError):  # refused: the next call tries again
            wait_until(lambda: not stopped(), 0.5, 'the arm is enabled')
        return True

    def keep_going(self) -> str:
        """Do what a human does after a stop, and return it: enable the arm, then press Start; else nothing."""
        if self.keep_enabled():
            return 'enabled'
        status = self.ear.status()
        if status is None or status.state != 'waiting':
            return ''
        # It is refused while something is missing: the next call tries again.
        answer = self.ear.call(StartEpisode, topics.START_EPISODE_SERVICE, StartEpisode.Request())
        return 'started' if answer.success else ''

    def running(self, timeout_s: float = 60.0, beyond: int = 0) -> None:
        """Wait for an episode that has come beyond some steps."""

        def runs() -> bool:
            self.keep_going()
            status = self.ear.status()
            return status is not None and status.state == 'running' and status.index > beyond

        try:
            wait_until(runs, timeout_s, 'an episode runs')
        except TimeoutError as error:
            status = self.ear.status()
            raise TimeoutError(
                f'{error}; the session says: {status.sentence if status else "nothing"}'
            ) from error


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str, every_s: float = 0.01) -> float:
    """Wait for something; return the time [s] at which it was so.

    Raises:
        TimeoutError: it did not come about.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f'expected within {timeout_s:.0f} s: {what}')
        time.sleep(every_s)
    return time.monotonic()
