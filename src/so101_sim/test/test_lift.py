# SPDX-License-Identifier: Apache-2.0
"""The environments as a learner sees them, and the expert who shows that the tasks can be done."""

import gymnasium as gym
from gymnasium.utils.env_checker import check_env
import numpy as np
import pytest

from so101_contract.action import ActionSpec
from so101_sim.env import ArmEnv
from so101_sim.envs import ENVIRONMENTS, register_envs
from so101_sim.errors import RenderError
from so101_sim.evaluate import evaluate, wilson
from so101_sim.gl import backend

register_envs()


def can_draw():
    try:
        backend()
    except RenderError:
        return False
    return True


draws = pytest.mark.skipif(not can_draw(), reason='no OpenGL without a screen here')


@pytest.mark.parametrize('name', [name for name in ENVIRONMENTS if 'State' in name or 'Privileged' in name])
def test_environments_without_pictures_pass_gymnasiums_checker(name):
    check_env(gym.make(name).unwrapped, skip_render_check=True)


@draws
def test_the_environment_with_pictures_passes_gymnasiums_checker():
    check_env(gym.make('SO101Lift-v0', render_mode='rgb_array').unwrapped)


def rollout(env, seed, steps):
    random = np.random.default_rng(7)
    observation, _ = env.reset(seed=seed)
    seen = [observation]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(random.uniform(-1, 1, 4).astype(np.float32))
        seen.append({**observation, 'reward': np.array(reward)})
        if terminated or truncated:
            break
    return seen


def same(a, b):
    return len(a) == len(b) and all(
        set(x) == set(y) and all(np.array_equal(x[key], y[key]) for key in x)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize('preset', ['easy', 'wide', 'gap', 'pick101'])
def test_the_same_seed_gives_the_same_bits(preset):
    first, second = ArmEnv(preset=preset, images=False), ArmEnv(preset=preset, images=False)
    assert same(rollout(first, 3, 25), rollout(second, 3, 25))
    assert same(rollout(first, 3, 25), rollout(first, 3, 25))
    assert not same(rollout(first, 3, 5), rollout(first, 4, 5))


@draws
def test_the_same_seed_gives_the_same_pictures():
    first, second = ArmEnv(preset='wide'), ArmEnv(preset='wide')
    assert same(rollout(first, 5, 6), rollout(second, 5, 6))


@draws
def test_the_wrist_picture_shows_something():
    env = ArmEnv()
    observation, _ = env.reset(seed=0)
    image = observation['gripper_cam']
    assert image.dtype == np.uint8
    assert image.std() > 10.0


@pytest.mark.parametrize(('task', 'preset'), [('lift', 'easy'), ('lift', 'wide'), ('place', 'easy')])
def test_the_expert_succeeds(task, preset):
    result = evaluate(ArmEnv(task=task, preset=preset, images=False), 25, seed=1000)
    assert result.successes >= 23


def test_the_reality_gap_can_be_crossed():
    assert evaluate(ArmEnv(preset='gap', images=False), 15, seed=1000).rate >= 0.8


def test_the_operator_rescues_a_policy_that_wanders_about():
    result = evaluate(ArmEnv(images=False), 25, actor='rescued')
    assert result.rate >= 0.6
    assert 0.0 < result.intervened < 1.0


def test_A4_an_action_moves_the_tcp_by_the_scale_of_the_contract():
    env = ArmEnv(images=False)
    env.reset(seed=0)
    before = env.chain.fk.pose(env.simulation.joint_positions).position
    for action in ([0.0, 0.0, 1.0, 0.0], *[[0.0, 0.0, 0.0, 0.0]] * 12):
        env.step(np.array(action, dtype=np.float32))
    moved = env.chain.fk.pose(env.simulation.joint_positions).position - before
    assert np.linalg.norm(moved - [0.0, 0.0, ActionSpec().translation_scale_m[2]]) < 0.003


def test_a_reset_option_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match='cube_yaw'):
        ArmEnv(images=False).reset(options={'cube': 1})


def test_environments_run_side_by_side_in_processes():
    envs = gym.make_vec(
        'SO101LiftState-v0', num_envs=2, vectorization_mode='async', vector_kwargs={'context': 'spawn'}
    )
    try:
        observation, _ = envs.reset(seed=[1, 2])
        observation, *_ = envs.step(envs.action_space.sample())
        assert all(len(value) == 2 for value in observation.values())
    finally:
        envs.close()


def test_the_interval_of_a_rate_holds_the_rate():
    for successes in (0, 7, 20):
        low, high = wilson(successes, 20)
        assert 0.0 <= low <= successes / 20 + 1e-9
        assert successes / 20 - 1e-9 <= high <= 1.0
