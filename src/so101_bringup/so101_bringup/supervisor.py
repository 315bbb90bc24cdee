# SPDX-License-Identifier: Apache-2.0
"""Runs the processes of a stack: labels their output, starts again what may be, ends everything in order.

What fails the same way three times is not started again: it would fail for ever. Why is written to the file that
`SO101_GIVEN_UP` names, so that the page shows it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
import json
import math
import os
import re
import signal
import subprocess
import threading
import time
from typing import IO, Protocol

from so101_bringup.programs import NodeSpec, tied
from so101_interfaces_py.scratch import Scratch

COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
# A process gets SIGINT, and the time that an arm needs to park; then SIGTERM, then SIGKILL.
GRACE_S = ((signal.SIGINT, 3.3), (signal.SIGTERM, 0.7), (signal.SIGKILL, 0.5))
TRACEBACK = 'Traceback (most recent call last):'
RESTART_PAUSE_S = (1.0, 2.0, 5.0, 10.0)
STEADY_S = 30.0
SAME_FAILURES = 3
LOOK_S = 0.05
"""How often it is looked whether a process has ended, or whether to end [s]."""
OUTPUT_S = 2.0
"""How long the last words of a process that has ended may take to arrive [s]."""
GIVEN_UP = 'SO101_GIVEN_UP'
"""Environment variable that names the file with what is not started again: JSON, name -> why."""


@dataclass
class Failures:
    """How a process has ended, and how often in a row it did so the same way."""

    words: str = ''
    alike: int = 0
    _way: tuple[int, str] | None = None

    def hear(self, line: str) -> None:
        """Take a line of its output; the last one says why it ends."""
        if line.strip():
            self.words = re.sub(r'^(\[[^]]*\] ?)+: ', '', line.strip())[:500]

    def note(self, code: int, lived_s: float) -> str:
        """Note an end; return why it shall not be started again, or nothing."""
        way = code, re.sub(r'\d+', '', self.words)  # times and counters differ each time
        self.alike = self.alike + 1 if way == self._way and lived_s < STEADY_S else 1
        self._way = way
        if self.alike < SAME_FAILURES:
            return ''
        last = self.words or 'It said nothing.'
        return (
            f'It ended {self.alike} times the same way (exit code {code}) and is not started again. '
            f'Its last words: {last}'
        )


class GivenUp:
    """The file that tells the page what is not started again."""

    def __init__(self) -> None:
        """Make an empty one."""
        self._scratch = Scratch()
        self.path = self._scratch.path / 'given_up.json'
        self._why: dict[str, str] = {}

    def add(self, name: str, why: str) -> None:
        """Write down why something is not started again; whoever reads finds the old content or the new."""
        self._why[name] = why
        aside = self.path.with_suffix('.new')
        aside.write_text(json.dumps(self._why))
        aside.replace(self.path)

    def close(self) -> None:
        """Remove it."""
        self._scratch.close()


class Output(Protocol):
    """Takes what there is to read of a stack."""

    def write(self, label: str, line: str) -> None:
        """Take a line of a process."""

    def tell(self, label: str, sentence: str) -> None:
        """Take a sentence about a process."""


class Lines:
    """Every line as it comes, with a label before it.

    Args:
        write: takes one line.
        labels: of the processes.
        colour: whether labels are coloured.
    """

    def __init__(
        self, write: Callable[[str], None], labels: Sequence[str] = (), colour: bool = False
    ) -> None:
        self._write = write
        self._width = max(map(len, labels), default=0)
        self._colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)} if colour else {}

    def write(self, label: str, line: str) -> None:
        """Take a line of a process."""
        text = f'{label:<{self._width}} |'
        colour = self._colours.get(label)
        self._write(f'{text} {line}' if colour is None else f'\033[{colour}m{text}\033[0m {line}')

    tell = write


@dataclass
class Child:
    """One process and how often it had to be started again in a row."""

    node: NodeSpec
    command: Sequence[str]
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    restarts: int = 0
    restart_at: float = 0.0
    failures: Failures = field(default_factory=Failures)
    output: threading.Thread | None = None


class Supervisor:
    """Keeps a set of processes running until one that is required ends, or someone asks to stop.

    Args:
        environment: Environment of the children.
        output: Takes what they say, and what is said about them.
    """

    def __init__(self, environment: Mapping[str, str], output: Output) -> None:
        self._environment = dict(environment) | {'PYTHONUNBUFFERED': '1'}
        self._output = output
        self._children: list[Child] = []
        self._asked = self._ending = False
        self._lock = threading.Lock()

    def add(self, node: NodeSpec, command: Sequence[str]) -> None:
        """Add a process and the command that runs it; `run` starts them in this order."""
        self._children.append(Child(node, command))

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler.

        No `threading.Event`: a handler runs between two steps of the thread that waits for it, and one that comes while
        that holds the lock of the event waits for ever.
        """
        self._asked = True

    def run(self) -> int:
        """Run until the end.

        Returns:
            0 after `stop` and where a process has finished the work; else the exit code of the required process
            that ended (1 if that was 0).
        """
        code = 0
        given_up = self._given_up = GivenUp()
        self._environment[GIVEN_UP] = str(given_up.path)
        try:
            for child in self._children:
                self._start(child)
            while not self._asked:
                ended = self._check()
                if ended is not None:
                    code = ended
                    break
                time.sleep(LOOK_S)
        finally:
            self._end_all()
            given_up.close()
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
                self._tell(child, 'has finished; stopping everything')
                return 0
            if child.node.required:
                self._tell(
                    child, f'ended with exit code {returncode}; the stack needs it, stopping everything'
                )
                return returncode if returncode > 0 else 1
            self._restart_later(child, returncode, now)
        return None

    def _restart_later(self, child: Child, returncode: int, now: float) -> None:
        if child.output is not None:
            child.output.join(OUTPUT_S)
        child.process = None
        if why := child.failures.note(returncode, now - child.started):
            child.restart_at = math.inf
            self._given_up.add(child.node.name, why)
            self._tell(child, why)
            return
        if now - child.started > STEADY_S:
            child.restarts = 0
        pause = RESTART_PAUSE_S[min(child.restarts, len(RESTART_PAUSE_S) - 1)]
        child.restarts += 1
        child.restart_at = now + pause
        self._tell(child, f'ended with exit code {returncode}; starts again in {pause:.0f} s')

    def _start(self, child: Child) -> None:
        # A session of its own: Ctrl-C in the terminal reaches this process alone, which ends all in order.
        child.process = subprocess.Popen(
            [*tied(child.node), *child.command],
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
        child.output = threading.Thread(target=self._forward, args=(child, child.process.stdout), daemon=True)
        child.output.start()

    def _forward(self, child: Child, output: IO[str]) -> None:
        held: list[str] = []
        for line in (raw.rstrip('\n') for raw in output):
            child.failures.hear(line)
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

    def _say(self, child: Child, line: str) -> None:
        with self._lock:
            self._output.write(child.node.name, line)

    def _tell(self, child: Child, sentence: str) -> None:
        with self._lock:
            self._output.tell(child.node.name, sentence)

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
                    self._tell(child, f'has not ended {grace:.1f} s after {number.name}')
        for child in children:
            _signal_group(child, signal.SIGKILL)  # whatever a child left behind


def _signal_group(child: Child, number: signal.Signals) -> None:
    assert child.process is not None
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        return
