# SPDX-License-Identifier: Apache-2.0
from collections import OrderedDict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import torch

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, NetworkSpec
from drqv2_policy_node.robobase.convert import TrainingConfig
from drqv2_policy_node.robobase.layout import read_agent, RoboBaseError, state_dict
from drqv2_policy_node.robobase.schedule import parse_schedule, ScheduleError
from so101_testing.robobase_recipe import golden, network_options

from .snapshots import agent_state, CONFIG, SMALL

SHAPES = golden('robobase_shapes.json')['cases']


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_reference_shape_has_98_tensors_all_accounted_for():
    agent = read_agent(agent_state(SMALL, envs=9))
    assert (agent.unique, agent.aliases, agent.hidden, agent.envs) == (78, 14, 6, 9)


@pytest.mark.parametrize('name', SHAPES)
def test_the_state_dict_has_the_names_order_and_shapes_of_the_real_agent(name):
    real = SHAPES[name]['shapes']
    spec = NetworkSpec(**network_options(SHAPES[name]['options']))
    ours = state_dict(Encoder(spec), Actor(spec), Critic(spec), Critic(spec), envs=9)
    assert {key: list(tensor.shape) for key, tensor in ours.items()} == real
    assert list(ours) == list(real)


@pytest.mark.parametrize(
    'change',
    [
        {'image_size': 64},
        {'image_size': 84},
        {'image_size': 96},
        {'image_size': 128},
        {'cameras': 2},
        {'cameras': 3},
        {'frame_stack': 1},
        {'frame_stack': 2},
        {'frame_stack': 4},
        {'mlp': (512, 512)},
        {'mlp': (32, 16, 8)},
        {'mlp': (12,)},
        {'critic_mlp': (40, 30)},
        {'action_size': 7},
        {'num_critics': 1},
        {'num_critics': 10},
        {'state_size': 21},
        {'bottleneck': 32},
        {'channels': 16},
        {'convs': 3},
        {'critic': CriticKind.RLPD, 'num_critics': 5},
    ],
    ids=str,
)
def test_L3_all_sizes_are_read_off_the_shapes_and_every_tensor_survives(change):
    spec = replace(SMALL, channels=4, **change) if 'channels' not in change else replace(SMALL, **change)
    state = agent_state(spec)
    agent = read_agent(state)
    assert agent.spec == spec
    again = state_dict(agent.encoder, agent.actor, agent.critic, agent.critic_target, envs=9)
    assert list(again) == list(state)
    assert same(again, state)


@given(
    spec=st.builds(
        NetworkSpec,
        image_size=st.integers(10, 30).map(lambda half: 2 * half),
        frame_stack=st.integers(1, 4),
        cameras=st.integers(1, 3),
        state_size=st.integers(1, 25),
        action_size=st.integers(1, 8),
        mlp=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
        bottleneck=st.integers(1, 60),
        num_critics=st.integers(1, 6),
        channels=st.integers(1, 8),
    ),
    envs=st.integers(1, 20),
)
@settings(max_examples=25)
def test_L3_any_shape_round_trips(spec, envs):
    state = agent_state(spec, envs)
    agent = read_agent(state)
    assert agent.spec == spec
    assert agent.envs == envs
    assert same(state_dict(agent.encoder, agent.actor, agent.critic, agent.critic_target, envs=envs), state)


def test_of_two_image_sizes_with_the_same_shapes_the_even_one_is_taken_unless_said():
    state = agent_state(replace(SMALL, image_size=64))
    agent = read_agent(state)
    assert (agent.spec.image_size, agent.other_image_size) == (64, 63)
    assert read_agent(state, image_size=63).spec.image_size == 63
    with pytest.raises(RoboBaseError, match='63 or 64 px'):
        read_agent(state, image_size=96)


STATE = agent_state()
NAMES = list(STATE)


@pytest.mark.parametrize('name', NAMES)
def test_L2_a_missing_tensor_is_named(name):
    state = OrderedDict(STATE)
    del state[name]
    with pytest.raises(RoboBaseError) as error:
        read_agent(state)
    assert name in str(error.value)
    assert 'missing' in str(error.value) or 'got none' in str(error.value)


@pytest.mark.parametrize('name', NAMES)
def test_L2_a_tensor_of_another_shape_is_named(name):
    state = OrderedDict(STATE)
    state[name] = torch.zeros(*state[name].shape[:-1], state[name].shape[-1] + 1)
    with pytest.raises(RoboBaseError) as error:
        read_agent(state)
    assert name in str(error.value)


@pytest.mark.parametrize('name', NAMES)
def test_L2_a_renamed_tensor_is_named(name):
    state = OrderedDict((f'{key}x' if key == name else key, tensor) for key, tensor in STATE.items())
    with pytest.raises(RoboBaseError) as error:
        read_agent(state)
    assert name in str(error.value)


@pytest.mark.parametrize(
    'name',
    [
        'extra',
        'actor.actor_model.main_mlp.1.weight',
        'critic.qs.2.main_mlp.0.weight',
        'encoder.convs_per_cam.0.1.weight',
        'actor_model.time_dim_rnn.weight_ih_l0',
        'encoder.convs_per_cam.0.9.running_mean',
    ],
)
def test_L2_an_extra_tensor_is_named(name):
    state = OrderedDict(STATE)
    state[name] = torch.zeros(24)
    with pytest.raises(RoboBaseError) as error:
        read_agent(state)
    assert name.rsplit('.', 2)[0] in str(error.value)


