# SPDX-License-Identifier: Apache-2.0
"""Is what the learner rebuilds from a bag what the policy saw live, bit by bit? Also when pictures get lost.

Runs the whole graph on the twin with the shipped policy, records it, and compares each observation's hash.
"""

import argparse
from dataclasses import replace
import json
import os
from pathlib import Path
import signal
import sys
import tempfile

from so101_bringup.options import parse_options
from so101_bringup.programs import executable_path, ros_arguments
from so101_bringup.stack import policy
from so101_bringup.supervisor import Supervisor
from so101_contract.presets import get_observation
from so101_session.bags.parity import check_parity
from so101_session.bags.storage import find_bags

ROOT = Path(__file__).parents[1]


def run_graph(folder: Path, episodes: int, drops: float) -> None:
    """Let the policy drive, helped by the scripted operator, and record it."""
    words = [f'episodes:={episodes}', f'record:={folder}', 'console:=false', 'checkpoint:=default']
    options = parse_options([*words, 'operator:=intervene'])
    supervisor = Supervisor(os.environ, write=lambda line: print(line, file=sys.stderr))
    for node in policy(options):
        lossy = {'camera_drop_share': drops} if node.name == 'twin_node' else {}
        spec = replace(node, parameters={**node.parameters, **lossy})
        arguments = ros_arguments(spec, '', str(ROOT / 'config'))
        supervisor.add(spec, [str(executable_path(spec)), *arguments])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.stop())
    supervisor.run()


def main() -> None:
    """Run the graph, then compare."""
    parser = argparse.ArgumentParser(prog='so101 bench parity', description=__doc__)
    parser.add_argument('--episodes', type=int, default=20, help='default: 20')
    parser.add_argument(
        '--drops', type=float, default=0.05, help='share of pictures that get lost (default: 0.05)'
    )
    parser.add_argument('--json', type=Path, help='write the result there too')
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='so101-parity-') as folder:
        run_graph(Path(folder), asked.episodes, asked.drops)
        report = check_parity(find_bags(folder), get_observation('compact'))
    result = {
        'name': 'parity',
        'value': report.equal / report.compared if report.compared else 0.0,
        'unit': 'share of observations that are bit-identical',
        'n': report.compared,
        'different': len(report.different),
        'lost_by_the_recorder': len(report.lost),
        'without_an_answer': report.unseen,
        'drops': asked.drops,
    }
    print(json.dumps(result))
    if asked.json:
        asked.json.write_text(json.dumps(result) + '\n')


if __name__ == '__main__':
    main()
