# SPDX-License-Identifier: Apache-2.0
"""Learning on top of a base: what it says is kept at both ends of a step, and the actor is heard as far as it may."""

from dataclasses import replace
import json

import numpy as np
import pytest
import torch

from drqv2_policy_node.store import find_policy
from hilserl_learner.agents.on_base import OnBaseAgent, OnBaseConfig
from hilserl_learner.cli import eval as eval_cli
from hilserl_learner.cli import train as train_cli
from hilserl_learner.data.collect import Collector
from hilserl_learner.data.store import BufferWriter, Entry, PartReader
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.log import read_table
from hilserl_learner.training.on_base import agent_on, base_run, LiveShare, load_base, Share
from hilserl_learner.training.trainer import Trainer, TrainerConfig
from so101_contract.base import BaseAction
from so101_testing.reach import reach_spec, ReachEnv

from .batches import joined, random_batch, tiny_spec
from .experience import make_episode, small_spec

SPEC = small_spec()
TINY = {'width': 8, 'num_critics': 2}


def with_base(transitions, *, acts=True):
    """The same, where the base said 1 cm along x times the step's number."""
    said = [BaseAction(np.array([0.001 * t.index, 0.0, 0.0]), 0.5, acts) for t in transitions]
    return [
        replace(t, action=replace(t.action, base=base)) for t, base in zip(transitions, said, strict=True)
    ]


def trainer_of(**config):
    agent = OnBaseAgent(SPEC_OF_AGENT, OnBaseConfig(**(TINY | config)))
    return Trainer(agent, SPEC_OF_AGENT, config=TrainerConfig(capacity=200, demo_capacity=200, n_step=1))


SPEC_OF_AGENT = small_spec(size=31, frame_stack=1)


def test_what_the_base_said_is_read_back_and_buffers_without_it_still_load(tmp_path):
    based, plain = with_base(make_episode(SPEC, 1, 3)), make_episode(SPEC, 2, 3)
    writer = BufferWriter(tmp_path / 'part')
    for transition in (*based, *plain):
        writer.append(Entry('arm', transition))
    writer.close()
    read = [entry.output for entry in PartReader(tmp_path / 'part', SPEC).poll()]
    assert [t.action.base is None for t in read] == [False] * 3 + [True] * 3
    for one, two in zip(based, read, strict=False):
        np.testing.assert_array_equal(one.action.base.translation, two.action.base.translation)
        assert (two.action.base.opening, two.action.base.acts) == (0.5, True)


def test_a_batch_says_what_the_base_said_at_both_ends():
    trainer = trainer_of(base_successes=0)
    for transition in with_base(make_episode(SPEC_OF_AGENT, 1, 4, truncated=True)):
        trainer.add(transition)
    batch = trainer.online.sample(200, np.random.default_rng(0))
    before, after = 20 * batch.base[:, 0] * 0.05, 20 * batch.next_base[:, 0] * 0.05
    at_end = torch.isnan(after)  # of the frame after the last action nobody has asked
    assert 0 < at_end.sum() < 200
    torch.testing.assert_close(after[~at_end], before[~at_end] + 0.05)
    torch.testing.assert_close(before[at_end], torch.full_like(before[at_end], 0.15))


def test_a_takeover_that_is_demonstrated_knows_what_the_base_says_where_it_ends():
    trainer = trainer_of(base_successes=0)
    for transition in with_base(make_episode(SPEC_OF_AGENT, 1, 4, intervened=(1, 2))):
        trainer.add(transition)
    assert len(trainer.demo) == 2
    assert torch.isfinite(trainer.demo.sample(50, np.random.default_rng(0)).next_base).all()


def success(transitions, **base):
    *others, last = with_base(transitions, **base)
    return [*others, replace(last, reward=1.0)]


