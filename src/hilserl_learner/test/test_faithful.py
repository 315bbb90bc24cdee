# SPDX-License-Identifier: Apache-2.0
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from drqv2_policy_node.networks import Critic, CriticKind, NetworkSpec
from drqv2_policy_node.robobase.schedule import parse_schedule
from drqv2_policy_node.store import load_critics, load_policy, pack, save_policy, unpack
from hilserl_learner.agents.common import AgentError, with_noise
from hilserl_learner.agents.drqv2 import FaithfulAgent, FaithfulConfig
from hilserl_learner.agents.hil import HilAgent, HilConfig
from hilserl_learner.data.batch import Batch
from so101_contract.action import ActionSpec
from so101_contract.errors import SpecMismatchError
from so101_contract.manifest import golden_observation, StepUnit, Workspace
from so101_contract.observation_spec import robobase_spec
from so101_testing.robobase_recipe import action, fill, golden, images, network_options, state

TOLERANCE = 1e-4
FIELDS = {
    'name': 'test',
    'version': 0,
    'action': ActionSpec(),
    'control_rate_hz': 50.0,
    'ik_profile': 'pick101',
    'reset_pose': (0.0,) * 6,
    'workspace': Workspace(low=(0.1, -0.3, 0.01), high=(0.5, 0.3, 0.4)),
    'std_schedule': '0.1',
    'std_unit': StepUnit.UPDATES,
    'calibration_id': None,
    'source_sha256': None,
}
CASES = golden('robobase_updates.json')['cases']


def agent_of(spec, **config):
    """An agent with the recipe's weights."""
    agent = FaithfulAgent(robobase_spec(), FaithfulConfig(**({'shift': 0} | config)), networks=spec)
    fill(agent.encoder, agent.actor, [agent.critic, agent.critic_target])
    return agent


def batch_of(spec, size=4):
    """The recipe's batch: the last row ends an episode, every second one is a demonstration."""
    rows = torch.arange(size)
    return Batch(
        images=images(size, spec),
        state=state(size, spec),
        actions=action(size, spec).unsqueeze(1),
        known=torch.ones(size, 1, dtype=torch.bool),
        reward=0.5 * rows,
        discount=0.99**3 * (rows < size - 1),
        next_images=images(size, spec, offset=1000),
        next_state=state(size, spec, offset=5),
        intervened=torch.zeros(size, dtype=torch.bool),
        is_demo=rows % 2 == 0,
        base=torch.full((size, 4), float('nan')),
        next_base=torch.full((size, 4), float('nan')),
    )


def close(got, expected):
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else got
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=1e-6)


def answers(agent, batch):
    """What online and target critics and the actor say about a batch."""
    with torch.no_grad():
        features = agent.encoder(batch.images)
        return (
            agent.critic(features, batch.state, batch.action),
            agent.critic_target(features, batch.state, batch.action),
            agent.actor(features, batch.state),
            features,
        )


def test_B8_one_update_gives_robobases_numbers():
    expected = golden('robobase_golden.json')['low18_update']
    spec = NetworkSpec.from_observation(robobase_spec())
    agent, batch = agent_of(spec), batch_of(spec)
    close(answers(agent, batch)[0], expected['q_before'])
    metrics = agent.update(batch)
    close(metrics['critic_loss'], expected['critic_loss'])
    close(metrics['actor_loss'], expected['actor_loss'])
    close(metrics['target_mean'], expected['critic_target_q_mean'])
    q, q_target, mu, _ = answers(agent, batch)
    close(q, expected['q_after'])
    close(q_target, expected['q_target_net_after'])
    close(mu, expected['mu_after'])


@pytest.mark.parametrize('name', CASES)
def test_one_update_gives_robobases_numbers_for_other_shapes_noise_shifts_and_cloning(name):
    case = CASES[name]
    options = case['options']
    spec = NetworkSpec(**network_options(options))
    agent = agent_of(spec, shift=4 if options['aug'] else 0, bc_weight=options['bc'])
    agent.std = parse_schedule(options['std'])(0)
    agent.generator.manual_seed(options['seed'])
    batch = batch_of(spec, options['batch'])
    metrics = agent.update(batch)
    for key in ('critic_loss', 'actor_loss', 'target_mean'):
        close(metrics[key], case[key])
    q, q_target, mu, features = answers(agent, batch)
    close(q, case['q_after'])
    close(q_target, case['q_target_after'])
    close(mu, case['mu_after'])
    close(features.double().sum(), case['feature_sum_after'])


