# SPDX-License-Identifier: Apache-2.0
"""Make the learning figures again: train every experiment, and write tables, pictures and CSV.

What was reached comes into docs/results.md, one row for each kind of run; every run and every picture into
docs/notebook/learning.md.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

from hilserl_learner.cli.plot import draw
from hilserl_learner.training.log import EVALUATION, TRAIN
from hilserl_learner.training.settings import CONFIG
from so101_contract.interval import wilson

REPORT = 'report.json'
HEADLINE, FIGURES, END = '<!-- headline -->', '<!-- figures -->', '<!-- end -->'

LIFT, PLACE = 'SO101Lift-v0', 'SO101Place-v0'


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One kind of run.

    Attributes:
        name: short; names directories and files.
        says: what it is, for the table.
        steps: environment steps.
        options: arguments of `so101 train` by name, without dashes.
        values: what is given with --set.
        begins_with: another experiment, whose best policy of the same seed it begins with; empty for none.
        figure: the picture that its curves are in.
        seeds: how many there are.
    """

    name: str
    says: str
    steps: int
    options: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    begins_with: str = ''
    figure: str
    seeds: int = 3

    def arguments(self, seed: int, out: str, policy: str = '') -> list[str]:
        """Return the arguments of `so101 train` for one seed."""
        words = ['--steps', str(self.steps), '--seed', str(seed), '--out', out]
        for name, value in {'demos': '5', **self.options}.items():
            words += [f'--{name}', value]
        for name, value in self.values.items():
            words += ['--set', f'{name}={value}']
        return [*words, '--policy', policy] if policy else words


OFTEN, MANY = {'eval_every': '500'}, {'eval_episodes': '40'}

EXPERIMENTS = (
    Experiment(
        name='easy', says='lift, easy, 5 demonstrations, operator', steps=6000, values=OFTEN, figure='lift'
    ),
    Experiment(
        name='wide',
        says='lift, wide, 5 demonstrations, operator, any table and light',
        steps=9000,
        options={'preset': 'wide'},
        values={'table_randomization': '0.75', 'color_jitter': '1'},
        figure='lift',
    ),
    Experiment(
        name='wide_light',
        says='lift, wide, 5 demonstrations, operator, any light',
        steps=9000,
        options={'preset': 'wide'},
        values={'color_jitter': '1'},
        figure='lift',
    ),
    Experiment(
        name='place',
        says='place, easy, 5 demonstrations, operator',
        steps=4000,
        options={'env': PLACE},
        figure='place',
    ),
    Experiment(
        name='gap_scratch',
        says='lift, gap, from nothing',
        steps=8000,
        options={'preset': 'gap'},
        values=MANY,
        figure='gap',
    ),
    Experiment(
        name='gap_tuned',
        says='lift, gap, begins with the policy of wide',
        steps=8000,
        options={'preset': 'gap'},
        values=MANY,
        begins_with='wide',
        figure='gap',
    ),
    Experiment(
        name='gap_shipped',
        says='lift, gap, begins with the policy that is shipped',
        steps=6500,
        options={'preset': 'gap', 'policy': 'default'},
        values=MANY,
        figure='gap',
    ),
    Experiment(
        name='no_demos',
        says='lift, easy, no demonstrations, operator',
        steps=3000,
        options={'demos': '0'},
        values=OFTEN,
        figure='ablation',
    ),
    Experiment(
        name='no_operator',
        says='lift, easy, 5 demonstrations, nobody helps',
        steps=3000,
        options={'operator': 'none'},
        values=OFTEN,
        figure='ablation',
    ),
    Experiment(
        name='alone',
        says='lift, easy, neither demonstrations nor help',
        steps=3000,
        options={'demos': '0', 'operator': 'none'},
        values=OFTEN,
        figure='ablation',
        seeds=1,
    ),
    Experiment(
        name='sac',
        says='lift, easy, agent sac',
        steps=3000,
        options={'agent': 'sac'},
        values=OFTEN,
        figure='ablation',
    ),
    Experiment(
        name='faithful',
        says='lift, easy, agent faithful (DrQ-v2 as RoboBase has it)',
        steps=3000,
        options={'agent': 'faithful'},
        values=OFTEN,
        figure='ablation',
        seeds=1,
    ),
    Experiment(
        name='provoked',
        says='lift, easy, learning rate ten times too high',
        steps=3000,
        values={'learning_rate': '0.003', 'eval_every': '250'},
        figure='provoked',
        seeds=1,
    ),
    Experiment(
        name='long',
        says='lift, easy, five times as many steps',
        steps=30000,
        figure='long',
        seeds=1,
    ),
)
"""In the order in which they are run; what another one begins with comes before it."""

