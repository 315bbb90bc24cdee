# SPDX-License-Identifier: Apache-2.0
"""`python -m hilserl_learner.results_cli`: make the learning figures of docs/results.md again."""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import shutil
import subprocess
import sys

from hilserl_learner.cli.plot import draw
from hilserl_learner.experiments import Experiment, EXPERIMENTS
from hilserl_learner.training.log import EVALUATION, TRAIN
from hilserl_learner.training.run import CONFIG

REPORT = 'report.json'
BEGIN, END = '<!-- figures -->', '<!-- end -->'


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, draw, and write the table."""
    names = [experiment.name for experiment in EXPERIMENTS]
    parser = argparse.ArgumentParser(
        prog='python -m hilserl_learner.results_cli',
        description='Train every experiment of docs/results.md, one run after the other, and write tables, pictures '
        'and CSV. Finished runs are kept, interrupted ones go on.',
    )
    parser.add_argument(
        '--runs', type=Path, default=Path('runs/results'), help='where runs lie (%(default)s)'
    )
    parser.add_argument('--only', nargs='*', choices=names, default=names, help='which experiments')
    parser.add_argument(
        '--seeds', type=int, default=3, help='at most so many seeds each (default: %(default)s)'
    )
    parser.add_argument(
        '--page', type=Path, default=Path('docs/results.md'), help='page to write (%(default)s)'
    )
    parser.add_argument('--draw-only', action='store_true', help='train nothing; write up what there is')
    options = parser.parse_args(argv)
    chosen = [experiment for experiment in EXPERIMENTS if experiment.name in options.only]
    for experiment in () if options.draw_only else chosen:
        for seed in range(min(experiment.seeds, options.seeds)):
            if not train(experiment, seed, options.runs):
                return 1
    write_up(options.runs, options.page)
    return 0


def run_path(runs: Path, name: str, seed: int) -> Path:
    """Return where a run lies."""
    return runs / f'{name}_{seed}'


def train(experiment: Experiment, seed: int, runs: Path) -> bool:
    """Train one run to its end in a process of its own; return whether it got there."""
    out = run_path(runs, experiment.name, seed)
    if (out / REPORT).exists():
        return True
    policy = ''
    if experiment.begins_with:
        policy = str(run_path(runs, experiment.begins_with, seed) / 'best')
    words = [sys.executable, '-m', 'hilserl_learner.cli.train', *experiment.arguments(seed, str(out), policy)]
    if (out / CONFIG).exists():
        words.append('--resume')
    print(f'{experiment.name}, seed {seed}', file=sys.stderr)
    ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode == 0:
        (out / REPORT).write_text(ended.stdout.splitlines()[-1] + '\n')
    return ended.returncode == 0


def write_up(runs: Path, page: Path) -> None:
    """Write pictures and tables next to the page, and the figures into it.

    Tables that lie there from earlier runs stay, until the run is made again.
    """
    folder = page.parent / page.stem
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, list[Path]]] = {}
    for experiment in EXPERIMENTS:
        for seed in range(experiment.seeds):
            keep(run_path(runs, experiment.name, seed), folder)
        if paths := kept(experiment, folder):
            figures.setdefault(experiment.figure, {})[experiment.says] = paths
    if 'ablation' in figures and 'lift' in figures:
        easy = EXPERIMENTS[0].says
        figures['ablation'] = {easy: figures['lift'][easy], **figures['ablation']}
    lines = [table_of(folder)]
    for name, groups in figures.items():
        draw(groups, folder / f'{name}.png')
        lines.append(f'![{name}]({page.stem}/{name}.png)\n')
    text = page.read_text() if page.exists() else f'{BEGIN}\n{END}\n'
    before, _, rest = text.partition(BEGIN)
    page.write_text(f'{before}{BEGIN}\n\n' + '\n'.join(lines) + f'\n{END}{rest.partition(END)[2]}')


def keep(run: Path, folder: Path) -> None:
    """Copy the tables and the report of a finished run; nothing of a run that has not come to its end."""
    if not (run / REPORT).exists():
        return
    copy = folder / run.name
    copy.mkdir(exist_ok=True)
    for table in (EVALUATION, TRAIN):
        shutil.copyfile(run / f'{table}.csv', copy / f'{table}.csv')
    report = json.loads((run / REPORT).read_text())
    del report['policy']  # a path of the machine that it was made on
    (copy / REPORT).write_text(json.dumps(report) + '\n')


def kept(experiment: Experiment, folder: Path) -> list[Path]:
    """Return where the tables of an experiment's finished runs lie."""
    paths = (run_path(folder, experiment.name, seed) for seed in range(experiment.seeds))
    return [path for path in paths if (path / REPORT).exists()]


def table_of(folder: Path) -> str:
    """Return one line per finished run."""
    lines = [
        '| experiment | seed | steps | success over the last evaluation | mean steps | minutes | minutes of CPU |',
        '|---|---|---|---|---|---|---|',
    ]
    for experiment in EXPERIMENTS:
        for path in kept(experiment, folder):
            report = json.loads((path / REPORT).read_text())
            low, high = report['interval']
            steps = '' if report['mean_steps'] is None else f'{report["mean_steps"]:.1f}'
            lines.append(
                f'| {experiment.says} | {report["seed"]} | {report["steps"]} | {report["success"]:.0%} of '
                f'{report["episodes"]} ({low:.0%} to {high:.0%}) | {steps} | '
                f'{report["wall_s"] / 60:.1f} | {report["cpu_s"] / 60:.1f} |'
            )
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
