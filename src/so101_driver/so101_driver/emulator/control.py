# SPDX-License-Identifier: Apache-2.0
"""Remote control of a virtual arm: JSON lines on a Unix socket, to inject faults from another process.

A request is ``{"do": "mute", "ids": [3]}``, an answer ``{"ok": true, "result": null}`` or
``{"ok": false, "error": "..."}``. The commands are those of `RemoteCommands`. Further down: a client, and an arm in a
process of its own, so that its timing does not depend on the program under test.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import functools
import json
import os
from pathlib import Path
import select
import socket
import socketserver
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any, Self

from so101_driver.bus.registers import Reg
from so101_driver.emulator.arm import VirtualArm
from so101_interfaces_py.scratch import Scratch

Json = Any


class RemoteCommands:
    """What can be asked of a virtual arm from outside; arguments and results are plain JSON values."""

    def __init__(self, arm: VirtualArm) -> None:
        self._arm = arm
        self._commands: dict[str, Callable[..., Json]] = {
            'rates': functools.partial(arm.faults.set_rates, None),
            'mute': arm.faults.mute,
            'inject': arm.faults.inject,
            'clear_faults': arm.faults.clear,
            'unplug': arm.unplug,
            'replug': arm.replug,
            'power': arm.power,
            'power_cycle': arm.power_cycle,
            'environment': arm.set_environment,
            'position': arm.set_position,
            'load': arm.set_load,
            'stops': arm.set_stops,
            'advance': arm.advance,
            'get': self._get,
            'set': self._set,
            'torque': self._torque,
            'log': self._log,
            'clear_log': arm.log.clear,
        }

    def run(self, command: dict[str, Json]) -> Json:
        """Carry out one command.

        Raises:
            ValueError: there is no such command.
        """
        arguments = dict(command)
        name = arguments.pop('do', None)
        if name not in self._commands:
            raise ValueError(f'The virtual arm knows the commands {", ".join(self._commands)}; got {name!r}.')
        return self._commands[name](**arguments)

    def _get(self, servo_id: int, register: str) -> int:
        """Value of a register, up to date."""
        with self._arm.lock:
            reg = Reg[register]
            return reg.decode(self._arm.servo(servo_id).read_block(reg.address, reg.size))

    def _set(self, servo_id: int, register: str, value: int) -> None:
        """Set a register from outside the bus."""
        with self._arm.lock:
            self._arm.servo(servo_id).set(Reg[register], value)

    def _torque(self) -> dict[str, bool]:
        """Whether each motor is driven."""
        with self._arm.lock:
            return {str(servo.servo_id): servo.torque_on for servo in self._arm.servos}

    def _log(self, register: str | None = None, after_s: float = 0.0) -> list[dict[str, Json]]:
        """Writes over the bus."""
        events = self._arm.log.events(Reg[register] if register else None, after_s=after_s)
        return [
            {
                'time_s': event.time_s,
                'servo_id': event.servo_id,
                'register': event.register.name,
                'value': event.value,
                'energises': event.energises,
            }
            for event in events
        ]


class ControlServer:
    """Serves the commands of an arm on a socket until it is closed.

    Args:
        arm: the arm.
        path: of the socket; only this user may use it.
    """

    def __init__(self, arm: VirtualArm, path: str | Path) -> None:
        commands = RemoteCommands(arm)

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    try:
                        answer = {'ok': True, 'result': commands.run(json.loads(line))}
                    except (ValueError, KeyError, TypeError) as error:
                        answer = {'ok': False, 'error': f'{type(error).__name__}: {error}'}
                    self.wfile.write(json.dumps(answer).encode() + b'\n')

        self._path = Path(path)
        self._path.unlink(missing_ok=True)
        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._server.daemon_threads = True
        self._path.chmod(0o600)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


class ArmControl:
    """Client of a `ControlServer`.

    Args:
        path: of the socket.
        timeout_s: for each answer [s].
    """

    def __init__(self, path: str | Path, timeout_s: float = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile('rb')

    def call(self, command: str, **arguments: Json) -> Json:
        """Carry out a command of `RemoteCommands` and return its result.

        Raises:
            RuntimeError: the arm refuses, with its reason.
            ConnectionError: the arm is gone.
        """
        self._socket.sendall(json.dumps({'do': command, **arguments}).encode() + b'\n')
        line = self._lines.readline()
        if not line:
            raise ConnectionError('The virtual arm closed its control socket.')
        answer = json.loads(line)
        if not answer['ok']:
            raise RuntimeError(answer['error'])
        return answer['result']

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._lines.close()
            self._socket.close()


_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0


class VirtualArmProcess:
    """Runs ``python -m so101_driver.emulator`` while it is entered.

    Args:
        arguments: further command-line arguments, e.g. ``'--no-pacing'``.
        link: path under which the arm appears; a temporary one by default.

    Attributes:
        port: path to open as a serial port.
    """

    def __init__(self, *arguments: str, link: str | Path | None = None) -> None:
        self._arguments = arguments
        self._scratch = Scratch()
        self.port = str(self._scratch.path / 'arm') if link is None else str(link)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: ArmControl | None = None

    def __enter__(self) -> Self:
        packages = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (packages, os.environ.get('PYTHONPATH'))))
        socket_path = self._scratch.path / 'control'
        self._process = subprocess.Popen(
            [
                *(sys.executable, '-m', 'so101_driver.emulator', '--link', self.port),
                *('--control', str(socket_path), '--until-stdin-closes', *self._arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, 'PYTHONPATH': path},
        )
        try:
            self._wait_until_ready(self._process)
            self._control = ArmControl(socket_path)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], _START_TIMEOUT_S)[0] or not process.stdout.readline():
            raise RuntimeError(
                f'The virtual arm did not start within {_START_TIMEOUT_S} s; see its messages above.'
            )

    def call(self, command: str, **arguments: Any) -> Any:
        """Carry out a command of `so101_driver.emulator.control.RemoteCommands`."""
        if self._control is None:
            raise RuntimeError('The virtual arm does not run; use it in a with statement.')
        return self._control.call(command, **arguments)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            process, self._process = self._process, None
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self._scratch.close()
