# SPDX-License-Identifier: Apache-2.0
"""What a row of the fault table is, how it is judged, and how the table is shown."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
import math
from typing import Generic, TypeVar

from rich.table import Table

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

    fault: Fault
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

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            'id': self.fault.id,
            'passed': self.passed,
            'value': None if math.isnan(self.outcome.value) else self.outcome.value,
            'unit': self.fault.bound.unit,
            'bound': str(self.fault.bound),
            'note': self.outcome.note,
            'wrong': self.outcome.wrong,
        }


def shown(value: float, unit: str) -> str:
    """A value with its unit, in steps that people read: ms below a second, percent for shares."""
    if math.isnan(value):
        return '-'
    if unit == 's':
        return f'{value:.2f} s' if abs(value) >= 1.0 else f'{1e3 * value:.0f} ms'
    if unit == 'share':
        return f'{100.0 * value:.1f} %'
    return f'{value:.3g} {unit}'.strip()


def rich_table(results: Iterable[Result], title: str) -> Table:
    """The results for a terminal."""
    table = Table(title=title, show_lines=True)
    for heading in ('fault', 'injected', 'expected', 'measured', 'bound', ''):
        table.add_column(heading, overflow='fold')
    for result in results:
        fault = result.fault
        verdict = '[green]pass[/]' if result.passed else '[bold red]FAIL[/]'
        remark = f'\n[dim]{result.remark}[/]' if result.remark else ''
        row = (fault.name, fault.inject, fault.expected + remark, result.measured, str(fault.bound), verdict)
        table.add_row(*row)
    return table


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
        lines.append('| ' + ' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells) + ' |')
    return '\n'.join(lines) + '\n'
