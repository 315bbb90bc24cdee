# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import torch

from drqv2_policy_node.store import load_policy, save_policy
from hilserl_learner.agents.bc import BcAgent, BcConfig
from hilserl_learner.agents.common import make_agent
from hilserl_learner.data.batch import Windows
from hilserl_learner.data.replay import ReplayBuffer
from hilserl_learner.training.trainer import Trainer, TrainerConfig
from so101_contract.action import ActionSpec

from .batches import random_batch, tiny_spec
from .experience import ACTION, make_episode, small_spec
from .test_agents import FIELDS, seen

SPEC, LITTLE = tiny_spec(), small_spec()


def small(policy=None, seed=0, **config):
    return BcAgent(SPEC, BcConfig(**{'width': 16, 'shift': 0, **config}), policy=policy, seed=seed)


def test_a_batch_says_the_actions_that_followed_and_where_the_episode_ends():
    buffer = ReplayBuffer(LITTLE, ACTION, capacity=100, windows=Windows(chunk=3), is_demo=True)
    transitions = make_episode(LITTLE, 1, 5, terminated=True)
    for transition in transitions:
        buffer.add(transition)
    batch = buffer.sample(64, np.random.default_rng(0))
    said = [ACTION.from_wire(t.action.translation, t.action.opening).values for t in transitions]
    for first, actions, known in zip(batch.action, batch.actions, batch.known, strict=True):
        at = next(i for i, one in enumerate(said) if np.allclose(one, first, atol=1e-6))
        assert known.tolist() == [at + ahead < 5 for ahead in range(3)]
        for ahead in range(min(3, 5 - at)):
            np.testing.assert_allclose(actions[ahead], said[at + ahead], atol=1e-6)


def test_a_chunk_ends_where_a_step_is_missing():
    buffer = ReplayBuffer(LITTLE, ACTION, capacity=100, windows=Windows(chunk=4), is_demo=True)
    for transition in make_episode(LITTLE, 1, 6, terminated=True, gaps=[2]):
        buffer.add(transition)
    batch = buffer.sample(64, np.random.default_rng(0))
    assert {tuple(known.tolist()) for known in batch.known} == {
        (True, True, False, False),
        (True, False, False, False),
        (True, True, True, False),
    }


def test_only_what_a_demonstrator_did_and_what_is_there_is_imitated():
    batch = random_batch(SPEC, chunk=3)
    known = torch.ones(8, 3, dtype=torch.bool)
    known[:, 2] = False
    actions = batch.actions.clone()
    actions[4:], actions[:, 2] = 7.0, -7.0  # neither demonstrated nor there
    one = small(chunk=3).update(replace(batch, known=known))
    two = small(chunk=3).update(replace(batch, known=known, actions=actions))
    assert float(one['bc_loss']) == float(two['bc_loss'])


def test_a_batch_without_demonstrations_changes_nothing():
    agent = small(weight_decay=0.0)
    before = agent.act(seen())
    batch = random_batch(SPEC)
    agent.update(replace(batch, is_demo=torch.zeros(8, dtype=torch.bool)))
    np.testing.assert_array_equal(agent.act(seen()), before)


@pytest.mark.parametrize('chunk', [1, 4])
def test_it_learns_to_say_what_was_demonstrated(chunk):
    agent = small(chunk=chunk, ema_tau=0.2, learning_rate=3e-3)
    batch = random_batch(SPEC, chunk=chunk)
    first = float(agent.update(batch)['bc_loss'])
    for _ in range(200):
        last = float(agent.update(batch)['bc_loss'])
    assert last < first / 3


def test_its_policy_is_stored_like_any_other_and_says_the_first_action_of_the_plan(tmp_path):
    agent = small(chunk=4)
    agent.update(random_batch(SPEC, chunk=4))
    folder = save_policy(tmp_path / 'bc', agent.policy(observation=SPEC, **FIELDS), critics=agent.critics)
    policy = load_policy(folder)
    np.testing.assert_array_equal(policy.act(seen()), agent.act(seen()))
    with torch.no_grad():
        images = torch.from_numpy(seen().images['gripper_cam'])[None].flatten(1, 2)[:, None]
        state = torch.from_numpy(seen().state.reshape(1, -1))
        plan = agent.ema_planner(agent.ema_encoder(images), state)
    np.testing.assert_allclose(policy.act(seen()), plan[0, :4], atol=1e-6)


def test_it_goes_on_from_a_policy_and_others_from_its_own():
    first = small()
    first.update(random_batch(SPEC))
    policy = first.policy(observation=SPEC, **FIELDS)
    assert np.array_equal(small(policy=policy, chunk=3).act(seen()), policy.act(seen()))
    learner = make_agent('hil', SPEC, {'width': 16, 'num_critics': 2}, policy=policy)
    assert np.array_equal(learner.act(seen()), policy.act(seen()))
    assert learner.warmup_updates > 0  # nobody has learned yet what it is worth


def test_the_trainer_gives_it_as_many_actions_as_it_asks_for():
    agent = small(chunk=3)
    config = TrainerConfig(batch_size=8, start_steps=2, capacity=100, demo_capacity=100)
    trainer = Trainer(agent, SPEC, ActionSpec(), config)
    for transition in make_episode(SPEC, 1, 6, terminated=True):
        trainer.add(transition, demo=True)
    assert np.isfinite(float(trainer.step()['bc_loss']))
    assert trainer.demo.windows.chunk == 3
