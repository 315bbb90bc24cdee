# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import math

import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_kinematics.fk import ForwardKinematics
from so101_sim.errors import PresetError
from so101_sim.scene.scene import SceneConfig
from so101_sim.scene.servo import get_servo, ServoLimits, ServoModel, SERVOS
from so101_sim.scene.simulation import Simulation

AWAY = (0.3, 0.25, 0.015)
STRETCHED = np.array([0.0, 0.55, -0.55, 0.2, 0.0, 0.5])
HOME = np.array([0.0, -0.25, 0.3, 1.25, 0.0, 0.5])
ON = np.ones(6, dtype=np.bool_)


def simulate(servo: str | ServoModel) -> Simulation:
    return Simulation(SceneConfig(servo=get_servo(servo)))


def limits(**changes: float) -> ServoLimits:
    none = ServoLimits.none()
    return replace(none, **{name: np.full(6, value) for name, value in changes.items()})


@pytest.mark.parametrize('name', SERVOS)
def test_every_servo_reaches_its_no_load_speed_and_no_more(name):
    simulation = simulate(name)
    simulation.reset([-1.5, -0.3, 0.3, 0.0, 0.0, 0.0], AWAY)
    fastest = 0.0
    for _ in range(100):
        simulation.step(5, np.array([1.9, -0.3, 0.3, 0.0, 0.0, 0.0]))
        fastest = max(fastest, float(simulation.joint_velocities[0]))
    expected = SERVOS[name].no_load_speed
    assert 0.6 * expected < fastest < 1.02 * expected


@pytest.mark.parametrize('joint', ['shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_roll'])
@pytest.mark.parametrize('step', [0.1, -0.5])
def test_a_step_does_not_overshoot_by_more_than_a_few_percent(joint, step):
    simulation = simulate('sts3215_7v4')
    simulation.reset(HOME, AWAY)
    index = JOINT_NAMES.index(joint)
    goal = HOME.copy()
    goal[index] += step
    shares = []
    for _ in range(60):
        simulation.step(5, goal)
        shares.append((simulation.joint_positions[index] - HOME[index]) / step)
    assert abs(shares[-1] - 1.0) * abs(step) < math.radians(1.0)  # what gravity leaves
    assert max(shares) < shares[-1] + 0.06


@pytest.mark.parametrize('pose', [HOME, STRETCHED], ids=['home', 'stretched'])
def test_joints_rest_within_a_degree_of_their_goals_under_gravity(pose):
    simulation = simulate('sts3215_7v4')
    simulation.reset(pose, AWAY)
    simulation.step(1000, pose)
    assert np.degrees(np.abs(simulation.joint_positions - pose)).max() < 1.0


def test_a_soft_servo_droops_by_load_over_stiffness():
    simulation = simulate('sts3215_7v4_soft')
    simulation.reset(STRETCHED, AWAY)
    simulation.step(1500, STRETCHED)
    lift = JOINT_NAMES.index('shoulder_lift')
    droop = simulation.joint_positions[lift] - STRETCHED[lift]
    torque = -simulation.servos.loads(simulation.data)[lift] * 1.91
    assert torque == pytest.approx(SERVOS['sts3215_7v4_soft'].stiffness * droop, rel=0.05)
    assert 1.0 < np.degrees(droop) < 4.0


def test_a_motor_never_gives_more_than_its_stall_torque():
    simulation = simulate('sts3215_7v4')
    simulation.reset(HOME, AWAY)
    for goal in (HOME + 1.0, HOME - 1.0):
        simulation.step(20, goal)
        assert np.abs(simulation.data.actuator_force).max() <= 1.91 + 1e-9
        assert np.abs(simulation.servos.loads(simulation.data)).max() == pytest.approx(1.0)


def test_a_duty_limit_limits_the_torque():
    simulation = simulate('sts3215_7v4')
    simulation.reset(HOME, AWAY)
    simulation.step(20, HOME + 1.0, limits=limits(duty=0.3))
    assert np.abs(simulation.data.actuator_force).max() == pytest.approx(0.3 * 1.91)


def test_without_torque_the_arm_falls_and_load_is_nothing():
    simulation = simulate('sts3215_7v4')
    simulation.reset(np.zeros(6), AWAY)
    fk = ForwardKinematics()
    time_s = 0.0
    while fk.pose(simulation.joint_positions).position[2] > 0.02 and time_s < 2.0:
        simulation.step(5, np.zeros(6), torque=np.zeros(6, dtype=np.bool_))
        time_s += 0.01
    # 0.56 s with the official joint damping of 0.60 N m s/rad; the 7.4 V servo brakes less.
    assert 0.3 < time_s < 0.6
    assert not simulation.servos.loads(simulation.data).any()