def test_the_first_successes_of_the_base_alone_count_as_demonstrations():
    trainer = trainer_of(base_successes=1)
    failed = make_episode(SPEC_OF_AGENT, 1, 3, truncated=True)
    helped = make_episode(SPEC_OF_AGENT, 2, 3, terminated=True, intervened=(1,))
    by_actor, alone, again = (make_episode(SPEC_OF_AGENT, n, 3, terminated=True) for n in (3, 4, 5))
    kept = []
    for episode in (with_base(failed), success(helped), success(by_actor, acts=False), success(alone)):
        for transition in episode:
            trainer.add(transition)
        kept.append(len(trainer.demo))
    for transition in success(again):
        trainer.add(transition)
    assert kept == [0, 1, 1, 4]
    assert len(trainer.demo) == 4


@pytest.mark.parametrize('mode', ['choice', 'residual'])
@pytest.mark.parametrize('led', [False, True], ids=['critics first', 'led by them'])
def test_an_update_learns_from_stored_actions_of_the_base_alone(mode, led):
    spec = tiny_spec()
    agent = OnBaseAgent(
        spec, OnBaseConfig(**TINY, base_mode=mode, critic_warmup_updates=0 if led else 1000), seed=1
    )
    batch = random_batch(spec)
    based = replace(batch, base=batch.action * 0.5, next_base=-batch.action)
    actor = [p.clone() for p in agent.actor.parameters()]
    metrics = agent.update(joined(batch, based))
    assert all(torch.isfinite(number) for number in metrics.values())
    assert ('actor_loss' in metrics) is led
    assert any(not torch.equal(*pair) for pair in zip(actor, agent.actor.parameters(), strict=True))


def test_targets_take_the_better_of_base_and_actor_and_at_first_the_base():
    spec = tiny_spec()
    agent = OnBaseAgent(spec, OnBaseConfig(**TINY, target_critics=2), seed=1)
    batch = random_batch(spec)
    batch = replace(batch, next_base=torch.full_like(batch.next_base, 0.9))
    with torch.no_grad():
        features = agent.encoder(batch.next_images)
        own = agent.critic_target(features, batch.next_state, agent.actor(features, batch.next_state)).amin(1)
        of_base = agent.critic_target(features, batch.next_state, batch.next_base).amin(1)
        led, _ = agent._target_on_base(features, batch, led=True)
        first, rows = agent._target_on_base(features, batch, led=False)
    torch.testing.assert_close(led, batch.reward + batch.discount * torch.maximum(own, of_base))
    torch.testing.assert_close(first, batch.reward + batch.discount * of_base)
    assert rows.all()


def test_a_residual_learns_nothing_from_steps_whose_end_the_base_has_not_seen():
    spec = tiny_spec()
    agent = OnBaseAgent(spec, OnBaseConfig(**TINY, base_mode='residual'), seed=1)
    batch = random_batch(spec)
    over = torch.arange(len(batch)) == 0
    batch = replace(batch, discount=torch.where(over, 0.0, batch.discount))
    with torch.no_grad():
        _, rows = agent._target_on_base(agent.encoder(batch.next_images), batch, led=True)
    assert rows.tolist() == over.tolist()


def test_the_share_rises_with_evaluations_that_allow_it_and_falls_with_those_that_do_not():
    share = Share(0.5)
    assert (share.now, share.next) == (0.0, 0.5)
    share.judge(0.6, 0.6, 0.2)
    assert (share.now, share.alone) == (0.5, False)
    share.judge(0.6, 0.9, 0.9)
    assert (share.now, share.alone) == (1.0, True)
    share.judge(0.6, 0.5, 0.3)
    assert (share.now, share.alone, share.next) == (0.5, False, 1.0)


def test_a_run_that_goes_on_knows_how_far_the_actor_was_let_in():
    made = base_run(OnBaseAgent(reach_spec(), OnBaseConfig(**TINY)), towards)
    row = {'steps': '500', 'episodes': '20', 'base': '0.5', 'success': '0.6', 'share': '0.5', 'actor': '0.55'}
    best = made.take_up([row | {'share': '0'}, row, row | {'success': '0.7', 'actor': '0.4', 'share': '1'}])
    assert (made.share.now, made.share.alone) == (1.0, False)
    assert (best.successes, best.episodes) == (11, 20)


