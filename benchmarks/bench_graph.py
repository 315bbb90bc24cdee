# SPDX-License-Identifier: Apache-2.0
"""The running twin graph: regularity of the control clock, latency from a step to the joints, memory over time.

Twin, driver, kinematics and session run as processes of their own; a scripted policy answers every step at once, so
that the figures are those of the graph. Latencies are from the tick that a step carries to the joint command that
first carries the answer out. `--minutes 30` shows whether memory or latency grows.
The last line is one JSON object; the exit code is 1 if something grew, or a step went without its action.
"""

import argparse
from dataclasses import asdict, dataclass
import json
from pathlib import Path
import sys
import time
from typing import Any

from faults_rig import isolate
from graph_rig import GraphRig
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from so101_interfaces.msg import EeDelta

from so101_interfaces_py import topics
from so101_interfaces_py.conversions import stamp_to_ns

PERIOD_S = 0.1
GROWN_MB, GROWN_SHARE = 12.0, 0.10
"""More memory than both of these, from the first third of the time to the last, counts as growth."""

SLOWER_S = 0.010
"""A median latency that grew by more than this counts as growth [s]."""


@dataclass(frozen=True)
class Quantiles:
    """Of a set of times [ms]."""

    p50: float
    p95: float
    p99: float
    worst: float
    n: int

    @classmethod
    def of(cls, seconds: list[float]) -> 'Quantiles':
        """Return those of times [s]."""
        if not seconds:
            return cls(-1.0, -1.0, -1.0, -1.0, 0)  # JSON has no NaN
        values = 1e3 * np.array(seconds)
        p50, p95, p99 = (round(float(np.quantile(values, q)), 2) for q in (0.5, 0.95, 0.99))
        return cls(p50, p95, p99, round(float(values.max()), 2), len(seconds))


def stamp_s(message: Any) -> float:
    """Return the stamp of a message [s]."""
    return stamp_to_ns(message.header.stamp) / 1e9


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process [MB]."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * 4096 / 1e6


class Window:
    """What happened in a stretch of time: the gaps of the clock, and latencies by name [s]."""

    def __init__(self) -> None:
        self.jitter: list[float] = []
        self.latency: dict[str, list[float]] = {'answer': [], 'command': [], 'joints': []}
        self.steps = self.held = 0

    def add(self, rig: GraphRig, since_s: float, until_s: float) -> None:
        """Take what was heard between two times [s]."""
        offset = time.time() - time.monotonic()
        steps = {(m.episode, m.index): m for _, m in rig.ear.since(topics.STEP, since_s, until_s)}
        answers = {
            (m.episode, m.index): m for _, m in rig.ear.since(topics.POLICY_EE_DELTA, since_s, until_s + 1.0)
        }
        joints = np.array(
            [stamp_s(m) for _, m in rig.ear.since(topics.JOINT_COMMAND, since_s, until_s + 1.0)] or [np.inf]
        )
        commands = {
            (m.episode, m.index): (at, m)
            for at, m in rig.ear.since(topics.EE_DELTA_CMD, since_s, until_s + 1.0)
        }
        for key, step in steps.items():
            before = steps.get((key[0], key[1] - 1))
            if before is not None:
                self.jitter.append(abs(stamp_s(step) - stamp_s(before) - PERIOD_S))
            if step.terminated or step.truncated:
                continue
            self.steps += 1
            at, command = commands.get(key, (0.0, None))
            if command is None or command.source == EeDelta.SOURCE_NONE:
                self.held += 1
                continue
            tick = stamp_s(step)
            if key in answers:
                self.latency['answer'].append(stamp_s(answers[key]) - tick)
            self.latency['command'].append(stamp_s(command) - tick)
            # The first joint command made after the action had come.
            later = joints[joints >= at + offset]
            if len(later):
                self.latency['joints'].append(float(later.min()) - tick)