def test_one_limp_joint_lets_only_itself_fall():
    simulation = simulate('sts3215_7v4')
    simulation.reset(np.zeros(6), AWAY)
    torque = ON.copy()
    torque[2] = False
    simulation.step(200, np.zeros(6), torque=torque)
    moved = np.abs(simulation.joint_positions)
    assert moved[2] > 0.2
    assert np.delete(moved, 2).max() < 0.01


def test_a_motor_that_is_switched_on_again_does_not_jump_to_an_old_goal():
    simulation = simulate('sts3215_7v4')
    simulation.reset(np.zeros(6), AWAY)
    simulation.step(100, np.zeros(6), torque=~ON)
    fallen = simulation.joint_positions.copy()
    simulation.step(50, fallen, torque=ON)
    assert np.abs(simulation.joint_positions - fallen).max() < 0.2


def test_a_lag_delays_by_its_time_constant():
    quick, slow = (simulate(replace(SERVOS['sts3215_7v4'], lag_s=lag)) for lag in (0.0, 0.1))
    for simulation in (quick, slow):
        simulation.reset(HOME, AWAY)
        for tick in range(100):  # a ramp, behind which a lag stays by speed times its time constant
            simulation.step(5, HOME + np.array([0.005 * tick, 0, 0, 0, 0, 0]))
    behind = quick.joint_positions[0] - slow.joint_positions[0]
    assert behind == pytest.approx(0.5 * 0.1, rel=0.1)


def test_backlash_leaves_the_joint_short_on_the_way_up_and_down():
    width = math.radians(2.0)
    simulation = simulate(replace(SERVOS['sts3215_7v4'], backlash_rad=width))
    simulation.reset(HOME, AWAY)
    ends = []
    for offset in (0.2, -0.2):
        for share in np.linspace(0.0, 1.0, 40):
            start = 0.2 if offset < 0 else 0.0
            goal = HOME.copy()
            goal[0] += start + share * (offset * (2.0 if offset < 0 else 1.0))
            simulation.step(10, goal)
        simulation.step(200, goal)
        ends.append(float(simulation.joint_positions[0] - goal[0]))
    assert ends[0] == pytest.approx(-width / 2.0, abs=2e-3)
    assert ends[1] == pytest.approx(width / 2.0, abs=2e-3)


@pytest.mark.parametrize('speed', [0.2, 1.0])
def test_a_speed_limit_is_kept(speed):
    simulation = simulate('sts3215_7v4')
    simulation.reset(HOME, AWAY)
    goal = HOME + np.array([1.0, 0, 0, 0, 0, 0])
    simulation.step(5, goal, limits=limits(speed=speed, acceleration=50.0))
    before = None
    for _ in range(40):
        simulation.step(5, goal, limits=limits(speed=speed, acceleration=50.0))
        before = before or float(simulation.joint_positions[0])
    assert (simulation.joint_positions[0] - before) / 0.39 == pytest.approx(speed, rel=0.1)


def test_an_acceleration_limit_ends_on_the_goal_without_overshoot():
    simulation = simulate('sts3215_7v4')
    simulation.reset(HOME, AWAY)
    goal = HOME + np.array([0.4, 0, 0, 0, 0, 0])
    highest = 0.0
    for _ in range(120):
        simulation.step(5, goal, limits=limits(acceleration=3.0))
        highest = max(highest, float(simulation.joint_positions[0]))
    assert simulation.joint_positions[0] == pytest.approx(goal[0], abs=3e-3)
    assert highest < goal[0] + 0.02


@pytest.mark.parametrize(
    'wrong',
    [
        {'stall_torque': 0.0},
        {'no_load_speed': -1.0},
        {'stiffness': math.inf * 0.0},
        {'lag_s': -0.1},
        {'friction': 3.0},
    ],
)
def test_an_impossible_servo_is_refused(wrong):
    with pytest.raises(PresetError):
        ServoModel(**{'stall_torque': 1.91, 'no_load_speed': 5.0, **wrong})


def test_an_unknown_servo_is_refused_with_a_list():
    with pytest.raises(PresetError, match='sts3215_7v4'):
        get_servo('dynamixel')