@pytest.mark.parametrize(
    'name', [name for name in NAMES if name.startswith('actor_model.') and 'hidden' not in name]
)
def test_L2_an_alias_that_differs_is_named(name):
    state = OrderedDict(STATE)
    state[name] = state[name] + 1.0
    with pytest.raises(RoboBaseError, match='second name') as error:
        read_agent(state)
    assert name in str(error.value)


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_L2_a_tensor_that_is_not_finite_is_named(bad):
    state = OrderedDict(STATE)
    state['critic.qs.1.out_mlp.0.bias'] = torch.tensor([bad])
    with pytest.raises(RoboBaseError, match=r'critic\.qs\.1\.out_mlp\.0\.bias: not finite'):
        read_agent(state)


def test_L2_only_the_odd_tensor_is_blamed():
    state = OrderedDict(STATE)
    state['actor.actor_model.input_preprocess_modules.low_dim_obs.0.weight'] = torch.zeros(8, 60)
    with pytest.raises(RoboBaseError) as error:
        read_agent(state)
    blamed = [line for line in str(error.value).splitlines() if line.startswith('  ')]
    assert blamed == [
        '  actor.actor_model.input_preprocess_modules.low_dim_obs.0.weight: expected the shape (8, 54), got (8, 60)'
    ]


def test_a_prefix_as_data_parallel_adds_is_refused():
    state = {f'module.{name}': tensor for name, tensor in STATE.items()}
    with pytest.raises(RoboBaseError, match=r'encoder\.convs_per_cam'):
        read_agent(state)


def test_half_precision_weights_come_out_as_floats():
    state = OrderedDict((name, tensor.half()) for name, tensor in STATE.items())
    agent = read_agent(state)
    assert {t.dtype for t in agent.actor.state_dict().values()} == {torch.float32}


def test_members_of_a_normed_ensemble_that_share_nothing_are_refused():
    state = agent_state(replace(SMALL, critic=CriticKind.RLPD))
    state['critic.qs.1.input_preprocess_modules.low_dim_obs.0.weight'] += 1.0
    with pytest.raises(RoboBaseError, match='which critics with a norm share'):
        read_agent(state)


@torch.no_grad()
def test_an_exported_ensemble_gives_the_same_values():
    spec = replace(SMALL, critic=CriticKind.RLPD, num_critics=5)
    encoder, critic = Encoder(spec), Critic(spec)
    agent = read_agent(state_dict(encoder, Actor(spec), critic, critic))
    pixels = torch.randint(0, 256, (2, 1, 9, 32, 32), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    rest = encoder(pixels), torch.ones(2, 54), torch.zeros(2, 4)
    assert torch.equal(agent.critic(*rest), critic(*rest))


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'use_min_max_normalization': True}, 'use_min_max_normalization'),
        ({'use_standardization': True}, 'not in the snapshot'),
        ({'norm_obs': True}, 'norm_obs'),
        ({'action_sequence': 4}, 'action_sequence'),
        ({'frame_stack': 2}, 'frame_stack'),
        ({'frame_stack_on_channel': False}, 'frame_stack_on_channel'),
        ({'method': {'distributional_critic': True}}, 'distributional_critic'),
        ({'method': {'encoder_model': {'activation': 'elu'}}}, 'encoder_model.activation'),
        ({'method': {'actor_model': {'activation': 'silu'}}}, 'actor_model.activation'),
        ({'method': {'critic_model': {'tanh_after_bottleneck': False}}}, 'tanh_after_bottleneck'),
    ],
    ids=str,
)
def test_settings_that_change_a_policy_without_a_trace_in_its_tensors_are_refused(change, named):
    with pytest.raises(RoboBaseError, match=named):
        TrainingConfig(CONFIG | change).require_plain(SMALL)
    TrainingConfig(CONFIG).require_plain(SMALL)
    TrainingConfig({}).require_plain(SMALL)


def test_references_between_settings_are_followed():
    assert TrainingConfig(CONFIG).schedule == 'linear(1.0,0.1,500000)'
    assert TrainingConfig({'a': '${b}', 'b': '${a}'}).get('a') is None


@pytest.mark.parametrize(
    ('text', 'step', 'std'),
    [
        ('0.2', 10, 0.2),
        (0.2, 10, 0.2),
        ('linear(1.0,0.1,500000)', 0, 1.0),
        ('linear(1.0,0.1,500000)', 125_000, 0.775),
        ('linear(1.0,0.1,500000)', 10**9, 0.1),
        ('linear( 1.0, 0.1, 100 )', 50, 0.55),
        ('step_linear(1.0,0.2,100,0.1,50)', 50, 0.6),
        ('step_linear(1.0,0.2,100,0.1,50)', 100, 0.2),
        ('step_linear(1.0,0.2,100,0.1,50)', 125, 0.15),
        ('step_linear(1.0,0.2,100,0.1,50)', 999, 0.1),
    ],
)
def test_L16_schedules_mean_what_robobase_means(text, step, std):
    assert parse_schedule(text)(step) == pytest.approx(std)
    assert parse_schedule(str(parse_schedule(text)))(step) == pytest.approx(std)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'x',
        'linear(1,2)',
        'linear(1,2,3,4)',
        'step_linear(1,2,3)',
        'cosine(1,2,3)',
        'linear(1,x,3)',
        'linear(1,0.1,0)',
        'linear(1,0.1,-5)',
        '-0.1',
        'nan',
        'inf',
        'linear(nan,0,1)',
        'linear(1,0,1) + 1',
    ],
)
def test_L16_anything_else_is_refused(text):
    with pytest.raises(ScheduleError, match='step_linear'):
        parse_schedule(text)


def test_L14_two_million_steps_of_the_published_run_leave_noise_at_0_775():
    iterations = 2_000_000 // (8 * 2)  # parallel environments, and an action repeat that only counts
    assert parse_schedule('linear(1.0,0.1,500000)')(iterations) == pytest.approx(0.775)
