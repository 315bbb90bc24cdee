# SPDX-License-Identifier: Apache-2.0
"""`./so101 plot RUN...`: learning curves, success against environment steps.

One line per kind of run with a band over its seeds. For `./so101 eval` it draws where the cube lay when a policy
succeeded.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
import sys

import numpy as np
import numpy.typing as npt

from hilserl_learner.errors import LearnerError
from hilserl_learner.training.evaluate import Evaluation
from hilserl_learner.training.log import EVALUATION, read_table, TRAIN
from hilserl_learner.training.settings import CONFIG, read_config

SUCCESS, FAILURE = '#2a9d8f', '#d1495b'

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Some number of one run over its steps.

    Attributes:
        x: environment steps, or minutes.
        y: the number.
    """

    x: FloatArray
    y: FloatArray


@dataclass(frozen=True)
class Panel:
    """One of the pictures side by side.

    Attributes:
        table: which table of the log.
        column: which column.
        title: over the picture.
        limit: largest value shown; None for what there is.
    """

    table: str
    column: str
    title: str
    limit: float | None = 1.0


PANELS = (
    Panel(EVALUATION, 'success', 'success alone, in evaluation'),
    Panel(TRAIN, 'unaided', 'training episodes without help'),
    Panel(TRAIN, 'intervention', 'share of steps with help'),
)


def read_curve(run: Path, panel: Panel, *, minutes: bool = False) -> Curve:
    """Return one number of a run; lines that lack it are left out.

    Args:
        run: its directory.
        panel: which number.
        minutes: over the time spent learning instead of steps.

    Raises:
        LearnerError: the run has no such table.
    """
    rows = [row for row in read_table(run / f'{panel.table}.csv') if row.get(panel.column)]
    if not rows:
        raise LearnerError(
            f'expected a run with {panel.table}.csv and a column {panel.column} in {run}, got none; name the '
            f'directory that train wrote'
        )
    over, scale = ('wall_s', 1.0 / 60.0) if minutes else ('steps', 1.0)
    try:
        x = np.array([float(row[over]) * scale for row in rows])
        return Curve(x, np.array([float(row[panel.column]) for row in rows]))
    except (KeyError, TypeError, ValueError) as error:
        raise LearnerError(
            f'expected numbers as {over} and {panel.column} in {run / panel.table}.csv, got {error}; restore the file'
        ) from error


def band(curves: Sequence[Curve], points: int = 200) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return x, mean, lowest and highest of several runs, as far as the shortest of them goes."""
    start, end = max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)
    x = np.linspace(start, end, points)
    rows = np.array([np.interp(x, curve.x, curve.y) for curve in curves])
    return x, rows.mean(axis=0), rows.min(axis=0), rows.max(axis=0)


def label_of(run: Path) -> str:
    """Return what a run is called in the picture: what was varied, without its seed."""
    if not (run / CONFIG).exists():
        return run.name
    config = read_config(run)
    names, options = ('env', 'preset', 'agent', 'demos', 'operator', 'policy'), config.get('agent_options')
    said = {name: value for name in names if isinstance(value := config.get(name), str)}
    if len(said) < len(names) or not isinstance(options, dict):
        raise LearnerError(
            f'expected {", ".join(names)} as texts and agent_options in {run / CONFIG}, got {config!r:.300}; '
            f'restore the file'
        )
    parts = [said['env'].removeprefix('SO101').removesuffix('-v0').lower(), said['preset'], said['agent']]
    parts += [f'{said["demos"]} demos' if said['demos'].isdigit() else 'recorded demos']
    parts += [] if said['operator'] == 'scripted' else ['no interventions']
    parts += ['warm start'] if said['policy'] else []
    parts += [f'{name} {value}' for name, value in sorted(options.items())]
    return _printable(', '.join(parts))


def _printable(text: str) -> str:
    """Return a text as a picture can show it: without what no font has, and not endless."""
    return ''.join(letter if letter.isprintable() else '?' for letter in text[:200])


def grouped(runs: Sequence[Path], labels: Mapping[Path, str] | None = None) -> dict[str, list[Path]]:
    """Return the runs by label, in the order in which the labels first come."""
    groups: dict[str, list[Path]] = {}
    for run in runs:
        groups.setdefault((labels or {}).get(run) or label_of(run), []).append(run)
    return groups


def draw(groups: Mapping[str, Sequence[Path]], path: Path, *, title: str = '', minutes: bool = False) -> None:
    """Write the curves as PNG.

    Args:
        groups: runs that differ only in their seed, by label.
        path: of the picture.
        title: over everything.
        minutes: draw over the time spent learning instead of steps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(PANELS), 4.2), layout='constrained')
    FigureCanvasAgg(figure)
    for place, panel in enumerate(PANELS):
        axes = figure.add_subplot(1, len(PANELS), place + 1)
        for number, (label, runs) in enumerate(groups.items()):
            curves = [read_curve(run, panel, minutes=minutes) for run in runs]
            x, mean, low, high = band(curves)
            colour = f'C{number % 10}'
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(x, mean, color=colour, label=f'{label} ({len(runs)} seed{"s" * (len(runs) > 1)})')
        axes.set(title=panel.title, xlabel='minutes' if minutes else 'environment steps')
        axes.set_ylim(0.0, None if panel.limit is None else panel.limit * 1.02)
        axes.set_xlim(left=0.0)
        axes.grid(alpha=0.3)
        if place == 0:
            axes.legend(fontsize=7, loc='lower right')
    if title:
        figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def draw_map(result: Evaluation, path: Path, title: str) -> None:
    """Write a picture of where the cube lay when a policy succeeded, and when it did not, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.5), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    low, high = result.interval
    for wanted, colour, marker, label in ((True, SUCCESS, 'o', 'success'), (False, FAILURE, 'X', 'failure')):
        points = [outcome.cube for outcome in result.outcomes if outcome.success is wanted]
        axes.scatter(
            [-y for _, y in points], [x for x, _ in points], c=colour, marker=marker, s=36, label=label
        )
    axes.set(xlabel='to the right of the base [m]', ylabel='in front of the base [m]', aspect='equal')
    axes.set_title(f'{title}\n{result.rate:.0%} of {result.episodes} (95 %: {low:.0%} to {high:.0%})', size=9)
    axes.grid(alpha=0.3)
    axes.legend(loc='upper right', fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the curves of some runs."""
    parser = argparse.ArgumentParser(
        prog='so101 plot',
        description='Draw learning curves. Runs that differ only in their seed become one line with a band.',
    )
    parser.add_argument('runs', type=Path, nargs='+', help='run directories of so101 train')
    parser.add_argument('--out', type=Path, required=True, help='PNG to write')
    parser.add_argument('--title', default='', help='over the picture')
    parser.add_argument(
        '--minutes', action='store_true', help='over the time spent learning instead of steps'
    )
    parser.add_argument(
        '--label',
        action='append',
        default=[],
        metavar='NAME',
        help='names, one per run, instead of its settings',
    )
    options = parser.parse_args(argv)
    if options.label and len(options.label) != len(options.runs):
        parser.error(
            f'expected one --label for each of the {len(options.runs)} runs, got {len(options.label)}; '
            f'runs with the same label are drawn as one line'
        )
    labels = dict(zip(options.runs, options.label, strict=True)) if options.label else None
    try:
        draw(grouped(options.runs, labels), options.out, title=options.title, minutes=options.minutes)
    except (ValueError, OSError) as error:
        print(f'so101 plot: {error}', file=sys.stderr)
        return 1
    print(options.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
