# SPDX-License-Identifier: Apache-2.0
"""The Fetch environments: Gymnasium's own checks, equal seeds, what the coupling holds, what a reward says."""

import os
import warnings

import gymnasium as gym
from gymnasium.utils.env_checker import check_env
import numpy as np
import pytest

for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'LP_NUM_THREADS'):
    os.environ.setdefault(name, '1')

from so101_contract.errors import ActionError
from so101_fetch import model as fetch_model
from so101_fetch.env import FetchEnv
from so101_fetch.errors import FetchError
from so101_fetch.registration import ENVIRONMENTS, find_arguments, register_envs
from so101_fetch.tasks import NEAREST_M, REACHED_M, TASKS
from so101_interfaces_py.topics import FRONT_CAMERA, WRIST_CAMERA
from so101_sim.errors import PresetError

VARIANTS = {'cartesian': {}, 'coupled': {'kinematics': 'coupled'}, 'joint': {'kinematics': 'joint'}}


def rollout(env, seed, steps):
    """Everything that comes out of an episode of drawn actions."""
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    found = [observation]
    for _ in range(steps):
        action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        found.append({**observation, 'reward': reward, 'error': info['coupling_error']})
        if terminated or truncated:
            break
    return found


@pytest.mark.parametrize('name', ['FetchReach-cartesian', 'FetchPush-coupled', 'FetchSlide-joint'])
def test_gymnasium_has_nothing_to_say_against_them(name):
    register_envs()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_env(gym.make(f'{name}-v0').unwrapped, skip_render_check=True)


def test_gymnasium_has_nothing_to_say_against_pictures_either():
    register_envs()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        env = gym.make(
            'FetchPickAndPlace-joint-locked-v0', observation='pixels', render_mode='rgb_array'
        ).unwrapped
        check_env(env)
    observation, _ = env.reset(seed=0)
    for camera in (FRONT_CAMERA, WRIST_CAMERA):
        assert observation[camera].shape == (3, 3, 64, 64)
        # The cube is blue and nothing else is: both cameras see it.
        red, _, blue = observation[camera][-1].astype(int)
        assert (blue - red > 60).sum() >= 4
    env.close()


@pytest.mark.parametrize('variant', VARIANTS)
def test_equal_seeds_give_equal_bits(variant):
    env, other = (FetchEnv(**VARIANTS[variant], observation='state') for _ in range(2))
    rollout(other, 1, 3)  # whatever was before
    for one, two in zip(rollout(env, 7, 50), rollout(other, 7, 50), strict=True):
        assert one.keys() == two.keys()
        assert all(np.asarray(one[key]).tobytes() == np.asarray(two[key]).tobytes() for key in one)
    assert rollout(env, 8, 1)[0]['state'].tobytes() != rollout(env, 7, 1)[0]['state'].tobytes()


@pytest.mark.parametrize('ratio', [0.0, 1.0])
@pytest.mark.parametrize('kinematics', ['coupled', 'joint'])
def test_the_coupling_holds_within_a_milliradian_while_the_expert_moves(kinematics, ratio):
    env = FetchEnv(kinematics=kinematics, ratio=ratio)
    env.reset(seed=2)
    assert env.arm.coupling_error < 1e-9, 'the arm would jump at the start'
    expert = env.expert(None)
    over, worst = False, 0.0
    while not over:
        move = expert.act(env.truth())
        action = env.action_spec.from_wire(move.translation, move.opening).values
        _, _, terminated, truncated, info = env.step(action)
        over, worst = terminated or truncated, max(worst, info['coupling_error'])
    assert info['is_success']
    assert worst <= 1e-3
    assert worst > 0.0, 'nothing moved'


def test_without_a_coupling_the_roll_is_free():
    env = FetchEnv()
    before = None
    for one in rollout(env, 3, 30):
        assert one.get('error', 0.0) == 0.0
        now = float(env.arm.data.joint(fetch_model.ROLL).qpos[0])
        before = now if before is None else before
    assert env.arm.coupling_error == 0.0


