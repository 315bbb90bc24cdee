# SPDX-License-Identifier: Apache-2.0
"""Programs under test, each in a process of its own: a virtual arm, and arm_node on it."""

from collections.abc import Callable, Sequence
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

import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_NAMES
from so101_driver.emulator.arm import virtual_calibration
from so101_driver.emulator.control import ArmControl

ARM_NODE = (sys.executable, '-m', 'so101_driver.arm_node')
VIRTUAL_ARM = ('-c', 'from so101_driver.emulator.__main__ import serve_calibrated; serve_calibrated()')
START_S = 30.0
STOP_S = 5.0


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = 100.0) -> Any:
    """Return what a condition gives as soon as it is true; raise TimeoutError when it never is."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f'Not within {deadline_s:g} s: {what}.')
        time.sleep(0.003)
    return value


class Program:
    """A process whose output is kept, ended by force with the context at the latest.

    Args:
        command: What to run.

    Attributes:
        lines: Its output so far, stderr included.
        started_s: When it was started [s, monotonic].
        ended_s: When it had ended [s, monotonic], or None.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.lines: list[str] = []
        self.ended_s: float | None = None
        # The very modules that this process imports; output by the line.
        environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path), 'PYTHONUNBUFFERED': '1'}
        self.started_s = time.monotonic()
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            env=environment,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip('\n'))
        self._process.wait()
        self.ended_s = time.monotonic()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """Its output so far."""
        return '\n'.join(self.lines)

    def says(self, text: str, deadline_s: float = START_S) -> None:
        """Wait until its output contains a text."""
        try:
            wait_until(lambda: text in self.output or self.ended_s, f'the text {text!r}', deadline_s)
        except TimeoutError as error:
            raise TimeoutError(f'{error} The program says:\n{self.output}') from error
        if text not in self.output:
            raise RuntimeError(f'The program ended without the text {text!r}. It says:\n{self.output}')

    def send(self, number: signal.Signals) -> float:
        """Send a signal and return the time at which it was sent [s, monotonic]."""
        now = time.monotonic()
        self._process.send_signal(number)
        return now

    def wait(self, deadline_s: float = START_S) -> int:
        """Return its exit code when it has ended."""
        wait_until(lambda: self.ended_s, 'the end of the program', deadline_s)
        return int(self._process.returncode)

    def cpu_s(self) -> float:
        """Processor time that it has used so far [s]."""
        fields = Path(f'/proc/{self.pid}/stat').read_text().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def end(self) -> None:
        """End it: with SIGINT, or by force."""
        if self.alive:
            self.send(signal.SIGINT)
            with contextlib.suppress(TimeoutError):
                self.wait(STOP_S)
        if self.alive:
            self._process.kill()
        self._reader.join(STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class ArmProcesses:
    """A calibrated virtual arm and the programs that are started on it; all end with the context.

    Args:
        namespace: Namespace of the nodes.
        pose: Joint positions at the start (6,) [rad]; the rest pose by default.
        parameters: Parameters of every arm_node started here.

    Attributes:
        port: Path of the arm's port.
        calibration_path: File that holds its calibration.
        calibration: The calibration.
        arm: The program of the virtual arm.
        control: The way to inject faults.
    """

    def __init__(
        self, namespace: str = '', *, pose: npt.ArrayLike | None = None, **parameters: object
    ) -> None:
        self.namespace = namespace
        self.calibration = virtual_calibration()
        self._pose = pose
        self._parameters = parameters
        self._stack = contextlib.ExitStack()
        self._nodes: list[Program] = []

    def __enter__(self) -> Self:
        directory = Path(tempfile.mkdtemp(prefix='so101-rig-'))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        self.port, self.calibration_path = str(directory / 'arm'), directory / 'arm.json'
        files = ('--link', self.port, '--calibration', str(self.calibration_path))
        control = directory / 'control'
        pose = [] if self._pose is None else ['--pose', *(str(value) for value in np.asarray(self._pose))]
        command = (
            sys.executable,
            *VIRTUAL_ARM,
            *files,
            '--control',
            str(control),
            *pose,
        )
        try:
            self.arm = self._stack.enter_context(Program(command))
            self.arm.says('virtual arm on')
            self.control = ArmControl(control)
            self._stack.callback(self.control.close)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start_node(self, program: Sequence[str] = ARM_NODE, **parameters: object) -> Program:
        """Start arm_node, or a program that takes the same parameters, on the arm."""
        node = self._stack.enter_context(Program([*program, *self.arguments(**parameters)]))
        self._nodes.append(node)
        return node

    def end_nodes(self) -> None:
        """End every node that still runs."""
        while self._nodes:
            self._nodes.pop().end()

    def arguments(self, **parameters: object) -> list[str]:
        """ROS arguments of a node on this arm."""
        own = {'port': self.port, 'calibration': str(self.calibration_path)}
        words = ['--ros-args', '-r', f'__ns:=/{self.namespace}']
        for name, value in (own | self._parameters | parameters).items():
            text = str(list(value) if isinstance(value, tuple) else value)
            words += ['-p', f'{name}:={text.lower() if isinstance(value, bool) else text}']
        return words

    # ---- the arm, from outside the bus -------------------------------------------------------------------

    def place(self, pose: npt.ArrayLike) -> None:
        """Turn the joints of a limp arm by hand to a pose (6,) [rad]."""
        for joint, encoder in zip(JOINT_NAMES, self.calibration.rad_to_encoder_ticks(pose), strict=True):
            self.control.call('position', servo_id=self.calibration[joint].id, encoder=float(encoder))

    def registers(self, register: str) -> list[int]:
        """One register of all servos, as the servos hold it now."""
        return [self.control.call('get', servo_id=servo_id, register=register) for servo_id in range(1, 7)]

    def pose(self) -> npt.NDArray[np.float64]:
        """Where the arm is now (6,) [rad]."""
        return self.calibration.ticks_to_rad(self.registers('PRESENT_POSITION'))

    def driven(self) -> list[bool]:
        """Whether each motor is driven now."""
        torque = self.control.call('torque')
        return [torque[str(servo_id)] for servo_id in range(1, 7)]
