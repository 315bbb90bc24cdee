# SPDX-License-Identifier: Apache-2.0
"""Shows that one seed gives the same bits, pictures included: `python tools/check_bits.py --pairs 100`.

Environments of several presets are made, used, kept beside each other and closed, in several processes; whenever two
of them ran with the same preset and seed, their states, pictures and rewards are compared. The last line is a JSON
object.
"""

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
import hashlib
import json
import multiprocessing
import sys

import numpy as np
from rich.console import Console
from rich.progress import Progress

from so101_sim.env import ArmEnv

PRESETS = ('easy', 'wide', 'gap', 'pick101')
SEEDS = 2
STEPS = 25
ALIVE = 3
"""Environments that exist at the same time in a process."""

Run = tuple[str, int]
Prints = dict[str, str]


def fingerprint(env: ArmEnv, seed: int, steps: int = STEPS) -> Prints:
    """Return one hash each of the states, pictures and rewards of a run of random actions."""
    observation, _ = env.reset(seed=seed)
    digests = {name: hashlib.sha256() for name in (*observation, 'reward')}
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for name, value in observation.items():
            digests[name].update(value.tobytes())
        action = rng.uniform(-1.0, 1.0, 4).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        digests['reward'].update(np.float64(reward).tobytes())
        if terminated or truncated:
            observation, _ = env.reset()
    return {name: digest.hexdigest() for name, digest in digests.items()}


def work(number: int, runs: int) -> list[tuple[Run, Prints]]:
    """Do some runs in this process, in an order of its own."""
    rng = np.random.default_rng(number)
    alive: list[ArmEnv] = []
    found = []
    for _ in range(runs):
        alive.append(ArmEnv(preset=PRESETS[int(rng.integers(len(PRESETS)))]))
        env, seed = alive[int(rng.integers(len(alive)))], int(rng.integers(SEEDS))
        found.append(((env.preset.name, seed), fingerprint(env, seed)))
        if len(alive) > ALIVE:
            alive.pop(int(rng.integers(len(alive)))).close()
    for env in alive:
        env.close()
    return found


def differences(found: Sequence[tuple[Run, Prints]], first: Mapping[Run, Prints]) -> list[dict[str, object]]:
    """Return which runs differ from the first one of their kind, and in what."""
    differ = []
    for run, prints in found:
        parts = [name for name, value in prints.items() if first[run][name] != value]
        if parts:
            differ.append({'preset': run[0], 'seed': run[1], 'differs': parts})
    return differ


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print; 1 where two runs differ."""
    parser = argparse.ArgumentParser(prog='python tools/check_bits.py', description=__doc__)
    parser.add_argument('--pairs', type=int, default=100, help='runs that are compared with an earlier one')
    parser.add_argument('--processes', type=int, default=10, help='processes, one after the other')
    options = parser.parse_args(arguments)
    kinds = len(PRESETS) * SEEDS
    runs = -(-(options.pairs + kinds) // options.processes)
    found: list[tuple[Run, Prints]] = []
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task('processes', total=options.processes)
        for number in range(options.processes):
            context = multiprocessing.get_context('spawn')
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                found += pool.submit(work, number, runs).result()
            progress.advance(bar)
    first = dict(reversed(found))
    differ = differences(found, first)
    report = {
        'name': 'bits',
        'value': len(differ),
        'unit': 'runs that differ from an earlier one with the same preset and seed',
        'n': len(found) - len(first),
        'processes': options.processes,
        'differ': differ,
    }
    sys.stdout.write(json.dumps(report) + '\n')
    return 1 if differ else 0


if __name__ == '__main__':
    sys.exit(main())
