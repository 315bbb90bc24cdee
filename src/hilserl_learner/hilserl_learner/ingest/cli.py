# SPDX-License-Identifier: Apache-2.0
"""`ingest`: bags, or datasets of LeRobot's, in; a buffer to learn from out."""

import argparse
from collections.abc import Mapping
from pathlib import Path
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hilserl_learner.errors import LearnerError
from hilserl_learner.ingest.ingest import Conversion, ingest, Ingested, ZERO_ACTIONS
from hilserl_learner.lerobot.dataset import add_dataset_options, dataset_choices, fetch
from so101_bags.storage import BagError
from so101_contract.action import ActionSpec
from so101_contract.errors import ContractError
from so101_contract.observation_spec import DEFAULT_OBSERVATION, OBSERVATIONS
from so101_contract.task.files import observed, told_task
from so101_driver.calibration.calibration import CalibrationError

_NAMED = 10  # episodes of a list


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog='so101 ingest', description=__doc__)
    parser.add_argument(
        'bags', nargs='*', type=Path, help='bag folders, bare files, LeRobot datasets, or folders of these'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='BUFFER', help='directory of the buffer')
    keep = parser.add_mutually_exclusive_group()
    keep.add_argument('--add', action='store_true', help='keep what the buffer holds already')
    keep.add_argument('--replace', action='store_true', help='throw away what the buffer holds already')
    parser.add_argument(
        '--strict', action='store_true', help='refuse a bag with an episode that cannot be learned from'
    )
    parser.add_argument(
        '--observation',
        default=DEFAULT_OBSERVATION,
        choices=sorted(OBSERVATIONS),
        help='what an observation consists of (default: %(default)s)',
    )
    parser.add_argument(
        '--task-file',
        default='',
        help='task that the bags must be of: name or file (default: that of the first bag)',
    )
    parser.add_argument(
        '--cameras',
        default='',
        help='cameras that are observed, with commas between (default: those of the task)',
    )
    parser.add_argument('--tcp', help='TCP preset, where it is not that of the observation')
    parser.add_argument('--any-spec', action='store_true', help='take bags recorded with another observation')
    parser.add_argument('--namespace', default='', help='which arm of the bag, where there are several')
    parser.add_argument(
        '--reward',
        default='bag',
        metavar='bag|operator|success|sim|sim:NAME|classifier:FOLDER|FILE.py',
        help='where rewards come from (default: as recorded)',
    )
    parser.add_argument(
        '--zero-actions',
        default='refuse',
        choices=ZERO_ACTIONS,
        help='what to do with episodes whose actions are all zero although the arm moved; refuse leaves them out '
        '(default: %(default)s)',
    )
    add_dataset_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = make_parser().parse_args(argv)
    cameras = options.cameras.split(',')
    try:
        conversion = Conversion(
            observation=observed(
                told_task(options.task_file, cameras), options.observation, tcp=options.tcp, cameras=cameras
            ),
            action=ActionSpec(),
            zero_actions=options.zero_actions,
            namespace=options.namespace,
            any_spec=options.any_spec,
            dataset=dataset_choices(options),
        )
        options.bags += [fetch(name) for name in options.repo]
        if not options.bags:
            raise LearnerError('expected a bag or a dataset, got none; name one, or --repo NAME')
        done = _convert(options, conversion)
    except (LearnerError, BagError, ContractError, CalibrationError) as error:
        print(error, file=sys.stderr)
        return 1
    console = Console()
    console.print(summary(done))
    for one in done:
        for line in notes(one):
            console.print(line, highlight=False, soft_wrap=True)
    console.print(f'{sum(one.report.transitions for one in done)} transitions are in {options.out}.')
    return 0


def _convert(options: argparse.Namespace, conversion: Conversion) -> list[Ingested]:
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[Path, object] = {}

        def progress(bag: Path, done: int, total: int) -> None:
            if bag not in tasks:
                tasks[bag] = bar.add_task(bag.name, total=total)
            bar.update(tasks[bag], completed=done)  # type: ignore[arg-type]

        return list(
            ingest(
                options.bags,
                options.out,
                conversion,
                reward=options.reward,
                add=options.add,
                replace_all=options.replace,
                strict=options.strict,
                wanted=told_task(options.task_file),
                progress=progress,
            )
        )


def summary(done: list[Ingested]) -> Table:
    """Return a table with a row per bag."""
    table = Table(title='What the bags gave')
    for name in (
        'bag',
        'episodes',
        'successes',
        'transitions',
        'by a human',
        'reward',
        'gaps',
        'left out',
        'repaired',
    ):
        table.add_column(name, justify='left' if name == 'bag' else 'right')
    for one in done:
        report = one.report
        table.add_row(
            one.bag.name + (' (converted before)' if one.reused else ''),
            str(report.episodes),
            str(report.successes),
            str(report.transitions),
            f'{report.intervened / max(report.transitions, 1):.0%}',
            f'{report.reward:g}',
            str(sum(report.gaps.values())),
            str(len(report.left_out)),
            str(len(report.repaired)),
        )
    return table


def notes(one: Ingested) -> list[str]:
    """Return what a human should know beside the numbers, one sentence each."""
    report, lines = one.report, []
    if report.discarded:
        lines.append(f'{one.bag.name}: {report.discarded} episodes were thrown away by the human.')
    if one.unfinished:
        lines.append(
            f'{one.bag.name} has no end yet: what was whole by now was taken; ingest it again later.'
        )
    lines += [
        f'{one.bag.name}: {len(numbers)} episodes are left out ({_listed(numbers)}): {why}.'
        for why, numbers in _by_reason(report.left_out).items()
    ]
    if report.repaired:
        clipped = ', '.join(f'{axis} {share:.1%}' for axis, share in report.clipped.items())
        lines.append(
            f'{one.bag.name}: the actions of episodes {", ".join(map(str, report.repaired))} were zero and are '
            f'now computed from the joints; clipped to the range of an action: {clipped}.'
        )
    lines += [
        f'{one.bag.name}: {count} steps without transition: {why}.' for why, count in report.gaps.items()
    ]
    lines += [f'{one.bag.name}: {said}.' for said in report.said]
    lines += [f'{one.bag.name}: {count} messages not used: {why}.' for why, count in report.skipped.items()]
    return lines


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number, why in left_out.items():
        found.setdefault(why, []).append(number)
    return found


def _listed(numbers: list[str]) -> str:
    return ', '.join(numbers[:_NAMED]) + (', …' if len(numbers) > _NAMED else '')


if __name__ == '__main__':
    sys.exit(main())
