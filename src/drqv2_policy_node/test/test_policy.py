# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import torch

from drqv2_policy_node.networks import Actor, Encoder, NetworkError, NetworkSpec
from drqv2_policy_node.policy import Policy, policy_inputs, PolicyError
from so101_contract.action import ActionSpec, GripperConvention
from so101_contract.errors import ManifestError, ObservationError
from so101_contract.joints import JOINT_NAMES
from so101_contract.manifest import golden_observation, StepUnit, Workspace
from so101_contract.observation import build_state, Observation
from so101_contract.observation_spec import CameraSpec, Normalization, ObservationSpec, robobase_spec

SPEC = robobase_spec(size=32)
FIELDS = {
    'name': 'test',
    'version': 0,
    'action': ActionSpec(),
    'control_rate_hz': 10.0,
    'ik_profile': 'setpoint',
    'reset_pose': (0.0,) * 6,
    'workspace': Workspace(low=(0.1, -0.3, 0.01), high=(0.5, 0.3, 0.4)),
    'std_schedule': '0.1',
    'std_unit': StepUnit.UPDATES,
    'calibration_id': None,
    'source_sha256': None,
}


def make_policy(spec=SPEC, seed=0, **options):
    network = NetworkSpec.from_observation(spec, **({'mlp': (16, 24)} | options))
    generator = torch.Generator().manual_seed(seed)
    return Policy.create(Encoder(network, generator), Actor(network, generator), observation=spec, **FIELDS)


def test_an_action_has_four_entries_in_network_units_and_is_always_the_same():
    policy = make_policy()
    seen = golden_observation(SPEC, 3)
    action = policy.act(seen)
    assert action.shape == (4,)
    assert action.dtype == np.float32
    assert np.abs(action).max() < 1.0
    assert np.array_equal(action, policy.act(seen))
    assert not np.array_equal(action, policy.act(golden_observation(SPEC, 4)))


def test_L11_noise_has_the_std_it_says_and_evaluation_has_none():
    policy = make_policy()
    seen, rng = golden_observation(SPEC, 1), np.random.default_rng(0)
    mean = policy.act(seen)
    assert np.abs(mean).max() < 0.6  # nothing saturates below
    noisy = np.array([policy.act(seen, std=0.1, rng=rng) for _ in range(1000)])
    assert np.allclose(noisy.std(axis=0), 0.1, rtol=0.1)
    assert np.allclose(noisy.mean(axis=0), mean, atol=0.02)
    assert np.array([policy.act(seen, std=0.0, rng=rng) for _ in range(5)]).std(axis=0).max() == 0.0


def test_noise_never_leaves_the_range_of_actions():
    policy, rng = make_policy(), np.random.default_rng(0)
    seen = golden_observation(SPEC, 1)
    noisy = np.array([policy.act(seen, std=5.0, rng=rng) for _ in range(50)])
    assert np.abs(noisy).max() <= 1.0
    assert (np.abs(noisy) > 0.999).any()


def test_noise_without_a_generator_is_refused():
    with pytest.raises(PolicyError, match='pass rng'):
        make_policy().act(golden_observation(SPEC, 1), std=0.1)


def test_L5_folded_frames_give_the_same_action_as_single_ones():
    policy = make_policy()
    seen = golden_observation(SPEC, 2)
    folded = Observation(
        seen.state, {name: frames.reshape(-1, *frames.shape[-2:]) for name, frames in seen.images.items()}
    )
    assert np.array_equal(policy.act(folded), policy.act(seen))


@pytest.mark.parametrize('shape', [(27, 32, 32), (3, 9, 32, 32), (3, 32, 32), (3, 3, 33, 33), (3, 32, 32, 3)])
def test_L5_frames_folded_twice_or_not_stacked_are_refused(shape):
    seen = golden_observation(SPEC, 2)
    with pytest.raises(ObservationError, match='oldest first'):
        make_policy().act(Observation(seen.state, {'gripper_cam': np.zeros(shape, np.uint8)}))


def test_L6_L7_scaled_images_are_refused():
    seen = golden_observation(SPEC, 2)
    scaled = {name: frames.astype(np.float32) / 255 for name, frames in seen.images.items()}
    with pytest.raises(ObservationError, match='do not scale'):
        make_policy().act(Observation(seen.state, scaled))


def test_L7_pixels_reach_the_network_bit_for_bit():
    seen = golden_observation(SPEC, 2)
    pixels, _ = policy_inputs(seen, SPEC)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels[0, 0].reshape(3, 3, 32, 32), seen.images['gripper_cam'])
    assert len(np.unique(pixels)) > 200


def test_the_oldest_frame_comes_first_in_the_channels():
    seen = golden_observation(SPEC, 2)
    pixels, state = policy_inputs(seen, SPEC)
    assert np.array_equal(pixels[0, 0, :3], seen.images['gripper_cam'][0])
    assert np.array_equal(state[0, :18], seen.state[0])


def test_L8_robobase_policies_see_the_raw_state():
    seen = golden_observation(SPEC, 2)
    assert np.array_equal(policy_inputs(seen, SPEC)[1], seen.state.reshape(1, -1))
    assert '"mode": "none"' in make_policy().manifest.to_json()


