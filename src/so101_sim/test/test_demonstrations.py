# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from so101_contract.action import EeDeltaValue
from so101_contract.task_report import TaskState
from so101_kinematics.ik import InverseKinematics
from so101_sim.human.session_human import Demonstrations, DemonstrationStage
from so101_sim.in_process_arm import InProcessArm
from so101_sim.scene.presets import get_preset
from so101_sim.scene.simulation import Simulation
from so101_sim.scene.start import home_pose
from so101_sim.tasks import Judge, Status

REST = np.array([0.0, -1.7, 1.55, 1.0, 0.0, 0.0])


class World:
    """What twin, driver and kinematics do for the demonstrations, in simulated time."""

    def __init__(self, task: str = 'lift') -> None:
        self.preset = get_preset('easy', task)
        self.simulation = Simulation(self.preset.scene)
        self.arm = InProcessArm(self.simulation, self.preset.control)
        self.ik = InverseKinematics(self.arm.fk)
        self.simulation.reset(REST, (0.25, 0.0, 0.015))
        self.arm.reset(0.1)
        self.judge = Judge(self.preset.task)
        self.rng = np.random.default_rng(0)
        self.resets = 0
        self.by_actions = False

    def step(self, demonstrations: Demonstrations) -> None:
        truth = self.simulation.truth()
        state = TaskState(truth, self.judge.judge(truth), 0.0, self.resets)
        order = demonstrations.update(state, self.arm.reading.position, 0.1)
        if order.reset:
            _, cube, yaw = self.preset.start.sample(self.rng, self.ik, 0.015)
            self.simulation.place_cube(cube.tolist(), yaw)
            self.judge.reset()
            self.resets += 1
        if order.joint_goal is not None:
            assert not self.by_actions, 'joint goals come before the first action only'
            for _ in range(5):
                self.arm.drive(order.joint_goal)
            self.arm.controller.reseed(self.arm.reading.position)
        else:
            self.by_actions = True
            self.arm.run(order.action or EeDeltaValue(np.zeros(3), 0.5))


@pytest.mark.parametrize(('task', 'episodes'), [('lift', 4), ('place', 2)])
def test_it_demonstrates_one_episode_after_the_other_from_the_rest_pose(task, episodes):
    world = World(task)
    demonstrations = Demonstrations(world.preset, home_pose(world.ik), episodes=episodes)
    stages = set()
    for _ in range(120 * episodes):
        world.step(demonstrations)
        stages.add(demonstrations.stage)
        if demonstrations.stage is DemonstrationStage.DONE:
            break
    assert demonstrations.score.successes == episodes
    assert world.resets == episodes
    assert stages == set(DemonstrationStage)
    assert f'{episodes} of {episodes} episodes succeeded' in str(demonstrations.score)


def test_it_gives_up_a_way_home_that_is_blocked(make_truth):
    demonstrations = Demonstrations(get_preset('easy'), np.zeros(6))
    state = TaskState(make_truth(), Status(), 0.0, 0)
    stages = []
    for _ in range(100):
        demonstrations.update(state, REST, 0.1)
        stages.append(demonstrations.stage)
    assert stages[0] is DemonstrationStage.TO_HOME_POSE
    assert stages[-1] is not DemonstrationStage.TO_HOME_POSE


def test_it_asks_again_for_a_reset_that_nobody_answers(make_truth):
    demonstrations = Demonstrations(get_preset('easy'), REST)
    state = TaskState(make_truth(), Status(), 0.0, 7)
    asked = sum(demonstrations.update(state, REST, 0.1).reset for _ in range(60))
    assert demonstrations.stage is DemonstrationStage.RESET
    assert asked >= 3


def test_a_failed_episode_is_counted_and_followed_by_the_next(make_truth):
    demonstrations = Demonstrations(get_preset('easy'), REST, episodes=2)
    lost = Status(failure=True)
    resets = 0
    for _ in range(400):
        status = lost if demonstrations.stage is DemonstrationStage.ACT else Status()
        order = demonstrations.update(TaskState(make_truth(), status, 0.0, resets), REST, 0.1)
        resets += order.reset
        if demonstrations.stage is DemonstrationStage.DONE:
            break
    assert demonstrations.score.failures == 2
