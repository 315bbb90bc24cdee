# SPDX-License-Identifier: Apache-2.0
"""Control that changes hands does not step, neither by the lag of a moving arm nor by anything else."""

import math

from deltas import ee_delta
import numpy as np
import pytest

from so101_kinematics.config import KinematicsConfig
from so101_kinematics.ee_controller import EeController, LARGEST_RAD, STEP_M, STEP_RAD, Transfer
from so101_kinematics.fk import ForwardKinematics

FK = ForwardKinematics()
START = np.array([0.1, -0.3, 0.3, 1.2, 0.1])
DT = 0.02


def taken_out(old, new):
    transfer = Transfer(FK)
    transfer.begin(np.append(old, 0.5))
    goals = [old]
    while np.abs(goals[-1] - new).max() > 1e-12:
        goals.append(transfer.next(new))
        assert len(goals) < 100
    return np.array(goals)


@pytest.mark.parametrize('lag_deg', [0.1, 1.0, 3.0, 8.0])
def test_P9_the_goal_goes_to_the_new_one_in_small_steps(lag_deg):
    goals = taken_out(START + math.radians(lag_deg) * np.array([1, -1, 1, -1, 0.5]), START)
    assert np.abs(np.diff(goals, axis=0)).max() <= STEP_RAD + 1e-9
    points = np.array([FK.position(goal) for goal in goals])
    assert np.linalg.norm(np.diff(points, axis=0), axis=1).max() <= 1.2 * STEP_M


def test_P9_an_arm_that_is_far_from_its_goal_is_let_go_at_once():
    transfer = Transfer(FK)
    transfer.begin(np.append(START + 1.1 * LARGEST_RAD, 0.5))
    assert transfer.next(START) == pytest.approx(START)


def test_without_an_old_goal_there_is_nothing_to_take_out():
    transfer = Transfer(FK)
    transfer.begin(None)
    assert transfer.next(START) == pytest.approx(START)


@pytest.mark.parametrize('to', ['person', 'policy'])
def test_P9_a_takeover_of_a_moving_arm_does_not_step(to):
    controller = EeController(KinematicsConfig())
    first, second = ('policy', 'person') if to == 'person' else ('person', 'policy')
    q, t, goals = np.append(START, 0.5), 10.0, []
    for tick in range(60):
        source = first if tick < 30 else second
        delta = None
        if tick % 5 == 0:
            xyz = (0.0, 0.012, 0.0) if source == first else (0.0, 0.0, 0.0)
            delta = ee_delta(xyz=xyz, gripper=0.5, t=t, source=source)
        goal = controller.update(t, q, t, delta).q_goal
        goals.append(goal[:5])
        q = q + 0.25 * (goal - q)  # lags behind by some 60 ms
        t += DT
    steps = np.abs(np.diff(goals, axis=0)).max(axis=1)
    points = np.array([FK.position(goal) for goal in goals])
    jumps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert math.degrees(steps[29:].max()) < 1.0
    assert jumps[29:].max() < 0.002
    assert jumps[55:].max() < 1e-4


def test_P8_motion_that_resumes_after_a_short_hold_does_not_step():
    controller = EeController(KinematicsConfig())
    q, t, goals = np.append(START, 0.5), 10.0, []
    for tick in range(50):
        delta = None
        if tick % 5 == 0:
            delta = ee_delta(xyz=(0.0, 0.012, 0.0), gripper=0.5, t=t, source='policy')
        blind = 20 <= tick < 24  # readings are too old for a moment: it holds
        goal = controller.update(t, q, t - 1.0 if blind else t, delta).q_goal
        goals.append(goal[:5])
        q = q + 0.1 * (goal - q)  # an arm that lags far behind
        t += DT
    points = np.array([FK.position(goal) for goal in goals])
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert steps[19:26].max() <= steps[5:19].max() + 1.2 * STEP_M
