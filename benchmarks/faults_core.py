# SPDX-License-Identifier: Apache-2.0
"""What a row of the fault table is, how it is judged, and how the table is shown."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import math
import os
from pathlib import Path
import platform
from typing import Any, Generic, TypeVar

from report import Parser, Report, Row

RigT = TypeVar('RigT')


@dataclass(frozen=True)
class Bound:
    """What a measured value must not exceed, or must reach."""

    limit: float
    unit: str
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value keeps to it; NaN never does."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f'{"≥" if self.at_least else "≤"} {shown(self.limit, self.unit)}'


@dataclass
class Outcome:
    """What came of one fault.

    Attributes:
        value: The measured figure, in the unit of the bound.
        note: What else was seen.
        wrong: Each thing that is not as it should be.
    """

    value: float = math.nan
    note: str = ''
    wrong: list[str] = field(default_factory=list)

    def claim(self, holds: object, otherwise: str) -> None:
        """Note what is wrong unless a condition holds."""
        if not holds:
            self.wrong.append(otherwise)

    def refute(self, what: str) -> None:
        """Note what is wrong unless it is nothing."""
        self.claim(not what, what)


@dataclass(frozen=True)
class Fault(Generic[RigT]):
    """One row: a fault, what is expected of the software, and how that is measured.

    Attributes:
        id: Short name, for the command line and JSON.
        name: What goes wrong.
        inject: How it is provoked.
        expected: What must happen.
        bound: For the measured figure.
        measure: Provokes it on a healthy rig and fills in the outcome.
    """

    id: str
    name: str
    inject: str
    expected: str
    bound: Bound
    measure: Callable[[RigT, Outcome], None]

    def judge(self, rig: RigT) -> 'Result':
        """Provoke the fault and judge what came of it."""
        outcome = Outcome()
        try:
            self.measure(rig, outcome)
        except (
            OSError,
            RuntimeError,
            ValueError,
            IndexError,
        ) as error:  # one fault less must not cost the rest
            outcome.wrong.append(f'{type(error).__name__}: {error}')
        return Result(self, outcome)


@dataclass(frozen=True)
class Result:
    """A fault and what came of it."""

    fault: Fault[Any]
    outcome: Outcome

    @property
    def passed(self) -> bool:
        """Whether the value keeps to its bound and nothing else is wrong."""
        return self.fault.bound.holds(self.outcome.value) and not self.outcome.wrong

    @property
    def measured(self) -> str:
        """The figure for people."""
        return shown(self.outcome.value, self.fault.bound.unit)

    @property
    def remark(self) -> str:
        """What else there is to say, the wrong first."""
        return '; '.join([*(f'WRONG: {wrong}' for wrong in self.outcome.wrong), self.outcome.note]).strip(
            '; '
        )

    @property
    def row(self) -> Row:
        """The row of a report; what it is measured beside is its bound."""
        verdict = '' if self.passed else 'FAIL'
        note = '; '.join(filter(None, (verdict, f'bound {self.fault.bound}', self.remark)))
        bound = self.fault.bound
        row = Row(self.fault.name, bound.unit, 1, self.outcome.value, note=note)
        return row.beside('bound', bound.limit, bound.at_least)


def shown(value: float, unit: str) -> str:
    """A value with its unit, in steps that people read: ms below a second, percent for shares."""
    if math.isnan(value):
        return '-'
    if unit == 's':
        return f'{value:.2f} s' if abs(value) >= 1.0 else f'{1e3 * value:.0f} ms'
    if unit == 'share':
        return f'{100.0 * value:.1f} %'
    return f'{value:.3g} {unit}'.strip()


def parse(doc: str | None, faults: Sequence[Fault[Any]], quick: Sequence[str]) -> argparse.Namespace:
    """Return the options of a bench of faults; `faults` in it are those that were asked for."""
    parser = Parser(doc, only=list(quick))
    known = ', '.join(fault.id for fault in faults)
    parser.add_argument('--only', nargs='+', metavar='ID', help=f'only these rows: {known}')
    parser.number('--load', 0, 'busy loops that take the processor beside it')
    parser.add_argument('--markdown', type=Path, help='write the table as a page of the documentation')
    options = parser.parse_args()
    unknown = set(options.only or ()) - {fault.id for fault in faults}
    if unknown:
        parser.error(f'no rows {sorted(unknown)}; there are: {known}')
    options.faults = [fault for fault in faults if not options.only or fault.id in options.only]
    return options


def finish(name: str, results: Sequence[Result], introduction: str, options: argparse.Namespace) -> int:
    """Show and write what came of the faults; return the exit code."""
    if options.load:
        introduction = at_load(introduction, name, options)
    if options.markdown:
        machine = f'{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}'
        write_part(options.markdown, markdown(results, introduction.format(machine=machine)))
    passed = sum(result.passed for result in results)
    head = Row('faults that ended as they should', 'faults', len(results), passed)
    rows = [head.beside('all', len(results), more_is_better=True), *(result.row for result in results)]
    return Report(name, rows, passed=passed == len(results)).finish(options)


def at_load(introduction: str, name: str, options: argparse.Namespace) -> str:
    """Return what stands over the same rows on a busy machine."""
    title = introduction.split('\n', 1)[0].lstrip('# ')
    return (
        f'## {title}: at load {options.load}\n\n'
        f'The same rows while {options.load} processes that do nothing but turn round share the cores with them.\n'
        f'`./so101 bench {name} --load {options.load} --markdown {options.markdown}` makes this part.\n'
        'This one comes from {machine}.\n'
    )


def write_part(page: Path, part: str) -> None:
    """Write a part of a page; it begins with its heading, and the other parts of the page stay as they are."""
    heading = part.split('\n', 1)[0]
    present = page.read_text() if page.exists() else ''
    parts = [f'## {text}' if i else text for i, text in enumerate(('\n' + present).split('\n## '))]
    parts = [text.strip() + '\n' for text in parts if text.strip()]
    starts = [text.split('\n', 1)[0] for text in parts]
    if heading in starts:
        parts[starts.index(heading)] = part
    else:
        parts.insert(0 if heading.startswith('# ') else len(parts), part)
    page.write_text('\n'.join(parts))


def markdown_row(cells: Sequence[str]) -> str:
    """Return the line of a table."""
    return '| ' + ' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells) + ' |'


def markdown(results: Sequence[Result], introduction: str) -> str:
    """The results as a page of the documentation."""
    lines = [
        introduction.strip(),
        '',
        '| fault | injected | expected | measured | bound | verdict | remarks |',
        '|---|---|---|---|---|---|---|',
    ]
    for result in results:
        fault = result.fault
        cells = (
            *(fault.name, fault.inject, fault.expected, result.measured, str(fault.bound)),
            *('pass' if result.passed else '**FAIL**', result.remark),
        )
        lines.append(markdown_row(cells))
    return '\n'.join(lines) + '\n'
