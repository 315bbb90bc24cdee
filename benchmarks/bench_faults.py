# SPDX-License-Identifier: Apache-2.0
"""Real faults into the real arm_node on a virtual arm, over DDS: how long it takes to stop or to recover.

Times come from the virtual arm's log of writes and from its registers, on the monotonic clock that all
processes share. The last line is one JSON object; the exit code is 1 if a row fails.
"""

import argparse
from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import platform
import sys
import time

from faults_core import Fault, markdown, Result, rich_table
from faults_rig import FaultRig, isolate
from rich.console import Console

INTRODUCTION = """# What happens when things break

Each row is a fault that was injected into the running `arm_node` on the virtual arm.
Both are processes of their own; commands and measurements go over DDS as they do in use.
A time is measured from the fault to the write that ends the motion, in the log of writes of the servos, or to
the first full reading after it.
Both run before other programs where that is permitted, so that the figures tell of them alone.
`./so101 bench faults --suite {suite} --markdown docs/faults.md` makes this page.
This one comes from {machine}.
"""


def suites() -> Mapping[str, Sequence[Fault]]:
    """Suite -> its rows."""
    import faults_cable
    import faults_command
    import faults_process
    import faults_servo
    import faults_wire

    modules = (faults_wire, faults_cable, faults_servo, faults_command, faults_process)
    return {'bus': [fault for module in modules for fault in module.FAULTS]}


def run(faults: Sequence[Fault], console: Console) -> list[Result]:
    """Provoke every fault, one after the other, on one rig that is healed in between."""
    results = []
    with FaultRig(prefer_node=True) as rig, console.status('starting arm_node on a virtual arm') as status:
        for number, fault in enumerate(faults, 1):
            status.update(f'{number} of {len(faults)}: {fault.name}')
            started = time.monotonic()
            rig.heal()
            result = fault.judge(rig)
            results.append(result)
            verdict = 'pass' if result.passed else f'[bold red]FAIL[/] {result.remark}'
            console.print(
                f'{fault.id:<16} {result.measured:>9}  {fault.bound!s:<12} {verdict}  '
                f'[dim]{time.monotonic() - started:.1f} s[/]',
                soft_wrap=True,
            )
    return results


def main() -> int:
    """Command line."""
    every = suites()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--suite', choices=every, default='bus', help='which faults (default: %(default)s)')
    parser.add_argument('--only', nargs='+', metavar='ID', help='only these rows')
    parser.add_argument('--json', type=Path, help='write the result to this file too')
    parser.add_argument('--markdown', type=Path, help='write the table as a page of the documentation')
    arguments = parser.parse_args()
    faults = every[arguments.suite]
    if arguments.only:
        unknown = set(arguments.only) - {fault.id for fault in faults}
        if unknown:
            parser.error(f'no rows {sorted(unknown)}; there are: {", ".join(fault.id for fault in faults)}')
        faults = [fault for fault in faults if fault.id in arguments.only]
    isolate()
    console = Console()
    started = time.monotonic()
    results = run(faults, console)
    console.print(rich_table(results, f'faults: {arguments.suite}'))
    passed = sum(result.passed for result in results)
    line = json.dumps(
        {
            'name': f'faults_{arguments.suite}',
            'value': passed,
            'unit': 'faults passed',
            'peer': None,
            'peer_value': None,
            'ratio': None,
            'n': len(results),
            'seconds': round(time.monotonic() - started, 1),
            'rows': [result.as_dict() for result in results],
        }
    )
    if arguments.markdown:
        machine = f'{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}'
        page = markdown(results, INTRODUCTION.format(suite=arguments.suite, machine=machine))
        arguments.markdown.write_text(page)
    if arguments.json:
        arguments.json.write_text(line + '\n')
    print(line)
    return 0 if passed == len(results) else 1


if __name__ == '__main__':
    sys.exit(main())
