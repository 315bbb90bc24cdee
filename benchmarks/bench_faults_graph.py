# SPDX-License-Identifier: Apache-2.0
"""Each node of the running graph killed and frozen in turn: when the arm is at rest, what is said, what goes on after.

Twin, driver, kinematics, session and a scripted policy run as processes of their own. Whether the arm is at rest is
seen in the ground truth of the twin. The last line is one JSON object; the exit code is 1 if a row fails.
"""

import sys

from faults_core import finish, parse, Result
from faults_graph import FAULTS
from graph_rig import GraphRig
from processes import busy, isolate
from rich.console import Console

INTRODUCTION = """# What happens when a node stops

Each row is a fault of the running graph on the twin: twin_node, arm_node, kinematics_node, session_node and a policy, each a process of its own.
The time is from the fault to the moment at which the TCP has come to rest, as the ground truth of the twin has it; where the twin itself stops, to the last action.
The remark is what the session says (`session/status`, and the reason of the episode's ABORT event), and how long after the repair the policy drives again, reset included.
`./so101 bench faults_graph --markdown docs/faults_graph.md` makes this page.
This one comes from {machine}.
"""  # noqa: E501
PARAMETERS = {
    'session': {'time_limit_steps': 100_000, 'no_answer_s': 1.0},
    'policy': {'speed': 0.6},
    'twin': {'camera_width': 64, 'camera_height': 64},
}


def main() -> int:
    """Command line."""
    options = parse(__doc__, FAULTS, quick=('camera',))
    isolate()
    console, results = Console(stderr=True), list[Result]()
    for number, fault in enumerate(options.faults, 1):
        # A graph of its own for each: what a fault leaves behind must not excuse the next one.
        rig = GraphRig('arm', 'kinematics', 'session', 'policy', parameters=PARAMETERS)
        with busy(options.load), console.status(f'{number} of {len(options.faults)}: {fault.name}'), rig:
            results.append(fault.judge(rig))
        result = results[-1]
        verdict = 'pass' if result.passed else '[bold red]FAIL[/]'
        console.print(f'{fault.id:<18} {result.measured:>9}  {verdict}  {result.remark}', soft_wrap=True)
    return finish('faults_graph', results, INTRODUCTION, options)


if __name__ == '__main__':
    sys.exit(main())
