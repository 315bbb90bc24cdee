# SPDX-License-Identifier: Apache-2.0
"""One job beside the arm at a time: a command of ours in a process that yields to everything else, and has an end."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from so101_console.archive.recorded import RecordedEpisode
from so101_interfaces_py.scratch import Scratch

LONGEST_S = 1800.0
"""A job that takes longer is ended."""
NICE = 15
"""Niceness of a job: the arm, and all that serves it, go before."""
LAST_LINES = 4
LOOK_S = 0.5
FILM_PX = 256


@dataclass
class Job:
    """A command that runs, or that has ended.

    Attributes:
        name: what it makes, for people.
        key: what it is made of, as the page names it.
        words: the command, as it is run.
        out: what it writes.
        said: what it said last.
        state: `runs`, `done` or `failed`.
        bytes: size of what it has written so far [B].
    """

    name: str
    key: str
    words: Sequence[str]
    out: Path
    began_s: float = field(default_factory=time.monotonic)
    said: str = ''
    state: str = 'runs'
    bytes: int = 0
    took_s: float = 0.0

    def account(self) -> dict[str, Any]:
        """Return how it is, for a page."""
        seconds = time.monotonic() - self.began_s if self.state == 'runs' else self.took_s
        told: dict[str, Any] = {
            name: getattr(self, name) for name in ('name', 'key', 'state', 'said', 'bytes')
        }
        return {**told, 'seconds': round(seconds), 'out': str(self.out)}


class Jobs:
    """Runs one job after another; a second one is refused while one runs."""

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._scratch: Scratch | None = None
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self.last: Job | None = None
        """The one that runs, or that has ended last."""

    def film(self, episode: RecordedEpisode) -> str:
        """Begin to make a film of a recorded episode; return a sentence where that cannot be."""
        if not episode.bag.exists():
            return 'This episode is not recorded, so no film can be made of it: start with record:=true.'
        if self._scratch is None:
            self._scratch = Scratch('console')
        for old in self._scratch.path.glob('*.mp4'):  # only the newest is kept
            old.unlink(missing_ok=True)
        out = self._scratch.path / f'{episode.bag.name}-{episode.number}.mp4'
        arm = episode.arm.strip('/')
        words = [str(episode.bag), '--out', str(out), '--episode', str(episode.number)]
        words += ['--image-size', str(FILM_PX), *(['--namespace', f'/{arm}'] if arm else [])]
        return self._start(
            Job(f'Film of {episode.bag.name}, episode {episode.number}', episode.key, words, out)
        )

    def dataset(self, run: str, buffer: Path, out: Path) -> str:
        """Begin to make a dataset of LeRobot's of the experience of a run; return a sentence where that cannot be."""
        if out.exists():
            return f'{out} is there already: remove it, or name another folder in a terminal.'
        words = [str(buffer), '--out', str(out)]
        return self._start(Job(f'Dataset of {run}', run, words, out))

    def file(self, key: str) -> Path | None:
        """Return the film that was made of an episode; None where there is none."""
        job = self.last
        whole = job is not None and job.state == 'done' and job.key == key and job.out.suffix == '.mp4'
        return job.out if whole and job is not None and job.out.is_file() else None

    def account(self) -> dict[str, Any] | None:
        """Return how the last job is; None before the first."""
        return None if self.last is None else self.last.account()

    def close(self) -> None:
        """End what runs, and remove the film. Safe to call twice."""
        process = self._process
        if process is not None:
            _end(process)
        if self._scratch is not None:
            self._scratch.close()

    def _start(self, job: Job) -> str:
        with self._lock:
            if self.last is not None and self.last.state == 'runs':
                return f'“{self.last.name}” is being made; wait until it is done.'
            try:
                self._process = subprocess.Popen(
                    export_words(job.words),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    text=True,
                    errors='replace',
                    env={**os.environ, **ONE_THREAD},
                    start_new_session=True,
                )
            except OSError as error:
                return f'The job cannot be started: {error.strerror}.'
            self.last = job
        threading.Thread(target=self._watch, args=(job, self._process), name='job', daemon=True).start()
        return ''

    def _watch(self, job: Job, process: 'subprocess.Popen[str]') -> None:
        lines: deque[str] = deque(maxlen=LAST_LINES)
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reader.start()
        while process.poll() is None:
            if time.monotonic() - job.began_s > self._longest_s:
                lines.append(f'It took longer than {self._longest_s:.0f} s, and was ended.')
                _end(process)
            job.bytes = _size(job.out)
            time.sleep(LOOK_S)
        reader.join(LOOK_S)
        job.bytes, job.said = _size(job.out), ' '.join(lines)[:600]
        job.took_s = time.monotonic() - job.began_s
        job.state = 'done' if process.returncode == 0 else 'failed'


ONE_THREAD: Mapping[str, str] = {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
"""The other cores are the arm's."""


def export_words(words: Sequence[str]) -> list[str]:
    """Return how `./so101 export` is run as a process that yields."""
    nice = shutil.which('nice')
    first = [nice, '-n', str(NICE)] if nice else []
    return [*first, sys.executable, '-m', 'hilserl_learner.cli.export', *words]


def _read(process: 'subprocess.Popen[str]', lines: 'deque[str]') -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            lines.append(line.strip()[:300])


def _end(process: 'subprocess.Popen[str]') -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(5.0)


def _size(out: Path) -> int:
    """Return how much is written, also while it lies beside its place under another name."""
    total = 0
    for place in (out, *out.parent.glob(f'.{out.name}.*')):
        files = place.rglob('*') if place.is_dir() else [place]
        for file in files:
            try:
                total += file.stat().st_size if file.is_file() else 0
            except OSError:  # it is being moved to its place
                continue
    return total
