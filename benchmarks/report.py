# SPDX-License-Identifier: Apache-2.0
"""How a benchmark takes its options and hands its figures over; the standard library alone.

A bench makes rows, the first of which is its headline, and ends with `Report(...).finish(options)`: a table for people,
then one line of JSON, which goes to `--json FILE` too. `./so101 bench all` reads that file.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
import json
import math
from pathlib import Path
import sys
from typing import Any, Self

LEAST_FOR_P95, LEAST_FOR_P99 = 20, 100
"""With fewer values a row says from where to where they go instead."""


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of the values does not exceed, interpolated between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def shown(value: float | None) -> str:
    """A figure with four digits; nothing where there is none."""
    if value is None:
        return ''
    return f'{value:,.0f}' if abs(value) >= 1000.0 else f'{value:.4g}'


def _finite(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity."""
    return None if value is None or not math.isfinite(value) else float(f'{value:.6g}')


def _plain(value: Any) -> Any:
    """Return what JSON can hold of nested details."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _finite(value) if isinstance(value, float) else value


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: What was measured.
        unit: Of the value.
        n: How many values it comes from.
        value: The median, unless the unit says otherwise; None where nothing could be measured.
        p95: What 95 % of the values do not exceed, and likewise p99; None where there are too few.
        peer: What it was measured beside in the same run.
        peer_value: The peer's figure.
        ratio: How many times better than the peer; above 1, ours is better.
        note: What else there is to say.
    """

    name: str
    unit: str
    n: int
    value: float | None
    p95: float | None = None
    p99: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    note: str = ''

    def __post_init__(self) -> None:
        for name in ('value', 'p95', 'p99', 'peer_value', 'ratio'):
            object.__setattr__(self, name, _finite(getattr(self, name)))

    @classmethod
    def of(cls, name: str, unit: str, values: Iterable[float], scale: float = 1.0, note: str = '') -> 'Row':
        """Return the row of some values, times a scale."""
        scaled = [scale * float(value) for value in values]
        if not scaled:
            return cls(name, unit, 0, None, note='; '.join(filter(None, ('no values', note))))
        if 1 < len(scaled) < LEAST_FOR_P95:
            note = '; '.join(filter(None, (f'{shown(min(scaled))} to {shown(max(scaled))}', note)))
        return cls(
            name,
            unit,
            len(scaled),
            quantile(scaled, 0.5),
            quantile(scaled, 0.95) if len(scaled) >= LEAST_FOR_P95 else None,
            quantile(scaled, 0.99) if len(scaled) >= LEAST_FOR_P99 else None,
            note=note,
        )

    def beside(self, peer: str, peer_value: float | None, more_is_better: bool = False) -> 'Row':
        """Return this row with a peer's figure, or a bound, and the ratio."""
        if not self.value or not peer_value:
            return replace(self, peer=peer, peer_value=peer_value)
        ratio = self.value / peer_value if more_is_better else peer_value / self.value
        return replace(self, peer=peer, peer_value=peer_value, ratio=ratio)


@dataclass(frozen=True)
class Report:
    """What a bench has found.

    Attributes:
        name: Of the bench.
        rows: The headline first.
        versions: Of the peers, by name.
        passed: Whether everything kept to its bound.
        details: Anything else that is worth keeping.
    """

    name: str
    rows: Sequence[Row]
    versions: Mapping[str, str] = field(default_factory=dict)
    passed: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the headline on top, then everything."""
        head = self.rows[0]
        top = {name: getattr(head, name) for name in ('value', 'unit', 'peer', 'peer_value', 'ratio', 'n')}
        return {
            'name': self.name,
            **top,
            'passed': self.passed,
            'versions': dict(self.versions),
            'rows': [asdict(row) for row in self.rows],
            'details': _plain(self.details),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Return the report that `as_dict` made something of."""
        rows = [Row(**row) for row in found['rows']]
        return cls(found['name'], rows, found['versions'], found['passed'], found['details'])

    def finish(self, options: argparse.Namespace) -> int:
        """Show it, write it, and return the exit code: 1 if a bound was exceeded."""
        show(self.rows)
        line = json.dumps(self.as_dict(), allow_nan=False)
        if options.json:
            options.json.write_text(line + '\n', encoding='utf-8')
        print(line)
        return 0 if self.passed else 1


def show(rows: Sequence[Row]) -> None:
    """Print the rows for people."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=110)
    figures = (Column(name, justify='right') for name in ('median', 'p95', 'p99'))
    table = Table(Column('', overflow='fold'), *figures, 'unit', 'n', Column('ratio', justify='right'))
    for row in rows:
        beside = f'beside {row.peer}: {shown(row.peer_value)}' if row.peer else ''
        more = '; '.join(filter(None, (beside, row.note)))
        title = escape(row.name) + (f'\n[dim]{escape(more)}[/]' if more else '')
        values = (shown(value) for value in (row.value, row.p95, row.p99))
        table.add_row(title, *values, row.unit, str(row.n), shown(row.ratio))
    console.print(table)


class Parser(argparse.ArgumentParser):
    """The options of a bench: --quick and --json, and what it adds."""

    def __init__(self, doc: str | None, **quick: Any) -> None:
        prog = Path(sys.argv[0]).stem.replace('bench_', 'so101 bench ', 1)
        super().__init__(prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._quick = quick
        self.add_argument('--quick', action='store_true', help='measure little, for a look')
        self.add_argument('--json', type=Path, metavar='FILE', help='write the last line to this file too')

    def number(self, flag: str, default: float, what: str, quick: float | None = None) -> None:
        """Add an option that is a number, whole if its default is, and what it is with --quick."""
        text = f'{what} (default: %(default)s)'.strip()
        action = self.add_argument(flag, type=type(default), default=default, help=text)
        if quick is not None:
            self._quick[action.dest] = quick

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the options; what is said on the command line goes before what --quick means."""
        found = super().parse_args(args, namespace)
        if found.quick:
            self.set_defaults(**self._quick)
            found = super().parse_args(args, namespace)
        return found
