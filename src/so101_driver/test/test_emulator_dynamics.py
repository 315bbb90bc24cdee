# SPDX-License-Identifier: Apache-2.0
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_driver.emulator.dynamics import MotionLimits, SimpleDynamics

FREE = MotionLimits(duty=np.ones(1), speed=np.full(1, np.inf), acceleration=np.full(1, np.inf))
ON, OFF = np.array([True]), np.array([False])


def run(dynamics, goal, seconds, torque=ON, limits=FREE, dt=0.01):
    motions = [dynamics.step(dt, np.array([float(goal)]), torque, limits) for _ in range(round(seconds / dt))]
    return motions[-1], np.array([motion.positions[0] for motion in motions])


@settings(max_examples=12, deadline=None)
@given(st.floats(0, 4095), st.floats(0, 4095), st.sampled_from([0.004, 0.01, 0.02, 0.1]))
def test_motors_reach_their_goal_without_overshoot(start, goal, dt):
    last, positions = run(SimpleDynamics([start]), goal, 3.0, dt=dt)
    assert last.positions[0] == pytest.approx(goal, abs=1.0)
    assert abs(last.velocities[0]) < 1.0
    overshoot = (positions - goal) * np.sign(goal - start)
    assert overshoot.max() < 60.0


def test_motors_keep_about_to_their_speed_and_acceleration():
    limits = MotionLimits(duty=np.ones(1), speed=np.array([500.0]), acceleration=np.array([2000.0]))
    last, positions = run(SimpleDynamics([0.0]), 1000, 1.0, limits=limits)
    speeds = np.diff(positions) / 0.01
    assert speeds.max() < 550
    assert positions[10] < 0.5 * 2000 * 0.12**2 + 5
    assert 300 < last.positions[0] < 500


def test_a_motor_without_torque_stays_until_something_pulls():
    dynamics = SimpleDynamics([1000.0])
    last, _ = run(dynamics, 3000, 0.5, torque=OFF)
    assert last.positions[0] == 1000.0
    assert last.loads[0] == 0.0
    dynamics.external[0] = -0.3
    last, _ = run(dynamics, 3000, 0.5, torque=OFF)
    assert last.positions[0] < 900.0


def test_a_load_makes_the_joint_sag_and_shows_in_the_duty():
    dynamics = SimpleDynamics([2000.0])
    dynamics.external[0] = -0.2
    last, _ = run(dynamics, 2000, 1.0)
    assert last.positions[0] == pytest.approx(1980, abs=2)
    assert last.loads[0] == pytest.approx(0.2, abs=0.01)


def test_a_stop_holds_the_joint_and_saturates_the_duty():
    dynamics = SimpleDynamics([2000.0])
    dynamics.upper[0] = 2100.0
    last, _ = run(dynamics, 3000, 1.0)
    assert last.positions[0] == 2100.0
    assert last.velocities[0] == 0.0
    assert last.loads[0] == pytest.approx(1.0)


def test_the_duty_never_exceeds_its_limit():
    limits = MotionLimits(duty=np.array([0.25]), speed=np.full(1, np.inf), acceleration=np.full(1, np.inf))
    dynamics = SimpleDynamics([0.0])
    for _ in range(100):
        motion = dynamics.step(0.01, np.array([3000.0]), ON, limits)
        assert abs(motion.loads[0]) <= 0.25


def test_torque_on_begins_from_where_the_joint_is():
    dynamics = SimpleDynamics([2000.0])
    run(dynamics, 2000, 0.1)
    dynamics.positions[0] = 1000.0
    run(dynamics, 2000, 0.1, torque=OFF)
    limits = MotionLimits(duty=np.ones(1), speed=np.array([100.0]), acceleration=np.full(1, np.inf))
    last, _ = run(dynamics, 2000, 0.5, limits=limits)
    assert last.positions[0] == pytest.approx(1050, abs=10)
