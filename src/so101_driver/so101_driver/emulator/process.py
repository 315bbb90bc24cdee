# SPDX-License-Identifier: Apache-2.0
"""A virtual arm in a process of its own, so that its timing does not depend on the program under test."""

from __future__ import annotations

import os
from pathlib import Path
import select
import shutil
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any, Self

from so101_driver.emulator.control import ArmControl

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
        self._directory = Path(tempfile.mkdtemp(prefix='so101-'))
        self.port = str(self._directory / 'arm') if link is None else str(link)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: ArmControl | None = None

    def __enter__(self) -> Self:
        packages = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (packages, os.environ.get('PYTHONPATH'))))
        socket_path = self._directory / 'control'
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
        """Carry out a command of `so101_driver.emulator.control.ArmCommands`."""
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
        shutil.rmtree(self._directory, ignore_errors=True)
