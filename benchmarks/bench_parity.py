# SPDX-License-Identifier: Apache-2.0
"""Is what the learner rebuilds from a bag what the policy saw live, bit by bit? Also when pictures get lost.

Runs the whole graph on the twin with the shipped policy, records it, and compares each observation's hash.
"""

from dataclasses import replace
import os
from pathlib import Path
import signal
import sys
import tempfile

from processes import isolate, ROOT
from report import Parser, Report, Row

from so101_bags.check.bag import check_parity
from so101_bags.storage import find_bags
from so101_bringup.options import parse_options
from so101_bringup.programs import executable_path, ros_arguments
from so101_bringup.stack import policy
from so101_bringup.supervisor import Lines, Supervisor
from so101_contract.observation_spec import get_observation


def run_graph(folder: Path, episodes: int, drops: float) -> None:
    """Let the policy drive, helped by the scripted operator, and record it."""
    words = [f'episodes:={episodes}', f'record:={folder}', 'console:=false', 'checkpoint:=default']
    options = parse_options([*words, 'operator:=intervene'])
    supervisor = Supervisor(os.environ, Lines(lambda line: print(line, file=sys.stderr)))
    for node in policy(options):
        lossy = {'camera_drop_share': drops} if node.name == 'twin_node' else {}
        spec = replace(node, parameters={**node.parameters, **lossy})
        arguments = ros_arguments(spec, '', str(ROOT / 'config'))
        supervisor.add(spec, [str(executable_path(spec)), *arguments])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.run()


def main() -> int:
    """Run the graph, then compare."""
    parser = Parser(__doc__)
    parser.number('--episodes', 20, 'to record', quick=1)
    parser.number('--drops', 0.05, 'share of pictures that get lost')
    options = parser.parse_args()
    isolate()
    with tempfile.TemporaryDirectory(prefix='so101-parity-') as folder:
        run_graph(Path(folder), options.episodes, options.drops)
        report = check_parity(find_bags(folder), get_observation('compact'))
    share = 100.0 * report.equal / report.compared if report.compared else None
    note = (
        f'{len(report.different)} different, {len(report.lost)} lost by the recorder, '
        f'{report.unseen} without an answer; {options.drops:.0%} of the pictures dropped on purpose'
    )
    row = Row('observations that are bit-identical', '%', report.compared, share, note=note)
    return Report('parity', [row], passed=share == 100.0).finish(options)


if __name__ == '__main__':
    sys.exit(main())
