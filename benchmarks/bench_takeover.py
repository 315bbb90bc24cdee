# SPDX-License-Identifier: Apache-2.0
"""Hand-overs between a moving policy and a person at random moments, on the running twin graph.

A person takes over with an action of nothing, holds, and gives back. Measured is how far the goal of the joints
steps when control changes hands, beyond the motion that the actions ask for: the change between two successive
joint_command messages less what the speed before and after accounts for. Beside it: how far from the pose at the
take-over the arm comes to rest, that every step has exactly one action, and that flags do not flicker.
The last line is one JSON object; the exit code is 1 if a bound is exceeded.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
import json
from pathlib import Path
import sys
import time
from typing import Any

from faults_rig import isolate
from graph_rig import GraphRig
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from so101_interfaces.msg import EeDelta

from so101_contract.joints import JOINT_NAMES
from so101_interfaces_py import topics
from so101_interfaces_py.conversions import joint_positions, stamp_to_ns
from so101_kinematics.fk import ForwardKinematics

Array = npt.NDArray[np.float64]
BOUND_MM, BOUND_DEG = 2.0, 1.0
WINDOW_S = 0.12
"""Windows before and after a hand-over in which the speed of the goal is taken [s]."""

REST_S = 0.6


@dataclass(frozen=True)
class Step:
    """What a hand-over did.

    Attributes:
        to_person: its direction.
        goal_mm: step of the goal of the TCP.
        goal_deg: step of the goal of the joint that stepped most.
        rest_mm: distance of the TCP at rest from where it was at the hand-over; NaN towards the policy.
        speed_mm_s: speed of the TCP before.
    """

    to_person: bool
    goal_mm: float
    goal_deg: float
    rest_mm: float
    speed_mm_s: float


def trace(heard: list[tuple[float, Any]]) -> tuple[Array, Array]:
    """Return the times of stamps (n,) [s] and the positions (n, 6) [rad] of joint messages."""
    stamps = np.array([stamp_to_ns(message.header.stamp) / 1e9 for _, message in heard])
    return stamps, np.array([joint_positions(message, JOINT_NAMES) for _, message in heard])


def excess(times: Array, values: Array, at: float) -> float:
    """Return the largest change of a value per message around a time beyond its motion before and after.

    Args:
        times: (n,) [s].
        values: (n, k).
        at: the time [s].
    """
    changes = np.linalg.norm(np.diff(values, axis=0), axis=1)
    gaps = np.maximum(np.diff(times), 1e-3)
    speeds, middle = changes / gaps, times[1:]
    # Medians: the one message in which it steps does not count, a motion does.
    windows = [(middle > at - WINDOW_S) & (middle < at), (middle > at) & (middle < at + WINDOW_S)]
    usual = max((float(np.median(speeds[window])) for window in windows if window.any()), default=0.0)
    around = (middle > at - 0.01) & (middle < at + 0.1)
    return float(np.maximum(changes - usual * gaps, 0.0)[around].max())


class Bench:
    """Takes over and gives back, again and again."""

    def __init__(self, rig: GraphRig, seed: int) -> None:
        self.rig, self.fk = rig, ForwardKinematics()
        self.random = np.random.default_rng(seed)

    def hand_over(self) -> list[Step]:
        """Let the policy drive, take over, hold, give back; return what both hand-overs did."""
        self.rig.running()
        time.sleep(float(self.random.uniform(0.6, 1.6)))
        began = time.monotonic()
        self.rig.ear.intervene(True)
        end = time.monotonic() + 0.9
        while time.monotonic() < end:
            self.say_nothing()
            time.sleep(0.02)
        given = time.monotonic()
        self.rig.ear.intervene(False)
        time.sleep(0.7)
        commands = self.rig.ear.since(topics.EE_DELTA_CMD, began - 0.5)
        found = []
        for person, since in ((True, began), (False, given)):
            wanted = EeDelta.SOURCE_TELEOP if person else EeDelta.SOURCE_POLICY
            first = next((m for at, m in commands if at >= since and m.source == wanted), None)
            if first is not None:
                found.append(self.measure(stamp_to_ns(first.header.stamp) / 1e9, since, person))
        return found

    def say_nothing(self) -> None:
        """Send a person's action of nothing."""
        message = EeDelta(gripper=0.5, source=EeDelta.SOURCE_TELEOP)
        message.header.frame_id = 'base_link'
        message.header.stamp = self.rig.ear.node.get_clock().now().to_msg()
        self.rig.ear.teleop.publish(message)

    def measure(self, at: float, since: float, person: bool) -> Step:
        """Return what the hand-over at a time (of stamps) did."""
        times, goals = trace(self.rig.ear.since(topics.JOINT_COMMAND, since - 0.5, since + 1.2))
        points = np.array([self.fk.position(goal[:5]) for goal in goals])
        joint_deg = max(excess(times, np.degrees(goals[:, [i]]), at) for i in range(5))
        seen, joints = trace(self.rig.ear.since(topics.JOINT_STATES, since - 0.5, since + 1.2))
        arm = np.array([self.fk.position(q[:5]) for q in joints])
        here, before = int(np.searchsorted(seen, at)), int(np.searchsorted(seen, at - 0.1))
        later = min(int(np.searchsorted(seen, at + REST_S)), len(arm) - 1)
        speed = float(np.linalg.norm(arm[here] - arm[before]) / max(seen[here] - seen[before], 1e-3))
        rest = 1e3 * float(np.linalg.norm(arm[later] - arm[here])) if person else float('nan')
        return Step(person, 1e3 * excess(times, points, at), joint_deg, rest, 1e3 * speed)


