# SPDX-License-Identifier: Apache-2.0
"""Faults of the servos and their supply: overload, heat, low voltage, lost power."""

import time

from faults_core import Bound, Fault, Outcome
from faults_rig import FaultRig, HOME, REST, sway, wait_until
import numpy as np

from so101_driver.bus.registers import ServoError
from so101_driver.gate.config import GateConfig

CONFIG = GateConfig()
SERVO = 3
CYCLE_S = 0.01


def _overload(rig: FaultRig, outcome: Outcome) -> None:
    rig.enable()
    rig.control('set', servo_id=SERVO, register='PROTECTION_TIME', value=20)
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled')
        rig.control('load', servo_id=SERVO, share=-0.95)
        latched = wait_until(
            lambda: (
                rig.control('get', servo_id=SERVO, register='STATUS') & ServoError.OVERLOAD
                and time.monotonic()
            ),
            'the overload',
        )
        fault = rig.client.wait_for_state('fault', after_s=latched - 0.05)
        time.sleep(0.2)
    outcome.value = rig.goals().last_s - latched
    outcome.note = fault.message.reason
    outcome.claim('overload' in fault.message.reason, 'the reason does not say overload')
    refused = rig.client.enable()
    outcome.claim(not refused.success, 'the arm was enabled with a latched overload')
    rig.control('load', servo_id=SERVO, share=0.0)


def _hot(rig: FaultRig, outcome: Outcome) -> None:
    rig.enable()
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled')
        rig.wait_for_motion()
        rig.control('environment', servo_id=SERVO, temperature_c=66.0)
        heated = time.monotonic()
        fault = rig.client.wait_for_state('fault', after_s=heated)
        outcome.value = fault.received_s - heated
        wait_until(lambda: not any(rig.arm.driven()), 'the arm released')
        released = time.monotonic() - heated
        time.sleep(0.2)
        outcome.claim(rig.energised_after(heated + released) == 0, 'something energised after the release')
    away = float(np.max(np.abs(rig.client.fresh().position - REST)[:5]))
    outcome.note = f'{fault.message.reason} Parked and released after {released:.1f} s'
    outcome.claim(away < 0.15, f'released {away:.2f} rad from the rest pose')
    refused = rig.client.enable()
    outcome.claim(not refused.success, 'a hot arm was enabled')


def _low_voltage(rig: FaultRig, outcome: Outcome) -> None:
    rig.enable()
    with rig.client.streaming(sway):
        rig.client.wait_for_state('enabled')
        for servo_id in range(1, 7):
            rig.control('environment', servo_id=servo_id, voltage_v=3.9)
        sagged = time.monotonic()

        def reported() -> float:
            status = rig.client.statuses[-1]
            return (
                status.received_s
                if all(value & ServoError.VOLTAGE for value in status.message.error)
                else 0.0
            )

        outcome.value = rig.client.wait(reported, 'the voltage error in arm/status') - sagged
        time.sleep(0.5)
        rig.client.wait_for_state('enabled', after_s=time.monotonic(), deadline_s=2.0)
    rig.client.enable(False)
    refused = rig.client.enable()
    outcome.claim(not refused.success, 'the arm was enabled at 3.9 V')
    outcome.note = f'the arm goes on; enabled again it is not: {refused.message}'


def _power_cycle(ids: list[int]):
    """Measure how an enabled arm takes servos that were without power for half a second and fell."""

    def measure(rig: FaultRig, outcome: Outcome) -> None:
        rig.enable()
        with rig.client.streaming(lambda _: HOME):
            rig.client.wait_for_state('enabled')
            rig.control('power', on=False, ids=ids)
            time.sleep(0.2)
            fallen = HOME + np.array([0.3, 0.5, -0.5, 0.3, 0.3, 0.3]) * np.isin(range(1, 7), ids)
            rig.arm.place(fallen)
            time.sleep(0.1)
            present = rig.present()
            rig.control('power', on=True, ids=ids)
            back = time.monotonic()
            rig.client.wait_for_state('disabled', after_s=back)
            outcome.value = rig.client.joints_after(back).received_s - back
            time.sleep(0.3)
            outcome.claim(rig.energised_after(back) == 0, 'a goal or torque was written before enabling')
        moved = int(np.max(np.abs(rig.present() - present)[np.array(ids) - 1]))
        outcome.claim(moved <= 2, f'a servo moved by {moved} ticks on its return')
        settings = rig.arm.registers('ACCELERATION')
        outcome.claim(settings == [254] * 6, f'the servos were not set up again: {settings}')
        reason = rig.client.reason
        step = rig.first_step()
        outcome.claim(step <= 2, f'the first goal is {step} ticks from where the arm is')
        outcome.note = f'{reason}; enabled, first goal {step} ticks from the arm'

    return measure


FAULTS = (
    Fault(
        'overload',
        'overload latched',
        'servo 3 loaded with 95 % of its torque until it latches the fault',
        'last goal written, from the latch on; FAULT; not enabled while it lasts',
        Bound((CONFIG.confirm_readings + 3) * CYCLE_S, 's'),
        _overload,
    ),
    Fault(
        'hot',
        '66 degC',
        'servo 3 heated above temperature_stop_c, the arm in motion',
        'FAULT reported; the arm parks at the rest pose, releases, and is not enabled while hot',
        Bound(0.1, 's'),
        _hot,
    ),
    Fault(
        'low_voltage',
        'under-voltage',
        '3.9 V at every servo, the arm in motion',
        'reported in arm/status; the arm goes on, but is not enabled again',
        Bound(0.25, 's'),
        _low_voltage,
    ),
    Fault(
        'power_cycle_one',
        'one servo without power for 0.3 s',
        'servo 2 of an enabled arm loses its power, falls by 0.5 rad and is back; commands go on',
        'DISABLED and full data again; no goal before the arm is enabled, then no jump',
        Bound(0.5, 's'),
        _power_cycle([2]),
    ),
    Fault(
        'power_cycle_all',
        'arm without power for 0.3 s',
        'all servos of an enabled arm lose their power, fall and are back; commands go on',
        'DISABLED and full data again; no goal before the arm is enabled, then no jump',
        Bound(0.5, 's'),
        _power_cycle([1, 2, 3, 4, 5, 6]),
    ),
)