def measure(seconds: float, speed: float) -> dict[str, Any]:
    """Run the graph; return the figures."""
    parameters = {'session': {'time_limit_steps': 200}, 'policy': {'speed': speed}}
    everything, parts, memory = Window(), [Window() for _ in range(3)], []
    with GraphRig('arm', 'kinematics', 'session', 'policy', parameters=parameters) as rig:
        rig.running(beyond=10)
        pids = {name: program.pid for name, program in rig.programs.items()}
        started = since = time.monotonic()
        stopped = 0
        slices = max(3, round(seconds / 10.0))
        for number in track(range(slices), 'running'):
            end = started + (number + 1) * seconds / slices
            while time.monotonic() < end:
                stopped += rig.keep_enabled()
                time.sleep(0.5)
            until = time.monotonic() - 1.0
            for window in (everything, parts[3 * number // slices]):
                window.add(rig, since, until)
            since = until
            memory.append({name: resident_mb(pid) for name, pid in pids.items()})
        status = rig.ear.status()
        ended = [name for name, program in rig.programs.items() if program.code is not None]
    third = max(1, len(memory) // 3)
    return {
        'jitter': asdict(Quantiles.of(everything.jitter)),
        'latency': {name: asdict(Quantiles.of(values)) for name, values in everything.latency.items()},
        'latency_by_third_p50': [Quantiles.of(part.latency['joints']).p50 for part in parts],
        'memory_mb': {
            name: [
                round(float(np.mean([one[name] for one in some])), 1)
                for some in (memory[:third], memory[-third:])
            ]
            for name in pids
        },
        'steps': everything.steps,
        'held': everything.held,
        'episodes': 0 if status is None else status.episodes,
        'outcomes': {} if status is None else status.outcomes,
        'ended': ended,
        'arm_stopped': stopped,
    }


def grown(figures: dict[str, Any]) -> list[str]:
    """Say what grew over the time."""
    found = [f'{name} has ended' for name in figures['ended']]
    for name, (first, last) in figures['memory_mb'].items():
        if last - first > max(GROWN_MB, GROWN_SHARE * first):
            found.append(f'{name}: {first:.0f} to {last:.0f} MB')
    first, _, last = figures['latency_by_third_p50']
    if min(first, last) > 0.0 and last - first > 1e3 * SLOWER_S:
        found.append(f'latency: {first:.0f} to {last:.0f} ms')
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--minutes', type=float, default=1.0, help='how long (default: %(default)s)')
    parser.add_argument('--speed', type=float, default=0.6, help="share of the policy's largest action")
    parser.add_argument('--json', type=Path, help='write the result to this file too')
    arguments = parser.parse_args()
    isolate()
    figures = measure(60.0 * arguments.minutes, arguments.speed)
    console, table = Console(), Table('', 'p50 [ms]', 'p95 [ms]', 'p99 [ms]', 'worst [ms]', 'n')
    for name, title in (
        ('answer', "step to the policy's answer"),
        ('command', 'step to the action (ee_delta_cmd)'),
        ('joints', 'step to joint_command'),
    ):
        row = figures['latency'][name]
        table.add_row(title, *(f'{row[key]:.1f}' for key in ('p50', 'p95', 'p99', 'worst')), str(row['n']))
    row = figures['jitter']
    table.add_row(
        'jitter of the control clock',
        *(f'{row[key]:.1f}' for key in ('p50', 'p95', 'p99', 'worst')),
        str(row['n']),
    )
    console.print(table)
    for name, (first, last) in figures['memory_mb'].items():
        console.print(f'{name}: {first:.0f} MB in the first third, {last:.0f} MB in the last')
    console.print(
        f'{figures["steps"]} steps, {figures["held"]} of them without an answer; '
        f'the arm stopped itself {figures["arm_stopped"]} times'
    )
    found = grown(figures)
    console.print(f'grown: {"; ".join(found) or "nothing"}')
    line = json.dumps(
        {
            'name': 'graph',
            'value': figures['latency']['joints']['p50'],
            'unit': 'ms, p50 from a step to its joint command',
            'peer': None,
            'peer_value': None,
            'ratio': None,
            'n': figures['steps'],
            'minutes': arguments.minutes,
            **figures,
            'grown': found,
        }
    )
    if arguments.json:
        arguments.json.write_text(line + '\n')
    print(line)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
