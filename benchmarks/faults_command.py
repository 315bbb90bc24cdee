# SPDX-License-Identifier: Apache-2.0
"""Faults of whoever commands the arm: nonsense, silence, haste; and the e-stop."""

from collections.abc import Callable
import time

from faults_core import Bound, Fault, Outcome
from faults_rig import fastest_joints_rad_s, FaultRig, HOME, sway
import numpy as np

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_driver.calibration.calibration import RAD_PER_TICK
from so101_driver.gate.config import GateConfig

CONFIG = GateConfig()
LIMITS = np.array([JOINT_LIMITS_RAD[name] for name in JOINT_NAMES])
PRESSES = 10
QUEUED = 5
CYCLE_S = 0.01


def _refused(send: Callable[[FaultRig], None]) -> Callable[[FaultRig, Outcome], None]:
    """Measure how far a holding arm moves while bad commands come, and that a moving one stops."""

    def measure(rig: FaultRig, outcome: Outcome) -> None:
        rig.enable()
        before = rig.client.status.refused
        rig.client.forget()
        rig.client.fresh()
        for _ in range(25):
            send(rig)
            time.sleep(0.02)
        positions = np.array([joints.position for joints in rig.client.joints])
        outcome.value = float(np.max(np.ptp(positions, axis=0)))
        refused = rig.client.status.refused - before
        outcome.note = f'{refused} of 25 refused, the others overtaken'
        # The queue holds one command, so that one that comes before the last was looked at replaces it.
        outcome.claim(refused >= 10, f'only {refused} of 25 were refused')
        with rig.client.streaming(sway):
            moving = rig.client.wait_for_state('enabled')
            rig.wait_for_motion()
        stopped = time.monotonic()
        while time.monotonic() < stopped + 0.5:
            send(rig)
            time.sleep(0.02)
        rig.client.wait_for_state('hold', after_s=moving.received_s)
        late = rig.goals(stopped).frozen_s - stopped
        outcome.claim(
            not late > CONFIG.command_timeout_s + 2 * CYCLE_S, f'a moving arm moved on for {late:.2f} s'
        )
        outcome.claim(rig.node.alive, 'the node ended')

    return measure


def _nan(rig: FaultRig) -> None:
    number = len(rig.client.sent_s)
    target = HOME + 0.5
    target[number % 6] = (np.nan, np.inf, -np.inf)[number % 3]
    rig.client.command(target)


def _malformed(rig: FaultRig) -> None:
    far = (HOME + 0.5).tolist()
    kinds = (
        (JOINT_NAMES[:5], far[:5]),
        ((*JOINT_NAMES, 'seventh'), [*far, 0.0]),
        (JOINT_NAMES, far[:5]),
        ((*JOINT_NAMES[:5], JOINT_NAMES[0]), far),
        ((), ()),
    )
    names, positions = kinds[len(rig.client.sent_s) % len(kinds)]
    rig.client.command(positions, names)


def _old(rig: FaultRig) -> None:
    rig.client.command(HOME + 0.5, age_s=(1.0, -1.0)[len(rig.client.sent_s) % 2])


def _oversized(rig: FaultRig, outcome: Outcome) -> None:
    """Joint positions that no arm has, on each side: the goals go to the limits, as fast as they may."""
    target = np.array([1e9, 1e308, -1e9, -4.0, 1e3, 50.0])
    limit = np.where(target > 0, LIMITS[:, 1], LIMITS[:, 0])
    rig.enable()
    enabled = time.monotonic()
    with rig.client.streaming(lambda _: target):
        rig.wait_for_pose(limit)
        time.sleep(0.2)
    goals = rig.goals(enabled)
    low, high = (rig.arm.calibration.ticks_to_rad(ticks) for ticks in goals.extremes)
    outcome.value = max(0.0, float(np.max(np.maximum(high - LIMITS[:, 1], LIMITS[:, 0] - low))))
    speed = goals.speed_share(CONFIG)
    outcome.note = (
        f'{rig.client.status.clamped} commands clamped; fastest goal {speed:.2f} of the speed limit'
    )
    outcome.refute(goals.over_ramp(CONFIG))


def _silent(rig: FaultRig, outcome: Outcome) -> None:
    values = []
    far = HOME + np.array([1.5, 1.0, -1.5, 1.0, 1.5, 0.5])
    for _ in range(5):
        rig.enable()
        with rig.client.streaming(lambda _: far):
            rig.client.wait_for_state('enabled', after_s=time.monotonic() - 0.02)
            rig.wait_for_motion()
        last = rig.client.sent_s[-1]
        rig.client.wait_for_state('hold', after_s=last)
        time.sleep(0.1)
        values.append(rig.goals(last - 0.1).frozen_s - last)
        outcome.claim(all(rig.arm.driven()), 'the torque went off')
        rig.client.enable(False)
        rig.client.wait_for_state('disabled', after_s=last)
        rig.arm.place(HOME)
        rig.wait_for_pose(HOME)
    outcome.value = max(values)
    outcome.note = f'worst of {len(values)}, median {1e3 * float(np.median(values)):.0f} ms'


