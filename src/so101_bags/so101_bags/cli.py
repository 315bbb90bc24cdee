# SPDX-License-Identifier: Apache-2.0
"""`./so101 bag-check` says what is wrong with a bag before one learns from it; `./so101 bag-fix` repairs one."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
import json
import logging
from pathlib import Path
import sys

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from so101_bags.check.bag import check_bag
from so101_bags.check.report import CheckLimits, CheckReport, Finding, Level
from so101_bags.fix import fix_bag
from so101_bags.records import arms_of
from so101_bags.storage import BagError, find_bags, open_bags, Progress
from so101_contract.errors import ContractError
from so101_contract.observation_spec import get_observation, OBSERVATIONS

ALIKE = 3
"""Findings of one kind that are printed."""

Told = Callable[[int, int], None]


@contextmanager
def progress_bar(console: Console, what: str = 'reading') -> Iterator[Told | None]:
    """Show a bar that is told how much is done, and how much there is; nothing where nobody looks."""
    if not console.is_terminal:
        yield None
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def check_main(argv: Sequence[str] | None = None) -> int:
    """Check bags; return 0 where they are fit, 1 where they are faulty, 2 where they cannot be read."""
    parser = argparse.ArgumentParser(
        prog='so101 bag-check',
        description='Check bags: rates, gaps, clocks, actions, missing topics, contract, episodes.',
        epilog='exit code: 0 fit to learn from (warnings are printed), 1 faulty, 2 cannot be read',
    )
    parser.add_argument(
        'bags', nargs='+', type=Path, help='bag folders, .mcap or .db3 files, folders of bags'
    )
    parser.add_argument('--observation', choices=sorted(OBSERVATIONS), help='what it must be recorded with')
    parser.add_argument('--namespace', help='which arm (default: each)')
    parser.add_argument(
        '--parity', action='store_true', help='compare with what the policy saw live, bit by bit'
    )
    parser.add_argument('--strict', action='store_true', help='count warnings as faults')
    parser.add_argument(
        '--max-run', type=float, default=CheckLimits().max_run, help='longest good mean intervention'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object instead of tables')
    asked = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    wide = None if sys.stdout.isatty() else 120
    # What the assembler says of single steps is in the table of episodes, counted.
    logging.getLogger('so101_contract').setLevel(logging.ERROR)
    console = Console(stderr=asked.json, highlight=False, width=wide)
    try:
        with progress_bar(console) as progress:
            reports = _check(asked, progress)
    except (BagError, ContractError, OSError) as error:
        if asked.json:
            print(json.dumps({'ok': False, 'error': str(error)}))
        else:
            print(f'bag-check: {error}', file=sys.stderr)
        return 2
    if asked.json:
        told = [report.to_dict() for report in reports]
        print(json.dumps(told[0] if len(told) == 1 else {'ok': all(t['ok'] for t in told), 'reports': told}))
    else:
        for report in reports:
            show(report, console)
    return int(any(report.faults or (asked.strict and report.findings) for report in reports))


def _check(asked: argparse.Namespace, progress: Progress | None) -> list[CheckReport]:
    """Check each bag by itself, and in it each arm that is asked for, by default all."""
    reports = []
    for path in find_bags(asked.bags):
        with open_bags(path) as bag:
            arms: list[str | None] = [*arms_of(bag.topics)] if asked.namespace is None else [asked.namespace]
        reports += [
            check_bag(
                path,
                spec=get_observation(asked.observation) if asked.observation else None,
                namespace=arm,
                limits=CheckLimits(max_run=asked.max_run),
                parity=asked.parity,
                progress=progress,
            )
            for arm in arms or [None]
        ]
    return reports


def grouped(findings: Iterable[Finding]) -> list[tuple[Level, str, list[str]]]:
    """Return what was found by level and code, faults first, each with its sentences in their order."""
    groups: dict[tuple[Level, str], list[str]] = {}
    for finding in sorted(findings, key=lambda one: one.level is not Level.FAULT):
        groups.setdefault((finding.level, finding.code), []).append(finding.sentence)
    return [(level, code, sentences) for (level, code), sentences in groups.items()]


def show(report: CheckReport, console: Console) -> None:
    """Print the tables and the findings."""
    arm = f', arm {report.namespace}' if report.namespace else ''
    console.print(
        f'{", ".join(report.bags)}{arm}: {report.messages} messages, {report.seconds:.1f} s', soft_wrap=True
    )
    topics = Table('topic', 'messages', 'Hz', 'longest gap [s]', 'delay [ms]', box=SIMPLE)
    for row in report.topics:
        delay = '' if row.delay_s is None else f'{row.delay_s * 1e3:.1f}'
        topics.add_row(row.topic, str(row.count), f'{row.rate_hz:.1f}', f'{row.gap_s:.2f}', delay)
    console.print(topics)
    if report.episodes:
        columns = (
            'episode',
            'end',
            'steps',
            'gives',
            's',
            'reward',
            'human',
            'runs',
            'most [m]',
            'path [cm]',
        )
        episodes = Table(*columns, box=SIMPLE)
        for one in report.episodes:
            episodes.add_row(
                one.name,
                one.outcome,
                str(one.steps),
                str(one.transitions),
                f'{one.seconds:.1f}',
                f'{one.reward:.2f}',
                f'{one.teleop:.0%}',
                f'{one.interventions} x {one.run:.0f}',
                f'{one.max_action:.4f}',
                f'{one.motion_m * 100:.1f}',
            )
        console.print(episodes)
        console.print(report.human.sentence, soft_wrap=True)
    if report.parity is not None:
        compared, equal = report.parity['compared'], report.parity['equal']
        console.print(f'parity: {equal} of {compared} observations are bit-identical to what the policy saw')
    for level, code, sentences in grouped(report.findings):
        colour = 'red' if level is Level.FAULT else 'yellow'
        times = f' {len(sentences)} times,' if len(sentences) > 1 else ''
        console.print(f'[{colour}]{level.value}[/] ({code}):{times} {sentences[0]}', soft_wrap=True)
        for sentence in sentences[1:ALIKE]:
            console.print(f'    {sentence}', soft_wrap=True)
        if len(sentences) > ALIKE:
            console.print(f'    and {len(sentences) - ALIKE} more; --json tells them all')
    verdict = f'{len(report.faults)} faults' if report.faults else 'fit to learn from'
    console.print(f'{verdict}, {len(report.findings) - len(report.faults)} warnings')


def fix_main(argv: Sequence[str] | None = None) -> int:
    """Repair one bag; return 0 where messages were saved, 2 where nothing could be done."""
    parser = argparse.ArgumentParser(
        prog='so101 bag-fix',
        description='Repair a bag whose recorder was killed or whose end was cut off. The original is kept.',
    )
    parser.add_argument('bag', type=Path, help='folder or file')
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        '--out', type=Path, help='where the repaired bag goes (default: beside it, NAME_fixed)'
    )
    where.add_argument(
        '--in-place', action='store_true', help='take the place of the damaged one, kept as NAME.damaged'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object instead of words')
    asked = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    try:
        with progress_bar(Console(stderr=True), 'repairing') as progress:
            report = fix_bag(asked.bag, asked.out, in_place=asked.in_place, progress=progress)
    except (BagError, OSError) as error:
        print(json.dumps({'error': str(error)}) if asked.json else f'bag-fix: {error}', file=sys.stderr)
        return 2
    if asked.json:
        fields = {'target': str(report.target), 'messages': report.messages}
        print(json.dumps({**fields, 'repaired': report.repaired, 'notes': report.notes}))
        return 0
    for line in report.files:
        print(line)
    for note in report.notes:
        print(f'  {note}')
    done = 'the files were whole; the metadata are new' if report.metadata_only else 'repaired'
    print(f'{report.target}: {report.messages} messages, {done}')
    return 0
