# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from drqv2_policy_node.store import load_critics, load_policy, pack, save_policy, unpack
from hilserl_learner.agents.common import agent_config, AgentError, AGENTS, make_agent
from hilserl_learner.agents.hil import HilAgent, HilConfig
from hilserl_learner.agents.sac import SacAgent, SacConfig
from so101_contract.action import ActionSpec
from so101_contract.errors import SpecMismatchError
from so101_contract.manifest import golden_observation, StepUnit, Workspace
from so101_contract.observation_spec import Normalization
from so101_interfaces_py.params import ParameterError

from .batches import joined, random_batch, tiny_spec

SPEC = tiny_spec()
GOLDEN = Path(__file__).parent / 'data' / 'first_updates.json'
FIELDS = {
    'name': 'test',
    'version': 1,
    'action': ActionSpec(),
    'control_rate_hz': 10.0,
    'ik_profile': 'setpoint',
    'reset_pose': (0.0,) * 6,
    'workspace': Workspace(low=(0.1, -0.2, 0.0), high=(0.4, 0.2, 0.3)),
    'std_schedule': '0.1',
    'std_unit': StepUnit.ENV_STEPS,
    'calibration_id': None,
    'source_sha256': None,
}


def small(agent=HilAgent, spec=SPEC, seed=0, policy=None, **config):
    kind = HilConfig if agent is HilAgent else SacConfig
    return agent(spec, kind(**{'width': 32, 'num_critics': 4, **config}), policy=policy, seed=seed)


def seen(seed=0, spec=SPEC):
    return golden_observation(spec, seed)


def copy_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


both = pytest.mark.parametrize('kind', [HilAgent, SacAgent])


@both
def test_B9_the_critic_loss_does_not_depend_on_how_often_a_batch_repeats_itself(kind):
    batch = random_batch(SPEC)
    # Without chance: no augmentation, no noise; all targets in the minimum. SAC draws alike for both halves below.
    jitter = {'color_jitter': 0.0} if kind is HilAgent else {}
    losses = []
    for rows in (batch, joined(batch, batch)):
        agent = small(kind, shift=0, target_critics=4, **jitter)
        if kind is SacAgent:
            agent._sample = lambda f, s, agent=agent: (
                torch.tanh(agent._heads(f, s)[0]),
                torch.zeros(len(f)),
                torch.tanh(agent._heads(f, s)[0]),
            )
        losses.append(float(agent.update(rows)['critic_loss']))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@both
def test_the_actors_update_leaves_encoder_and_critics_alone(kind):
    agent = small(kind)
    batch = random_batch(SPEC)
    features = agent.encoder(batch.images).detach()
    encoder, critic, actor = copy_of(agent.encoder), copy_of(agent.critic), copy_of(agent.actor)
    agent._update_actor(features, batch)
    assert same(agent.encoder, encoder)
    assert same(agent.critic, critic)
    assert not same(agent.actor, actor)


def test_the_critics_update_trains_the_encoder_and_not_the_actor():
    agent = small()
    batch = random_batch(SPEC)
    encoder, actor = copy_of(agent.encoder), copy_of(agent.actor)
    agent._update_critic(agent.encoder(batch.images), batch, batch.reward)
    assert not same(agent.encoder, encoder)
    assert same(agent.actor, actor)


def test_the_actor_learns_in_every_second_update():
    agent = small(actor_every=2)
    assert 'actor_loss' in agent.update(random_batch(SPEC))
    assert 'actor_loss' not in agent.update(random_batch(SPEC))


def test_a_terminal_row_aims_at_its_reward_alone():
    agent = small(shift=0)
    batch = replace(random_batch(SPEC), discount=torch.zeros(8))
    assert torch.equal(agent._target(agent.encoder(batch.next_images), batch), batch.reward)


def test_B18_targets_are_cut_to_a_bound_where_one_is_set():
    batch = random_batch(SPEC)
    agents = [small(target_bound=bound) for bound in (0.0, 0.5)]
    free, cut = (agent._target(agent.encoder(batch.next_images), batch) for agent in agents)
    assert free.max() > 0.5
    torch.testing.assert_close(cut, free.clamp(max=0.5))