SMALL = NetworkSpec(image_size=32, mlp=(16, 24), bottleneck=8)


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def double(batch):
    return Batch(
        **{field.name: getattr(batch, field.name).repeat_interleave(2, dim=0) for field in fields(batch)}
    )


def test_B9_a_batch_twice_over_gives_the_same_losses_and_the_same_step():
    once, twice = agent_of(SMALL, bc_weight=0.5), agent_of(SMALL, bc_weight=0.5)
    batch = batch_of(SMALL)
    one, two = once.update(batch), twice.update(double(batch))
    for key, number in one.items():
        assert torch.isclose(two[key], number, rtol=1e-5), key
    # Adam's first step is the sign of the gradient times the rate, so gradients near 0 may differ in theirs.
    for a, b in zip(weights(once.critic), weights(twice.critic), strict=True):
        assert (a - b).abs().max() <= 2.1e-4
        assert torch.isclose(a, b, atol=1e-6).float().mean() > 0.99


@pytest.mark.parametrize('size', [2, 16, 64])
def test_B9_losses_do_not_grow_with_the_batch(size):
    agent = agent_of(SMALL)
    batch = batch_of(SMALL, 2)
    grown = Batch(**{f.name: torch.cat([getattr(batch, f.name)] * (size // 2)) for f in fields(batch)})
    assert torch.isclose(
        agent.update(grown)['critic_loss'], agent_of(SMALL).update(batch)['critic_loss'], rtol=1e-4
    )


def test_the_actors_loss_never_reaches_the_encoder_or_the_critics():
    agent, batch = agent_of(SMALL), batch_of(SMALL)
    features = agent.encoder(batch.images).detach()
    before = weights(agent.encoder), weights(agent.critic)
    agent._update_actor(features, batch)
    assert same(weights(agent.encoder), before[0])
    assert same(weights(agent.critic), before[1])
    assert all(
        parameter.grad is None for net in (agent.encoder, agent.critic) for parameter in net.parameters()
    )


def test_the_critics_loss_reaches_the_encoder_and_never_the_actor_or_the_targets():
    agent, batch = agent_of(SMALL), batch_of(SMALL)
    before = weights(agent.encoder), weights(agent.actor), weights(agent.critic_target)
    agent._update_critic(agent.encoder(batch.images), batch, torch.ones(4))
    assert not same(weights(agent.encoder), before[0])
    assert same(weights(agent.actor), before[1])
    assert same(weights(agent.critic_target), before[2])


def test_a_row_that_ends_in_success_is_worth_its_reward_and_no_more():
    agent, batch = agent_of(SMALL), batch_of(SMALL)
    with torch.no_grad():
        features = agent.encoder(batch.next_images)
    target = agent._target(features, batch)
    assert target[-1] == batch.reward[-1]
    assert (target[:-1] != batch.reward[:-1]).all()  # the time limit in row 1 bootstraps like any other


def test_noise_passes_the_gradient_on_even_where_it_was_cut():
    mean = torch.tensor([[0.99, -0.99, 0.0, 0.5]], requires_grad=True)
    action = with_noise(mean, 5.0, 0.3, torch.Generator().manual_seed(0))
    action.sum().backward()
    assert torch.equal(mean.grad, torch.ones(1, 4))
    assert action.abs().max() <= 1.0 - 1e-6 + 1e-7
    assert (action - mean).abs().max() <= 0.3 + 1e-6


def test_the_target_is_the_smallest_value_of_the_target_critics():
    agent, batch = agent_of(SMALL), batch_of(SMALL)
    with torch.no_grad():
        for parameter in agent.critic_target.qs[1].out_mlp[0].parameters():
            parameter.sub_(3.0)
        features = agent.encoder(batch.next_images)
        values = agent.critic_target(features, batch.next_state, agent.actor(features, batch.next_state))
    expected = batch.reward + batch.discount * values.min(dim=1).values
    assert torch.allclose(agent._target(features, batch), expected)


def test_targets_follow_by_tau_every_update():
    agent, batch = agent_of(SMALL, tau=0.25), batch_of(SMALL)
    before = weights(agent.critic_target)
    agent.update(batch)
    for old, online, new in zip(before, weights(agent.critic), weights(agent.critic_target), strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * online, atol=1e-7)


def test_demonstrations_pull_only_where_they_are():
    agent, batch = agent_of(SMALL, bc_weight=0.5), batch_of(SMALL)
    none = replace(batch, is_demo=torch.zeros(4, dtype=torch.bool))
    assert agent.update(none)['bc_loss'] == 0.0
    with torch.no_grad():
        mean = agent.actor(agent.encoder(batch.images), batch.state)
    expected = (mean - batch.action).square().sum(dim=1)[batch.is_demo].mean()
    measured = agent._update_actor(agent.encoder(batch.images).detach(), batch)['bc_loss']
    assert torch.isclose(measured, expected, rtol=1e-5)


def test_one_batch_is_learned_by_heart():
    agent = agent_of(SMALL, learning_rate=1e-3, tau=0.0)
    batch = replace(batch_of(SMALL), discount=torch.zeros(4))
    losses = [float(agent.update(batch)['critic_loss']) for _ in range(80)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.05 * losses[0]


def test_L13_a_resumed_agent_goes_on_exactly_as_the_first_would_have():
    first, batch = agent_of(SMALL, shift=4), batch_of(SMALL, 8)
    first.std = 0.2
    for _ in range(3):
        first.update(batch)
    second = FaithfulAgent(robobase_spec(), first.config, networks=SMALL, seed=9)
    second.load_state_dict(first.state_dict())
    assert (second.std, second.updates) == (0.2, 3)
    for _ in range(2):
        one, two = first.update(batch), second.update(batch)
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert same(weights(first.actor), weights(second.actor))


def test_B10_the_policy_acts_bit_for_bit_as_the_agent_does():
    observation = robobase_spec(size=32)
    agent = FaithfulAgent(observation, FaithfulConfig(width=16))
    agent.update(batch_of(agent.spec))
    policy = unpack(*pack(agent.policy(observation=observation, **FIELDS)))
    for pattern in range(3):
        seen = golden_observation(observation, pattern)
        assert np.array_equal(policy.act(seen), agent.act(seen))


def test_a_stored_policy_goes_on_with_its_own_critics(tmp_path):
    observation = robobase_spec(size=32)
    agent = FaithfulAgent(observation, FaithfulConfig(width=16))
    agent.update(batch_of(agent.spec))
    policy = agent.policy(observation=observation, **FIELDS)
    save_policy(tmp_path / 'p', policy, critics=(agent.critic, agent.critic_target))
    stored = load_policy(tmp_path / 'p')
    for critics in (None, load_critics(tmp_path / 'p')):
        again = FaithfulAgent(observation, policy=stored, critics=critics, seed=4)
        for ours, theirs in zip(
            answers(again, batch_of(agent.spec)), answers(agent, batch_of(agent.spec)), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_a_policy_of_another_agent_gets_fresh_critics(tmp_path):
    observation = robobase_spec(size=32)
    hil = HilAgent(observation, HilConfig(encoder='robobase', width=16))
    save_policy(
        tmp_path / 'p', hil.policy(observation=observation, **FIELDS), critics=(hil.critic, hil.critic_target)
    )
    agent = FaithfulAgent(observation, policy=load_policy(tmp_path / 'p'))
    assert agent.critic.spec.critic is CriticKind.ROBOBASE
    agent.update(batch_of(agent.spec))


def test_a_policy_that_sees_something_else_is_refused():
    observation = robobase_spec(size=32)
    policy = FaithfulAgent(observation).policy(observation=observation, **FIELDS)
    with pytest.raises(SpecMismatchError, match='size'):
        FaithfulAgent(robobase_spec(size=64), policy=policy)


def test_critics_of_other_networks_are_refused():
    observation = robobase_spec(size=32)
    policy = FaithfulAgent(observation, FaithfulConfig(width=16)).policy(observation=observation, **FIELDS)
    stranger = Critic(SMALL)
    with pytest.raises(AgentError, match='mlp'):
        FaithfulAgent(observation, policy=policy, critics=(stranger, stranger))


def test_an_update_does_not_touch_the_global_random_state():
    agent, batch = agent_of(SMALL, shift=4), batch_of(SMALL)
    agent.std = 0.3
    before = torch.get_rng_state()
    agent.update(batch)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_are_cut_only_where_asked():
    free, cut = agent_of(SMALL), agent_of(SMALL, grad_clip=1e-9)
    batch = batch_of(SMALL)
    before = weights(free.critic)
    free.update(batch)
    cut.update(batch)
    moved = [(new - old).abs().max() for new, old in zip(weights(free.critic), before, strict=True)]
    held = [(new - old).abs().max() for new, old in zip(weights(cut.critic), before, strict=True)]
    assert max(held) < max(moved)
