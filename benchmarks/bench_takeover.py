# SPDX-License-Identifier: Apache-2.0
"""Hand-overs between a moving policy and a human at random moments, on the running twin graph.

A human takes over with an action of nothing, holds, and gives back. Measured is how far the goal of the joints
steps when control changes hands, beyond the motion that the actions ask for: the change between two successive
joint_command messages less what the speed before and after accounts for. Beside it: how far from the pose at the
take-over the arm comes to rest, that every step has exactly one action, and that flags do not flicker.
The last line is one JSON object; the exit code is 1 if a bound is exceeded.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
import sys
import time
from typing import Any

from graph_rig import GraphRig, wait_until
import numpy as np
import numpy.typing as npt
from processes import isolate
from report import Parser, Report, Row
from rich.progress import track
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
        to_human: its direction.
        goal_mm: step of the goal of the TCP.
        goal_deg: step of the goal of the joint that stepped most.
        rest_mm: distance of the TCP at rest from where it was at the hand-over; NaN towards the policy.
        speed_mm_s: speed of the TCP before.
    """

    to_human: bool
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

        def rested() -> bool:
            self.say_nothing()
            return self.heard(began, True, REST_S)

        wait_until(rested, 10.0, 'the arm at rest in the hands of the human', every_s=0.02)
        given = time.monotonic()
        self.rig.ear.intervene(False)
        wait_until(lambda: self.heard(given, False, REST_S), 10.0, 'the policy drives again')
        commands = self.rig.ear.since(topics.EE_DELTA_CMD, began - 0.5)
        found = []
        for human, since in ((True, began), (False, given)):
            first = self.first(commands, since, human)
            if first is not None:
                found.append(self.measure(stamp_to_ns(first.header.stamp) / 1e9, since, human))
        return found

    def first(self, commands: list[tuple[float, Any]], since: float, human: bool) -> Any:
        """Return the first action after a time that came from the human, or from the policy."""
        wanted = EeDelta.SOURCE_TELEOP if human else EeDelta.SOURCE_POLICY
        return next((m for at, m in commands if at >= since and m.source == wanted), None)

    def heard(self, since: float, human: bool, later_s: float) -> bool:
        """Whether the joints were heard until some time after that action."""
        first = self.first(self.rig.ear.since(topics.EE_DELTA_CMD, since), since, human)
        if first is None:
            return False
        joints = self.rig.ear.since(topics.JOINT_STATES, time.monotonic() - 0.1)
        begin_ns = stamp_to_ns(first.header.stamp)
        return bool(joints) and stamp_to_ns(joints[-1][1].header.stamp) - begin_ns > 1e9 * later_s

    def say_nothing(self) -> None:
        """Send a human's action of nothing."""
        message = EeDelta(gripper=0.5, source=EeDelta.SOURCE_TELEOP)
        message.header.frame_id = 'base_link'
        message.header.stamp = self.rig.ear.node.get_clock().now().to_msg()
        self.rig.ear.teleop.publish(message)

    def measure(self, at: float, since: float, human: bool) -> Step:
        """Return what the hand-over at a time (of stamps) did."""
        times, goals = trace(self.rig.ear.since(topics.JOINT_COMMAND, since - 0.5, since + 1.2))
        points = np.array([self.fk.position(goal[:5]) for goal in goals])
        joint_deg = max(excess(times, np.degrees(goals[:, [i]]), at) for i in range(5))
        seen, joints = trace(self.rig.ear.since(topics.JOINT_STATES, since - 0.5, since + 1.2))
        arm = np.array([self.fk.position(q[:5]) for q in joints])
        here, before = int(np.searchsorted(seen, at)), int(np.searchsorted(seen, at - 0.1))
        later = min(int(np.searchsorted(seen, at + REST_S)), len(arm) - 1)
        speed = float(np.linalg.norm(arm[here] - arm[before]) / max(seen[here] - seen[before], 1e-3))
        rest = 1e3 * float(np.linalg.norm(arm[later] - arm[here])) if human else float('nan')
        return Step(human, 1e3 * excess(times, points, at), joint_deg, rest, 1e3 * speed)


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
        len(list(run)) for human, run in groupby(m.source == EeDelta.SOURCE_TELEOP for m in commands) if human
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
    parser = Parser(__doc__)
    parser.number('--n', 50, 'take-overs', quick=4)
    parser.number('--speed', 0.6, "share of the policy's largest action")
    parser.number('--seed', 0, 'of the moments')
    options = parser.parse_args()
    isolate()
    parameters = {
        'session': {'time_limit_steps': 100_000, 'gripper_ramp_steps': 5},
        'policy': {'speed': options.speed},
        'twin': {'camera_width': 64, 'camera_height': 64},
    }
    steps: list[Step] = []
    with GraphRig('arm', 'kinematics', 'session', 'policy', parameters=parameters) as rig:
        rig.running(beyond=5)
        bench, began = Bench(rig, options.seed), time.monotonic()
        for _ in track(range(options.n), 'hand-overs'):
            steps += bench.hand_over()
        books = bookkeeping(rig, began)
    return judge(steps, books).finish(options)


def judge(steps: list[Step], books: dict[str, int]) -> Report:
    """Return the figures, and whether they keep to their bounds."""
    worst_mm, worst_deg = max(s.goal_mm for s in steps), max(s.goal_deg for s in steps)
    counts = ', '.join(f'{name}: {count}' for name, count in books.items())
    largest = Row('largest step of the goal of the TCP', 'mm', len(steps), worst_mm, note=counts)
    rows = [
        largest.beside('bound', BOUND_MM),
        Row('largest step of the goal of a joint', 'deg', len(steps), worst_deg).beside('bound', BOUND_DEG),
    ]
    for human, name in ((True, 'policy to human'), (False, 'human to policy')):
        some = [step for step in steps if step.to_human is human]
        speed = f'TCP at {np.median([step.speed_mm_s for step in some] or [0.0]):.0f} mm/s before'
        rows.append(
            Row.of(f'{name}: step of the goal of the TCP', 'mm', [s.goal_mm for s in some], note=speed)
        )
        rows.append(Row.of(f'{name}: step of the goal of the worst joint', 'deg', [s.goal_deg for s in some]))
        if human:
            rows.append(Row.of(f'{name}: way until the TCP rests', 'mm', [s.rest_mm for s in some]))
    wrong = books['steps without exactly one action'] + books['interventions shorter than 3 steps']
    return Report(
        'takeover', rows, passed=worst_mm < BOUND_MM and worst_deg < BOUND_DEG and wrong == 0, details=books
    )


if __name__ == '__main__':
    sys.exit(main())
