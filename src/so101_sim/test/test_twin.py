# SPDX-License-Identifier: Apache-2.0
"""The real driver on the twin's pseudo-terminal, without ROS."""

from collections.abc import Callable, Iterator
import time

import numpy as np
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_driver.arm import Arm, ArmState, SERVO_SETTINGS
from so101_driver.bus.bus import ServoBus
from so101_driver.gate.config import GateConfig
from so101_driver.gate.gate import SafetyGate
from so101_driver.gate.types import GateState
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.ik import InverseKinematics
from so101_sim.human.recovery import LOOK_S, WITHOUT_POWER_S
from so101_sim.scene.presets import get_preset
from so101_sim.scene.start import home_pose
from so101_sim.twin.twin import CameraThread, SceneCopy, SIMULATED_CAMERAS, Twin

RATE_HZ = 100.0


class Driver:
    """The driver's cycle, as arm_node runs it."""

    def __init__(self, twin: Twin) -> None:
        self.gate = SafetyGate(GateConfig())
        self.arm = Arm(ServoBus(twin.arm.port), twin.calibration, self.gate, time.monotonic)
        self.arm.connect()

    def run(self, until: Callable[[ArmState], object], goal=None, deadline_s: float = 10.0) -> ArmState:
        end = time.monotonic() + deadline_s
        while True:
            now = time.monotonic()
            state = self.arm.cycle()
            if goal is not None:
                self.gate.command(now, 0.0, JOINT_NAMES, goal)
            if until(state):
                return state
            if now > end:
                pytest.fail(f'Not within {deadline_s} s; the joints are at {state.reading.position_rad}.')
            time.sleep(max(0.0, now + 1.0 / RATE_HZ - time.monotonic()))

    def run_for(self, duration_s: float, goal=None) -> ArmState:
        end = time.monotonic() + duration_s
        return self.run(lambda _: time.monotonic() >= end, goal, duration_s + 10.0)


@pytest.fixture
def twin() -> Iterator[Twin]:
    with Twin(get_preset('easy'), seed=1) as twin:
        yield twin


def test_the_driver_holds_and_moves_the_simulated_arm_and_a_stop_lets_it_fall(twin):
    driver = Driver(twin)
    twin.reset((0.3, 0.2, 0.015))  # out of the way of the fall
    driver.run(lambda state: state.complete)
    driver.gate.request_enable(time.monotonic())
    home = home_pose(InverseKinematics())
    driver.run(lambda state: np.abs(state.reading.position_rad - home).max() < 0.02, home)
    rest = driver.run_for(0.5, home)
    assert rest.output.state is GateState.ENABLED
    assert np.degrees(np.abs(rest.reading.position_rad - home)).max() < 1.0
    assert np.allclose(rest.reading.position_rad, twin.simulation.joint_positions, atol=0.005)
    assert np.abs(rest.reading.load[:4]).max() > 0.05  # gravity is carried by somebody

    driver.gate.request_e_stop(time.monotonic())
    fk = ForwardKinematics()
    driver.run(lambda state: fk.pose(state.reading.position_rad).position[2] < 0.03, deadline_s=5.0)
    assert not any(servo.torque_on for servo in twin.arm.servos)
    driver.arm.close()


def test_servos_whose_power_the_attendant_takes_away_are_set_up_again(twin):
    driver = Driver(twin)
    driver.run(lambda state: state.complete)
    twin.arm.power(False)
    driver.run_for(WITHOUT_POWER_S)
    twin.arm.power(True)
    driver.run_for(LOOK_S - WITHOUT_POWER_S)  # then the human switches the motors on
    for register, value in SERVO_SETTINGS.items():
        assert set(driver.arm.bus.read_all(register).values()) == {value}
    driver.arm.close()


def test_the_arm_is_limp_at_the_start_and_rests(twin):
    driver = Driver(twin)
    driver.run_for(0.5)
    state = driver.run_for(0.3)
    assert np.abs(state.reading.velocity_rad_s).max() < 0.2
    assert np.abs(state.reading.position_rad - GateConfig().rest_rad)[:5].max() < 0.3
    driver.arm.close()


def test_a_reset_puts_the_cube_somewhere_else_and_leaves_the_arm_alone():
    twin = Twin(get_preset('wide'), seed=3)
    before = twin.simulation.joint_positions.copy()
    places = {tuple(twin.reset().cube_position) for _ in range(5)}
    assert len(places) == 5
    assert np.array_equal(twin.simulation.joint_positions, before)
    assert twin.task_state.resets == 5
    other = Twin(get_preset('wide'), seed=3)
    assert {tuple(other.reset().cube_position) for _ in range(5)} == places
    twin.close()
    other.close()


def test_the_cube_is_not_put_onto_the_gripper():
    pose = InverseKinematics().solve((0.24, 0.0, 0.02), np.zeros(6), pitch=1.3).q
    twin = Twin(get_preset('wide'), pose_rad=pose)
    for _ in range(30):
        truth = twin.reset()
        assert np.linalg.norm(np.subtract(truth.cube_position, truth.grip_position)) > 0.04
    twin.close()


def test_success_is_judged_once_and_stays_until_the_next_reset():
    twin = Twin(get_preset('easy'))
    twin.reset((0.25, 0.0, 0.015))
    assert not twin.judge().status.success
    twin.simulation.data.qpos[twin.simulation.index.cube_qpos] = 2.0
    assert twin.judge().status.failure
    assert twin.judge().reward == 0.0
    twin.reset()
    assert not twin.judge().status.failure
    twin.close()


def test_another_thread_draws_a_copy_of_the_scene(twin):
    copy = SceneCopy(twin)
    twin.reset((0.22, -0.03, 0.015))
    twin.simulation.model.geom_rgba[twin.simulation.index.cube_geom] = (0.0, 1.0, 0.0, 1.0)
    copy.update()
    cube = twin.simulation.index.cube_geom
    assert copy.data.geom_xpos[cube][:2] == pytest.approx((0.22, -0.03), abs=1e-3)
    assert tuple(copy.model.geom_rgba[cube]) == (0.0, 1.0, 0.0, 1.0)
    assert copy.model is not twin.simulation.model


def test_two_cameras_show_one_moment_and_each_can_hang_alone():
    seen = {name: [] for name in SIMULATED_CAMERAS}
    views = {name: lambda picture, at, kept=kept: kept.append((picture, at)) for name, kept in seen.items()}
    thread = CameraThread(Twin(get_preset('easy')), 32, 24, 50.0, views)
    thread.start()
    wrist, front = (seen[name] for name in SIMULATED_CAMERAS)
    try:
        assert wrist[0][1] == front[0][1]
        assert (wrist[0][0] != front[0][0]).any()
        thread.frozen.add(SIMULATED_CAMERAS[1])
        time.sleep(0.1)  # a picture that is being drawn comes all the same
        known, before = len(front), len(wrist)
        end = time.monotonic() + 60.0
        while len(wrist) < before + 3 and time.monotonic() < end:
            time.sleep(0.02)
        assert len(wrist) >= before + 3
        assert len(front) == known
    finally:
        thread.close()
