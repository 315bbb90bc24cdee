# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics beside mink, PlaCo and a damped-least-squares loop on Pinocchio.

One thousand random reachable TCP positions and as many random seeds, the same for all, anywhere within the
joint limits. Each solver runs in a process of its own and gets the targets in blocks, in turn with the
others, so that a busy machine slows all of them alike. Whether a target was reached is judged here, for all,
by one forward kinematics: within 0.5 mm, with the joints brought within their limits. "Time per target
reached" is all the time a solver took, restarts and failures included, over the targets that it reached.
"Travel" is how far the joints are from the seed in the middle case.

The peers are installed into .bench/ik on the first run.
"""

import argparse
from collections.abc import Iterator
import contextlib
from importlib.metadata import version
import json
import os
from pathlib import Path
import platform
import subprocess
import sys
import tempfile
from typing import Any
import venv
from xml.etree import ElementTree

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.bench' / 'ik'
WORKER = Path(__file__).resolve().parent / 'peers_ik.py'
SOURCES = ('so101_interfaces', 'so101_contract', 'so101_description', 'so101_kinematics')
REQUIREMENTS = ('mink==1.3.0', 'daqp==0.11.0', 'mujoco==4.0.0', 'placo==0.10.2', 'pin==3.8.0', 'numpy<3')
SOLVERS = ('ours', 'mink', 'placo', 'pinocchio')
TOLERANCE_M = 5e-4
BLOCK = 25
WARM_UP = 25

sys.path[:0] = [str(ROOT / 'src' / name) for name in SOURCES]

Numbers = dict[str, Any]


def run(n: int = 1000, seed: int = 0) -> dict[str, Numbers]:
    """Measure every solver on `n` targets and return its figures by name."""
    from so101_kinematics.fk import ForwardKinematics

    python = install_peers()
    fk = ForwardKinematics()
    rng = np.random.default_rng(seed)
    goals, seeds = rng.uniform(fk.lower, fk.upper, (2, n + WARM_UP, 5))
    targets = fk.positions(goals)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_models(Path(folder))
        workers = {
            name: stack.enter_context(worker(sys.executable if name == 'ours' else python, name, folder))
            for name in SOLVERS
        }
        answers: dict[str, list[Numbers]] = {name: [] for name in SOLVERS}
        for number, begin in enumerate(range(0, n + WARM_UP, BLOCK)):
            block = {
                'targets': targets[begin : begin + BLOCK].tolist(),
                'seeds': seeds[begin : begin + BLOCK].tolist(),
            }
            turn = number % len(SOLVERS)  # nobody is always the first after somebody else
            for name in SOLVERS[turn:] + SOLVERS[:turn]:
                answers[name].append(ask(workers[name], block))
        versions = {name: process.release for name, process in workers.items()}
    return {
        name: figures(fk, targets[WARM_UP:], seeds[WARM_UP:], answers[name][WARM_UP // BLOCK :])
        | {'version': versions[name]}
        for name in SOLVERS
    }


def figures(fk: Any, targets: Any, seeds: Any, blocks: list[Numbers]) -> Numbers:
    """Return success rate, times and joint travel of one solver."""
    q = np.concatenate([block['q'] for block in blocks])
    seconds = np.concatenate([block['seconds'] for block in blocks])
    within = np.clip(q, fk.lower, fk.upper)
    reached = np.linalg.norm(fk.positions(within) - targets, axis=1) <= TOLERANCE_M
    travel = np.linalg.norm(within - seeds, axis=1)[reached]
    return {
        'success': round(float(reached.mean()), 4),
        'median_us': round(1e6 * float(np.median(seconds)), 1),
        'p95_us': round(1e6 * float(np.percentile(seconds, 95)), 1),
        'per_reached_us': round(1e6 * float(seconds.sum() / max(1, reached.sum())), 1),
        'travel_rad': round(float(np.median(travel)), 3) if reached.any() else None,
    }


class Worker:
    """A solver's process."""

    def __init__(self, process: 'subprocess.Popen[str]', name: str) -> None:
        self.process = process
        self.name = name
        self.release = str(self.read()['version'])

    def read(self) -> Numbers:
        """Return the next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f'{self.name} ended with code {self.process.wait()}; its message is above')
        answer: Numbers = json.loads(line)
        return answer


@contextlib.contextmanager
def worker(python: str, name: str, folder: str) -> Iterator[Worker]:
    """Start a solver; it ends when its input does."""
    # Neither ROS's libraries nor more than one thread: the peers bring their own libraries.
    environment = {k: v for k, v in os.environ.items() if k not in ('LD_LIBRARY_PATH', 'PYTHONPATH')}
    environment |= dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    process = subprocess.Popen(
        [python, str(WORKER), name, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {'_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1'},
    )
    try:
        yield Worker(process, name)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)


def ask(solver: Worker, block: Numbers) -> Numbers:
    """Give a solver a block of targets and return what it makes of them."""
    assert solver.process.stdin is not None
    solver.process.stdin.write(json.dumps(block) + '\n')
    solver.process.stdin.flush()
    return solver.read()


def write_models(folder: Path) -> None:
    """Write the arm without its meshes, as MJCF and as URDF."""
    from so101_description.model import build_spec
    from so101_description.urdf import urdf_text

    (folder / 'arm.xml').write_text(build_spec(visuals='none', collision=False).to_xml())
    robot = ElementTree.fromstring(urdf_text())
    for link in robot.findall('link'):
        for shape in link.findall('visual') + link.findall('collision'):
            link.remove(shape)
    (folder / 'arm.urdf').write_text(ElementTree.tostring(robot, encoding='unicode'))


def install_peers() -> str:
    """Install the peers once, and return the Python that has them."""
    python = VENV / 'bin' / 'python'
    stamp = VENV / 'requirements.txt'
    wanted = '\n'.join(REQUIREMENTS)
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f'installing {", ".join(REQUIREMENTS)} into {VENV}', file=sys.stderr)
        venv.create(VENV, with_pip=True, clear=True)
        subprocess.run([python, '-m', 'pip', 'install', '-qq', *REQUIREMENTS], check=True)
        stamp.write_text(wanted)
    return str(python)


def print_table(results: dict[str, Numbers], n: int) -> None:
    """Show the figures to people."""
    table = Table(title=f'{n} random reachable positions from random seeds, to {1e3 * TOLERANCE_M} mm')
    for column in ('', 'version', 'reached', 'median', '95 %', 'per target reached', 'times ours', 'travel'):
        table.add_column(column, justify='left' if column in ('', 'version') else 'right')
    ours = results['ours']['per_reached_us']
    for name, row in results.items():
        table.add_row(
            name,
            row['version'],
            f'{100 * row["success"]:.1f} %',
            f'{row["median_us"]:.0f} us',
            f'{row["p95_us"]:.0f} us',
            f'{row["per_reached_us"]:.0f} us',
            f'{row["per_reached_us"] / ours:.1f}',
            f'{row["travel_rad"]} rad',
        )
    Console(width=110).print(table)


def summary(results: dict[str, Numbers], n: int, seed: int) -> Numbers:
    """Return the headline: time per target reached, beside the fastest peer."""
    peer = min((name for name in SOLVERS if name != 'ours'), key=lambda name: results[name]['per_reached_us'])
    ours, theirs = results['ours']['per_reached_us'], results[peer]['per_reached_us']
    return {
        'name': 'ik',
        'value': ours,
        'unit': 'us per target reached',
        'peer': peer,
        'peer_value': theirs,
        'ratio': round(theirs / ours, 2),
        'n': n,
        'seed': seed,
        'solvers': results,
        'machine': {
            'processor': platform.machine(),
            'cores': os.cpu_count(),
            'python': platform.python_version(),
            'mujoco': version('mujoco'),
        },
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n\n')[0])
    parser.add_argument('--n', type=int, default=1000, help='number of targets (default 1000)')
    parser.add_argument('--seed', type=int, default=0, help='of the targets and seeds (default 0)')
    parser.add_argument('--json', type=Path, help='also write the last line to this file')
    arguments = parser.parse_args()
    if arguments.n < 1:
        parser.error(f'--n {arguments.n}: expected at least one target')
    results = run(arguments.n, arguments.seed)
    print_table(results, arguments.n)
    line = json.dumps(summary(results, arguments.n, arguments.seed))
    if arguments.json:
        arguments.json.write_text(line + '\n')
    print(line)


if __name__ == '__main__':
    main()
