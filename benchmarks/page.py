# SPDX-License-Identifier: Apache-2.0
"""The page of all benches, for people."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from report import Row, shown

if TYPE_CHECKING:
    from suite import Entry

INTRODUCTION = """# Benchmarks

`./so101 bench all` makes this page and [the same as data](benchmarks.json): every bench in turn, each in a process of its own, its peers in the same run.
The value is the median, unless its unit says otherwise; p95 and p99 are what 95 and 99 % of the values do not exceed, where there are enough values to say.
The ratio is how many times better than the peer, or than the bound: above 1, ours is better.
"""  # noqa: E501


def cell(text: object) -> str:
    """Return a text that breaks no table."""
    return ' '.join(str(text).replace('|', '/').split())


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table and an empty one, without the columns that have nothing in them."""
    cells = [[cell(text) for text in row] for row in rows]
    used = [i for i, head in enumerate(heads) if not head or any(row[i] for row in cells)]
    lines = [[heads[i] for i in used], ['---'] * len(used), *([row[i] for i in used] for row in cells)]
    return [*(f'| {" | ".join(line)} |' for line in lines), '']


def summary(entry: 'Entry') -> tuple[object, ...]:
    """Return the row of a bench on top of the page."""
    link = f'[{entry.name}](#{entry.name})'
    if entry.report is None:
        return (link, '**failed**', '', '', '', '', '')
    head = entry.report.rows[0]
    verdict = '**failed**' if entry.failure else ''
    return (link, head.name, shown(head.value), head.unit, head.peer or '', shown(head.ratio), verdict)


def detail(row: Row) -> tuple[object, ...]:
    """Return a row of a bench's own table."""
    figures = (shown(value) for value in (row.value, row.p95, row.p99))
    return (
        row.name,
        *figures,
        row.unit,
        row.n,
        row.peer or '',
        shown(row.peer_value),
        shown(row.ratio),
        row.note,
    )


def section(entry: 'Entry') -> list[str]:
    """Return the lines about one bench."""
    lines = [f'## {entry.name}', '', entry.measures, '']
    facts = f'{entry.date}, {entry.seconds:.0f} s, load of the machine before it {entry.load:.2f}'
    lines += [f'    {entry.command}', '', f'{facts}; {entry.machine}.', '']
    if entry.failure:
        lines += [f'**Failed**: {cell(entry.failure)}', '']
    if entry.report is None:
        return lines
    heads = ('', 'value', 'p95', 'p99', 'unit', 'n', 'peer', "peer's", 'ratio', 'note')
    lines += table(heads, (detail(row) for row in entry.report.rows))
    if entry.report.versions:
        versions = ', '.join(f'{name} {version}' for name, version in entry.report.versions.items())
        lines += [f'Versions: {versions}.', '']
    return lines


def render(entries: Sequence['Entry']) -> str:
    """Return the page."""
    heads = ('bench', 'headline', 'value', 'unit', 'beside', 'ratio', '')
    lines = [INTRODUCTION, *table(heads, (summary(entry) for entry in entries))]
    for entry in entries:
        lines += section(entry)
    return '\n'.join(lines).rstrip() + '\n'