@pytest.mark.parametrize('task', TASKS)
def test_an_episode_begins_as_published(task):
    env = FetchEnv(task=task)
    chosen = TASKS[task]
    for seed in range(20):
        env.reset(seed=seed)
        truth = env.truth()
        assert np.allclose(truth.hand, env.arm.start)
        middle = env.arm.start + chosen.goal_offset
        assert np.all(np.abs(truth.goal - middle)[:2] <= chosen.goal_range)
        if chosen.has_object:
            off = np.abs(truth.mover - truth.hand)[:2]
            assert np.all(off <= chosen.object_range + 1e-9)
            assert np.linalg.norm(off) >= NEAREST_M - 1e-9
    if task == 'PickAndPlace':
        # where Gymnasium-Robotics 1.4.2 has it, to a few millimetres
        assert np.allclose(env.arm.start, (1.3419, 0.7491, 0.5347), atol=3e-3)


def test_sparse_ends_at_success_and_classic_goes_on():
    goal = None
    for reward in ('sparse', 'classic', 'dense'):
        env = FetchEnv(task='Reach', reward=reward)
        env.reset(seed=4)
        goal = env.truth().goal if goal is None else goal
        assert np.array_equal(env.truth().goal, goal)
        total, steps, over = 0.0, 0, False
        expert = env.expert(None)
        while not over:
            move = expert.act(env.truth())
            action = env.action_spec.from_wire(move.translation, move.opening).values
            _, worth, terminated, truncated, info = env.step(action)
            total, steps, over = total + worth, steps + 1, terminated or truncated
        assert info['is_success']
        if reward == 'sparse':
            assert (total, terminated, truncated) == (1.0, True, False)
            first = steps
        else:
            assert (steps, terminated, truncated) == (50, False, True)
            assert total == (1 - first if reward == 'classic' else pytest.approx(total))
            assert total < 0.0


def test_a_given_place_and_goal_are_taken():
    env = FetchEnv(task='Push')
    env.reset(seed=0, options={'goal': (1.4, 0.8, 0.425), 'place': (1.3, 0.7)})
    assert np.allclose(env.truth().goal, (1.4, 0.8, 0.425))
    assert np.allclose(env.truth().mover[:2], (1.3, 0.7))
    with pytest.raises(PresetError, match='among goal, place'):
        env.reset(options={'cube': 1})


def test_a_joint_moves_by_its_increment_and_no_further_than_the_leash():
    env = FetchEnv(kinematics='joint', ratio=0.0)
    env.reset(seed=0)
    action = np.zeros(7)
    action[0] = 1.0
    pan = env.arm.data.joint(fetch_model.ARM_JOINTS[0])
    start = float(pan.qpos[0])
    env.step(action)
    for _ in range(15):
        env.step(np.zeros(7))
    assert float(pan.qpos[0]) - start == pytest.approx(0.1, abs=0.01)
    for _ in range(5):
        env.step(np.ones(7))
        assert np.abs(env.arm.ahead).max() <= 0.2 + 0.15  # measured after the joints have moved on


def test_an_action_of_the_other_kind_is_refused():
    for env, size in ((FetchEnv(), 7), (FetchEnv(kinematics='joint'), 4)):
        env.reset(seed=0)
        with pytest.raises(ActionError, match=f'a network action of {11 - size} finite numbers'):
            env.step(np.zeros(size))
    with pytest.raises(ActionError, match='cannot move joints'):
        FetchEnv(kinematics='joint').action_spec.from_wire(np.zeros(3), 1.0)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'task': 'Fly'}, 'PickAndPlace'),
        ({'kinematics': 'polar'}, 'cartesian'),
        ({'observation': 'smell'}, 'pixels'),
        ({'reward': 'much'}, 'classic'),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(arguments, said):
    with pytest.raises(FetchError, match=said):
        FetchEnv(**arguments)


def test_an_id_is_found_with_and_without_its_version():
    assert find_arguments('FetchPush-joint-locked-v0') == find_arguments('FetchPush-joint-locked')
    assert len(ENVIRONMENTS) == 20
    with pytest.raises(FetchError, match='FetchPickAndPlace-cartesian'):
        find_arguments('FetchPickAndPlace-v4')


def test_models_of_another_version_are_refused(monkeypatch):
    monkeypatch.setattr(fetch_model, 'VERSION', '1.2.3')
    with pytest.raises(FetchError, match=r'gymnasium-robotics 1\.2\.3 .* got 1\.4\.2; run \./so101 setup'):
        FetchEnv()
    monkeypatch.setattr(fetch_model, 'DISTRIBUTION', 'no-such-thing')
    with pytest.raises(FetchError, match='got none'):
        FetchEnv()


def test_reached_is_what_was_published():
    assert REACHED_M == 0.05
