# SPDX-License-Identifier: Apache-2.0
"""Measure what a base policy is worth to learning: on top of it, and from nothing, with the same human.

For each seed, every line a command of the README, in a process of its own:

1. 40 scripted demonstrations on a preset, and `bc` of them: a base that works about half of the time
2. learning on top of it, and from nothing, evaluated on the same episodes
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from imitation import OFFLINE, ONLY_DEMOS, run, settings, TRAIN

from hilserl_learner.training.log import EVALUATION, read_table

DEMOS, UPDATES, STEPS = '40', '2500', '3000'
CURVE = ('eval_every=500', 'eval_episodes=40')
ALONE = 0.95


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--runs', type=Path, default=Path('runs/on_base'), help='where all lies (%(default)s)'
    )
    parser.add_argument('--preset', default='wide', help='(default: %(default)s)')
    parser.add_argument('--seeds', type=int, default=3, help='how many (default: %(default)s)')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE', help='of learning on top')
    options = parser.parse_args(argv)
    options.runs.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        learn(options.runs, options.preset, seed, options.set)
        print(table_of(options.runs, options.preset, seed))
    return 0


def learn(runs: Path, preset: str, seed: int, values: Sequence[str]) -> None:
    """Make the base, and learn on top of it and from nothing."""
    demos, base, on_base, nothing = (
        runs / f'{name}_{preset}_{seed}' for name in ('demos', 'bc', 'on_bc', 'nothing')
    )
    words = [TRAIN, '--preset', preset, '--operator', 'none', '--demos', DEMOS, '--steps', '1']
    run(demos, [*words, *settings(ONLY_DEMOS), '--seed', seed, '--out', demos])
    words = [OFFLINE, demos / 'buffer', '--agent', 'bc', '--updates', UPDATES]
    run(base, [*words, '--seed', seed, '--out', base])
    words = [TRAIN, '--preset', preset, '--demos', '5', '--steps', STEPS, '--seed', seed, *settings(CURVE)]
    run(on_base, [*words, *settings(values), '--base', base / 'policy', '--out', on_base])
    run(nothing, [*words, '--out', nothing])


def table_of(runs: Path, preset: str, seed: int) -> str:
    """Return a line for each evaluation of a seed, and when both, and nothing, first came to 95 %."""
    on_base = read_table(runs / f'on_bc_{preset}_{seed}' / f'{EVALUATION}.csv')
    alone = {row['steps']: row for row in read_table(runs / f'nothing_{preset}_{seed}' / f'{EVALUATION}.csv')}
    lines = [
        f'`{preset}`, seed {seed}:',
        '',
        '| steps | base alone | both | actor alone | share tried | steps of the actor | from nothing |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in on_base:
        nothing = alone.get(row['steps'])
        numbers = [row[name] for name in ('base', 'success', 'actor', 'share', 'by_actor')]
        told = [*(f'{float(number):.0%}' for number in numbers), rate(nothing)]
        lines.append(f'| {row["steps"]} | {" | ".join(told)} |')
    firsts = [
        next((row['steps'] for row in rows if float(row['success']) >= ALONE), 'never')
        for rows in (on_base, list(alone.values()))
    ]
    return '\n'.join(
        [*lines, '', f'First at {ALONE:.0%}: both after {firsts[0]} steps, nothing after {firsts[1]}.']
    )


def rate(row: dict[str, str] | None) -> str:
    """Return the success of a line, where there is one."""
    return '' if row is None else f'{float(row["success"]):.0%}'


if __name__ == '__main__':
    sys.exit(main())
