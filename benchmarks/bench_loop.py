# SPDX-License-Identifier: Apache-2.0
"""How regular the control loop of the real arm_node is, on the virtual arm, over DDS, and what it costs.

This process subscribes to joint_states and sends joint commands at 50 Hz. The last line is one JSON object.
"""

import argparse
import json
from pathlib import Path
import time

from faults_rig import FaultRig, isolate, sway
import numpy as np
from rich.console import Console
from rich.table import Table

SETTLE_S = 2.0
RATE_HZ = 100.0


def run(seconds: float) -> dict[str, float]:
    """Let an enabled arm follow commands for some seconds and return the figures, times in s."""
    with FaultRig() as rig:
        rig.heal()
        rig.enable()
        with rig.client.streaming(sway):
            rig.client.wait_for_state('enabled')
            time.sleep(SETTLE_S)
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
    bus = (
        (writes[after[after < writes.size]] - stamps[after < writes.size])
        if writes.size
        else np.array([np.nan])
    )
    return {
        'cycles': float(last.cycles - first.cycles),
        'missed': float(last.missed_cycles - first.missed_cycles),
        'received': float(len(joints)),
        'expected': float(round(elapsed * RATE_HZ)),
        'lost_answers': float(last.lost - first.lost + last.corrupt - first.corrupt),
        'period_p50': float(np.percentile(period, 50)),
        'period_p99': float(np.percentile(period, 99)),
        'period_max': float(np.max(period)),
        'bus_p50': float(np.percentile(bus, 50)),
        'bus_p99': float(np.percentile(bus, 99)),
        'latency_p50': float(np.percentile(latency, 50)),
        'latency_p95': float(np.percentile(latency, 95)),
        'cpu_arm_node': cpu / elapsed,
        'cpu_virtual_arm': arm_cpu / elapsed,
        'seconds': elapsed,
    }


def table(figures: dict[str, float]) -> Table:
    """The figures for people."""

    def ms(*names: str) -> str:
        return ' / '.join(f'{1e3 * figures[name]:.2f} ms' for name in names)

    rows = {
        'cycles missed (began half a period late)': f'{figures["missed"]:.0f} of {figures["cycles"]:.0f}',
        'joint_states received': f'{figures["received"]:.0f} of {figures["expected"]:.0f}',
        'answers of servos lost': f'{figures["lost_answers"]:.0f} of {6 * figures["cycles"]:.0f}',
        'period p50 / p99 / max': ms('period_p50', 'period_p99', 'period_max'),
        'bus cycle, begin of reading to goal at the servo, p50 / p99': ms('bus_p50', 'bus_p99'),
        'stamp to receipt p50 / p95': ms('latency_p50', 'latency_p95'),
        'CPU of arm_node': f'{100 * figures["cpu_arm_node"]:.1f} % of one core',
        'CPU of the virtual arm': f'{100 * figures["cpu_virtual_arm"]:.1f} % of one core',
    }
    result = Table('control loop at 100 Hz, commands at 50 Hz', 'measured')
    for name, value in rows.items():
        result.add_row(name, value)
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seconds', type=float, default=60.0, help='how long (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='write the result to this file too')
    arguments = parser.parse_args()
    isolate()
    figures = run(arguments.seconds)
    Console().print(table(figures))
    line = json.dumps(
        {
            'name': 'loop',
            'value': 1e3 * figures['period_p99'],
            'unit': 'ms, p99 period at 100 Hz',
            'peer': None,
            'peer_value': None,
            'ratio': None,
            'n': int(figures['cycles']),
            'figures': {name: round(value, 6) for name, value in figures.items()},
        }
    )
    if arguments.json:
        arguments.json.write_text(line + '\n')
    print(line)


if __name__ == '__main__':
    main()
