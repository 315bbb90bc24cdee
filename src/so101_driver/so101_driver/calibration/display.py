# SPDX-License-Identifier: Apache-2.0
"""What the user sees during a calibration: one live bar per joint, or plain lines on a dumb terminal."""

from collections.abc import Callable, Iterator
import contextlib
import os
import select
import sys
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from so101_driver.calibration.procedure import Calibrator, JointProgress, POSE_LIMIT_DEG

BAR_WIDTH = 33
PLAIN_INTERVAL_S = 2.0
"""How often a terminal without cursor control gets a new set of lines [s]."""


def bar(low: float, position: float, high: float, half_span: float, width: int = BAR_WIDTH) -> str:
    """Draw a range and where a joint stands in it: dots for what is still missing of +-`half_span`.

    Args:
        low: lowest position [any unit].
        position: present one, in the same unit.
        high: highest position.
        half_span: the bar shows -half_span..half_span.
        width: characters.
    """
    last = width - 1

    def column(value: float) -> int:
        return round(min(max((value + half_span) / (2 * half_span), 0.0), 1.0) * last)

    cells = ['=' if column(low) <= i <= column(high) else '.' for i in range(width)]
    cells[column(position)] = 'O'
    return ''.join(cells)


def sweep_line(joint: JointProgress, width: int = BAR_WIDTH) -> str:
    """Say how far one joint is: its bar, its least and greatest angle, its travel and what is missing."""
    drawn = bar(joint.low, joint.position, joint.high, joint.target / 2, width)
    state = 'done' if joint.done else joint.advice
    return (
        f'{joint.name:<13} [{drawn}] {joint.low:+5.0f} {joint.position:+5.0f} {joint.high:+5.0f} '
        f'{joint.travel:4.0f} of {joint.target:3.0f} deg  {state}'
    )


def sweep_lines(calibrator: Calibrator, columns: int) -> list[Text]:
    """Lines of the sweep, a heading and one per joint, for a terminal of so many columns."""
    width = min(max(columns - 2 * BAR_WIDTH - 12, BAR_WIDTH // 4), BAR_WIDTH)
    heading = f'{"joint":<13}  {"":<{width}}    min   pos   max      travel'
    lines = [Text(heading, style='bold')]
    for joint in calibrator.sweep.progress():
        lines.append(Text(sweep_line(joint, width), style='green' if joint.done else ''))
    return lines


def pose_lines(calibrator: Calibrator) -> list[Text]:
    """Lines of the middle pose: how far each joint is from its middle."""
    pose = calibrator.pose()
    lines = []
    for name, degrees in pose.from_middle_deg.items():
        good = abs(degrees) <= POSE_LIMIT_DEG
        drawn = bar(0, degrees, 0, 90)
        lines.append(Text(f'{name:<13} [{drawn}] {degrees:+6.0f} deg', style='green' if good else 'red'))
    lines.append(Text('held still' if pose.steady else 'moving', style='green' if pose.steady else ''))
    return lines


class Screen:
    """Shows lines that change, in place where the terminal can, else every two seconds."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        self._next = 0.0

    @property
    def columns(self) -> int:
        """Width of the terminal [characters]."""
        return self._console.width

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Context in which `show` draws over what it drew before."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=False) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def show(self, lines: list[Text], *, last: bool = False) -> None:
        """Show lines; those before `last` may be left out on a slow terminal."""
        now = self._clock()
        text = Text('\n', no_wrap=True, overflow='ellipsis').join(lines)
        if self._live is not None:
            if last or now >= self._next:
                self._next = now + 0.1
                self._live.update(text, refresh=True)
        elif last or now >= self._next:
            self._next = now + PLAIN_INTERVAL_S
            self._console.print(text, no_wrap=True, overflow='ellipsis')


def enter_pressed(stream: TextIO | None = None) -> bool:
    """Whether ENTER was pressed since the last call; never waits. False where nobody can."""
    source = sys.stdin if stream is None else stream
    try:
        descriptor = source.fileno()
        if not os.isatty(descriptor) or not select.select([descriptor], [], [], 0)[0]:
            return False
    except (OSError, ValueError):
        return False
    source.readline()
    return True
