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

import contextlib
from pathlib import Path
import sys
import tempfile
from typing import Any
from xml.etree import ElementTree

import numpy as np
from peers import in_venv
from processes import bare_environment, use_sources, Worker
from report import Parser, Report, Row

WORKER = Path(__file__).with_name('peers_ik.py')
REQUIREMENTS = ('mink==1.3.0', 'daqp==0.11.0', 'mujoco==4.0.0', 'placo==0.10.2', 'pin==3.8.0', 'numpy<3')
SOLVERS = ('ours', 'mink', 'placo', 'pinocchio')
TOLERANCE_M = 5e-4
BLOCK = 25
WARM_UP = 25

use_sources('so101_interfaces', 'so101_contract', 'so101_description', 'so101_kinematics')

Numbers = dict[str, Any]


def run(n: int, seed: int) -> dict[str, Numbers]:
    """Measure every solver on `n` targets and return what came of it by name."""
    from so101_kinematics.fk import ForwardKinematics

    python = in_venv('ik', REQUIREMENTS)
    fk = ForwardKinematics()
    rng = np.random.default_rng(seed)
    goals, seeds = rng.uniform(fk.lower, fk.upper, (2, n + WARM_UP, 5))
    targets = fk.positions(goals)
    bare = bare_environment()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_models(Path(folder))
        workers = {
            name: stack.enter_context(
                Worker(name, [sys.executable if name == 'ours' else python, WORKER, name, folder], bare)
            )
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
                answers[name].append(workers[name].ask(block))
        versions = {name: process.hello['version'] for name, process in workers.items()}
    return {
        name: judge(fk, targets[WARM_UP:], seeds[WARM_UP:], answers[name][WARM_UP // BLOCK :])
        | {'version': versions[name]}
        for name in SOLVERS
    }


def judge(fk: Any, targets: Any, seeds: Any, blocks: list[Numbers]) -> Numbers:
    """Return how many targets a solver reached, in what times, and how far the joints went."""
    q = np.concatenate([block['q'] for block in blocks])
    seconds = np.concatenate([block['seconds'] for block in blocks])
    within = np.clip(q, fk.lower, fk.upper)
    reached = np.linalg.norm(fk.positions(within) - targets, axis=1) <= TOLERANCE_M
    travel = np.linalg.norm(within - seeds, axis=1)[reached]
    return {
        'seconds': seconds.tolist(),
        'reached': float(reached.mean()),
        'per_reached_us': 1e6 * float(seconds.sum() / max(1, reached.sum())),
        'travel_rad': float(np.median(travel)) if reached.any() else float('nan'),
    }


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


def make_rows(found: dict[str, Numbers]) -> list[Row]:
    """Return the headline, time per target reached beside the fastest peer, and a row for each solver."""

    def title(name: str) -> str:
        return name if name == 'ours' else f'{name} {found[name]["version"]}'

    peers = [name for name in SOLVERS if name != 'ours']
    fastest = min(peers, key=lambda name: found[name]['per_reached_us'])
    ours, n = found['ours'], len(found['ours']['seconds'])
    head = Row('ours, failures included', 'us per target reached', n, ours['per_reached_us'])
    rows = [head.beside(f'{title(fastest)}, the fastest peer', found[fastest]['per_reached_us'])]
    for name, one in found.items():
        note = (
            f'{one["reached"]:.1%} reached, {one["per_reached_us"]:.0f} us per target reached, '
            f'travel {one["travel_rad"]:.2f} rad'
        )
        rows.append(Row.of(title(name), 'us', one['seconds'], 1e6, note))
    return rows


def main() -> int:
    """Run the benchmark from the command line."""
    parser = Parser(__doc__)
    parser.number('--n', 1000, 'targets', quick=100)
    parser.number('--seed', 0, 'of the targets and seeds')
    options = parser.parse_args()
    if options.n < 1:
        parser.error(f'--n {options.n}: expected at least one target')
    found = run(options.n, options.seed)
    versions = {name: one['version'] for name, one in found.items() if name != 'ours'}
    return Report('ik', make_rows(found), versions).finish(options)


if __name__ == '__main__':
    sys.exit(main())
