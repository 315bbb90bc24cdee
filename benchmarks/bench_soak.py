# SPDX-License-Identifier: Apache-2.0
"""Whether anything grows: the whole graph on the twin with learner, recorder and an open page, for an hour.

Each minute it notes what every node keeps: resident memory, open files, threads; the memory of the process that shows
the page; the files in shared memory; and how regular the control clock is. No developer tools look at the page, since
they keep a copy of every picture that it was shown. A figure grows where the median of its last
third is above that of its middle third by more than 5 %; the first third is the warming up. A learner keeps what it
learns from, so its memory grows by that until its buffer is full: the row says by how much a transition. The last line
is one JSON object; the exit code is 1 where something else has grown.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from graph_rig import Ear
from processes import isolate
from report import Parser, quantile, Report, Row
from rich.progress import track

from so101_interfaces_py import topics
from so101_testing.console_rig import BROWSERS, ConsoleRig, FLAGS, PATIENT, RigError

MINUTE_S = 60.0
TOLERANCE = 0.05
FEW = {'MB': 4.0, 'files': 4.0, 'threads': 2.0, 'ms': 2.0}
"""Growth that is none, by unit: a page of memory here, a connection there."""
NODES = ('twin', 'arm', 'kinematics', 'session', 'operator', 'policy', 'learner', 'recorder', 'console')
GROWS = 'memory of learner'
Figures = dict[str, tuple[str, float]]


def kept_by(pid: int) -> tuple[float, int, int]:
    """Return what a process keeps: resident memory [MB], open files, threads."""
    told = dict(line.split(':', 1) for line in Path(f'/proc/{pid}/status').read_text().splitlines())
    return (
        int(told['VmRSS'].split()[0]) / 1e3,
        len(list(Path(f'/proc/{pid}/fd').iterdir())),
        int(told['Threads']),
    )


def page_memory() -> float:
    """Return the memory of its own of the largest process that shows a page [MB]."""
    found = [0.0]
    for folder in Path('/proc').glob('[0-9]*'):
        with suppress(OSError):
            if b'--type=renderer' in (folder / 'cmdline').read_bytes():
                told = dict(line.split(':', 1) for line in (folder / 'status').read_text().splitlines())
                found.append(int(told['RssAnon'].split()[0]) / 1e3)
    return max(found)


@contextmanager
def shown(address: str) -> Iterator[None]:
    """Show a page in a browser without a window.

    Raises:
        RigError: there is none.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise RigError(f'expected one of {", ".join(BROWSERS)} to be installed, found none; install chromium')
    with tempfile.TemporaryDirectory(prefix='so101-soak-', ignore_cleanup_errors=True) as profile:
        words = [
            path,
            '--headless=new',
            *FLAGS,
            f'--user-data-dir={profile}',
            '--window-size=1280,720',
            address,
        ]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def note(stage: ConsoleRig, ear: Ear, since_s: float) -> Figures:
    """Return the figures of this minute, each with its unit."""
    figures: Figures = {}
    for name in NODES:
        memory, files, threads = kept_by(stage.pid(name))
        figures[f'memory of {name}'] = 'MB', memory
        figures[f'open files of {name}'] = 'files', files
        figures[f'threads of {name}'] = 'threads', threads
    figures["the page's process"] = 'MB', page_memory()
    figures['files in shared memory'] = 'files', len(list(Path('/dev/shm').iterdir()))
    jitter = ear.jitter(since_s)
    if jitter:
        figures['jitter of the step, median'] = 'ms', 1e3 * quantile(jitter, 0.5)
    return figures


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the middle third and of the last."""
    third = max(len(values) // 3, 1)
    return quantile(values[-2 * third : -third] or values[-third:], 0.5), quantile(values[-third:], 0.5)


def rows_of(noted: Sequence[Figures], transitions: int) -> tuple[list[Row], list[str]]:
    """Return a row for each figure, those that grew most first, and the names of those that must not have."""
    rows, grown = [], []
    for name, (unit, _) in noted[-1].items():
        values = [figures[name][1] for figures in noted if name in figures]
        middle, late = thirds(values)
        more = late - middle
        if more > FEW[unit] and more > TOLERANCE * middle and name != GROWS:
            grown.append(name)
        told = f'{middle:.4g} in the middle third, {late:.4g} in the last'
        if name == GROWS and transitions:
            told += f'; {1e3 * (values[-1] - values[0]) / transitions:.1f} kB a transition, of {transitions}'
        rows.append((more / max(middle, 1e-9), Row(name, unit, len(values), late, note=told)))
    return [row for _, row in sorted(rows, key=lambda one: -one[0])], grown


def measure(minutes: int, parameters: Mapping[str, Mapping[str, Any]]) -> tuple[list[Figures], int]:
    """Let it run; return what was noted each minute, and how many transitions the learner got."""
    noted: list[Figures] = []
    with (
        tempfile.TemporaryDirectory(prefix='so101-soak-') as folder,
        ConsoleRig('arm', 'kinematics', parameters=parameters) as stage,
    ):
        ear = Ear()
        try:
            stage.add(
                'session', joint_timeout_s=5.0, camera_timeout_s=5.0, reward_source='sim', simulated=True
            )
            stage.add('policy', policy='default', mode='explore')
            stage.add('learner', directory=f'{folder}/run', policy='default')
            stage.add('recorder', out=f'{folder}/bags')
            stage.add('operator', mode='intervene')
            address = stage.console(bags=f'{folder}/bags', runs=f'{folder}')
            with shown(address):
                for _ in track(range(minutes), description='minutes'):
                    began = time.monotonic()
                    time.sleep(MINUTE_S)
                    noted.append(note(stage, ear, began))
            steps = len({(m.episode, m.index) for _, m in ear.since(topics.STEP, 0.0)})
        finally:
            ear.close()
    return noted, steps


def main() -> int:
    """Run and print."""
    parser = Parser(__doc__)
    parser.number('--minutes', 60, 'how long', quick=3)
    arguments = parser.parse_args()
    isolate()
    noted, steps = measure(arguments.minutes, PATIENT)
    rows, grown = rows_of(noted, steps)
    for name in grown:
        print(f'soak: {name} grew', file=sys.stderr)
    head = Row('figures that grew', f'of {len(rows)}', len(noted), len(grown))
    details = {'steps': steps, 'grown': grown}
    return Report('soak', [head, *rows], passed=not grown, details=details).finish(arguments)


if __name__ == '__main__':
    sys.exit(main())