def bookkeeping(rig: GraphRig, since: float) -> dict[str, int]:
    """Count the steps whose actions are not exactly one, or not what was said, and interventions that flicker."""
    steps = [m for _, m in rig.ear.since(topics.STEP, since) if not (m.terminated or m.truncated)]
    commands = [m for _, m in rig.ear.since(topics.EE_DELTA_CMD, since)]
    said = {(m.episode, m.index): m for _, m in rig.ear.since(topics.POLICY_EE_DELTA, since)}
    known = {(m.episode, m.index) for m in steps[1:-2]}
    answers = Counter((m.episode, m.index) for m in commands)
    changed = sum(
        m.translation != said[m.episode, m.index].translation
        for m in commands
        if m.source == EeDelta.SOURCE_POLICY and (m.episode, m.index) in said
    )
    runs = [
        len(list(run))
        for person, run in groupby(m.source == EeDelta.SOURCE_TELEOP for m in commands)
        if person
    ]
    return {
        'steps': len(known),
        'steps without exactly one action': sum(answers[key] != 1 for key in known),
        'actions of the policy that were changed': changed,
        'interventions': len(runs),
        'interventions shorter than 3 steps': sum(run < 3 for run in runs[:-1]),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--n', type=int, default=50, help='take-overs (default: %(default)s)')
    parser.add_argument('--speed', type=float, default=0.6, help="share of the policy's largest action")
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, help='write the result to this file too')
    arguments = parser.parse_args()
    isolate()
    parameters = {
        'session': {'time_limit_steps': 100_000, 'gripper_ramp_steps': 5},
        'policy': {'speed': arguments.speed},
        'twin': {'camera_width': 64, 'camera_height': 64},
    }
    steps: list[Step] = []
    with GraphRig('arm', 'kinematics', 'session', 'policy', parameters=parameters) as rig:
        rig.running(beyond=5)
        bench, began = Bench(rig, arguments.seed), time.monotonic()
        for _ in track(range(arguments.n), 'hand-overs'):
            steps += bench.hand_over()
        books = bookkeeping(rig, began)
    return report(steps, books, arguments.json)


def report(steps: list[Step], books: dict[str, int], path: Path | None) -> int:
    """Show and write the result."""
    table = Table(
        'hand-over', 'n', 'speed before [mm/s]', 'goal step [mm]', 'goal step [deg]', 'to rest [mm]'
    )
    rows: dict[str, dict[str, float]] = {}
    for person in (True, False):
        some = [step for step in steps if step.to_person is person]
        if not some:
            continue
        name = 'policy to person' if person else 'person to policy'
        rows[name] = {
            'n': len(some),
            'speed_mm_s': float(np.median([step.speed_mm_s for step in some])),
            'goal_mm_p50': float(np.median([step.goal_mm for step in some])),
            'goal_mm_max': max(step.goal_mm for step in some),
            'goal_deg_max': max(step.goal_deg for step in some),
            'rest_mm_p50': float(np.median([step.rest_mm for step in some])),
            'rest_mm_p95': float(np.quantile([step.rest_mm for step in some], 0.95)),
        }
        row = rows[name]
        table.add_row(
            name,
            str(len(some)),
            f'{row["speed_mm_s"]:.0f}',
            f'{row["goal_mm_p50"]:.2f}, at most {row["goal_mm_max"]:.2f}',
            f'at most {row["goal_deg_max"]:.2f}',
            f'{row["rest_mm_p50"]:.1f}, p95 {row["rest_mm_p95"]:.1f}' if person else '-',
        )
    console = Console()
    console.print(table)
    console.print(', '.join(f'{name}: {count}' for name, count in books.items()))
    worst_mm, worst_deg = max(s.goal_mm for s in steps), max(s.goal_deg for s in steps)
    wrong = books['steps without exactly one action'] + books['interventions shorter than 3 steps']
    for row in rows.values():
        row.update({key: -1.0 for key, value in row.items() if np.isnan(value)})  # JSON has no NaN
    line = json.dumps(
        {
            'name': 'takeover',
            'value': round(worst_mm, 3),
            'unit': 'mm, largest step of the TCP goal at a hand-over',
            'peer': None,
            'peer_value': None,
            'ratio': None,
            'n': len(steps),
            'worst_deg': round(worst_deg, 3),
            'rows': rows,
            'books': books,
        }
    )
    if path:
        path.write_text(line + '\n')
    print(line)
    return 0 if worst_mm < BOUND_MM and worst_deg < BOUND_DEG and wrong == 0 else 1


if __name__ == '__main__':
    sys.exit(main())
