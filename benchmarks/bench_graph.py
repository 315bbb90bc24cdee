# SPDX-License-Identifier: Apache-2.0
"""The running twin graph: regularity of the control clock, latency from a step to the joints, memory over time.

Twin, driver, kinematics and session run as processes of their own; a scripted policy answers every step at once, so
that the figures are those of the graph. Latencies are from the tick that a step carries to the joint command that
first carries the answer out. `--minutes 30` shows whether memory or latency grows.
The last line is one JSON object; the exit code is 1 if something grew, or a node ended.
"""

from pathlib import Path
import sys
import time
from typing import Any

from graph_rig import GraphRig, stamp_s
import numpy as np
from processes import isolate
from report import Parser, quantile, Report, Row
from rich.progress import track
from so101_interfaces.msg import EeDelta

from so101_interfaces_py import topics

GROWN_MB, GROWN_SHARE = 12.0, 0.10
"""More memory than both of these, from the first third of the time to the last, counts as growth."""

SLOWER_S = 0.010
"""A median latency that grew by more than this counts as growth [s]."""


TITLES = {
    'joints': 'step to joint_command',
    'answer': "step to the policy's answer",
    'command': 'step to the action (ee_delta_cmd)',
}


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process [MB]."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * 4096 / 1e6


class Window:
    """What happened in a stretch of time: the gaps of the clock, and latencies by name [s]."""

    def __init__(self) -> None:
        self.jitter: list[float] = []
        self.latency: dict[str, list[float]] = {name: [] for name in TITLES}
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
        self.jitter += rig.ear.jitter(since_s, until_s)
        for key, step in steps.items():
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


def measure(seconds: float, speed: float) -> tuple[Window, dict[str, Any]]:
    """Run the graph; return what happened in all the time, and what else there is to know."""
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
                stopped += rig.keep_going() == 'enabled'
                time.sleep(0.5)
            until = time.monotonic() - 1.0
            for window in (everything, parts[3 * number // slices]):
                window.add(rig, since, until)
            since = until
            memory.append({name: resident_mb(pid) for name, pid in pids.items()})
        status = rig.ear.status()
        ended = [name for name, program in rig.programs.items() if program.code is not None]
    third = max(1, len(memory) // 3)
    return everything, {
        'latency_by_third_ms': [
            1e3 * quantile(part.latency['joints'], 0.5) if part.latency['joints'] else None for part in parts
        ],
        'memory_mb': {
            name: [
                round(float(np.mean([one[name] for one in some])), 1)
                for some in (memory[:third], memory[-third:])
            ]
            for name in pids
        },
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
    first, _, last = figures['latency_by_third_ms']
    if first and last and last - first > 1e3 * SLOWER_S:
        found.append(f'latency: {first:.0f} to {last:.0f} ms')
    return found


def make_rows(window: Window, figures: dict[str, Any]) -> list[Row]:
    """Return the latencies, the regularity of the clock, and the memory of each process."""

    def worst(seconds: list[float]) -> str:
        return f'worst {1e3 * max(seconds, default=0.0):.0f} ms'

    latencies = [
        Row.of(title, 'ms', window.latency[name], 1e3, worst(window.latency[name]))
        for name, title in TITLES.items()
    ]
    without = (
        f'{worst(window.jitter)}; {window.held} of {window.steps} steps without an answer; '
        f'the arm stopped {figures["arm_stopped"]} times'
    )
    jitter = Row.of('jitter of the control clock', 'ms', window.jitter, 1e3, without)
    memory = [
        Row(f'memory of {name} in the last third', 'MB', 1, last, note=f'{first:.0f} MB in the first third')
        for name, (first, last) in figures['memory_mb'].items()
    ]
    return [*latencies, jitter, *memory]


def main() -> int:
    """Command line."""
    parser = Parser(__doc__)
    parser.number('--minutes', 3.0, 'how long', quick=0.2)
    parser.number('--speed', 0.6, "share of the policy's largest action")
    options = parser.parse_args()
    isolate()
    window, figures = measure(60.0 * options.minutes, options.speed)
    found = grown(figures)
    print(f'grown: {"; ".join(found) or "nothing"}', file=sys.stderr)
    details = {**figures, 'minutes': options.minutes, 'grown': found}
    return Report('graph', make_rows(window, figures), passed=not found, details=details).finish(options)


if __name__ == '__main__':
    sys.exit(main())
