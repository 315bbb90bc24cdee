# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import hashlib
import itertools
import json
import os
import subprocess
import sys
import warnings

import gymnasium as gym
from gymnasium.utils.env_checker import check_env
import numpy as np
import pytest

from so101_contract.action import ActionSpec, GripperConvention
from so101_contract.errors import ActionError, ObservationError
from so101_contract.observation import build_state
from so101_contract.observation_spec import CameraSpec, get_observation, ObservationSpec
from so101_sim.env import ArmEnv
from so101_sim.errors import PresetError
from so101_sim.registration import ENVIRONMENTS, register_envs
from so101_sim.scene.presets import get_preset

register_envs()
IMAGES = pytest.mark.usefixtures('renders')


def fingerprint(env: ArmEnv, seed: int, steps: int = 25) -> str:
    digest = hashlib.sha256()
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for value in observation.values():
            digest.update(value.tobytes())
        observation, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 4).astype(np.float32))
        digest.update(np.float64(reward).tobytes())
        if terminated or truncated:
            observation, _ = env.reset()
    return digest.hexdigest()


def make_small() -> ArmEnv:
    return ArmEnv(preset='wide', images=False)


@pytest.mark.parametrize('name', [name for name in ENVIRONMENTS if 'State' in name or 'Privileged' in name])
def test_gymnasium_finds_nothing_wrong_with_an_environment_without_pictures(name):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_env(gym.make(name).unwrapped, skip_render_check=True)


@IMAGES
@pytest.mark.parametrize('name', ['SO101Lift-v0', 'SO101Place-v0'])
def test_gymnasium_finds_nothing_wrong_with_an_environment_with_pictures(name):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        env = gym.make(name, render_mode='rgb_array').unwrapped
        check_env(env)
    env.close()


@IMAGES
@pytest.mark.parametrize('preset', ['wide', 'pick101'])
def test_equal_seeds_give_equal_pictures(preset):
    first, second = ArmEnv(preset=preset), ArmEnv(preset=preset)
    expected = fingerprint(first, 3, steps=8)
    assert fingerprint(second, 3, steps=8) == expected
    assert fingerprint(second, 4, steps=8) != expected
    assert fingerprint(second, 3, steps=8) == expected  # whatever happened in between
    first.close()
    third = ArmEnv(preset=preset)
    assert fingerprint(third, 3, steps=8) == expected
    second.close()
    third.close()


@IMAGES
def test_another_process_draws_the_same_pictures():
    import check_bits

    env = ArmEnv(preset='pick101')
    expected = check_bits.fingerprint(env, 3, steps=10)
    env.close()
    code = "from check_bits import *\nprint(json.dumps(fingerprint(ArmEnv(preset='pick101'), 3, steps=10)))"
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=True,
        # What is not set by the program itself must not show: memory comes filled with something else.
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), 'MALLOC_PERTURB_': '165'},
    )
    assert json.loads(done.stdout) == expected


def test_A4_an_action_moves_the_tcp_by_the_scale_of_the_contract():
    env = ArmEnv(images=False)
    env.reset(seed=0)
    before = env.arm.fk.pose(env.simulation.joint_positions).position
    for action in ([0.0, 0.0, 1.0, 0.0], *[[0.0, 0.0, 0.0, 0.0]] * 12):
        env.step(np.array(action, dtype=np.float32))
    moved = env.arm.fk.pose(env.simulation.joint_positions).position - before
    assert np.linalg.norm(moved - [0.0, 0.0, ActionSpec().translation_scale_m[2]]) < 0.003


@pytest.mark.parametrize('preset', ['wide', 'gap', 'pick101'])
def test_equal_seeds_give_equal_bits(preset):
    first, second = ArmEnv(preset=preset, images=False), ArmEnv(preset=preset, images=False)
    expected = fingerprint(first, 3)
    assert fingerprint(second, 3) == expected
    assert fingerprint(second, 4) != expected
    assert fingerprint(second, 3) == expected  # whatever happened in between
    first.close()
    second.close()