CLAIMS: Mapping[str, str] = {
    'easy': 'lift, `easy`: the cube within 3 cm of its place',
    'wide': 'lift, `wide`: within 7 cm and 45 degrees, any table and light',
    'place': 'place, `easy`: into a tray',
    'gap_shipped': 'lift, `gap`: an arm unlike the training, begun with the policy that is shipped',
}
"""The experiments of the headline, and what each shows."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, draw, and write the table."""
    names = [experiment.name for experiment in EXPERIMENTS]
    parser = argparse.ArgumentParser(
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
        '--page', type=Path, default=Path('docs/results.md'), help='page of the headline (%(default)s)'
    )
    parser.add_argument(
        '--notebook',
        type=Path,
        default=Path('docs/notebook/learning.md'),
        help='page of all figures (%(default)s)',
    )
    parser.add_argument('--draw-only', action='store_true', help='train nothing; write up what there is')
    options = parser.parse_args(argv)
    chosen = [experiment for experiment in EXPERIMENTS if experiment.name in options.only]
    for experiment in () if options.draw_only else chosen:
        for seed in range(min(experiment.seeds, options.seeds)):
            if not train(experiment, seed, options.runs):
                return 1
    write_up(options.runs, options.page, options.notebook)
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
    words = [sys.executable, '-m', 'hilserl_learner.cli.train', '--json']
    words += experiment.arguments(seed, str(out), policy)
    if (out / CONFIG).exists():
        words.append('--resume')
    print(f'{experiment.name}, seed {seed}', file=sys.stderr)
    ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode == 0:
        (out / REPORT).write_text(ended.stdout.splitlines()[-1] + '\n')
    return ended.returncode == 0


def write_up(runs: Path, page: Path, notebook: Path) -> None:
    """Write pictures and tables next to the page, what was reached into it, and all figures into the notebook.

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
        link = Path(os.path.relpath(folder, notebook.parent), f'{name}.png').as_posix()
        lines.append(f'![{name}]({link})\n')
    put_between(page, HEADLINE, headline_of(folder))
    put_between(notebook, FIGURES, '\n'.join(lines))


def put_between(page: Path, begin: str, text: str) -> None:
    """Write a text between a mark of a page and the end that follows it."""
    before, _, rest = (page.read_text() if page.exists() else f'{begin}\n{END}\n').partition(begin)
    page.write_text(f'{before}{begin}\n\n{text}\n{END}{rest.partition(END)[2]}')


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


def headline_of(folder: Path) -> str:
    """Return one line per kind of run, all its seeds together, and the commands that make one run of each."""
    lines = [
        '| task | seeds | steps | success | minutes of CPU, each |',
        '|---|---|---|---|---|',
    ]
    commands = []
    for experiment in EXPERIMENTS:
        paths = kept(experiment, folder)
        if experiment.name not in CLAIMS or not paths:
            continue
        reports = [json.loads((path / REPORT).read_text()) for path in paths]
        successes = sum(round(report['success'] * report['episodes']) for report in reports)
        episodes = sum(report['episodes'] for report in reports)
        low, high = wilson(successes, episodes)
        lines.append(
            f'| {CLAIMS[experiment.name]} | {len(reports)} | {between(report["steps"] for report in reports)} | '
            f'**{successes} of {episodes}** ({low:.1%} to {high:.1%}) | '
            f'{between(round(report["cpu_s"] / 60) for report in reports)} |'
        )
        seed = reports[0]['seed']
        words = experiment.arguments(seed, f'runs/{experiment.name}_{seed}')
        commands.append(f'    ./so101 train {" ".join(words)}')
    return '\n'.join([*lines, '', 'One run of each, in this order:', '', *commands]) + '\n'


def between(values: Iterable[int]) -> str:
    """Return the smallest and the largest of some values, or the one that they all are."""
    low, *_, high = sorted([*values] * 2)
    return str(low) if low == high else f'{low} to {high}'


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
