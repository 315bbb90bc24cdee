# SPDX-License-Identifier: Apache-2.0
"""Measure what imitation gives: alone, through a LeRobot dataset, and as the beginning of learning with a human.

For each seed, every line a command of the README, in a process of its own:

1. 50 scripted demonstrations on `wide`, and `bc` of them
2. the same demonstrations as a LeRobot v3.0 dataset with AV1 video, read again, and `bc` of those
3. `bc` for any table and light, and on `gap`, with the same human: learning that begins with that policy, and learning
   that begins with nothing
"""

import argparse
from collections.abc import Iterable, Sequence
import json
from pathlib import Path
import subprocess
import sys

from hilserl_learner.cli.plot import draw
from so101_contract.interval import wilson

DEMOS, UPDATES, STEPS, EPISODES = '50', '3000', '4000', '100'
ONLY_DEMOS = ('start_steps=100000', 'eval_every=0', 'final_episodes=0')
"""Settings of a run that collects demonstrations and ends."""
ANY = ('table_randomization=0.75', 'color_jitter=1')
"""Settings of imitation that is to work at another table and lamp, too."""
CURVE = ('eval_every=500', 'eval_episodes=40')

TRAIN, OFFLINE, EVAL = 'hilserl_learner.cli.train', 'hilserl_learner.cli.offline', 'hilserl_learner.cli.eval'
EXPORT, INGEST = 'hilserl_learner.cli.export', 'hilserl_learner.ingest.cli'
BEGUN, NOTHING = 'begins with the policy of bc', 'begins with nothing'


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--runs', type=Path, default=Path('runs/imitation'), help='where all lies (%(default)s)'
    )
    parser.add_argument('--seeds', type=int, default=3, help='how many (default: %(default)s)')
    parser.add_argument('--png', type=Path, help='draw the curves on gap there')
    options = parser.parse_args(argv)
    options.runs.mkdir(parents=True, exist_ok=True)
    seeds = range(options.seeds)
    for seed in seeds:
        imitate(options.runs, seed)
    for seed in seeds:
        learn(options.runs, seed)
    print(table_of(options.runs, seeds))
    if options.png is not None:
        groups = {
            BEGUN: [options.runs / f'gap_bc_{seed}' for seed in seeds],
            NOTHING: [options.runs / f'gap_nothing_{seed}' for seed in seeds],
        }
        draw(groups, options.png)
    return 0


def imitate(runs: Path, seed: int) -> None:
    """Demonstrate and imitate, directly and by way of a dataset."""
    demos, dataset, again = (runs / f'{name}_{seed}' for name in ('demos', 'dataset', 'again'))
    words = [TRAIN, '--preset', 'wide', '--operator', 'none', '--demos', DEMOS, '--steps', '1']
    run(demos, [*words, *settings(ONLY_DEMOS), '--seed', seed, '--out', demos])
    run(dataset, [EXPORT, demos / 'buffer', '--video', 'av1', '--out', dataset])
    run(again, [INGEST, dataset, '--out', again])
    ways: tuple[tuple[str, Path, Sequence[str]], ...] = (
        ('bc', demos / 'buffer', ()),
        ('bc_again', again, ()),
        ('bc_any', demos / 'buffer', ANY),
    )
    for name, buffer, values in ways:
        out = runs / f'{name}_{seed}'
        words = [OFFLINE, buffer, '--agent', 'bc', '--updates', UPDATES, *settings(values)]
        run(out, [*words, '--seed', seed, '--out', out])
        for preset in ('wide', 'gap'):
            tried = [EVAL, out / 'policy', '--preset', preset, '--episodes', EPISODES]
            run(runs / f'{name}_{seed}_{preset}', tried)


def learn(runs: Path, seed: int) -> None:
    """Learn on `gap` with a human, from the imitated policy and from nothing."""
    words = [TRAIN, '--preset', 'gap', '--demos', '5', '--steps', STEPS, '--seed', seed, *settings(CURVE)]
    begun, nothing = runs / f'gap_bc_{seed}', runs / f'gap_nothing_{seed}'
    run(begun, [*words, '--policy', runs / f'bc_any_{seed}' / 'policy', '--out', begun])
    run(nothing, [*words, '--out', nothing])


def settings(values: Iterable[str]) -> list[str]:
    """Return the arguments that set some values."""
    return [word for value in values for word in ('--set', value)]


def report_path(out: Path) -> Path:
    """Return where the last line lies that a command printed."""
    return out.parent / f'{out.name}.json'


def run(out: Path, words: Iterable[object]) -> None:
    """Run a command, unless that has been done, and keep the last line that it prints."""
    if report_path(out).exists():
        return
    command = [sys.executable, '-m', *map(str, words)]
    if command[2] in (TRAIN, OFFLINE, EVAL):
        command.append('--json')
    print(' '.join(command[2:]), file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    last = (done.stdout.splitlines() or ['{}'])[-1]
    report_path(out).write_text(f'{last}\n')


def table_of(runs: Path, seeds: Sequence[int]) -> str:
    """Return one line for each way, all seeds together."""
    rows = (
        ('`wide`', 'bc of 50 demonstrations', 'bc_{}_wide'),
        ('`wide`', 'bc of the same, read from a dataset with AV1 video', 'bc_again_{}_wide'),
        ('`wide`', 'bc for any table and light', 'bc_any_{}_wide'),
        ('`gap`', 'bc of 50 demonstrations', 'bc_{}_gap'),
        ('`gap`', 'bc for any table and light', 'bc_any_{}_gap'),
        ('`gap`', f'{NOTHING}, {STEPS} steps', 'gap_nothing_{}'),
        ('`gap`', f'{BEGUN}, {STEPS} steps', 'gap_bc_{}'),
    )
    lines = ['| preset | policy | success of each seed | together |', '|---|---|---|---|']
    for preset, says, name in rows:
        reports = [json.loads(report_path(runs / name.format(seed)).read_text()) for seed in seeds]
        counts = [round(report['success'] * report['episodes']) for report in reports]
        episodes = sum(report['episodes'] for report in reports)
        low, high = wilson(sum(counts), episodes)
        each = ', '.join(map(str, counts))
        lines.append(
            f'| {preset} | {says} | {each} | {sum(counts)} of {episodes} ({low:.0%} to {high:.0%}) |'
        )
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
