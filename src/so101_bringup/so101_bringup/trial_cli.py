# SPDX-License-Identifier: Apache-2.0
"""`./so101 trial POLICY [POLICY_B]`: honest evaluation on an arm, real or simulated."""

import argparse
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
import sys

from so101_bringup.options import OptionError, Options, parse_options
from so101_bringup.task_options import contract_config, MANIFEST

EXAMPLES = """examples:
  ./so101 trial policies/mine                                        thirty trials of one policy, simulated
  ./so101 trial policies/old policies/new preset:=gap                which is better, as soon as that is known
  ./so101 trial policies/old policies/new --sheet sheet.pdf          draw the marks first, and print them at 100 %
  ./so101 trial policies/old policies/new sim:=false port:=/dev/ttyACM0

Two policies take turns in an order that is drawn and that nobody is told. The object is put on the mark that is named;
Start on the page begins. Whatever ends a trial is written down at once; --resume goes on after a break."""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = argparse.ArgumentParser(
        prog='so101 trial',
        usage='so101 trial [-h] [--trials N] [--out FOLDER] [--resume] [--sheet PDF] POLICY [POLICY_B] [name:=value]',
        description='Count the successes of a policy on the arm, or find out which of two is better, with how much is '
        'known: an interval for each, and a verdict that may be looked at after every trial. The options of '
        '`./so101 up` hold here too.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument('policies', nargs='*', metavar='POLICY', help='folders of one policy or two')
    made.add_argument(
        '--trials', type=int, default=30, metavar='N', help='of each, at most (default: %(default)s)'
    )
    made.add_argument('--out', type=Path, metavar='FOLDER', help='plan and results (default: one in trials/)')
    made.add_argument('--resume', action='store_true', help='go on with the trial in --out')
    made.add_argument('--sheet', type=Path, metavar='PDF', help='draw the marks to scale, and end')
    made.add_argument(
        '--area',
        type=float,
        nargs=4,
        default=(0.18, 0.32, -0.07, 0.07),
        metavar=('X0', 'X1', 'Y0', 'Y1'),
        help='where the object may lie, in the base frame [m] (default: %(default)s)',
    )
    made.add_argument('--seed', type=int, default=0, help='of places and order (default: %(default)s)')
    return made


def main(argv: Sequence[str], up: Callable[[list[str]], int]) -> int:
    """Plan a trial and run it.

    Args:
        argv: arguments of the command.
        up: starts a stack, and stays with it.
    """
    from hilserl_learner.errors import LearnerError
    from hilserl_learner.trial.protocol import make_plan, Plan, Record
    from hilserl_learner.trial.sheet import draw_sheet
    from so101_contract.errors import ContractError

    words = [word for word in argv if ':=' in word]
    options = parser().parse_args([word for word in argv if ':=' not in word])
    folder = options.out or Path('trials') / f'{datetime.now():%Y%m%d-%H%M%S}'
    try:
        stack = parse_options(words)
        if options.resume:
            plan = Plan.read(folder)
            _check(plan.policies, stack)
        else:
            policies = [_folder_of(policy, stack) for policy in options.policies]
            plan = make_plan(policies, options.trials, tuple(options.area), options.seed)
            _check(policies, stack)
            plan.write(folder)
        if options.sheet is not None:
            draw_sheet(plan, options.sheet)
            print(f'{options.sheet}: print it at 100 %, then: ./so101 trial --resume --out {folder}')
            return 0
    except (ContractError, LearnerError, OptionError, OSError) as error:
        print(f'so101 trial: {error}', file=sys.stderr)
        return 2
    code = 0
    if not Record(plan, folder).is_over:
        code = up(['--stack', 'trial', f'checkpoint:={plan.policies[0]}', f'trial:={folder}', *words])
    print('\n'.join([*Record(plan, folder).report(), f'all trials: {folder}']))
    return code


def _folder_of(policy: str, options: Options) -> str:
    """Return where a policy lies; `default` is the one that is shipped.

    Raises:
        OptionError: there is none.
        ContractError: it cannot be read.
    """
    from drqv2_policy_node.store import find_policy

    found = find_policy(policy, str(options['observation']))
    if found is None or not (found / MANIFEST).exists():
        raise OptionError(
            f'expected the folder of a policy, or default, got {policy}; it holds no {MANIFEST}'
        )
    return str(found.resolve())


def _check(policies: Sequence[str], options: Options) -> None:
    """See whether two policies can take turns on one graph.

    Raises:
        OptionError: they cannot, and in what they differ.
    """
    told = [contract_config(policy, str(options['observation']), str(options['tcp'])) for policy in policies]
    for other in told[1:]:
        if other != told[0]:
            raise OptionError(
                f'expected two policies that see and act alike, got {told[0]} and {other}; try each alone'
            )
