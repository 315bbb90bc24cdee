# SPDX-License-Identifier: Apache-2.0
"""The processes in which the sides of a comparison run, and how they are kept apart; the standard library alone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
import json
import os
from pathlib import Path
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
Words = Sequence[object]


def isolate() -> None:
    """Keep this process and its children off every other ROS graph; call it before rclpy starts."""
    from so101_interfaces_py import graph

    graph.isolate()


def use_sources(*packages: str) -> None:
    """Let this process import packages of the checkout, whatever is installed."""
    sys.path[:0] = [str(ROOT / 'src' / package) for package in packages]


def bare_environment() -> dict[str, str]:
    """Return an environment with neither ROS's libraries nor more than one thread in numpy.

    Peers bring libraries of their own.
    """
    kept = {k: v for k, v in os.environ.items() if k not in ('LD_LIBRARY_PATH', 'PYTHONPATH')}
    kept |= dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    return kept | {'_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1'}


def ask_once(words: Words, environment: Mapping[str, str] | None = None, timeout_s: float = 600.0) -> Any:
    """Run one side to its end and return what its last line says; its messages are shown."""
    done = subprocess.run(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=timeout_s,
        env=environment,
    )
    if done.returncode:
        raise SystemExit(f'{" ".join(map(str, words[1:]))} ended with code {done.returncode}')
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Let so many processes turn round beside what is measured, each of which would fill a core."""
    turning = [subprocess.Popen((sys.executable, '-S', '-c', 'while True: pass')) for _ in range(loops)]
    try:
        yield
    finally:
        for process in turning:
            process.kill()
            process.wait()


class Worker:
    """One side as a process that is asked again and again, in lines of JSON; a context manager.

    Attributes:
        hello: What it said of itself at its start.
    """

    def __init__(self, name: str, words: Words, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._process = subprocess.Popen(
            list(map(str, words)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Self:
        self.hello = self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # its input has ended, and so does it
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + '\n')
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f'{self.name} ended with code {self._process.wait()}; its message is above')
        answer: dict[str, Any] = json.loads(line)
        return answer
