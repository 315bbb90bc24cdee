# SPDX-License-Identifier: Apache-2.0
"""`./so101 bench all`: every bench in a process and a ROS domain of its own, one after the other, into one page.

A bench that fails, or takes longer than its limit, is written down as failed with its last line; the others go on. The
page is docs/benchmarks.md, the same as data is docs/benchmarks.json; the faults get pages of their own. With --only,
the other benches keep what they have there. With --quick, the result goes to .bench/quick, since so few values are
for a look alone.
"""

import argparse
import ast
from collections.abc import Mapping, Sequence
import contextlib
from dataclasses import dataclass
from datetime import datetime
import json
import os
from pathlib import Path
import platform
import signal
import subprocess
import sys
import time
from typing import Any, Self

from page import render
from processes import ROOT
from report import Report, shown

LIMITS_S: Mapping[str, float] = {
    # The longest that a bench may take; those that install peers with torch may need long once.
    'ik': 600.0,
    'bus': 1200.0,
    'loop': 300.0,
    'kinematics_node': 300.0,
    'faults': 1200.0,
    'env': 1200.0,
    'policy': 600.0,
    'update': 900.0,
    'replay': 900.0,
    'ingest': 900.0,
    'lerobot': 1800.0,
    'graph': 900.0,
    'takeover': 1200.0,
    'faults_graph': 1500.0,
    'faults_orders': 7200.0,
    'faults_payloads': 900.0,
    'parity': 1200.0,
    'vla': 3600.0,
    'classifier': 3600.0,
    'console': 900.0,
    'soak': 5400.0,
}
"""In the order in which they run."""

PAGES = {
    'faults': 'faults.md',
    'faults_graph': 'faults_graph.md',
    'faults_orders': 'faults.md',
    'faults_payloads': 'faults.md',
}
"""Those that also write a page of their own, or a part of one."""

GRACE_S = 15.0
"""A bench that is told to end has this long to end its programs."""


@dataclass(frozen=True)
class Entry:
    """What came of one bench.

    Attributes:
        name: Of the bench.
        measures: What it measures, in a sentence.
        command: That makes its figures again.
        date: When it began, in UTC.
        machine: On which it ran.
        load: Load average of the machine over a minute, before it.
        seconds: How long it took.
        failure: Why there are no figures, or why they are not good; empty if it went well.
        report: The figures, if there are any.
    """

    name: str
    measures: str
    command: str
    date: str
    machine: str
    load: float
    seconds: float
    failure: str = ''
    report: Report | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        kept = {name: value for name, value in vars(self).items() if name != 'report'}
        return {**kept, 'report': None if self.report is None else self.report.as_dict()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Return the entry that `as_dict` made something of."""
        report = found['report']
        return cls(**{**found, 'report': None if report is None else Report.from_dict(report)})


def machine() -> str:
    """Say what this machine is."""
    lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    models = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    cores = len(os.sched_getaffinity(0))
    return f'{cores} cores of {next(models, platform.machine())}, Python {platform.python_version()}'


def measures(program: Path) -> str:
    """Return the first sentence of a bench's own words."""
    words = ast.get_docstring(ast.parse(program.read_text(encoding='utf-8'))) or ''
    return ' '.join(words.partition('\n\n')[0].split())


def run(
    program: Path, limit_s: float, folder: Path, *, quick: bool = False, page: Path | None = None
) -> Entry:
    """Run one bench, and return what came of it; a page of its own is written where one is named."""
    name = program.stem.removeprefix('bench_')
    folder.mkdir(parents=True, exist_ok=True)
    log, found = folder / f'{name}.log', folder / f'{name}.json'
    found.unlink(missing_ok=True)
    options = ['--quick'] if quick else []
    date = datetime.now().astimezone().isoformat(timespec='minutes')
    busy, began = os.getloadavg()[0], time.monotonic()
    files = ['--json', str(found), *([] if page is None else ['--markdown', str(page)])]
    failure = _call([sys.executable, str(program), *options, *files], limit_s, log)
    report: Report | None = None
    if found.exists():
        try:
            report = Report.from_dict(json.loads(found.read_text(encoding='utf-8')))
        except (ValueError, KeyError, TypeError) as error:
            failure = f'expected a report in {found.name}, got something else: {error!r}'
        else:
            failure = failure if report.passed else 'a bound was exceeded'
    return Entry(
        name=name,
        measures=measures(program),
        command=' '.join(['./so101 bench', name, *options]),
        date=date,
        machine=machine(),
        load=round(busy, 2),
        seconds=round(time.monotonic() - began, 1),
        failure=failure,
        report=report,
    )


def _call(words: Sequence[str], limit_s: float, log: Path) -> str:
    """Run a program into a log; return why it failed, or nothing."""
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    with log.open('w', encoding='utf-8') as file:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # so that its programs can be ended with it
        )
        try:
            code = process.wait(limit_s)
            reason = f'exit code {code}' if code else ''
        except subprocess.TimeoutExpired:
            reason = f'not done within {limit_s:.0f} s'
        finally:
            _end(process)
    if not reason:
        return ''
    lines = [line.strip() for line in log.read_text(encoding='utf-8', errors='replace').splitlines()]
    said = next((line for line in reversed(lines) if line), 'nothing')
    return f'{reason}; its last line: {said[:300]}'


