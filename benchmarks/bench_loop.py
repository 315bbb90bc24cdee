# SPDX-License-Identifier: Apache-2.0
"""How regular the control loop of the real arm_node is, on the virtual arm, over DDS, and what it costs.

This process subscribes to joint_states and sends joint commands at 50 Hz. The last line is one JSON object.
"""

import sys
import time

from faults_rig import FaultRig, sway
import numpy as np
from processes import isolate
from report import Parser, Report, Row

WARM_UP = 200
RATE_HZ = 100.0


def run(seconds: float) -> list[Row]:
    """Let an enabled arm follow commands for some seconds."""
    with FaultRig() as rig:
        rig.heal()
        rig.enable()
        with rig.client.streaming(sway):
            rig.client.wait_for_state('enabled')
            rig.client.forget()
            rig.client.wait(lambda: len(rig.client.joints) >= WARM_UP, f'{WARM_UP} joint_states', 30.0)
            rig.client.forget()
            begin, cpu, arm_cpu = time.monotonic(), rig.node.cpu_s(), rig.arm.arm.cpu_s()
            first = rig.client.status
            time.sleep(seconds)
            last = rig.client.wait_for_state('enabled', after_s=time.monotonic()).message
            elapsed, cpu = time.monotonic() - begin, rig.node.cpu_s() - cpu
            arm_cpu = rig.arm.arm.cpu_s() - arm_cpu
        joints = [j for j in rig.client.joints if begin <= j.stamp_s]
        writes = np.array(
            [
                e['time_s']
                for e in rig.control('log', register='GOAL_POSITION', after_s=begin)
                if e['servo_id'] == 6
            ]
        )
    stamps = np.array([j.stamp_s for j in joints])
    latency = np.array([j.received_s for j in joints]) - stamps
    period = np.diff(stamps)
    # From the begin of the reading to the goal that it led to, at the last servo.
    after = np.searchsorted(writes, stamps)
    bus = writes[after[after < writes.size]] - stamps[after < writes.size]
    cycles = last.cycles - first.cycles
    missed = last.missed_cycles - first.missed_cycles
    lost = last.lost - first.lost + last.corrupt - first.corrupt
    note = (
        f'longest period {1e3 * np.max(period):.2f} ms; {missed} of {cycles} cycles began half a period late; '
        f'{lost} of {6 * cycles} answers of servos lost'
    )
    heard = f'{len(joints)} of {elapsed * RATE_HZ:.0f} received'
    return [
        Row.of('jitter: how far a period is from 10 ms', 'ms', np.abs(period - 1.0 / RATE_HZ), 1e3, note),
        Row.of('period', 'ms', period, 1e3),
        Row.of('begin of a reading to the goal at the last servo', 'ms', bus, 1e3),
        Row.of('stamp of joint_states to its receipt', 'ms', latency, 1e3, heard),
        Row('processor of arm_node', '% of one core', 1, 100.0 * cpu / elapsed),
        Row('processor of the virtual arm', '% of one core', 1, 100.0 * arm_cpu / elapsed),
    ]


def main() -> int:
    """Command line."""
    parser = Parser(__doc__)
    parser.number('--seconds', 60.0, 'how long', quick=5.0)
    options = parser.parse_args()
    isolate()
    return Report('loop', run(options.seconds)).finish(options)


if __name__ == '__main__':
    sys.exit(main())
