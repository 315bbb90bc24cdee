# SPDX-License-Identifier: Apache-2.0
"""The environment for lerobot-eval, without LeRobot; and as LeRobot makes it, where that is installed."""

from pathlib import Path
import tomllib

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1]
NAME = FOLDER.name


@pytest.fixture
def environment(packages):
    """The module that needs no LeRobot."""
    from lerobot_env_so101_sim import environment

    return environment


@pytest.fixture
def arm(environment, renders):
    made = environment.LeRobotArm(width=32, height=24)
    yield made
    made.close()


def test_lerobot_finds_the_package_by_its_name():
    assert tomllib.loads((FOLDER / 'pyproject.toml').read_text())['project']['name'] == NAME
    assert NAME.startswith('lerobot_env_')


def test_joints_and_pictures_are_those_of_lerobot(arm):
    seen, info = arm.reset(seed=3, options={'lerobot_new_rollout': True})
    assert info == {'is_success': False}
    assert arm.observation_space.contains(seen)
    assert seen['pixels']['gripper_cam'].shape == (24, 32, 3)
    assert np.abs(seen['agent_pos'][:5]).max() > 10.0  # degrees, not rad
    assert arm._max_episode_steps == 100
    assert arm.render().shape == (480, 640, 3)
    assert arm.task_description == 'Lift the cube'


def test_the_arm_goes_where_the_action_says_and_no_further_than_its_limits(arm):
    seen, _ = arm.reset(seed=3)
    goal = seen['agent_pos'].copy()
    goal[0] += 20.0
    for _ in range(15):
        seen, reward, terminated, truncated, info = arm.step(goal)
    np.testing.assert_allclose(seen['agent_pos'][:5], goal[:5], atol=2.0)
    assert (reward, terminated, truncated, info) == (0.0, False, False, {'is_success': False})
    for _ in range(40):
        seen, *_ = arm.step(np.array([400.0, *goal[1:]]))
    assert seen['agent_pos'][0] < 112.0


def test_equal_seeds_give_equal_bits(arm):
    first, again = (arm.reset(seed=5)[0] for _ in range(2))
    np.testing.assert_array_equal(first['agent_pos'], again['agent_pos'])
    np.testing.assert_array_equal(first['pixels']['gripper_cam'], again['pixels']['gripper_cam'])


def test_the_scripted_expert_succeeds_through_displacements(environment, renders):
    from so101_contract.action import ActionSpec
    from so101_sim.human.expert import Expert

    arm = environment.LeRobotArm(control='delta', width=16, height=16)
    arm.reset(seed=1)
    expert = Expert(arm._env.preset.task, ActionSpec(), None)
    expert.reset(np.random.default_rng(0))
    over, info = False, {}
    while not over:
        action = expert.act(arm._env.truth())
        scaled = np.append(action.translation / np.array(ActionSpec().translation_scale_m), action.opening)
        seen, reward, terminated, truncated, info = arm.step(scaled)
        over = terminated or truncated
    arm.close()
    assert info['is_success']
    assert reward == 1.0
    assert seen['pixels']['gripper_cam'].shape == (16, 16, 3)


def test_an_episode_is_cut_off_and_then_it_is_no_success(arm):
    seen, _ = arm.reset(seed=3)
    for _ in range(arm._max_episode_steps):
        _, _, terminated, truncated, info = arm.step(seen['agent_pos'])
    assert truncated
    assert not terminated
    assert not info['is_success']


@pytest.mark.parametrize('action', [[0.0] * 4, [float('nan')] * 6, [[0.0] * 6]])
def test_what_is_no_action_gets_a_sentence(arm, action):
    arm.reset(seed=3)
    with pytest.raises(ValueError, match='expected 6 finite numbers'):
        arm.step(np.array(action))


def test_another_control_is_refused(environment):
    with pytest.raises(ValueError, match='expected control to be one of'):
        environment.LeRobotArm(control='ticks')


def test_a_plugin_without_its_checkout_says_so(environment, monkeypatch, tmp_path):
    from lerobot_env_so101_sim import checkout

    assert (checkout.find_checkout() / 'plugins' / NAME).is_dir()
    monkeypatch.setenv('SO101_ROOT', str(tmp_path))
    with pytest.raises(ImportError, match='expected the checkout of the SO-101 project'):
        checkout.find_checkout()


def test_lerobot_makes_it(renders):
    pytest.importorskip(
        'lerobot', reason='LeRobot is not installed here; tools/lerobot_plugins.py runs with it'
    )
    pytest.importorskip(NAME, reason=f'install it first: pip install -e plugins/{NAME}')
    from lerobot.envs import make_env
    from lerobot_env_so101_sim import SO101SimEnv

    config = SO101SimEnv(width=32, height=24)
    (suite,) = make_env(config, n_envs=1).values()
    seen, _ = suite[0].reset(seed=[1])
    assert seen['pixels']['gripper_cam'].shape == (1, 24, 32, 3)
    assert suite[0].call('task_description') == ('Lift the cube',)
    suite[0].close()
