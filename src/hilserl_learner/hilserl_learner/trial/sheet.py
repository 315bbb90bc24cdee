# SPDX-License-Identifier: Apache-2.0
"""The sheet under the object: every place of a plan in its true size, to be printed and laid before the arm.

A4 across, drawn to scale; a ruler of 100 mm tells whether the printer has kept it.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hilserl_learner.errors import LearnerError
from hilserl_learner.trial.protocol import Place, Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE_M = (0.297, 0.210)
MARGIN_M = 0.012
MARK_M = 0.015
"""Edge of the square that is drawn at a place [m]; an object of another size is laid with its middle there."""
INCH_M = 0.0254


def draw_sheet(plan: Plan, path: Path) -> None:
    """Write the sheet as PDF.

    Page and base frame: the arm stands at the lower edge, x points up the page, y to the left.

    Raises:
        LearnerError: the area is larger than the page.
    """
    # Here: matplotlib takes a second, and most trials need no sheet.
    import matplotlib as mpl

    mpl.use('Agg')
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    x0, x1, y0, y1 = plan.area
    width, height = PAGE_M
    if y1 - y0 > width - 2 * MARGIN_M or x1 - x0 > height - 4 * MARGIN_M:
        raise LearnerError(
            f'expected an area of at most {width - 2 * MARGIN_M:.2f} m across and {height - 4 * MARGIN_M:.2f} m deep, '
            f'which a sheet of A4 holds, got {y1 - y0:.2f} m and {x1 - x0:.2f} m; take a smaller --area'
        )
    figure = pyplot.figure(figsize=(width / INCH_M, height / INCH_M))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    middle = (y0 + y1) / 2.0
    low = x0 - 3 * MARGIN_M
    axes.set_xlim(middle + width / 2.0, middle - width / 2.0)  # y grows to the left
    axes.set_ylim(low, low + height)
    axes.axis('off')
    axes.add_patch(Rectangle((y0, x0), y1 - y0, x1 - x0, fill=False, lw=0.4, ls='--'))
    for number, place in enumerate(plan.places, start=1):
        axes.plot(*zip(*_square(place), strict=True), color='0.45', lw=0.6)
        axes.annotate(str(number), (place.y, place.x), ha='center', va='center', fontsize=7)
    _scale(axes, plan, low)
    figure.savefig(path, format='pdf')
    pyplot.close(figure)


def _scale(axes: 'Axes', plan: Plan, low: float) -> None:
    """Draw a ruler, where the arm is, and what to do."""
    x0, _, y0, y1 = plan.area
    middle, at = (y0 + y1) / 2.0, low + 1.2 * MARGIN_M
    draw, write = axes.plot, axes.annotate
    draw((middle + 0.05, middle - 0.05), (at, at), color='black', lw=0.8)
    for end in (middle + 0.05, middle - 0.05):
        draw((end, end), (at - 0.002, at + 0.002), color='black', lw=0.8)
    write('100 mm if printed at 100 %', (middle, at + 0.002), ha='center', va='bottom', fontsize=7)
    said = f'The nearest dashed edge is {x0 * 1000:.0f} mm before the axis of the base; the cross is in line with it.'
    write(said, (middle, at - 0.004), ha='center', va='top', fontsize=7)
    if y0 <= 0.0 <= y1:
        draw((0.0,), (x0,), marker='+', color='black')


def _square(place: Place) -> list[tuple[float, float]]:
    """Return the corners of a mark as (y, x), closed, turned as the object shall be."""
    corners = []
    for quarter in range(5):
        angle = place.yaw + math.pi / 4.0 + quarter * math.pi / 2.0
        reach = MARK_M / math.sqrt(2.0)
        corners.append((place.y + reach * math.sin(angle), place.x + reach * math.cos(angle)))
    return corners