def test_the_target_is_the_smaller_of_two_random_target_critics():
    agent = small(target_critics=2)
    batch = random_batch(SPEC)
    with torch.no_grad():
        features = agent.encoder(batch.next_images)
        action = agent.actor(features, batch.next_state)
        values = agent.critic_target(features, batch.next_state, action)
    pairs = [values[:, [i, j]].amin(dim=1) for i in range(4) for j in range(i)]
    expected = [batch.reward + batch.discount * pair for pair in pairs]
    for _ in range(5):
        target = agent._target(features, batch)
        assert any(torch.allclose(target, one, atol=1e-6) for one in expected)


@pytest.mark.parametrize('name', AGENTS)
def test_B31_an_image_is_shifted_exactly_once_in_an_update(name):
    # One bright pixel in the middle of each image: where it arrives at the encoder is how far the image was shifted.
    spec = tiny_spec(size=31)
    agent = make_agent(name, spec, {'width': 8})
    arrived = []
    agent.encoder.register_forward_pre_hook(lambda _, inputs: arrived.append(inputs[0].clone()))
    rows = 243
    images = torch.zeros((rows, 1, 3, 31, 31), dtype=torch.uint8)
    images[:, :, :, 15, 15] = 255
    agent.update(replace(random_batch(spec, rows), images=images, next_images=images.clone()))
    expected = 1 if name == 'bc' else 2  # the observation, and the next one where values are learned
    assert len(arrived) == expected
    shifts = []
    for pixels in arrived:
        assert pixels.dtype == torch.uint8
        places = pixels[:, 0, 0].flatten(1).float().argmax(dim=1)
        shifts.append(torch.stack([places // 31 - 15, places % 31 - 15]))
        for axis in shifts[-1]:
            counts = torch.bincount(axis + 4, minlength=9)
            assert len(counts) == 9, 'further than 4 pixels: shifted twice'
            assert counts.min() > 8, 'not uniform over -4..4'  # 27 each are expected
    assert expected == 1 or not torch.equal(
        *shifts
    )  # observation and next observation are shifted independently


@pytest.mark.parametrize('name', AGENTS)
def test_B23_statistics_are_inside_the_policy_that_is_given_away(name):
    scaled = tiny_spec(normalization=Normalization.from_range([-2.0] * 6, [2.0] * 6))
    agent = make_agent(name, scaled, {'width': 16})
    policy = unpack(*pack(agent.policy(observation=scaled, **FIELDS)))
    assert policy.network.normalization == scaled.normalization
    np.testing.assert_array_equal(policy.act(seen(spec=scaled)), agent.act(seen(spec=scaled)))
    plain = make_agent(name, SPEC, {'width': 16})
    assert not np.allclose(plain.act(seen()), agent.act(seen(spec=scaled)))


@pytest.mark.parametrize('name', AGENTS)
def test_B10_the_policy_given_away_acts_like_the_agent_bit_for_bit(name):
    spec = tiny_spec(size=64, frame_stack=3)
    agent = make_agent(name, spec, {'width': 64})
    agent.std = 0.2
    for seed in range(3):
        agent.update(random_batch(spec, seed=seed))
    policy = unpack(*pack(agent.policy(observation=spec, **FIELDS)))
    for pattern in range(5):
        np.testing.assert_array_equal(policy.act(seen(pattern, spec)), agent.act(seen(pattern, spec)))


@pytest.mark.parametrize('name', AGENTS)
def test_an_agent_goes_on_bit_for_bit_from_its_state(name):
    batches = [random_batch(SPEC, seed=seed) for seed in range(4)]
    one, two = (make_agent(name, SPEC, {'width': 16}, seed=seed) for seed in (0, 1))
    one.std = 0.1
    for batch in batches[:2]:
        one.update(batch)
    two.load_state_dict(one.state_dict())
    assert (two.updates, two.std) == (2, 0.1)
    for batch in batches[2:]:
        ones, twos = one.update(batch), two.update(batch)
        assert {k: float(v) for k, v in ones.items()} == {k: float(v) for k, v in twos.items()}
    np.testing.assert_array_equal(one.act(seen()), two.act(seen()))


@pytest.mark.parametrize('name', AGENTS)
def test_the_state_of_other_networks_is_refused_and_changes_nothing(name):
    agent = make_agent(name, SPEC, {'width': 16})
    before = agent.act(seen())
    with pytest.raises(AgentError, match='other names or shapes'):
        agent.load_state_dict(make_agent(name, SPEC, {'width': 24}).state_dict())
    np.testing.assert_array_equal(agent.act(seen()), before)


def test_a_state_is_a_copy_that_later_updates_do_not_change():
    agent = small()
    state = agent.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    agent.update(random_batch(SPEC))
    assert all(torch.equal(state[name], value) for name, value in before.items())


@pytest.mark.parametrize('name', AGENTS)
def test_an_agent_begins_with_the_policy_that_it_is_given(name):
    policy = small(seed=3).policy(observation=SPEC, **FIELDS)
    agent = make_agent(name, SPEC, {'width': 48}, policy=policy, seed=5)
    np.testing.assert_array_equal(agent.act(seen()), policy.act(seen()))
    agent.update(random_batch(SPEC))


@pytest.mark.parametrize('name', AGENTS)
def test_a_policy_that_sees_something_else_is_refused(name):
    policy = small(seed=3).policy(observation=SPEC, **FIELDS)
    with pytest.raises(SpecMismatchError, match='frame_stack'):
        make_agent(name, tiny_spec(frame_stack=2), policy=policy)


@pytest.mark.parametrize('name', AGENTS)
def test_equal_seeds_give_equal_agents_and_leave_torchs_random_state_alone(name):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (make_agent(name, SPEC, {'width': 16}, seed=seed) for seed in (1, 1, 2))
    one.update(random_batch(SPEC, seed=5))
    two.update(random_batch(SPEC, seed=5))
    np.testing.assert_array_equal(one.act(seen()), two.act(seen()))
    assert not np.allclose(one.act(seen()), other.act(seen()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('name', AGENTS)
def test_exploration_is_repeatable_and_stays_in_range(name):
    agent = make_agent(name, SPEC, {'width': 16})
    draws = [agent.act(seen(), std=1.0, rng=np.random.default_rng(4)) for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    assert not np.allclose(draws[0], agent.act(seen()))
    assert np.abs(draws[0]).max() < 1.0
    with pytest.raises(ValueError, match='expected a random generator'):
        agent.act(seen(), std=0.1)


def test_the_image_agent_overfits_one_batch():
    spec = tiny_spec(size=40, frame_stack=3)
    agent = small(spec=spec, shift=0, learning_rate=3e-3, bc_weight=10.0, width=64, actor_every=1)
    batch = replace(random_batch(spec, 8), discount=torch.zeros(8), state=torch.zeros(8, 18))
    first = agent.update(batch)
    for _ in range(79):
        metrics = agent.update(batch)
    metrics = {**metrics, **agent.update(batch)}
    assert metrics['critic_loss'] < 0.02 * first['critic_loss']
    assert metrics['bc_loss'] < 0.05 * first['bc_loss']


def test_the_distance_to_demonstrations_counts_on_demonstrated_rows_only():
    batch = random_batch(SPEC)
    agent = small()
    with torch.no_grad():
        features = agent.encoder(batch.images)
        mean = agent.actor(features, batch.state)
    expected = (mean - batch.action).square().mean(dim=1)[batch.is_demo].mean()
    assert float(agent._update_actor(features, batch)['bc_loss']) == pytest.approx(float(expected), rel=1e-5)


def test_without_demonstrations_the_distance_is_zero():
    batch = replace(random_batch(SPEC), is_demo=torch.zeros(8, dtype=torch.bool))
    assert float(small().update(batch)['bc_loss']) == 0.0


def test_the_policy_that_acts_follows_the_actor_slowly():
    agent = small(ema_tau=0.1)
    start = copy_of(agent.actor)
    agent._update_actor(agent.encoder(random_batch(SPEC).images).detach(), random_batch(SPEC))
    learned = copy_of(agent.actor)
    agent._update_targets()
    for name, value in agent.ema_actor.state_dict().items():
        torch.testing.assert_close(value, torch.lerp(start[name], learned[name], 0.1))


def share_followed(agent):
    """How far a weight of the actor that acts goes, in one update, towards one that has moved by 1."""
    learning, acting = (next(iter(actor.parameters())) for actor in (agent.actor, agent.ema_actor))
    with torch.no_grad():
        learning.add_(1.0)
    before = acting.clone()
    agent._update_targets()
    return float((acting - before).mean())


@pytest.mark.parametrize(('updates', 'share'), [(0, 0.1), (500, 0.05), (1000, 0.1 / 3.0)])
def test_the_policy_that_acts_follows_more_slowly_as_it_settles(updates, share):
    agent = small(ema_tau=0.1, ema_growth_updates=500)
    agent.updates = updates
    assert share_followed(agent) == pytest.approx(share, rel=1e-4)


def test_a_policy_that_an_agent_begins_with_counts_as_pretrained():
    given = small(seed=1).policy(observation=SPEC, **FIELDS)
    agent = small(policy=given, ema_tau=0.1, ema_growth_updates=1000)
    assert share_followed(agent) == pytest.approx(0.01, rel=1e-4)


def drift(batch, updates=60, **config):
    """How far an agent goes from the policy that it began with, on the rows of a batch."""
    given = small(seed=1).policy(observation=SPEC, **FIELDS)
    agent = small(policy=given, critic_warmup_updates=0, actor_every=1, shift=0, learning_rate=1e-3, **config)
    for _ in range(updates):
        agent.update(batch)
    with torch.no_grad():
        now = agent.actor(agent.encoder(batch.images), batch.state)
        first = given.actor(given.encoder(batch.images), batch.state)
    return float((now - first).square().mean())


def test_an_agent_stays_close_to_the_policy_it_began_with_for_a_while():
    lived = replace(random_batch(SPEC), is_demo=torch.zeros(8, dtype=torch.bool))
    free = drift(lived, prior_weight=0.0)
    assert drift(lived, prior_weight=100.0) < 0.1 * free
    assert drift(lived, prior_weight=100.0, prior_updates=1) > 0.5 * free  # a while that is over at once


def test_what_was_demonstrated_is_not_held_back():
    shown = replace(random_batch(SPEC), is_demo=torch.ones(8, dtype=torch.bool))
    assert drift(shown, prior_weight=100.0) == drift(shown, prior_weight=0.0)


def test_critics_learn_first_where_the_agent_begins_with_a_policy():
    given = small(seed=1).policy(observation=SPEC, **FIELDS)
    config = HilConfig(width=32, num_critics=4, critic_warmup_updates=3, actor_every=1)
    agent = HilAgent(SPEC, config, policy=given)
    batch = random_batch(SPEC)
    for _ in range(3):
        critic = copy_of(agent.critic)
        agent.update(batch)
        assert same(agent.encoder, copy_of(given.encoder))
        assert same(agent.actor, copy_of(given.actor))
        assert not same(agent.critic, critic)
    agent.update(batch)
    assert not same(agent.encoder, copy_of(given.encoder))
    assert not same(agent.actor, copy_of(given.actor))


def stored_with_critics(folder, agent):
    """The policy of an agent that has learned a bit, and its critics, from a directory."""
    for _ in range(3):
        agent.update(random_batch(SPEC))
    policy = agent.policy(observation=SPEC, **FIELDS)
    return load_policy(save_policy(folder, policy, critics=agent.critics))


def test_an_agent_goes_on_with_the_critics_of_its_policy_and_learns_all_at_once(tmp_path):
    before = small(seed=1)
    agent = small(policy=stored_with_critics(tmp_path / 'p', before), critic_warmup_updates=3, actor_every=1)
    assert same(agent.critic, copy_of(before.critic))
    assert same(agent.critic_target, copy_of(before.critic_target))
    assert not same(agent.critic, copy_of(before.critic_target))
    actor = copy_of(agent.actor)
    agent.update(random_batch(SPEC))
    assert not same(agent.actor, actor)


def test_critics_of_another_size_stay_where_they_are(tmp_path):
    given = stored_with_critics(tmp_path / 'p', small(seed=1))
    agent = small(policy=given, num_critics=6, target_critics=2, critic_warmup_updates=3, actor_every=1)
    assert agent.critic.spec.num_critics == 6
    actor = copy_of(agent.actor)
    agent.update(random_batch(SPEC))
    assert same(agent.actor, actor)


def test_critics_of_sac_are_not_stored(tmp_path):
    assert small(SacAgent).critics is None
    assert load_critics(stored_with_critics(tmp_path / 'p', small(SacAgent)).directory) is None


def test_a_fresh_agent_learns_all_at_once():
    agent = small(critic_warmup_updates=3, actor_every=1)
    before = copy_of(agent.encoder), copy_of(agent.actor)
    agent.update(random_batch(SPEC))
    assert not same(agent.encoder, before[0])
    assert not same(agent.actor, before[1])


def test_B19_sac_begins_with_the_settings_that_learn():
    config = SacConfig()
    assert config.temperature == 0.01
    assert config.backup_entropy is False
    assert config.entropy(4) == -2.0


def test_B19_target_values_count_no_entropy_unless_asked():
    batch = replace(random_batch(SPEC), reward=torch.zeros(8))
    values = {}
    for backup in (False, True):
        agent = small(SacAgent, backup_entropy=backup, temperature=5.0, target_critics=4)
        values[backup] = agent._target(agent.encoder(batch.next_images), batch)
    assert values[False].abs().max() < 5.0
    assert (values[True] - values[False]).abs().max() > 1.0


def test_the_temperature_falls_while_entropy_is_above_its_target_and_rises_below():
    for target, rises in ((-40.0, False), (-1e-3, True)):
        agent = small(SacAgent, target_entropy=target, learning_rate=1e-2)
        if rises:  # next to no noise, so next to no entropy
            torch.nn.init.constant_(agent.noise.out.bias, -5.0)
        for seed in range(4):
            agent.update(random_batch(SPEC, seed=seed))
        assert (agent.temperature().item() > 0.01) is rises


def test_the_density_of_squashed_noise_integrates_to_one():
    agent = small(SacAgent)
    features = agent.encoder(random_batch(SPEC, 1).images).expand(200_000, -1)
    state = random_batch(SPEC, 1).state.expand(200_000, -1)
    with torch.no_grad():
        action, log_prob, _ = agent._sample(features, state)
    # The mean of uniform / density over samples of the density is the volume of the support: 2^4.
    inside = (action.abs() < 0.999).all(dim=1)
    assert float((inside / log_prob.exp()).mean()) == pytest.approx(16.0, rel=0.2)


def test_an_unknown_agent_or_option_is_named_with_those_that_exist():
    with pytest.raises(
        AgentError,
        match="expected one of the agents \\['hil', 'hil_on_base', 'faithful', 'sac', 'bc'\\], got 'ddpg'",
    ):
        make_agent('ddpg', SPEC)
    with pytest.raises(ParameterError, match='no parameter colour'):
        agent_config('hil', {'colour': 1})
    with pytest.raises(ValueError, match='at most num_critics = 2'):
        HilConfig(num_critics=2, target_critics=3)


@pytest.mark.parametrize('name', AGENTS)
def test_the_first_updates_are_those_of_before(name):
    """Numbers of earlier code, on another processor; convolutions sum in another order there, so not to the last bit."""
    agent = make_agent(name, SPEC, {'width': 16}, seed=3)
    agent.std = 0.2
    for seed, expected in enumerate(json.loads(GOLDEN.read_text())[name]):
        metrics = agent.update(random_batch(SPEC, seed=seed))
        assert {key: float(value) for key, value in metrics.items()} == pytest.approx(
            expected, rel=1e-3, abs=1e-4
        )
