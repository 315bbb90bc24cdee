# SPDX-License-Identifier: Apache-2.0
"""Faults of the process: signals, an exception, a kill, a second program on the port."""

from collections.abc import Callable
from pathlib import Path
import signal
import sys
import time

from faults_core import Bound, Fault, Outcome
from faults_rig import FAR, FaultRig, HOME, REST, sway, wait_until
import numpy as np
from rig_processes import ARM_NODE

from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import PortError
from so101_driver.gate.config import GateConfig

CONFIG = GateConfig()
FAILING_NODE = (sys.executable, str(Path(__file__).with_name('faults_failing_node.py')))


def _ended(
    number: signal.Signals, policy: str, pose: np.ndarray, **parameters: object
) -> Callable[[FaultRig, Outcome], None]:
    """Measure the end after a signal, from a pose, with an exit policy."""

    def measure(rig: FaultRig, outcome: Outcome) -> None:
        rig.restart(exit_policy=policy, **parameters)
        rig.arm.place(pose)
        rig.wait_for_pose(pose)
        rig.enable()
        with rig.client.streaming(lambda _: pose):
            rig.client.wait_for_state('enabled')
            sent = rig.node.send(number)
            code = rig.node.wait()
        outcome.value = (rig.node.ended_s or np.nan) - sent
        driven = rig.arm.driven()
        outcome.claim(driven == [policy == 'hold'] * 6, f'policy {policy}, but the torque is {driven}')
        outcome.claim(code == 0, f'exit code {code}')
        outcome.claim(rig.goals(rig.node.ended_s).count == 0, 'goals were written after the end')
        outcome.refute(_taken(rig.arm.port))
        away = float(np.max(np.abs(rig.arm.pose() - REST)[:5]))
        if 'exit_timeout_s' in parameters:
            outcome.claim(away < 0.15, f'released {away:.2f} rad from the rest pose')
        outcome.note = f'at the end {away:.2f} rad from the rest pose'

    return measure


def _taken(port: str) -> str:
    """Say why a port cannot be opened, or nothing when it can."""
    bus = ServoBus(port)
    try:
        bus.open()
    except PortError as error:
        return str(error)
    bus.close(torque_off=False)
    return ''


def _exception(rig: FaultRig, outcome: Outcome) -> None:
    """The node runs with an Arm whose cycle raises some time after the arm is enabled."""
    rig.end_node()
    rig.node = rig.start(FAILING_NODE, enable_at_start=True)
    rig.node.says('CYCLE FAILS', 30.0)
    failed = next(float(line.split()[-1]) for line in rig.node.lines if 'CYCLE FAILS' in line)
    code = rig.node.wait()
    outcome.value = rig.torque_off_s(failed) - failed
    outcome.note = f'exit code {code}, ended after {1e3 * ((rig.node.ended_s or np.nan) - failed):.0f} ms'
    outcome.claim(code not in (0, None), 'the exit code hides the failure')
    outcome.claim('Traceback' in rig.node.output, 'the failure is not shown')
    outcome.claim(rig.energised_after(failed) == 0, 'something energised after the failure')


def _kill(rig: FaultRig, outcome: Outcome) -> None:
    rig.restart(enable_at_start=True)
    far = HOME + np.array([1.5, 1.0, -1.5, 1.0, 1.5, 0.5])
    with rig.client.streaming(lambda _: far):
        rig.client.wait_for_state('enabled')
        rig.wait_for_motion()
        rig.node.send(signal.SIGKILL)
        rig.node.wait()
        outcome.claim(all(rig.arm.driven()), 'the servos lost their torque with the process')
        wait_until(lambda: not any(rig.arm.registers('MOVING')), 'the arm at rest')
        time.sleep(0.1)
        present = rig.present()
        rig.control('clear_log')
        rig.client.forget()
        rig.node = rig.start(enable_at_start=True)
        rig.client.wait_for_state('enabled', after_s=rig.node.started_s, deadline_s=30.0)
        time.sleep(0.5)
    goals = rig.goals()
    step = np.abs(goals.first - present)
    outcome.value = float(np.max(step))
    outcome.refute(goals.over_ramp(CONFIG))
    joints = rig.client.joints[0].received_s - rig.node.started_s
    off = [e['time_s'] for e in rig.control('log', register='TORQUE_ENABLE') if e['value'] == 0]
    limp = f'limp for {1e3 * (goals.first_s - off[0]):.0f} ms' if off else 'never limp'
    outcome.note = f'joint_states {joints:.1f} s after the start; {limp} before it is enabled'


def _second(rig: FaultRig, outcome: Outcome) -> None:
    rig.enable()
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled')
        rig.client.forget()
        # In a namespace of its own: a second node of the same name would not come as far as the port.
        second = rig.start([*ARM_NODE, '--ros-args', '-r', '__ns:=/second', '--'], connect_timeout_s=0.5)
        code = second.wait()
        states = {status.state for status in rig.client.statuses}
        gap = float(np.max(np.diff([joints.stamp_s for joints in rig.client.joints])))
    outcome.value = (second.ended_s or np.nan) - second.started_s
    said = second.lines[-1].replace(rig.arm.port, 'PORT')
    outcome.note = f'{said} Longest gap of the first: {1e3 * gap:.0f} ms'
    outcome.claim(code == 1, f'exit code {code}')
    outcome.claim('used by another program' in second.lines[-1], 'it does not say why')
    outcome.claim(states <= {'enabled', 'hold'}, f'the first node went to {states}')


def _end_row(id_: str, number: signal.Signals, policy: str) -> Fault:
    return Fault(
        id_,
        f'{number.name}, {policy}',
        f'{number.name} to an enabled arm, commands going on',
        f'the process has ended; torque {"on" if policy == "hold" else "off"}; the port is free',
        Bound(2.0, 's'),
        _ended(number, policy, HOME),
    )


FAULTS = (
    _end_row('sigint', signal.SIGINT, 'park_and_release'),
    _end_row('sigterm', signal.SIGTERM, 'park_and_release'),
    Fault(
        'exit_far',
        'SIGINT far from rest',
        'SIGINT to an enabled arm stretched out, up to 3.3 rad from rest; commands going on',
        'the process has ended in time; the arm is released where it is then',
        Bound(3.5, 's'),
        _ended(signal.SIGINT, 'park_and_release', FAR),
    ),
    Fault(
        'exit_patient',
        'SIGINT far from rest, exit_timeout_s 10',
        'the same with more time',
        'the process has ended after the arm has come to its rest pose',
        Bound(6.5, 's'),
        _ended(signal.SIGINT, 'park_and_release', FAR, exit_timeout_s=10.0),
    ),
    _end_row('exit_release', signal.SIGTERM, 'release'),
    _end_row('exit_hold', signal.SIGTERM, 'hold'),
    Fault(
        'exception',
        'exception in the cycle',
        'arm_node with an Arm whose cycle raises from its 150th call on',
        'torque off at all servos, from the exception on; the exit code and a traceback tell',
        Bound(2.0, 's'),
        _exception,
    ),
    Fault(
        'kill',
        'kill -9 and a new start',
        'killed in motion; started again with enable_at_start; commands going on',
        'the first goals are where the arm is, then the ramp; distance of the first goal',
        Bound(2.0, 'ticks'),
        _kill,
    ),
    Fault(
        'second_program',
        'second program on the port',
        'a second arm_node on the port of the first, connect_timeout_s 0.5',
        'refused with a sentence; the first is not disturbed; time from its start to its end',
        Bound(5.0, 's'),
        _second,
    ),
)
