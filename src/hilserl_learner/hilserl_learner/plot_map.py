# SPDX-License-Identifier: Apache-2.0
"""A picture of where the cube lay when a policy succeeded, and when it did not."""

from pathlib import Path

from hilserl_learner.training.evaluate import Evaluation

SUCCESS, FAILURE = '#2a9d8f', '#d1495b'


def draw_map(result: Evaluation, path: Path, title: str) -> None:
    """Write the picture as PNG."""
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
