# SPDX-License-Identifier: Apache-2.0
"""Runs the processes of a stack: labels their output, starts again what may be, ends everything in order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO

from so101_bringup.programs import NodeSpec

COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
# A process gets SIGINT, then SIGTERM, then SIGKILL; both waves together stay within five seconds.
GRACE_S = ((signal.SIGINT, 2.5), (signal.SIGTERM, 1.0), (signal.SIGKILL, 0.5))
TRACEBACK = 'Traceback (most recent call last):'
RESTART_PAUSE_S = (1.0, 2.0, 5.0, 10.0)
STEADY_S = 30.0

# Has the kernel interrupt a process when its supervisor is gone, however it went (1 is PR_SET_PDEATHSIG), and becomes
# that process: nobody could stop the arm otherwise, since Ctrl-C in the terminal reaches the supervisor alone. Between
# fork and exec it would be shorter, but is not safe beside the threads here.
TIED = (
    *(sys.executable, '-I', '-S', '-c'),
    'import ctypes, os, sys\n'
    f'ctypes.CDLL(None).prctl(1, {int(signal.SIGINT)}, 0, 0, 0)\n'
    'os.execvp(sys.argv[1], sys.argv[1:])',
)


@dataclass
class Child:
    """One process and how often it had to be started again in a row."""

    node: NodeSpec
    command: Sequence[str]
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    restarts: int = 0
    restart_at: float = 0.0


class Supervisor:
    """Keeps a set of processes running until one that is required ends, or someone asks to stop.

    Args:
        environment: Environment of the children.
        write: Takes one line of output.
        colour: Whether labels are coloured.
    """

    def __init__(
        self, environment: Mapping[str, str], write: Callable[[str], None], colour: bool = False
    ) -> None:
        self._environment = dict(environment) | {'PYTHONUNBUFFERED': '1'}
        self._write = write
        self._colour = colour
        self._children: list[Child] = []
        self._stop = threading.Event()
        self._ending = False
        self._lock = threading.Lock()

    def add(self, node: NodeSpec, command: Sequence[str]) -> None:
        """Add a process and the command that runs it; `run` starts them in this order."""
        self._children.append(Child(node, command))

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> int:
        """Run until the end.

        Returns:
            0 after `stop` and where a process has finished the work; else the exit code of the required process
            that ended (1 if that was 0).
        """
        code = 0
        try:
            for child in self._children:
                self._start(child)
            while not self._stop.wait(0.1):
                ended = self._check()
                if ended is not None:
                    code = ended
                    break
        finally:
            self._end_all()
        return code

    def _check(self) -> int | None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None:
                if now >= child.restart_at:
                    self._start(child)
                continue
            returncode = child.process.poll()
            if returncode is None:
                continue
            if child.node.finishes and returncode == 0:
                self._say(child, 'has finished; stopping everything')
                return 0
            if child.node.required:
                self._say(
                    child, f'ended with exit code {returncode}; the stack needs it, stopping everything'
                )
                return returncode if returncode > 0 else 1
            if now - child.started > STEADY_S:
                child.restarts = 0
            pause = RESTART_PAUSE_S[min(child.restarts, len(RESTART_PAUSE_S) - 1)]
            child.restarts += 1
            child.restart_at = now + pause
            child.process = None
            self._say(child, f'ended with exit code {returncode}; starts again in {pause:.0f} s')
        return None

    def _start(self, child: Child) -> None:
        # A session of its own: Ctrl-C in the terminal reaches this process alone, which ends all in order.
        child.process = subprocess.Popen(
            [*TIED, *child.command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            start_new_session=True,
        )
        child.started = time.monotonic()
        assert child.process.stdout is not None
        threading.Thread(target=self._forward, args=(child, child.process.stdout), daemon=True).start()

    def _forward(self, child: Child, output: IO[str]) -> None:
        held: list[str] = []
        for line in (raw.rstrip('\n') for raw in output):
            if line == TRACEBACK or (held and line.startswith(' ')):
                held.append(line)
                continue
            # Interrupted while it was still importing: that is no error, and nobody wants to read it.
            if not (held and self._ending and line.startswith('KeyboardInterrupt')):
                for part in (*held, line):
                    self._say(child, part)
            held.clear()
        for part in held:
            self._say(child, part)

    def _say(self, child: Child, text: str) -> None:
        width = max(len(other.node.name) for other in self._children)
        label = f'{child.node.name:<{width}} |'
        if self._colour:
            label = f'\033[{COLOURS[self._children.index(child) % len(COLOURS)]}m{label}\033[0m'
        with self._lock:
            self._write(f'{label} {text}')

    def _end_all(self) -> None:
        """End every child and what it started: first those that need the others, then the rest."""
        self._ending = True
        for wave in (False, True):
            self._end(
                [
                    child
                    for child in self._children
                    if child.node.outlives is wave and child.process is not None
                ]
            )

    def _end(self, children: Sequence[Child]) -> None:
        for number, grace in GRACE_S:
            deadline = time.monotonic() + grace
            alive = [
                child for child in children if child.process is not None and child.process.poll() is None
            ]
            for child in alive:
                _signal_group(child, number)
            for child in alive:
                assert child.process is not None
                try:
                    child.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self._say(child, f'has not ended {grace:.1f} s after {number.name}')
        for child in children:
            _signal_group(child, signal.SIGKILL)  # whatever a child left behind


def _signal_group(child: Child, number: signal.Signals) -> None:
    assert child.process is not None
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        return
