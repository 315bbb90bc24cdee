# SPDX-License-Identifier: Apache-2.0
"""Faults of the wire: lost, damaged and late answers, noise."""

from collections.abc import Callable
from itertools import pairwise
import time

from faults_core import Bound, Fault, Outcome
from faults_rig import FaultRig, HOME, sway
import numpy as np

from so101_interfaces_py.conversions import stamp_to_ns

WINDOW_S = 3.0
SERVOS = 6
# Far more than without a second attempt, and attainable on a machine that is busy.
LEAST_SHARES = ((0.01, 0.95), (0.05, 0.85), (0.20, 0.60))


def _full_cycles(rates: dict[str, float]) -> Callable[[FaultRig, Outcome], None]:
    """Measure the share of cycles with full data on a wire with these rates of faults.

    It is the median over half seconds: a moment in which the machine does something else does not count.
    """

    def measure(rig: FaultRig, outcome: Outcome) -> None:
        rig.enable()
        with rig.client.streaming(sway):
            rig.client.wait_for_state('enabled')
            rig.control('rates', **rates)
            rig.client.forget()
            time.sleep(WINDOW_S)
            rig.client.fresh()
            statuses, joints = rig.client.statuses, rig.client.joints
        end = HOME + 0.3
        with rig.client.streaming(lambda _: end):
            rig.wait_for_pose(end)
        stamps = np.array([sample.stamp_ns for sample in joints])
        marks = [(stamp_to_ns(s.message.header.stamp), s.message.cycles) for s in statuses]
        # At 10 Hz, each fifth status is half a second after the one before.
        shares = [_share_between(stamps, *pair) for pair in pairwise(marks[::5])]
        outcome.value = float(np.median(shares))
        first, last = statuses[0].message, statuses[-1].message
        overall = _share_between(stamps, marks[0], marks[-1])
        lost, damaged = last.lost - first.lost, last.corrupt - first.corrupt
        outcome.note = (
            f'{100 * overall:.1f} % of all {last.cycles - first.cycles} cycles, {lost} answers lost, '
            f'{damaged} damaged, longest gap {np.max(np.diff(stamps)) / 1e6:.0f} ms'
        )
        # A machine that stops a process for more than reading_max_age_s makes the arm hold for a moment.
        states = {status.state for status in statuses}
        outcome.claim(states <= {'enabled', 'hold'}, f'the states were {sorted(states)}')
        outcome.claim(rig.node.alive, 'the node ended')

    return measure


def _share_between(stamps: np.ndarray, begin: tuple[int, int], end: tuple[int, int]) -> float:
    """Share of the cycles between two (stamp [ns], number of the cycle) that led to joint_states."""
    inside = np.count_nonzero((stamps > begin[0]) & (stamps <= end[0]))
    return float(inside / max(1, end[1] - begin[1]))


def _share(kind: str, rate: float, least: float) -> Fault:
    words = {'drop': 'lost', 'corrupt': 'damaged'}[kind]
    return Fault(
        id=f'{kind}_{100 * rate:.0f}',
        name=f'{100 * rate:.0f} % of answers {words}',
        inject=f'{kind} = {rate}, while the arm follows commands',
        expected=f'share of cycles with full data (asked once: {100 * (1 - rate) ** SERVOS:.0f} %); the arm '
        'keeps following and reaches its goal',
        bound=Bound(least, 'share', at_least=True),
        measure=_full_cycles({kind: rate}),
    )


def _late(rig: FaultRig, outcome: Outcome) -> None:
    """Old answers that passed as fresh would show a steadily moving joint stepping back."""
    low, high = HOME.copy(), HOME.copy()
    low[2], high[2] = -1.2, 1.2
    rig.enable()
    worst = 0.0
    with rig.client.streaming(lambda _: low):
        rig.wait_for_pose(low)
    rig.control('rates', delay=0.2, delay_s=0.03)
    for end, way in ((high, 1.0), (low, -1.0)):
        rig.client.forget()
        with rig.client.streaming(lambda _, end=end: end):
            rig.wait_for_pose(end, 0.1)
        # Only once the joint has turned round: before that it rightly moves the other way.
        positions = np.array([joints.position[2] for joints in rig.client.joints]) * way
        steps = np.diff(positions[np.argmax(positions > -0.9) :])
        worst = max(worst, float(np.max(-steps)))
    outcome.value = max(0.0, worst)
    outcome.note = f'{rig.client.status.late} late answers thrown away'
    outcome.claim(rig.client.status.late > 0, 'no answer was late')


def _noise(rig: FaultRig, outcome: Outcome) -> None:
    rig.enable()
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled')
        rig.control('rates', noise=0.6, corrupt=0.4)
        time.sleep(0.5)
        rig.control('clear_faults')
        over = time.monotonic()
        outcome.value = rig.client.joints_after(over).received_s - over
        rig.client.wait_for_state('enabled', after_s=over)
    states = dict.fromkeys(status.state for status in rig.client.statuses)
    outcome.note = f'states: {", ".join(states)}'


FAULTS = (
    Fault(
        'healthy',
        'none, for comparison',
        'nothing, while the arm follows commands',
        'share of cycles with full data; the arm keeps following and reaches its goal',
        Bound(0.95, 'share', at_least=True),
        _full_cycles({}),
    ),
    *(_share('drop', rate, least) for rate, least in LEAST_SHARES),
    *(_share('corrupt', rate, least) for rate, least in LEAST_SHARES),
    Fault(
        'late',
        'late answers',
        'every fifth answer 30 ms late, the elbow moving at 2 rad/s',
        'no old answer passes as fresh: the largest step back of a joint that moves one way',
        Bound(0.005, 'rad'),
        _late,
    ),
    Fault(
        'noise',
        'burst of noise',
        'every answer damaged or behind random bytes for 0.5 s',
        'full data again after the burst; the arm goes on',
        Bound(0.1, 's'),
        _noise,
    ),
)
