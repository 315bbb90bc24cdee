# SPDX-License-Identifier: Apache-2.0
"""Learning curves: success against environment steps, one line per kind of run with a band over its seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hilserl_learner.errors import LearnerError
from hilserl_learner.run_dir import CONFIG, read_config
from hilserl_learner.run_log import EVALUATION, read_table, TRAIN

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
    x = np.array([float(row[over]) * scale for row in rows])
    return Curve(x, np.array([float(row[panel.column]) for row in rows]))


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
    parts = [
        config['env'].removeprefix('SO101').removesuffix('-v0').lower(),
        config['preset'],
        config['agent'],
    ]
    parts += [f'{config["demos"]} demos' if config['demos'].isdigit() else 'recorded demos']
    parts += [] if config['operator'] == 'scripted' else ['no interventions']
    parts += ['warm start'] if config['policy'] else []
    parts += [f'{name} {value}' for name, value in sorted(config['agent_options'].items())]
    return ', '.join(parts)


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
