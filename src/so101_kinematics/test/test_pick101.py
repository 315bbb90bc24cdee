# SPDX-License-Identifier: Apache-2.0
"""The pick101 profile against the training environment's own servos and figures."""

import math

from deltas import ee_delta
import numpy as np
import pytest
from servo_arm import ServoArm

from so101_kinematics.config import KinematicsConfig
from so101_kinematics.ee_controller import Command, EeController
from so101_kinematics.fk import ForwardKinematics

RESET = np.array([0.0, 0.0, 0.0, math.pi / 2, math.pi / 2, 0.4])
CONFIG = KinematicsConfig(profile='pick101', tcp='pick101')
STEPS = (1, 3, 5, 10)
TRAVEL_MM = ((3, 5), (23, 33), (55, 68), (153, 182))
"""What the simulator of pick-101 does after so many steps of +1 on x, y or z, over the three axes."""


def training_arm():
    arm = ServoArm(RESET, tcp='pick101', stiffness=None)
    arm.settle(1.0)
    return arm


def act(ctrl, arm, xyz):
    out = ctrl.update(arm.time, arm.q, arm.time, ee_delta(xyz, 0.3, arm.time))
    arm.step(out.q_goal)
    return out


@pytest.mark.parametrize('axis', range(3), ids='xyz')
def test_A5_the_step_response_is_that_of_training(axis):
    arm, ctrl = training_arm(), EeController(CONFIG)
    begin = arm.tcp
    travel = {}
    for step in range(1, 11):
        act(ctrl, arm, 0.02 * np.eye(3)[axis])
        travel[step] = 1e3 * (arm.tcp - begin)[axis]
    for step, (low, high) in zip(STEPS, TRAVEL_MM, strict=True):
        # the figures are in whole millimetres
        assert 0.9 * (low - 0.5) <= travel[step] <= 1.1 * (high + 0.5), travel


def test_A3_zero_actions_hold_the_arm():
    arm, ctrl = training_arm(), EeController(CONFIG)
    begin = arm.tcp
    for _ in range(250):
        act(ctrl, arm, (0.0, 0.0, 0.0))
    assert np.linalg.norm(arm.tcp - begin) < 0.5e-3


def test_A3_measured_plus_displacement_would_creep_in_the_same_simulation():
    arm, fk = training_arm(), ForwardKinematics('pick101')
    begin = arm.tcp
    for _ in range(50):
        arm.step(arm.q, periods=5)  # the target is the measured TCP: every step takes the sag for the goal
    drift = 1e3 * (arm.tcp - begin)
    assert drift[2] < -4.0
    assert np.allclose(fk.pose(arm.q).position, arm.tcp, atol=1e-9)


def test_A5_commands_are_those_of_the_training_code():
    """The controller, written down once more from its description, with the normal equations."""
    arm, ctrl, fk = training_arm(), EeController(CONFIG), ForwardKinematics('pick101')
    rng = np.random.default_rng(0)
    target = arm.tcp
    for _ in range(60):
        action = rng.uniform(-1.0, 1.0, 3)
        q = arm.q
        out = act(ctrl, arm, 0.02 * action)
        target = np.clip(target + 0.02 * action, (0.10, -0.30, 0.01), (0.50, 0.30, 0.40))
        J = fk.jacobian(q)[:3]
        dq = np.linalg.solve(J.T @ J + 0.01 * np.eye(5), J.T @ (target - fk.pose(q).position))
        expected = np.clip(q[:5] + 0.5 * np.clip(dq, -0.5, 0.5), fk.lower, fk.upper)
        np.testing.assert_allclose(out.q_goal[:5], expected, atol=1e-9)
        np.testing.assert_allclose(out.setpoint, target, atol=1e-9)


def test_the_wrist_lock_of_training_takes_the_roll_out():
    arm = training_arm()
    ctrl = EeController(
        KinematicsConfig(profile='pick101', tcp='pick101', locked_joints=(f'wrist_roll={math.pi / 2}',))
    )
    fk = ForwardKinematics('pick101')
    q = arm.q
    out = act(ctrl, arm, (0.02, 0.01, 0.0))
    J = fk.jacobian(q)[:3, :4]
    dq = np.linalg.solve(J.T @ J + 0.01 * np.eye(4), J.T @ np.array((0.02, 0.01, 0.0)))
    np.testing.assert_allclose(out.q_goal[:4], q[:4] + 0.5 * dq, atol=1e-9)
    assert out.q_goal[4] == math.pi / 2


def test_the_target_persists_between_actions_and_stays_in_the_box_of_training():
    arm, ctrl = training_arm(), EeController(CONFIG)
    for _ in range(80):
        out = act(ctrl, arm, (0.0, 0.0, -0.02))
    assert isinstance(out, Command)
    assert out.setpoint[2] == 0.01
    after = ctrl.update(arm.time, arm.q, arm.time)
    np.testing.assert_array_equal(after.setpoint, out.setpoint)
