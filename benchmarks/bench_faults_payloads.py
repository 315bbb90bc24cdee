# SPDX-License-Identifier: Apache-2.0
"""Payloads that nobody asked for, to every node of the running stack: nobody ends, no page is silent, nothing moves.

Twin, driver, kinematics, session, policy, learner, recorder, teleop, operator and console run as processes of their
own, and a page is open. The last line is one JSON object; the exit code is 1 if a row fails.
"""

import sys

from faults_core import finish, parse, Result
from faults_payloads import FAULTS, PayloadRig
from processes import busy, isolate
from rich.console import Console

INTRODUCTION = """## Payloads that nobody asked for

Each row is a sort of payload, sent to every topic that a node of the stack hears, at about fifty a second each. Twin, driver, kinematics, session, policy, learner, recorder,
teleop, operator and console are processes of their own; the motors are on, the session waits for Start, and a page is open. On topics that move an arm none of them is fresh: a fresh
whole command is a command. What cannot be used is counted by whoever hears it, told when it is the first of its topic, the tenth, the hundredth, and dropped.
`./so101 bench faults_payloads --markdown docs/faults.md` makes this part of the page.
This one comes from {machine}.
"""  # noqa: E501
PAYLOADS, QUICK = 4200, 400
"""Of each sort."""


def main() -> int:
    """Command line."""
    options = parse(__doc__, FAULTS, quick=[fault.id for fault in FAULTS])
    isolate()
    console, results = Console(stderr=True), list[Result]()
    with busy(options.load), PayloadRig(QUICK if options.quick else PAYLOADS) as rig:
        for fault in options.faults:
            results.append(fault.judge(rig))
            result = results[-1]
            verdict = 'pass' if result.passed else '[bold red]FAIL[/]'
            console.print(f'{fault.id:<12} {result.measured:>9}  {verdict}  {result.remark}', soft_wrap=True)
    return finish('faults_payloads', results, INTRODUCTION, options)


if __name__ == '__main__':
    sys.exit(main())