def test_on_an_arm_windows_of_episodes_let_the_actor_in_step_by_step_and_at_last_alone():
    share = LiveShare(0.5, window=4)

    def window(wins, episodes=4):
        return [share.add(k < wins) for k in range(episodes)][-1]

    assert not any(share.add(k < 2, ready=False) for k in range(5))
    assert share.add(unaided=True)  # the base has acted for longer than a window
    assert (share.base_rate, share.now, share.alone) == (0.5, 0.5, False)
    assert not window(1)  # no better, and not certainly worse
    assert window(2)
    assert share.now == 1.0
    assert window(3)
    assert (share.alone, share.settled) == (True, False)
    assert not window(4)
    assert share.settled


def test_on_an_arm_a_window_that_is_certainly_worse_takes_a_step_back():
    share = LiveShare(0.5, window=10)
    for wins in (10, 10):
        for k in range(10):
            share.add(k < wins)
    assert share.now == 1.0
    for _ in range(10):
        share.add(unaided=False)
    assert share.now == 0.5


def towards(observation):
    """A base that goes to the target, too slowly to be there in time from everywhere."""
    here, there = observation.state[-1][:3], observation.state[-1][3:6]
    return np.append(np.clip((there - here) * 10.0, -0.1, 0.1), 0.0)


def test_collecting_keeps_what_the_base_said_whoever_acts():
    agent = OnBaseAgent(reach_spec(), OnBaseConfig(**TINY), seed=1)
    acting = agent.on(towards)
    acting.share, acting.alone = 1.0, True
    collected = [Collector(ReachEnv(), seed=1).step(acting).transition]
    acting.alone, acting.share = False, 0.0
    collected.append(Collector(ReachEnv(), seed=1).step(acting).transition)
    by_actor, by_base = (transition.action for transition in collected)
    assert (by_actor.base.acts, by_base.base.acts) == (False, True)
    np.testing.assert_allclose(by_base.translation, by_base.base.translation, atol=1e-7)
    np.testing.assert_array_equal(by_actor.base.translation, by_base.base.translation)
    assert np.abs(by_actor.translation - by_actor.base.translation).max() > 1e-4


def test_only_hil_learns_on_top_of_a_stored_policy():
    assert agent_on('', 'sac') == 'sac'
    assert agent_on('default', 'hil') == agent_on('default', 'hil_on_base') == 'hil_on_base'
    for base, agent in (('default', 'sac'), ('', 'hil_on_base')):
        with pytest.raises(LearnerError, match='leave one of both out'):
            agent_on(base, agent)
    with pytest.raises(LearnerError, match='so101 up base:='):
        load_base('tcp://127.0.0.1:5555', 'compact', SPEC)


def test_a_run_on_top_of_a_base_evaluates_base_both_and_actor_on_the_same_episodes(tmp_path, capsys):
    values = {**TINY, 'batch_size': 4, 'start_steps': 5, 'eval_every': 12, 'eval_episodes': 1}
    values |= {'final_episodes': 0, 'base_alone_steps': 5}
    words = [word for name, value in values.items() for word in ('--set', f'{name}={value}')]
    out = tmp_path / 'run'
    said = ['--base', 'default', '--demos', '0', '--operator', 'none', '--out', str(out), *words]
    assert train_cli.main(['--steps', '12', *said]) == 0
    (row,) = read_table(out / 'evaluation.csv')
    assert (float(row['base']), float(row['share'])) == (1.0, 0.5)
    assert {row['success'], row['actor']} <= {'0', '1'}
    assert json.loads((out / 'config.json').read_text())['agent'] == 'hil_on_base'
    assert train_cli.main(['--steps', '13', '--resume', *said]) == 0
    capsys.readouterr()
    assert eval_cli.main([str(out / 'last'), '--json', '--base', 'default', '--episodes', '1']) == 0
    assert 0.0 <= json.loads(capsys.readouterr().out.splitlines()[-1])['success'] <= 1.0
    assert eval_cli.main([str(find_policy('default', 'compact')), '--base', 'default']) == 1
    assert 'acts alone' in capsys.readouterr().err
