# SPDX-License-Identifier: Apache-2.0
"""How a command ends: with a table for people, or with one JSON object in the last line for programs."""

import argparse
from collections.abc import Mapping, Sequence
import json
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

NOT_SHOWN = ('failed_at', 'image_mean', 'image_std', 'weights_sha256')
"""Of a report: numbers that mean nothing at a glance."""
SHARES = ('success', 'interval')
SAID: Mapping[str, str] = {
    'interval': 'its 95 % interval',
    'mean_steps': 'steps of a success',
    'human_min': 'work of a human',
    'until_unaided_min': 'of it until none was needed',
    'wall_s': 'time',
    'cpu_s': 'time of a core',
}
UNITS: Mapping[str, str] = {'_min': ' min', '_s': ' s'}


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that asks for JSON."""
    parser.add_argument('--json', action='store_true', help='end with one JSON object instead of a table')


def show_report(report: Mapping[str, Any], title: str, *, as_json: bool) -> None:
    """Print a report to standard output."""
    if as_json:
        print(json.dumps(report))
        return
    table = Table(title=title, box=SIMPLE, show_header=False, title_justify='left')
    table.add_column()
    table.add_column(justify='right')
    for name, value in report.items():
        if name not in NOT_SHOWN and value not in (None, '', []):
            table.add_row(_name(name), _value(name, value))
    Console(highlight=False, width=None).print(table)


def _name(name: str) -> str:
    unit = next((end for end in UNITS if name.endswith(end)), '')
    return SAID.get(name, name.removesuffix(unit).replace('_', ' '))


def _value(name: str, value: Any) -> str:
    if name in SHARES:
        return ' to '.join(f'{part:.0%}' for part in value) if _is_list(value) else f'{value:.0%}'
    if _is_list(value):
        return ', '.join(map(str, value))
    unit = next((word for end, word in UNITS.items() if name.endswith(end)), '')
    return f'{value:.4g}{unit}' if isinstance(value, float) else f'{value}{unit}'


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
