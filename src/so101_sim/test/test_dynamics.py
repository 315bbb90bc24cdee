# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_driver.bus.registers import TICKS_PER_TURN
from so101_driver.calibration.calibration import ArmCalibration
from so101_driver.emulator.arm import virtual_calibration
from so101_driver.emulator.dynamics import MotionLimits
from so101_sim.scene.simulation import Simulation
from so101_sim.twin.twin import MujocoDynamics, RateClock

ON = np.ones(6, dtype=np.bool_)
HOME = np.array([0.0, -0.25, 0.3, 1.25, 0.0, 0.5])


def no_limits() -> MotionLimits:
    return MotionLimits(np.ones(6), np.full(6, np.inf), np.full(6, np.inf))


def odd_calibration() -> ArmCalibration:
    """An arm with offsets, a joint that turns the other way, and a mirrored gripper."""
    joints = dict(virtual_calibration().joints)
    for number, name in enumerate(JOINT_NAMES):
        joints[name] = replace(joints[name], homing_offset=100 * number - 250)
    joints['elbow_flex'] = replace(joints['elbow_flex'], sign=-1, offset_rad=0.05)
    joints['gripper'] = replace(joints['gripper'], drive_mode=1)
    return ArmCalibration(joints)


@pytest.mark.parametrize('calibration', [virtual_calibration(), odd_calibration()], ids=['perfect', 'odd'])
def test_encoder_angles_and_joint_positions_agree_with_the_calibration(calibration):
    dynamics = MujocoDynamics(Simulation(), calibration)
    offsets = np.array([calibration[name].homing_offset for name in JOINT_NAMES])
    rng = np.random.default_rng(0)
    for _ in range(20):
        q = rng.uniform(-1.0, 1.0, 6)
        ticks = dynamics.to_ticks(q)
        assert np.allclose(dynamics.to_rad(ticks), q)
        assert np.allclose(calibration.ticks_to_rad((ticks - offsets) % TICKS_PER_TURN), q, atol=1e-9)


@pytest.mark.parametrize('calibration', [virtual_calibration(), odd_calibration()], ids=['perfect', 'odd'])
def test_goals_in_ticks_move_the_joints_there(calibration):
    simulation = Simulation()
    simulation.reset(HOME, (0.3, 0.25, 0.015))
    dynamics = MujocoDynamics(simulation, calibration)
    goal = HOME + np.array([0.2, -0.1, 0.1, 0.1, -0.3, 0.2])
    for _ in range(200):
        motion = dynamics.step(0.005, dynamics.to_ticks(goal), ON, no_limits())
    assert np.allclose(simulation.joint_positions, goal, atol=0.01)
    assert np.allclose(dynamics.to_rad(motion.positions), simulation.joint_positions)


def test_velocity_and_load_have_the_sign_of_the_ticks():
    for calibration, sign in ((virtual_calibration(), 1.0), (odd_calibration(), -1.0)):
        simulation = Simulation()
        simulation.reset(HOME, (0.3, 0.25, 0.015))
        dynamics = MujocoDynamics(simulation, calibration)
        goal = dynamics.to_ticks(HOME)
        goal[2] += 300.0
        motion = dynamics.step(0.03, goal, ON, no_limits())
        assert motion.velocities[2] > 100.0
        assert motion.loads[2] > 0.5
        assert np.sign(simulation.joint_velocities[2]) == sign


def test_no_time_is_lost_between_steps_of_any_length():
    simulation = Simulation()
    simulation.reset(HOME, (0.3, 0.25, 0.015))
    dynamics = MujocoDynamics(simulation, virtual_calibration())
    before, total = simulation.data.time, 0.0
    rng = np.random.default_rng(0)
    for dt in rng.uniform(0.0003, 0.009, 200):
        dynamics.step(float(dt), dynamics.to_ticks(HOME), ON, no_limits())
        total += dt
    assert simulation.data.time - before == pytest.approx(total, abs=0.0021)


def test_the_arm_is_limp_without_torque():
    simulation = Simulation()
    simulation.reset(np.zeros(6), (0.3, 0.25, 0.015))
    dynamics = MujocoDynamics(simulation, virtual_calibration())
    motion = dynamics.step(0.4, dynamics.to_ticks(np.zeros(6)), ~ON, no_limits())
    assert np.abs(simulation.joint_positions[1:3]).max() > 0.2
    assert not motion.loads.any()


def test_the_clock_measures_simulated_time_per_time():
    clock = RateClock(2.0)
    for step in range(500):
        clock.advance(0.005 if step < 450 else 0.0, now=step * 0.01)
    assert clock.rate == pytest.approx(0.5, abs=0.02)
    assert RateClock(1.0).rate == 1.0