def test_normalisation_happens_once_inside_the_policy():
    statistics = Normalization.from_range(np.full(18, -2.0), np.full(18, 4.0))
    scaled = make_policy(replace(SPEC, normalization=statistics))
    plain = Policy(Encoder(make_policy().network), make_policy().actor, make_policy().manifest)
    plain.encoder.load_state_dict(scaled.encoder.state_dict())
    plain.actor.load_state_dict(scaled.actor.state_dict())
    seen = golden_observation(SPEC, 2)
    by_hand = Observation(statistics.apply(seen.state), seen.images)
    assert np.allclose(scaled.act(seen), plain.act(by_hand), atol=1e-6)


def test_F5_the_gripper_entry_is_the_joint_position_in_radians():
    joints = np.array([0.1, -0.2, 0.3, 0.4, 0.5, 1.2])
    row = build_state(
        SPEC, joint_pos=joints, joint_vel=np.zeros(6), tcp_pos=np.zeros(3), tcp_rotation=np.eye(3)
    )
    seen = Observation(np.stack([row] * 3), golden_observation(SPEC, 0).images)
    state = policy_inputs(seen, SPEC)[1].reshape(3, 18)
    gripper = JOINT_NAMES.index('gripper')
    assert np.allclose(state[:, gripper], 1.2)
    for wrong in (-1.0, 50.0):
        with pytest.raises(ObservationError, match='gripper'):
            build_state(
                SPEC,
                joint_pos=[*joints[:5], wrong],
                joint_vel=np.zeros(6),
                tcp_pos=np.zeros(3),
                tcp_rotation=np.eye(3),
            )


@pytest.mark.parametrize('width', [6, 12, 21])
def test_F11_a_state_of_another_width_is_refused_with_both_shapes(width):
    seen = golden_observation(SPEC, 0)
    with pytest.raises(ObservationError, match=rf'3, 18\).*got \(3, {width}\)'):
        make_policy().act(Observation(np.zeros((3, width), np.float32), seen.images))


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_refused(bad):
    seen = golden_observation(SPEC, 0)
    state = seen.state.copy()
    state[1, 2] = bad
    with pytest.raises(PolicyError, match='hold'):
        make_policy().act(Observation(state, seen.images))


def test_cameras_are_taken_by_name_in_the_order_of_the_spec():
    spec = replace(SPEC, cameras=(CameraSpec('wrist', 32), CameraSpec('above', 32)))
    policy, seen = make_policy(spec), golden_observation(spec, 0)
    backwards = Observation(seen.state, dict(reversed(list(seen.images.items()))))
    assert np.array_equal(policy.act(backwards), policy.act(seen))
    with pytest.raises(PolicyError, match='above'):
        policy.act(Observation(seen.state, {'wrist': seen.images['wrist']}))


def test_a_policy_does_not_change_with_the_networks_it_was_made_of():
    network = NetworkSpec.from_observation(SPEC, mlp=(16,))
    encoder, actor = Encoder(network), Actor(network)
    policy = Policy.create(encoder, actor, observation=SPEC, **FIELDS)
    before = policy.act(golden_observation(SPEC, 0))
    with torch.no_grad():
        for parameter in [*encoder.parameters(), *actor.parameters()]:
            parameter.add_(1.0)
    assert np.array_equal(policy.act(golden_observation(SPEC, 0)), before)
    policy.self_test()


def test_the_self_test_notices_other_weights():
    policy = make_policy()
    with torch.no_grad():
        policy.actor.out_mlp[0].bias.add_(0.01)
    with pytest.raises(ManifestError, match='golden'):
        policy.self_test()


def test_L8_F11_networks_and_manifest_must_be_of_one_observation():
    policy = make_policy()
    other = replace(policy.manifest, observation=robobase_spec(size=64))
    with pytest.raises(NetworkError, match='image_size: 32 network, 64 observation'):
        Policy(policy.encoder, policy.actor, other)


def test_encoder_and_actor_must_be_of_one_spec():
    one, two = make_policy(), make_policy(mlp=(8,))
    with pytest.raises(PolicyError, match='mlp'):
        Policy(one.encoder, two.actor, one.manifest)


def test_seven_actions_cannot_move_this_arm():
    with pytest.raises(PolicyError, match='another arm'):
        make_policy(action_size=7)


def test_a_gripper_convention_that_a_tanh_cannot_say_is_refused():
    policy = make_policy()
    opening = replace(policy.manifest, action=ActionSpec(gripper=GripperConvention.OPENING))
    with pytest.raises(PolicyError, match='signed'):
        Policy(policy.encoder, policy.actor, opening)


def test_acting_works_without_state_of_the_callers_torch():
    policy = make_policy()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = torch.get_rng_state()
        policy.act(golden_observation(SPEC, 0), std=0.1, rng=np.random.default_rng(0))
        assert torch.equal(torch.get_rng_state(), before)


def test_without_cameras_the_state_alone_decides():
    spec = NetworkSpec.from_observation(ObservationSpec(cameras=()))
    encoder, actor = Encoder(spec), Actor(spec)
    features = encoder(torch.zeros(2, 0, 9, 0, 0, dtype=torch.uint8))
    assert features.shape == (2, 0)
    states = torch.stack([torch.zeros(spec.stacked_state), torch.ones(spec.stacked_state)])
    actions = actor(features, states)
    assert actions.shape == (2, 4)
    assert not torch.equal(actions[0], actions[1])
    with pytest.raises(NetworkError, match='image_size 0'):
        replace(spec, cameras=1)
