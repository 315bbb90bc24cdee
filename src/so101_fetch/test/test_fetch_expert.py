# SPDX-License-Identifier: Apache-2.0
"""The experts solve the tasks in every kinematics, and the human who takes over saves a policy that does nothing.

Few episodes here; `./so101 compare expert --env ...` counts a hundred.
"""

import numpy as np
import pytest

from so101_fetch.env import FetchEnv
from so101_sim.human.expert import Skill


def succeeds(env, seed, act):
    """Whether an episode ends well, and the share of steps in which `act` did anything."""
    env.reset(seed=seed)
    over, acted, steps = False, 0, 0
    while not over:
        move = act(env.truth())
        action = np.zeros(env.action_spec.size)
        if move is not None:
            action = env.action_spec.from_wire(move.translation, move.opening).values
        _, _, terminated, truncated, info = env.step(action)
        over, acted, steps = terminated or truncated, acted + (move is not None), steps + 1
    return info['is_success'], acted / steps


@pytest.mark.parametrize(
    ('task', 'kinematics', 'ratio', 'fewest'),
    [
        ('PickAndPlace', 'cartesian', 1.0, 6),
        ('PickAndPlace', 'coupled', 1.0, 6),
        ('PickAndPlace', 'joint', 0.0, 5),
        ('PickAndPlace', 'joint', 1.0, 5),
        ('Push', 'cartesian', 1.0, 6),
        ('Push', 'joint', 0.0, 4),
        ('Reach', 'joint', 1.0, 6),
    ],
)
def test_the_expert_succeeds(task, kinematics, ratio, fewest):
    env = FetchEnv(task=task, kinematics=kinematics, ratio=ratio)
    expert = env.expert(Skill())
    done = 0
    for seed in range(6):
        expert.reset(np.random.default_rng(seed))
        done += succeeds(env, seed, expert.act)[0]
    assert done >= fewest


def test_skill_makes_it_human():
    env = FetchEnv()
    env.reset(seed=0)
    still, shaky = env.expert(Skill()), env.expert(Skill(noise=0.1))
    lazy = env.expert(Skill(hesitation=0.999))
    truth = env.truth()
    assert np.array_equal(still.act(truth).translation, env.expert(Skill()).act(truth).translation)
    assert not np.array_equal(still.act(truth).translation, shaky.act(truth).translation)
    assert not lazy.act(truth).translation.any()


@pytest.mark.parametrize('kinematics', ['cartesian', 'joint'])
def test_the_operator_watches_first_and_then_helps_a_policy_that_rests(kinematics):
    env = FetchEnv(kinematics=kinematics, ratio=0.0)
    operator = env.operator(Skill())
    found = []
    for seed in range(3):
        operator.reset(np.random.default_rng(seed))
        found.append(succeeds(env, seed, lambda truth: operator.update(truth).action))
    assert sum(success for success, _ in found) >= 2
    assert all(share < 1.0 for _, share in found), 'it takes over at once'


def test_the_operator_leaves_a_policy_alone_that_gets_there():
    env = FetchEnv()
    operator, expert = env.operator(Skill()), env.expert(Skill())

    def act(truth):
        assert operator.update(truth).action is None
        return expert.act(truth)

    for seed in range(3):
        operator.reset(np.random.default_rng(seed))
        expert.reset(np.random.default_rng(seed))
        assert succeeds(env, seed, act)[0]