def _end(process: 'subprocess.Popen[bytes]') -> None:
    """End a program and whatever it has started: as Ctrl-C does, by force after a while."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def load(path: Path) -> dict[str, Entry]:
    """Return the entries of an earlier run by name; none where there was none."""
    if not path.exists():
        return {}
    found = (Entry.from_dict(one) for one in json.loads(path.read_text(encoding='utf-8'))['benches'])
    return {entry.name: entry for entry in found}


def save(entries: Mapping[str, Entry], folder: Path) -> None:
    """Write the page and the data, in the order of the benches."""
    order = [name for name in LIMITS_S if name in entries]
    kept = [entries[name] for name in (*order, *sorted(set(entries) - set(order)))]
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({'benches': [entry.as_dict() for entry in kept]}, indent=1, allow_nan=False)
    (folder / 'benchmarks.json').write_text(text + '\n', encoding='utf-8')
    (folder / 'benchmarks.md').write_text(render(kept), encoding='utf-8')


def verdict(entry: Entry) -> str:
    """Return what came of a bench in a few words."""
    if entry.report is None:
        return f'failed: {entry.failure}'
    head = entry.report.rows[0]
    beside = f', ratio {shown(head.ratio)} beside {head.peer}' if head.ratio else ''
    return f'{head.name} {shown(head.value)} {head.unit}{beside}' + (
        f'; {entry.failure}' if entry.failure else ''
    )


def main() -> int:
    """Command line; the exit code is 1 if a bench failed."""
    parser = argparse.ArgumentParser(
        prog='so101 bench all', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--only', nargs='+', metavar='NAME', choices=tuple(LIMITS_S), help='only these benches'
    )
    parser.add_argument('--quick', action='store_true', help='measure little, for a look')
    parser.add_argument('--list', action='store_true', help='say what there is, and stop')
    parser.add_argument('--out', type=Path, help='folder for the page and the data (default: docs)')
    options = parser.parse_args()
    programs = {name: Path(__file__).with_name(f'bench_{name}.py') for name in options.only or LIMITS_S}
    if options.list:
        print('\n'.join(f'{name:<16} {measures(program)}' for name, program in programs.items()))
        return 0
    scratch = ROOT / '.bench' / ('quick' if options.quick else 'full')
    out = options.out or (scratch if options.quick else ROOT / 'docs')
    entries = load(out / 'benchmarks.json') if options.only else {}
    began, done = time.monotonic(), []
    for number, (name, program) in enumerate(programs.items(), 1):
        print(f'{number:>2}/{len(programs)} {name:<16}', end=' ', flush=True)
        page = out / PAGES[name] if name in PAGES and not options.quick else None
        entry = run(program, LIMITS_S[name], scratch, quick=options.quick, page=page)
        print(f'{entry.seconds:6.0f} s  {verdict(entry)}', flush=True)
        done.append(entry)
        entries[name] = entry
        save(entries, out)  # what is done stays, whatever happens next
    failed = [entry.name for entry in done if entry.failure]
    minutes = (time.monotonic() - began) / 60.0
    print(f'{len(done)} benches in {minutes:.1f} minutes, {len(failed)} failed; see {out / "benchmarks.md"}')
    return 1 if failed else 0


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the bench that runs, too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit('interrupted; the benches that were done are written down')
