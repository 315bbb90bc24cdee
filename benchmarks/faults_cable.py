# SPDX-License-Identifier: Apache-2.0
"""Faults of the cables: a servo that is cut off, a pulled USB plug, a start and an end on bad ones."""

from signal import SIGINT
import time

from faults_core import Bound, Fault, Outcome
from faults_rig import FaultRig, HOME, sway, wait_until
import numpy as np

from so101_driver.gate.config import GateConfig

CONFIG = GateConfig()
CYCLE_S = 0.01
SERVO = 3


def _mute(rig: FaultRig) -> float:
    """Cut a servo off a moving arm; return when [s, monotonic]."""
    rig.enable()
    rig.client.wait_for_state('hold')
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled')
        rig.wait_for_motion()
        rig.control('mute', ids=[SERVO])
        muted = time.monotonic()
        rig.client.wait_for_state('fault', after_s=muted)
    return muted


def _mute_stop(rig: FaultRig, outcome: Outcome) -> None:
    muted = _mute(rig)
    outcome.value = rig.goals(muted).last_s - muted
    fault = rig.client.wait_for_state('fault', after_s=muted)
    outcome.note = f'fault after {fault.received_s - muted:.2f} s: {fault.message.reason}'
    outcome.claim(sum(rig.arm.driven()) == 6, 'the torque went off')
    outcome.claim(f'servo {SERVO}' in fault.message.reason, 'the reason does not name the servo')
    outcome.claim(
        fault.received_s - muted < CONFIG.reading_timeout_s + 0.15,
        'the fault came later than reading_timeout_s',
    )


def _mute_return(rig: FaultRig, outcome: Outcome) -> None:
    muted = _mute(rig)
    back = time.monotonic()
    rig.control('mute', ids=[])
    outcome.value = rig.client.joints_after(back).received_s - back
    outcome.claim(np.isnan(rig.goals(max(back, muted + 0.2)).last_s), 'a goal was written before enabling')
    asked = time.monotonic()
    step = rig.first_step()
    outcome.claim(step <= 2, f'the first goal is {step} ticks from where the arm is')
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled', after_s=asked)
    outcome.note = f'enabled again, first goal {step} ticks from the arm'


def _unplug(rig: FaultRig, outcome: Outcome) -> None:
    rig.enable()
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled')
        rig.wait_for_motion()
        rig.control('unplug')
        time.sleep(3.0)
        outcome.claim(rig.node.alive, 'the node ended')
        rig.control('replug')
        back = time.monotonic()
        outcome.value = rig.client.joints_after(back).received_s - back
        time.sleep(0.3)
        outcome.claim(rig.goals(back).count == 0, 'a goal was written before enabling')
    step = rig.first_step()
    outcome.claim(step <= 2, f'the first goal is {step} ticks from where the arm is')
    outcome.note = f'enabled again, first goal {step} ticks from the arm'


def _unplug_short(rig: FaultRig, outcome: Outcome) -> None:
    """A plug that loses contact for less than reading_timeout_s is no fault: the arm goes on, slowly."""
    rig.enable()
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled')
        rig.wait_for_motion()
        rig.control('unplug')
        time.sleep(0.05)
        rig.control('replug')
        back = time.monotonic()
        outcome.value = rig.client.joints_after(back).received_s - back
        state = rig.client.wait_for_state('enabled', 'fault', after_s=back).state
        time.sleep(0.5)
        goals = rig.goals(back)
    outcome.note = f'then {state}; fastest goal {goals.speed_share(CONFIG):.2f} of the speed limit'
    outcome.refute(goals.over_ramp(CONFIG))


def _unplug_e_stop(rig: FaultRig, outcome: Outcome) -> None:
    rig.enable()
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled')
        rig.control('unplug')
        rig.client.wait_for_state('hold', 'fault', after_s=time.monotonic())
        outcome.claim(rig.client.e_stop().success, 'the e-stop was refused')
        pressed = time.monotonic()
        rig.control('replug')
        back = time.monotonic()
        wait_until(lambda: not any(rig.arm.driven()), 'the torque off')
        time.sleep(0.3)
        outcome.value = rig.torque_off_s(back) - back
        outcome.claim(rig.energised_after(pressed) == 0, 'something energised after the stop')


def _start(rig: FaultRig, outcome: Outcome) -> None:
    rig.end_node()
    rig.control('rates', drop=0.07, corrupt=0.07, truncate=0.06)
    rig.node = rig.start()
    joints = rig.client.joints_after(rig.node.started_s, 40.0)
    outcome.value = joints.received_s - rig.node.started_s
    settings = rig.arm.registers('ACCELERATION')
    outcome.claim(settings == [254] * 6, f'the servos were not all set up: {settings}')


def _mute_exit(rig: FaultRig, outcome: Outcome) -> None:
    rig.enable()
    with rig.client.streaming(lambda _: HOME):
        rig.client.wait_for_state('enabled')
        rig.control('mute', ids=[SERVO])
        sent = rig.node.send(SIGINT)
        code = rig.node.wait()
    outcome.value = (rig.node.ended_s or np.nan) - sent
    rig.control('mute', ids=[])
    driven = rig.arm.driven()
    others = driven[: SERVO - 1] + driven[SERVO:]
    outcome.note = f'exit code {code}, the mute servo keeps its torque: {driven[SERVO - 1]}'
    outcome.claim(not any(others), f'others than the mute servo kept their torque: {driven}')
    outcome.claim(code == 0, f'exit code {code}')


FAULTS = (
    Fault(
        'mute_stop',
        'mute servo',
        'servo 3 neither answers nor hears, the arm in motion',
        'last goal written; then FAULT, the torque stays on',
        Bound(CONFIG.reading_max_age_s + 3 * CYCLE_S, 's'),
        _mute_stop,
    ),
    Fault(
        'mute_return',
        'mute servo is back',
        'servo 3 answers again after the fault',
        'full data again; no goal before the arm is enabled, then no jump',
        Bound(0.25, 's'),
        _mute_return,
    ),
    Fault(
        'unplug',
        'USB cable pulled for 3 s',
        'the port vanishes and comes back; commands go on',
        'full data again; no goal before the arm is enabled, then no jump',
        Bound(1.0, 's'),
        _unplug,
    ),
    Fault(
        'unplug_short',
        'USB cable without contact for 50 ms',
        'the port vanishes and comes back; commands go on',
        'full data again; no goal moves faster than the ramp',
        Bound(1.0, 's'),
        _unplug_short,
    ),
    Fault(
        'unplug_e_stop',
        'e-stop while unplugged',
        'e-stop pressed, then the cable plugged in again; commands go on',
        'torque off after the cable is back; nothing energises before or after',
        Bound(1.0, 's'),
        _unplug_e_stop,
    ),
    Fault(
        'start_bad',
        'start on a bad wire',
        'a fifth of all answers lost, damaged or cut short, from before the start on',
        'joint_states come, counted from the start of the process; all servos are set up',
        Bound(10.0, 's'),
        _start,
    ),
    Fault(
        'mute_exit',
        'SIGINT with a mute servo',
        'servo 3 mute, then SIGINT',
        'the process has ended; every servo that hears it is limp',
        Bound(2.0, 's'),
        _mute_exit,
    ),
)
