# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
import torch

from drqv2_policy_node.store import find_policy, load_policy
from hilserl_learner.agents.common import AgentError
from hilserl_learner.agents.hil import HilAgent, HilConfig
from hilserl_learner.errors import NotReadyError
from hilserl_learner.training.trainer import GraspPenalty, Trainer, TrainerConfig
from so101_contract.joints import gripper_opening_to_rad

from .batches import tiny_spec
from .experience import ACTION, make_episode

SPEC = tiny_spec()
TINY = HilConfig(width=16, num_critics=2)


def make_trainer(seed=0, agent=None, **config):
    values = {'batch_size': 8, 'start_steps': 4, 'capacity': 200, 'demo_capacity': 200}
    agent = HilAgent(SPEC, agent or TINY, seed=seed)
    return Trainer(agent, SPEC, ACTION, TrainerConfig(**{**values, **config}), seed=seed)


def lived(trainer, episode=1, steps=10, **options):
    transitions = make_episode(SPEC, episode, steps, terminated=True, **options)
    for transition in transitions:
        trainer.add(transition)
    return transitions


def with_gripper(transition, now, wanted):
    """The transition with the gripper at one opening and told to go to another."""
    state = transition.frames[-1].state.copy()
    state[5] = gripper_opening_to_rad(now)
    frames = (*transition.frames[:-1], replace(transition.frames[-1], state=state))
    action = replace(transition.action, opening=wanted)
    return replace(transition, frames=frames, action=action, reward=0.0)


def test_T8_what_a_person_decided_goes_to_both_buffers():
    trainer = make_trainer()
    lived(trainer, steps=10, intervened=(3, 4, 5))
    assert (len(trainer.online), len(trainer.demo)) == (10, 3)


def test_demonstrations_go_to_their_buffer_only_and_are_no_steps():
    trainer = make_trainer()
    for transition in make_episode(SPEC, 1, 6, terminated=True):
        trainer.add(transition, demo=True)
    assert (len(trainer.online), len(trainer.demo), trainer.steps) == (0, 6, 0)


def test_B30_a_step_is_an_action_that_was_sent_and_a_new_label_is_none():
    trainer = make_trainer()
    transitions = lived(trainer, steps=5)
    trainer.add(replace(transitions[-1], reward=0.0, revision=1))
    assert trainer.steps == 5
    assert len(trainer.online) == 5


def test_a_discarded_episode_is_not_learned_from_and_its_steps_were_made():
    trainer = make_trainer()
    lived(trainer, steps=5, intervened=(1,))
    trainer.discard(1)
    assert (len(trainer.online), len(trainer.demo), trainer.steps) == (0, 0, 5)


def test_updates_owed_follow_the_wished_ratio_to_steps():
    trainer = make_trainer(utd=2.0)
    lived(trainer, steps=5)
    assert trainer.owed == 10.0
    for _ in range(4):
        trainer.step()
    assert trainer.owed == 6.0
    assert trainer.utd == pytest.approx(0.8)


def test_it_is_ready_when_there_is_enough_of_any_kind():
    trainer = make_trainer(start_steps=4)
    with pytest.raises(NotReadyError):
        trainer.step()
    for number, transition in enumerate(make_episode(SPEC, 1, 4, truncated=True)):
        assert not trainer.ready
        trainer.add(transition, demo=number % 2 == 0)
    assert trainer.ready
    trainer.step()


def test_noise_falls_with_the_steps_and_the_agent_knows_it():
    trainer = make_trainer(std_schedule='linear(0.2,0.1,10)')
    assert trainer.agent.std == pytest.approx(0.2)
    lived(trainer, steps=5)
    assert trainer.std == trainer.agent.std == pytest.approx(0.15)


def test_an_agent_that_begins_with_a_policy_explores_less_and_looks_further_ahead():
    config = TrainerConfig(std_schedule='0.3', std_with_policy='0.04', gamma=0.9, gamma_with_policy=0.95)
    policy = load_policy(find_policy('default', 'compact'))
    assert config.beginning_with(None) is config
    assert config.beginning_with(policy) == replace(config, std_schedule='0.04', gamma=0.95)
    with pytest.raises(ValueError, match='lots'):
        TrainerConfig(std_with_policy='lots')


@pytest.mark.parametrize('utd', [1, 3])
def test_B7_the_grasp_penalty_is_in_the_loss_of_every_update(utd):
    losses = {}
    for price in (0.0, 0.5):
        # Each update is of the actor too at actor_every 1, and of the critics alone in two of three at 3.
        agent = HilConfig(width=16, num_critics=2, actor_every=utd, shift=0)
        trainer = make_trainer(agent=agent, grasp_penalty=price, gamma=0.0)
        for transition in make_episode(SPEC, 1, 10, truncated=True):
            trainer.add(with_gripper(transition, now=0.9, wanted=0.0))
        seen = [trainer.step() for _ in range(utd)]
        losses[price] = [metrics['reward_mean'].item() for metrics in seen]
        assert all(metrics['target_mean'].item() == pytest.approx(-price) for metrics in seen)
    assert losses == {0.0: [0.0] * utd, 0.5: [pytest.approx(-0.5)] * utd}


def test_only_opening_and_closing_is_penalized():
    transition = make_episode(SPEC, 1, 1, terminated=True)[0]
    penalty = GraspPenalty(SPEC, 0.1)
    assert penalty.applied(with_gripper(transition, 0.9, 0.1)).reward == pytest.approx(-0.1)
    assert penalty.applied(with_gripper(transition, 0.1, 0.9)).reward == pytest.approx(-0.1)
    assert penalty.applied(with_gripper(transition, 0.5, 0.4)).reward == 0.0
    assert GraspPenalty(SPEC, 0.0).applied(transition) is transition


def test_B32_a_trainer_goes_on_from_its_state_with_its_counters_noise_and_draws():
    one, two = (
        make_trainer(seed=0, std_schedule='linear(0.2,0.1,20)'),
        make_trainer(seed=9, std_schedule='linear(0.2,0.1,20)'),
    )
    lived(one)
    for _ in range(3):
        one.step()
    state = one.state_dict()
    for transition in make_episode(SPEC, 1, 10, terminated=True):
        two.add(transition)
    two.load_state_dict(state)
    assert (two.steps, two.std, two.agent.updates, two.owed) == (10, one.std, 3, one.owed)
    ones, twos = one.step(), two.step()
    assert {k: v.item() for k, v in ones.items()} == {k: v.item() for k, v in twos.items()}


def test_B32_something_else_than_a_trainers_state_is_refused():
    with pytest.raises(AgentError, match='expected the state of a trainer'):
        make_trainer().load_state_dict({'weights': torch.zeros(1)})


def test_steps_made_after_the_last_save_count():
    trainer = make_trainer()
    trainer.catch_up(7)
    trainer.catch_up(3)
    assert trainer.steps == 7