def test_another_process_gives_the_same_bits():
    code = (
        'import sys; sys.path.insert(0, sys.argv[1])\n'
        'from test_env import fingerprint, make_small\n'
        'print(fingerprint(make_small(), 5))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, os.path.dirname(__file__)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), 'PYTHONHASHSEED': '77'},
    )
    assert done.stdout.strip() == fingerprint(make_small(), 5)


@IMAGES
def test_an_observation_is_what_the_contract_says():
    env = ArmEnv()
    observation, _ = env.reset(seed=0)
    spec = env.observation_spec
    assert spec == ObservationSpec()
    assert observation['state'].shape == (3, 18)
    assert observation['gripper_cam'].shape == (3, 3, 84, 84)
    assert (observation['gripper_cam'][0] == observation['gripper_cam'][2]).all()  # the first frame, repeated
    reading = env.arm.reading
    tcp = env.arm.fk.pose(reading.position)
    state = build_state(
        spec,
        joint_pos=reading.position,
        joint_vel=reading.velocity,
        tcp_pos=tcp.position,
        tcp_rotation=tcp.rotation,
    )
    assert np.array_equal(observation['state'][-1], state)
    env.close()


@IMAGES
def test_frames_move_through_the_stack():
    env = ArmEnv()
    env.reset(seed=0)
    stacks = [env.step(np.array([0.5, 0.5, -0.5, 0.0], np.float32))[0] for _ in range(4)]
    for before, after in itertools.pairwise(stacks):
        for key in ('state', 'gripper_cam'):
            assert np.array_equal(before[key][1:], after[key][:-1])
            assert not np.array_equal(after[key][-1], after[key][-2])
    env.close()


def test_only_the_privileged_environments_know_where_the_cube_is():
    for name, arguments in ENVIRONMENTS.items():
        env = ArmEnv(**{**arguments, 'images': False})
        observation, _ = env.reset(seed=1, options={'cube_position': (0.26, 0.01, 0.015)})
        cube = np.array(env.truth().cube_position, np.float32)
        if 'Privileged' in name:
            assert observation['state'].shape == (3, 21)
            assert np.array_equal(observation['state'][-1, 18:], cube)
        else:
            assert observation['state'].shape == (3, 18)
            env.reset(seed=1, options={'cube_position': (0.30, -0.03, 0.015)})
            assert np.array_equal(env.observation().state, observation['state'])


def test_a_privileged_observation_is_refused_elsewhere():
    with pytest.raises(ObservationError, match='privileged'):
        ArmEnv(images=False, observation=ArmEnv(images=False, privileged=True).observation_spec)


@pytest.mark.parametrize(
    'spec',
    [
        ObservationSpec(tcp='pick101'),
        ObservationSpec(camera_preset='pick101'),
        ObservationSpec(cameras=(CameraSpec('side_cam'),)),
    ],
    ids=['TCP', 'mount', 'camera'],
)
def test_an_observation_that_the_scene_cannot_give_is_refused(spec):
    with pytest.raises(PresetError, match='expected'):
        ArmEnv(observation=spec)


def test_an_observation_of_ones_own_is_given():
    spec = ObservationSpec(frame_stack=2, cameras=())
    env = ArmEnv(observation=spec, images=False)
    assert env.reset(seed=0)[0]['state'].shape == (2, 18)


def test_stepping_needs_a_running_episode():
    env = make_small()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(4, np.float32))
    env.reset(seed=0, options={'cube_position': (0.6, 0.0, 0.015)})
    _, _, terminated, truncated, info = env.step(np.zeros(4, np.float32))
    assert terminated
    assert not truncated
    assert info['status'].reason == 'the cube is out of reach'
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(4, np.float32))


