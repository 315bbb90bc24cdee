# SPDX-License-Identifier: Apache-2.0
"""A small ROS graph for checks: twin, driver and kinematics as processes, in a domain of their own."""

from collections.abc import Mapping
import os
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

from so101_interfaces_py.scratch import Scratch
from so101_sim.errors import SimulationError

MODULES: Mapping[str, str] = {
    'twin': 'so101_sim.twin.node',
    'arm': 'so101_driver.arm_node',
    'kinematics': 'so101_kinematics.kinematics_node',
    'operator': 'so101_sim.human.node',
    'session': 'so101_session.session.node',
}
"""The nodes that can be started, and the modules that they are in."""

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0
_POLL_S = 0.05


class Graph:
    """Starts the twin and, once its port is there, the other nodes; ends all of them, the twin last.

    Attributes:
        link: path under which the simulated arm appears.
    """

    def __init__(self, *nodes: str, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Prepare; entering starts the processes.

        Args:
            nodes: names out of `MODULES` beside the twin.
            parameters: parameters of each node, by its name.
        """
        self._scratch = Scratch('graph')
        self.link = self._scratch.path / 'arm'
        self._nodes = nodes
        self._parameters = {} if parameters is None else parameters
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self.start('twin', link=str(self.link))
            self._wait_for_port()
            for name in self._nodes:
                if name == 'arm':
                    port, calibration = str(self.link), f'{self.link}.json'
                    # On a busy machine the twin serves its port some seconds after the port is there.
                    self.start(
                        name,
                        port=port,
                        calibration=calibration,
                        enable_at_start=True,
                        connect_timeout_s=START_TIMEOUT_S,
                    )
                else:
                    self.start(name)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self, name: str, **parameters: Any) -> subprocess.Popen[bytes]:
        """Start one node.

        Args:
            name: out of `MODULES`.
            parameters: in addition to those given at the beginning.
        """
        words = [sys.executable, '-m', MODULES[name], '--ros-args']
        for key, value in {**parameters, **self._parameters.get(name, {})}.items():
            words += ['-p', f'{key}:={str(value).lower() if isinstance(value, bool) else value}']
        self._processes[name] = subprocess.Popen(
            words, env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
        )
        return self._processes[name]

    def stop(self, name: str) -> int:
        """End one node as Ctrl-C does and return its exit code."""
        process = self._processes.pop(name)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return int(process.returncode)

    def running(self, name: str) -> bool:
        """Whether a node that was started has not ended."""
        return name in self._processes and self._processes[name].poll() is None

    def stop_all_at_once(self) -> dict[str, int]:
        """End every node at the same moment, as `ros2 launch` does; return exit codes in the order of their ends."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        codes: dict[str, int] = {}
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while len(codes) < len(self._processes) and time.monotonic() < deadline:
            for name, process in self._processes.items():
                code = process.poll()
                if code is not None:
                    codes.setdefault(name, int(code))
            time.sleep(_POLL_S / 10.0)
        return codes

    def wait(self, name: str, timeout_s: float) -> int:
        """Wait for a node to end by itself and return its exit code."""
        return int(self._processes[name].wait(timeout_s))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The arm parks on the twin, so the twin goes last.
        for name in sorted(self._processes, key=lambda name: (name != 'arm', name == 'twin')):
            self.stop(name)
        self._scratch.close()

    def _wait_for_port(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.link.exists():
            if self._processes['twin'].poll() is not None or time.monotonic() > deadline:
                raise SimulationError(
                    f'expected the twin to serve {self.link} within {START_TIMEOUT_S:.0f} s, it did not; '
                    f'see its messages above'
                )
            time.sleep(_POLL_S)
