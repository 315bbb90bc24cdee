# SPDX-License-Identifier: Apache-2.0
"""Real faults into the real arm_node on a virtual arm, over DDS: how long it takes to stop or to recover.

Times come from the virtual arm's log of writes and from its registers, on the monotonic clock that all
processes share. The last line is one JSON object; the exit code is 1 if a row fails.
"""

from collections.abc import Sequence
import sys
import time
from typing import Any

from faults_core import Fault, finish, parse, Result
from faults_rig import FaultRig
from processes import busy, isolate
from rich.console import Console

INTRODUCTION = """# What happens when things break

Each row is a fault that was injected into the running `arm_node` on the virtual arm.
Both are processes of their own; commands and measurements go over DDS as they do in use.
A time is measured from the fault to the write that ends the motion, in the log of writes of the servos, or to
the first full reading after it.
Both run before other programs where that is permitted, so that the figures tell of them alone.
`./so101 bench faults --markdown docs/faults.md` makes this page.
This one comes from {machine}.
"""


def every_fault() -> Sequence[Fault[Any]]:
    """All rows."""
    import faults_cable
    import faults_command
    import faults_process
    import faults_servo
    import faults_wire

    modules = (faults_wire, faults_cable, faults_servo, faults_command, faults_process)
    return [fault for module in modules for fault in module.FAULTS]


def run(faults: Sequence[Fault[Any]], console: Console) -> list[Result]:
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
    options = parse(__doc__, every_fault(), quick=('healthy', 'nan', 'silent'))
    isolate()
    with busy(options.load):
        results = run(options.faults, Console(stderr=True))
    return finish('faults', results, INTRODUCTION, options)


if __name__ == '__main__':
    sys.exit(main())
