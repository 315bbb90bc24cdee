# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

from drqv2_policy_node.networks import (
    Actor,
    Critic,
    CriticKind,
    Encoder,
    EncoderPreset,
    feature_size,
    from_bytes,
    NetworkError,
    NetworkSpec,
    normalise_images,
    to_bytes,
)
from drqv2_policy_node.robobase.layout import robobase_names
from so101_contract.observation_spec import Normalization, robobase_spec
from so101_testing.robobase_recipe import action, fill, golden, images, network_options, state

GOLDEN = golden('robobase_golden.json')
SHAPES = golden('robobase_shapes.json')['cases']
SMALL = NetworkSpec(image_size=32, mlp=(16, 24), bottleneck=8)

SPECS = st.builds(
    NetworkSpec,
    image_size=st.integers(20, 72),
    frame_stack=st.integers(1, 4),
    cameras=st.integers(1, 3),
    state_size=st.integers(1, 25),
    action_size=st.integers(1, 8),
    mlp=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    critic_mlp=st.lists(st.integers(1, 40), max_size=3).map(tuple),
    bottleneck=st.integers(1, 60),
    num_critics=st.integers(1, 10),
    channels=st.integers(1, 8),
    critic=st.sampled_from(CriticKind),
)


def built(spec, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Encoder(spec, generator), Actor(spec, generator), Critic(spec, generator)


def inputs(spec, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = spec.image_size
    shape = (batch, spec.cameras, spec.image_channels, size, size)
    return (
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        torch.randn(batch, spec.stacked_state, generator=generator),
        torch.rand(batch, spec.action_size, generator=generator) * 2 - 1,
    )


def close(got, expected):
    np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_forward_gives_the_numbers_of_the_real_agent():
    spec = NetworkSpec.from_observation(robobase_spec())
    encoder, actor, critic = built(spec)
    fill(encoder, actor, [critic])
    expected = GOLDEN['low18']
    features = encoder(images(1, spec))
    assert features.shape == (1, 39200)
    close(features.double().sum(), expected['enc_sum'])
    close(features.abs().max(), expected['enc_abs_max'])
    close(features[0, :8], expected['enc_first8'])
    assert abs(int((features > 0).sum()) - expected['enc_nonzero']) <= 20
    close(actor.logits(features, state(1, spec))[0], expected['actor_pre_tanh'])
    close(actor(features, state(1, spec))[0], expected['act_eval'])
    one = torch.tensor([[0.25, -0.5, 0.75, -1.0]])
    close(critic(features, state(1, spec), one)[0], expected['q_for_action_[.25,-.5,.75,-1]'])
    batch = GOLDEN['low18_update']
    row = encoder(images(4, spec))[0]
    close(row[batch['enc_flat_idx']], batch['enc_b0_vals'])
    close(row[batch['enc_b0_nonzero_idx']], batch['enc_b0_nonzero_vals'])
    close(row.double().sum(), batch['enc_b0_sum'])


@torch.no_grad()
@pytest.mark.parametrize('name', SHAPES)
def test_other_shapes_give_the_numbers_of_the_real_agent(name):
    case = SHAPES[name]
    spec = NetworkSpec(**network_options(case['options']))
    encoder, actor, critic = built(spec)
    fill(encoder, actor, [critic])
    features = encoder(images(4, spec))
    close(features.double().sum(), case['feature_sum'])
    close(actor(features, state(4, spec)), case['mu'])
    close(actor(features, state(4, spec)), case['act'])
    close(critic(features, state(4, spec), action(4, spec)), case['q'])


@pytest.mark.parametrize('name', SHAPES)
def test_L1_names_and_shapes_are_those_of_the_real_agent(name):
    spec = NetworkSpec(**network_options(SHAPES[name]['options']))
    real = {key: tuple(shape) for key, shape in SHAPES[name]['shapes'].items()}
    held = {k: v for k, v in real.items() if 'hidden_state' not in k and not k.startswith('actor_model.')}
    assert robobase_names(spec) == held


def test_L1_there_is_no_norm_in_front_of_the_hidden_layers():
    kinds = [type(layer).__name__ for layer in Actor(SMALL).main_mlp]
    assert kinds == ['Linear', 'Identity', 'ReLU'] * 2
    names = {name for module in built(SMALL) for name in module.state_dict()}
    assert not [name for name in names if 'main_mlp.1' in name or 'main_mlp.2' in name]


def test_L1_the_reference_has_78_tensors_that_hold_something():
    names = robobase_names(NetworkSpec())
    assert len(names) == 78
    assert sorted(n for n in names if not n.startswith('critic_target')) == GOLDEN['names']


@given(spec=SPECS)
@settings(max_examples=25)
def test_L3_any_shape_builds_and_runs(spec):
    encoder, actor, critic = built(spec)
    pixels, states, actions = inputs(spec)
    with torch.no_grad():
        features = encoder(pixels)
        mean = actor(features, states)
        values = critic(features, states, actions)
    assert features.shape == (3, feature_size(spec)) == (3, encoder.feature_size)
    assert feature_size(spec) == spec.cameras * spec.channels * spec.feature_edge**2
    assert mean.shape == (3, spec.action_size)
    assert mean.abs().max() <= 1.0
    assert values.shape == (3, spec.num_critics)


@pytest.mark.parametrize('size', [32, 33, 48, 64, 84, 96, 128])
def test_the_cpu_preset_works_from_32_pixels_on(size):
    spec = replace(SMALL, image_size=size, encoder=EncoderPreset.CPU)
    encoder, actor, _ = built(spec)
    pixels, states, _ = inputs(spec)
    assert actor(encoder(pixels), states).shape == (3, 4)


def test_the_cpu_preset_brings_64_pixels_down_to_800_features():
    spec = NetworkSpec(image_size=64, encoder=EncoderPreset.CPU)
    assert spec.strides == (2, 2, 2, 1)
    assert feature_size(spec) == 800


def test_images_too_small_for_the_convolutions_are_refused():
    with pytest.raises(NetworkError, match='larger images'):
        NetworkSpec(image_size=8)


@pytest.mark.parametrize(
    'change',
    [
        {'mlp': ()},
        {'num_critics': 0},
        {'cameras': 0},
        {'bottleneck': -1},
        {'mlp': (10**9,)},
        {'critic_mlp': (8,) * 1000},
        {'image_size': 10**6},
        {'channels': 10**5},
    ],
)
def test_networks_without_substance_or_without_end_are_refused(change):
    with pytest.raises(NetworkError, match=r'\(\d to \d+\).*correct the network spec'):
        NetworkSpec(**change)


def test_float_and_uint8_images_give_the_same_features():
    encoder = Encoder(SMALL)
    pixels = inputs(SMALL)[0]
    assert torch.equal(encoder(pixels), encoder(pixels.float()))


def test_L6_pixels_are_scaled_once_to_half_around_zero():
    ramp = torch.arange(256, dtype=torch.uint8)
    scaled = normalise_images(ramp)
    assert scaled.min() == -0.5
    assert scaled.max() == 0.5
    seen = []
    encoder = Encoder(SMALL)
    encoder.convs_per_cam[0][0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(images(1, SMALL))
    assert seen[0].min() >= -0.5
    assert seen[0].max() <= 0.5
    assert seen[0].max() - seen[0].min() > 0.9


@pytest.mark.parametrize(
    'shape', [(2, 3, 3, 32, 32), (2, 1, 27, 32, 32), (2, 9, 32, 32), (2, 1, 9, 33, 33), (2, 1, 3, 32, 32)]
)
def test_L5_images_that_are_not_folded_exactly_once_are_refused(shape):
    with pytest.raises(NetworkError, match='fold them once'):
        Encoder(SMALL)(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize('rows', [31, 32, 33, 100])
def test_the_size_of_a_batch_changes_no_feature_and_no_gradient(rows):
    encoder = Encoder(SMALL)
    pixels = inputs(SMALL, batch=rows)[0]
    together = encoder(pixels)
    assert together.shape == (rows, encoder.feature_size)
    one_by_one = torch.cat([encoder(row) for row in pixels.split(1)])
    assert torch.allclose(together, one_by_one, atol=1e-6)
    gradients = []
    for features in (together, one_by_one):
        gradients.append(torch.autograd.grad(features.square().mean(), list(encoder.parameters())))
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-7) for a, b in zip(*gradients, strict=True))


def test_views_have_convolutions_of_their_own_and_keep_their_order():
    spec = replace(SMALL, cameras=2)
    encoder = Encoder(spec)
    pixels = inputs(spec)[0]
    half = encoder.feature_size // 2
    features = encoder(pixels)
    assert not torch.equal(encoder(pixels.flip(1)), features)
    changed = pixels.clone()
    changed[:, 1] = 0
    assert torch.equal(encoder(changed)[:, :half], features[:, :half])
    assert not torch.equal(encoder(changed)[:, half:], features[:, half:])


def test_F16_every_entry_of_the_state_reaches_the_action():
    spec = replace(
        SMALL, state_size=18, frame_stack=1, normalization=Normalization.from_range([-2.0] * 18, [2.0] * 18)
    )
    encoder, actor, _ = built(spec)
    pixels, states, _ = inputs(spec, batch=1)
    features = encoder(pixels)
    before = actor(features, states)
    for entry in range(18):
        changed = states.clone()
        changed[0, entry] += 0.5
        assert (actor(features, changed) - before).abs().max() > 1e-5
    permuted = states[:, [*torch.randperm(16, generator=torch.Generator().manual_seed(1)), 16, 17]]
    assert (actor(features, permuted) - before).abs().max() > 1e-3


def test_normalisation_is_part_of_the_networks_and_of_no_tensor():
    statistics = Normalization.from_range([-1.0] * 17 + [3.0], [1.0] * 17 + [5.0])
    spec = replace(SMALL, normalization=statistics)
    plain, scaled = Actor(SMALL), Actor(spec)
    assert scaled.state_dict().keys() == plain.state_dict().keys()
    pixels, states, actions = inputs(spec)
    features = Encoder(spec)(pixels)
    by_hand = torch.from_numpy(statistics.apply(states.view(3, 3, 18).numpy()).reshape(3, -1))
    assert torch.allclose(scaled(features, states), plain(features, by_hand))
    critics = Critic(SMALL), Critic(spec)
    assert torch.allclose(critics[1](features, states, actions), critics[0](features, by_hand, actions))


@given(members=st.integers(1, 12), widths=st.lists(st.integers(1, 40), min_size=1, max_size=3))
@settings(max_examples=20)
def test_an_ensemble_gives_what_its_members_give_alone(members, widths):
    spec = replace(SMALL, num_critics=members, critic_mlp=tuple(widths), critic=CriticKind.RLPD)
    encoder, _, critic = built(spec)
    pixels, states, actions = inputs(spec)
    with torch.no_grad():
        features = encoder(pixels)
        together = critic(features, states, actions)
        alone = []
        for member in range(members):
            single = Critic(replace(spec, num_critics=1), start=False)
            tensors = critic.state_dict()
            single.load_state_dict(
                {k: v[member : member + 1] if '.ensemble.' in k else v for k, v in tensors.items()}
            )
            alone.append(single(features, states, actions))
    assert torch.allclose(together, torch.cat(alone, dim=1), atol=1e-5)


@pytest.mark.parametrize('kind', CriticKind)
def test_chosen_members_give_what_they_give_among_all(kind):
    spec = replace(SMALL, num_critics=7, critic=kind)
    encoder, _, critic = built(spec)
    pixels, states, actions = inputs(spec)
    chosen = torch.tensor([5, 1])
    with torch.no_grad():
        features = encoder(pixels)
        everything = critic(features, states, actions)
        some = critic(features, states, actions, chosen)
    assert torch.allclose(some, everything[:, chosen], atol=1e-6)


def test_members_of_an_ensemble_start_apart():
    critic = Critic(replace(SMALL, num_critics=10, critic=CriticKind.RLPD))
    pixels, states, actions = inputs(SMALL)
    values = critic(Encoder(SMALL)(pixels), states, actions)
    assert values.std(dim=1).min() > 1e-3


def test_initial_values_are_orthogonal_with_the_gains_of_robobase():
    encoder, actor, critic = built(SMALL)
    weight = actor.main_mlp[0].weight
    assert torch.allclose(weight @ weight.T, torch.eye(16), atol=1e-5)
    kernel = encoder.convs_per_cam[0][3].weight.flatten(1)
    assert torch.allclose(kernel @ kernel.T, 2.0 * torch.eye(32), atol=1e-4)
    for module in (encoder, actor, critic):
        for name, tensor in module.named_parameters():
            if name.endswith('bias'):
                assert not tensor.any()


def test_building_networks_does_not_touch_the_global_random_state():
    before = torch.get_rng_state()
    one, two = built(SMALL, seed=3), built(SMALL, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one, two, strict=True):
        assert all(
            torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        )


def test_F11_an_observation_of_other_sizes_is_refused_with_both():
    with pytest.raises(NetworkError, match='state_size: 18 network, 21 observation'):
        NetworkSpec.from_observation(robobase_spec()).require_observation(robobase_spec(privileged=True))


@given(spec=SPECS)
@settings(max_examples=10)
def test_networks_survive_as_bytes(spec):
    actor = Actor(spec)
    again, tensors = from_bytes(to_bytes(spec, {'actor': actor}))
    assert again == spec
    assert {k: v.tolist() for k, v in tensors.items()} == {
        f'actor.{k}': v.tolist() for k, v in actor.state_dict().items()
    }


def test_the_same_values_give_the_same_bytes():
    actor = Actor(SMALL)
    apart = Actor(SMALL)
    assert to_bytes(SMALL, {'actor': actor}) == to_bytes(SMALL, {'actor': apart})


@pytest.mark.parametrize('payload', [b'', b'x' * 100, b'\x08\x00\x00\x00\x00\x00\x00\x00{}      ', 'cut'])
def test_bytes_of_something_else_are_refused(payload):
    if payload == 'cut':
        payload = to_bytes(SMALL, {'actor': Actor(SMALL)})[:-5]
    with pytest.raises(NetworkError):
        from_bytes(payload)