def test_an_episode_that_leads_nowhere_is_cut_off_and_not_terminated():
    env = ArmEnv(preset=replace(get_preset('easy'), max_steps=4), images=False)
    env.reset(seed=0)
    ends = [env.step(np.zeros(4, np.float32))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_what_is_too_large_is_cut_and_reported():
    env = make_small()
    env.reset(seed=0)
    info = env.step(np.array([3.0, 0.0, -0.5, 0.2]))[4]
    assert info['clipped'] == (True, False, False, False)
    assert info['executed_action'] == pytest.approx([1.0, 0.0, -0.5, 0.2])


@pytest.mark.parametrize('action', [np.full(4, np.nan), np.zeros(3)], ids=['NaN', 'short'])
def test_an_action_that_is_none_is_refused(action):
    env = make_small()
    env.reset(seed=0)
    with pytest.raises(ActionError):
        env.step(action)


def test_an_unknown_reset_option_is_refused():
    with pytest.raises(PresetError, match='cube_pos'):
        make_small().reset(options={'cube_pos': (0.2, 0.0, 0.0)})


def test_the_discrete_gripper_stays_where_it_was():
    env = ArmEnv(images=False, action=ActionSpec(gripper=GripperConvention.DISCRETE))
    env.reset(seed=0)
    env.step(np.array([0.0, 0.0, 0.0, 2.0]))
    for _ in range(8):
        env.step(np.array([0.0, 0.0, 0.0, 1.0]))
    assert env.truth().opening > 0.9


def test_rewards_can_be_chosen_and_their_terms_add_up():
    env = ArmEnv(images=False, reward='dense')
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.array([1.0, -1.0, 0.3, 0.0]))
    assert reward == pytest.approx(sum(info['reward_terms'].values()))
    assert {'reach', 'hold', 'progress', 'jerk', 'success'} == set(info['reward_terms'])


@IMAGES
def test_rendering_gives_a_picture_and_nothing_without_a_mode():
    env = ArmEnv(images=False, render_mode='rgb_array')
    env.reset(seed=0)
    assert env.render().shape == (480, 640, 3)
    env.close()
    assert ArmEnv(images=False).render() is None


@IMAGES
def test_two_processes_step_together():
    envs = gym.make_vec(
        'SO101Lift-v0', num_envs=2, vectorization_mode='async', vector_kwargs={'context': 'spawn'}
    )
    try:
        first, _ = envs.reset(seed=[1, 2])
        observation, *_ = envs.step(np.zeros((2, 4), np.float32))
    finally:
        envs.close()
    assert observation['gripper_cam'].shape == (2, 3, 3, 84, 84)
    alone = ArmEnv()
    expected, _ = alone.reset(seed=2)
    assert np.array_equal(first['gripper_cam'][1], expected['gripper_cam'])
    assert np.array_equal(first['state'][1], expected['state'])
    alone.close()


def test_a_second_camera_changes_no_bit_of_the_first():
    one, both = (
        ArmEnv(observation=get_observation('compact', cameras=names)) for names in ([], ['wrist', 'front'])
    )
    for env in (one, both):
        env.reset(seed=3)
    alone, beside = one.step(np.zeros(4))[0], both.step(np.zeros(4))[0]
    assert list(beside) == ['state', 'gripper_cam', 'front_cam']
    assert (alone['gripper_cam'] == beside['gripper_cam']).all()
    assert (beside['front_cam'] != beside['gripper_cam']).any()
    with pytest.raises(PresetError, match='which the simulation has'):
        ArmEnv(observation=get_observation('compact', cameras=['wrist', 'side']))


def test_a_gripper_that_the_task_keeps_closed_stays_closed_whatever_an_action_says():
    env = ArmEnv(task='push_can', images=False)
    env.reset(seed=1)
    for _ in range(5):
        info = env.step(np.array([0.0, 0.0, 0.0, 1.0]))[-1]
    assert info['executed_action'][-1] == -1.0
    assert env.truth().opening < 0.1