def _e_stop(rates: dict[str, float]) -> Callable[[FaultRig, Outcome], None]:
    """Measure the e-stop several times at different moments of the cycle, commands going on all the time."""

    def measure(rig: FaultRig, outcome: Outcome) -> None:
        random = np.random.default_rng(0)
        values = []
        energised = 0
        with rig.client.streaming(sway):
            rig.control('rates', **rates)
            for _ in range(PRESSES):
                rig.enable()
                rig.client.wait_for_state('enabled', after_s=time.monotonic() - 0.01)
                time.sleep(random.uniform(0.05, 0.1))
                pressed = time.monotonic()
                outcome.claim(rig.client.e_stop().success, 'the e-stop was refused')
                time.sleep(0.3)
                off = rig.torque_off_s(pressed)
                values.append(off - pressed)
                energised += rig.energised_after(off)
                outcome.claim(
                    not rig.client.enable().success, 'the arm was enabled without clearing the stop'
                )
                rig.client.e_stop(False)
                rig.client.wait_for_state('disabled', after_s=pressed)
        outcome.value = max(values)
        outcome.note = f'worst of {PRESSES}, median {1e3 * float(np.median(values)):.0f} ms'
        outcome.claim(energised == 0, f'{energised} writes energised after the stop')

    return measure


def _first_frame(rig: FaultRig, outcome: Outcome) -> None:
    """Enable at several poses with a far command in the queue, and look at goals and joints."""
    random = np.random.default_rng(1)
    worst_joint = worst_goal = worst_first = 0.0
    for _ in range(4):
        pose = random.uniform(LIMITS[:, 0], LIMITS[:, 1])
        far = np.where(pose > LIMITS.mean(axis=1), LIMITS[:, 0], LIMITS[:, 1])
        rig.heal(pose)
        with rig.client.streaming(lambda _, far=far: far):
            rig.client.wait(lambda: len(rig.client.sent_s) > QUEUED, 'commands in the queue')
            present, enabled = rig.present(), time.monotonic()
            rig.client.forget()
            response = rig.client.enable()
            outcome.claim(response.success, response.message)
            rig.client.wait_for_state('enabled', after_s=enabled)
            time.sleep(0.7)
        goals = rig.goals(enabled)
        worst_first = max(worst_first, float(np.max(np.abs(goals.first - present))))
        worst_goal = max(worst_goal, goals.speed_share(CONFIG))
        outcome.refute(goals.over_ramp(CONFIG))
        joints = fastest_joints_rad_s(rig.client)
        worst_joint = max(worst_joint, float(np.max(joints / CONFIG.max_speed_rad_s)))
    outcome.value = worst_joint
    outcome.note = (
        f'fastest goal {worst_goal:.2f} of the speed limit; first goal {worst_first:.0f} ticks from the joint'
    )
    outcome.claim(worst_first <= 2, 'a first goal was not where the joint is')


STILL = Bound(0.005, 'rad')
FAULTS = (
    Fault(
        'nan',
        'NaN and infinity',
        'commands with one joint NaN or infinite, 50 a second',
        'refused; the largest motion of a holding arm; a moving arm holds',
        STILL,
        _refused(_nan),
    ),
    Fault(
        'malformed',
        'malformed commands',
        'joints missing, unknown, twice; fewer positions than names; empty',
        'refused; the largest motion of a holding arm; a moving arm holds',
        STILL,
        _refused(_malformed),
    ),
    Fault(
        'old',
        'commands from the past or the future',
        'stamps 1 s old and 1 s ahead',
        'refused; the largest motion of a holding arm; a moving arm holds',
        STILL,
        _refused(_old),
    ),
    Fault(
        'oversized',
        'commands beyond every limit',
        'positions up to 1e308 rad',
        "clamped: how far a goal goes beyond the model's limits; no faster than the ramp",
        Bound(RAD_PER_TICK, 'rad'),
        _oversized,
    ),
    Fault(
        'silent',
        'command stream ends',
        'the last of a stream of commands to a far pose',
        'goals stop, from the last command on; torque stays on',
        Bound(CONFIG.command_timeout_s + CYCLE_S, 's'),
        _silent,
    ),
    Fault(
        'e_stop',
        'e-stop',
        f'{PRESSES} times, the arm in motion, commands going on',
        'torque off at all servos, from the call on; nothing energises afterwards',
        Bound(0.05, 's'),
        _e_stop({}),
    ),
    Fault(
        'e_stop_bad',
        'e-stop on a bad wire',
        f'{PRESSES} times, a fifth of the answers and a twentieth of the requests lost',
        'torque off at all servos, from the call on; nothing energises afterwards',
        Bound(0.05, 's'),
        _e_stop({'drop': 0.2, 'deaf': 0.05}),
    ),
    Fault(
        'first_frame',
        'far command in the queue at enabling',
        'enabled at four random poses while commands to the opposite limits stream',
        'fastest joint over its speed limit; a servo that makes up its lag is a little faster than its goal, '
        'one that jumps runs at 2.3',
        Bound(1.5, 'x'),
        _first_frame,
    ),
)
