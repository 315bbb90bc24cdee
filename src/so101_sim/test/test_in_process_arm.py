# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from so101_contract.action import EeDeltaValue
from so101_driver.calibration.calibration import RAD_PER_TICK
from so101_kinematics.ik import InverseKinematics
from so101_sim.in_process_arm import InProcessArm, Reading
from so101_sim.scene.presets import get_preset
from so101_sim.scene.simulation import Simulation
from so101_sim.scene.start import home_pose

AWAY = (0.3, 0.25, 0.015)


@pytest.fixture
def simulated_arm():
    preset = get_preset('easy')
    simulation = Simulation(preset.scene)
    arm = InProcessArm(simulation, preset.control)
    simulation.reset(home_pose(InverseKinematics(arm.fk)), AWAY)
    arm.reset(0.5)
    return simulation, arm


def run(arm, *actions):
    for xyz in actions:
        arm.run(EeDeltaValue(np.array(xyz), 0.5))


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('sign', [1.0, -1.0])
def test_two_centimetres_ordered_are_two_centimetres_moved(simulated_arm, axis, sign):
    simulation, arm = simulated_arm
    start = np.array(simulation.truth().tcp_position)
    delta = np.zeros(3)
    delta[axis] = 0.02 * sign
    run(arm, delta, *([np.zeros(3)] * 6))
    moved = np.array(simulation.truth().tcp_position) - start
    assert moved[axis] == pytest.approx(0.02 * sign, abs=0.0015)
    assert np.abs(np.delete(moved, axis)).max() < 0.0015


def test_doing_nothing_for_five_seconds_moves_less_than_a_millimetre(simulated_arm):
    simulation, arm = simulated_arm
    run(arm, np.zeros(3))
    start = np.array(simulation.truth().tcp_position)
    run(arm, *([np.zeros(3)] * 50))
    assert np.linalg.norm(np.array(simulation.truth().tcp_position) - start) < 0.001


def test_a_step_lasts_as_long_as_it_says(simulated_arm):
    simulation, arm = simulated_arm
    before = simulation.data.time
    run(arm, np.zeros(3))
    assert simulation.data.time - before == pytest.approx(0.1)
    assert arm.reading.stamp_ns == round(simulation.data.time * 1e9)


def test_readings_are_whole_encoder_ticks(simulated_arm):
    _, arm = simulated_arm
    run(arm, (0.01, 0.01, -0.01))
    ticks = arm.reading.position / RAD_PER_TICK
    assert np.allclose(ticks, np.rint(ticks), atol=1e-6)


def test_velocity_is_that_of_the_positions(simulated_arm):
    _, arm = simulated_arm
    run(arm, (0.0, 0.02, 0.0), (0.0, 0.02, 0.0))
    before = arm.reading
    run(arm, (0.0, 0.02, 0.0))
    mean = (arm.reading.position - before.position) / ((arm.reading.stamp_ns - before.stamp_ns) * 1e-9)
    assert arm.reading.velocity[0] == pytest.approx(mean[0], rel=0.25)
    assert abs(mean[0]) > 0.3


def test_no_joint_is_led_faster_than_the_driver_allows(simulated_arm):
    simulation, arm = simulated_arm
    fastest = 0.0
    previous = simulation.joint_positions.copy()
    for _ in range(10):
        run(arm, (-0.02, 0.02, 0.02))
        fastest = max(fastest, float(np.abs(simulation.joint_positions - previous)[:5].max()) / 0.1)
        previous = simulation.joint_positions.copy()
    assert fastest < 2.05


def test_the_gripper_goes_where_it_is_told_with_half_the_torque(simulated_arm):
    simulation, arm = simulated_arm
    for opening in (0.9, 0.1):
        for _ in range(8):
            arm.run(EeDeltaValue(np.zeros(3), opening))
        assert simulation.truth().opening == pytest.approx(opening, abs=0.03)
        limit = simulation.model.actuator_forcerange[simulation.index.arm.ctrl[-1], 1]
        assert limit == pytest.approx(0.5 * 1.91)


def test_the_latency_delays_the_action(simulated_arm):
    preset = get_preset('easy')
    moved = []
    for latency in (0.0, 0.06):
        from dataclasses import replace

        simulation = Simulation(preset.scene)
        arm = InProcessArm(simulation, replace(preset.control, latency_s=latency))
        simulation.reset(home_pose(InverseKinematics(arm.fk)), AWAY)
        arm.reset(0.5)
        start = simulation.truth().tcp_position[1]
        run(arm, (0.0, 0.02, 0.0))
        moved.append(simulation.truth().tcp_position[1] - start)
    assert moved[0] > moved[1] + 0.005


def test_a_closed_gripper_squeezes_no_further_than_the_driver_lets_it(simulated_arm):
    simulation, arm = simulated_arm
    ik = InverseKinematics()
    simulation.reset(home_pose(ik, 0.45), AWAY)
    arm.reset(0.45)
    for _ in range(25):  # something is held between the fingers
        truth = simulation.truth()
        simulation.place_cube(
            (np.array(truth.grip_position) + 0.018 * np.array(truth.jaw_direction)).tolist()
        )
        arm.run(EeDeltaValue(np.zeros(3), 0.0))
        if simulation.truth().held:
            break
    for _ in range(5):
        arm.run(EeDeltaValue(np.zeros(3), 0.0))
    assert simulation.truth().held
    goal = arm._driver.follower.goal[-1]
    assert goal > simulation.joint_positions[-1] - 0.08


def test_without_a_gate_goals_go_straight_to_the_servos():
    preset = get_preset('pick101')
    simulation = Simulation(preset.scene)
    arm = InProcessArm(simulation, preset.control)
    simulation.reset(np.array([0.0, 0.1, 0.1, np.pi / 2, np.pi / 2, 0.5]), AWAY)
    first = arm.reset(0.5)
    assert isinstance(first, Reading)
    assert np.array_equal(first.position, simulation.joint_positions)
    arm.run(EeDeltaValue(np.array([0.0, 0.0, 0.02]), 0.3))
    assert simulation.data.ctrl[simulation.index.arm.ctrl[-1]] < 0.6
