# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from drqv2_policy_node.networks import Critic, CriticKind, EncoderPreset
from drqv2_policy_node.robobase.cli import main
from drqv2_policy_node.robobase.convert import convert, ManifestFields, observation_of, PICK101, read_source
from drqv2_policy_node.robobase.layout import read_agent, RoboBaseError
from drqv2_policy_node.robobase.snapshot import read_snapshot
from drqv2_policy_node.store import load_critics, load_policy, save_policy
from so101_contract.errors import ObservationError
from so101_contract.manifest import golden_observation, StepUnit
from so101_contract.observation import Observation
from so101_contract.observation_spec import Normalization, NormalizationMode, robobase_spec

from .snapshots import agent_state, CONFIG, SMALL, write
from .test_policy import make_policy


@pytest.fixture(scope='module')
def snapshot(tmp_path_factory):
    return write(tmp_path_factory.mktemp('snapshots') / 'best_snapshot.pt')


def run(*words):
    return main([str(word) for word in words])


def test_a_snapshot_becomes_a_policy_that_acts_as_its_networks_do(snapshot, tmp_path):
    assert run(snapshot, tmp_path / 'lift', '--preset', 'pick101') == 0
    policy = load_policy(tmp_path / 'lift')
    agent = read_agent(read_snapshot(snapshot).tensors)
    seen = golden_observation(policy.manifest.observation, 7)
    pixels = torch.from_numpy(seen.images['gripper_cam'].reshape(1, 1, 9, 32, 32))
    state = torch.from_numpy(seen.state.reshape(1, -1))
    with torch.no_grad():
        assert np.array_equal(policy.act(seen), agent.actor(agent.encoder(pixels), state)[0].numpy())


def test_the_manifest_says_what_the_snapshot_did_not(snapshot, tmp_path):
    assert run(snapshot, tmp_path / 'lift', '--preset', 'pick101', '--control-rate', '25') == 0
    manifest = load_policy(tmp_path / 'lift').manifest
    assert manifest.name == 'lift'
    assert manifest.observation == robobase_spec(size=32)
    assert manifest.observation.tcp == manifest.observation.camera_preset == manifest.ik_profile == 'pick101'
    assert manifest.control_rate_hz == 25.0
    assert manifest.action.translation_scale_m == (0.02, 0.02, 0.02)
    assert manifest.std_schedule == 'linear(1.0,0.1,500000)'
    assert manifest.std_unit is StepUnit.ITERATIONS
    assert manifest.source_sha256 == read_snapshot(snapshot).sha256
    assert np.allclose(manifest.golden.action, load_policy(tmp_path / 'lift').golden_action(0))


def test_critics_come_along_for_whoever_goes_on_training(snapshot, tmp_path):
    run(snapshot, tmp_path / 'lift', '--preset', 'pick101')
    agent = read_agent(read_snapshot(snapshot).tensors)
    for ours, theirs in zip(
        load_critics(tmp_path / 'lift'), (agent.critic, agent.critic_target), strict=True
    ):
        assert all(torch.equal(ours.state_dict()[n], t) for n, t in theirs.state_dict().items())


def test_without_a_place_to_write_it_only_says_what_it_found(snapshot, tmp_path, capsys):
    before = os.listdir(snapshot.parent)
    assert run(snapshot) == 0
    said = capsys.readouterr().out
    for line in (
        '98 = 78 unique + 14 aliases + 6 hidden_state',
        '1 camera(s), 32 px, 3 frames',
        '54 = 3 x 18 entries',
        '9 environments',
        '--tcp           MUST BE SUPPLIED',
        '--camera        MUST BE SUPPLIED',
        '--control-rate  MUST BE SUPPLIED',
        '--ik-profile    setpoint (assumed)',
    ):
        assert line in said
    assert os.listdir(snapshot.parent) == before


def test_L14_two_million_counted_steps_are_one_million_actions_and_noise_0_775(snapshot, capsys):
    run(snapshot)
    said = capsys.readouterr().out
    assert '0.775 at iteration 125000' in said
    assert '125000 iterations x 8 environments = 1000000 actions; RoboBase counts 2000000' in said


def test_L12_noise_that_would_hide_a_policy_is_pointed_out(snapshot, tmp_path, capsys):
    run(snapshot, tmp_path / 'lift', '--preset', 'pick101')
    assert 'starts at 0.2 or less' in capsys.readouterr().out


def test_L15_a_best_reward_is_not_taken_for_success(tmp_path, capsys):
    run(write(tmp_path / 's.pt', best_eval_reward=123.4))
    assert 'not a success rate' in capsys.readouterr().out


@pytest.mark.parametrize('given', ['--tcp pick101 --camera pick101', '--tcp pick101 --control-rate 50', ''])
def test_what_only_a_person_knows_must_be_supplied(snapshot, tmp_path, capsys, given):
    assert run(snapshot, tmp_path / 'lift', *given.split()) == 1
    error = capsys.readouterr().err
    for option in ('--tcp', '--camera', '--control-rate'):
        assert (option in error) == (option not in given)
    assert os.listdir(tmp_path) == []


def test_L4_a_state_with_the_cube_is_refused_for_an_arm(tmp_path, capsys):
    path = write(tmp_path / 's.pt', agent_state(replace(SMALL, state_size=21)))
    assert run(path, tmp_path / 'lift', '--preset', 'pick101') == 1
    assert '63 = 3 x 21 entries' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ['s.pt']
    assert run(path, tmp_path / 'lift', '--preset', 'pick101', '--simulation-only') == 0
    with pytest.raises(ObservationError, match='cube_pos'):
        load_policy(tmp_path / 'lift').manifest.observation.require_deployable()


def test_a_state_of_unknown_blocks_must_be_named(tmp_path):
    source = read_source(write(tmp_path / 's.pt', agent_state(replace(SMALL, state_size=15))))
    with pytest.raises(RoboBaseError, match='--state'):
        observation_of(source, PICK101)
    assert (
        run(
            tmp_path / 's.pt',
            tmp_path / 'l',
            '--preset',
            'pick101',
            '--state',
            'joint_pos',
            'joint_vel',
            'tcp_pos',
        )
        == 0
    )
    assert load_policy(tmp_path / 'l').manifest.observation.block_names == (
        'joint_pos',
        'joint_vel',
        'tcp_pos',
    )


def test_two_cameras_must_be_named_in_order(tmp_path):
    path = write(tmp_path / 's.pt', agent_state(replace(SMALL, cameras=2)))
    assert run(path, tmp_path / 'l', '--preset', 'pick101') == 1
    assert run(path, tmp_path / 'l', '--preset', 'pick101', '--camera-names', 'top', 'gripper_cam') == 0
    assert load_policy(tmp_path / 'l').manifest.observation.camera_names == ('top', 'gripper_cam')


def test_seven_actions_are_refused_for_this_arm(tmp_path, capsys):
    path = write(tmp_path / 's.pt', agent_state(replace(SMALL, action_size=7)))
    assert run(path, tmp_path / 'l', '--preset', 'pick101') == 1
    assert 'got 7' in capsys.readouterr().err


DAMAGES = {
    'missing': lambda state: state.pop('encoder.convs_per_cam.0.3.bias'),
    'extra': lambda state: state.update({'actor.actor_model.main_mlp.1.weight': torch.ones(16)}),
    'shape': lambda state: state.update({'critic_target.qs.1.out_mlp.0.weight': torch.ones(1, 5)}),
    'renamed': lambda state: state.update(
        {'actor.mlp.0.weight': state.pop('actor.actor_model.main_mlp.0.weight')}
    ),
    'alias': lambda state: state.update({'actor_model.out_mlp.0.bias': torch.ones(4)}),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_L2_a_damaged_snapshot_is_refused_by_name_and_leaves_nothing(tmp_path, capsys, damage):
    state = agent_state()
    before = set(state)
    DAMAGES[damage](state)
    names = set(state) ^ before or {
        'qs.1.out_mlp.0.weight' if damage == 'shape' else 'actor_model.out_mlp.0.bias'
    }
    path = write(tmp_path / 's.pt', state)
    assert run(path, tmp_path / 'lift', '--preset', 'pick101') == 1
    error = capsys.readouterr().err
    assert all(name in error for name in names)
    assert os.listdir(tmp_path) == ['s.pt']


@pytest.mark.parametrize('share', [0.0, 0.2, 0.5, 0.99])
def test_a_truncated_snapshot_leaves_nothing(snapshot, tmp_path, share):
    content = snapshot.read_bytes()
    (tmp_path / 's.pt').write_bytes(content[: int(share * len(content))])
    assert run(tmp_path / 's.pt', tmp_path / 'lift', '--preset', 'pick101') == 1
    assert os.listdir(tmp_path) == ['s.pt']


def test_action_scaling_outside_the_snapshot_is_refused(tmp_path, capsys):
    path = write(tmp_path / 's.pt', config=CONFIG | {'use_min_max_normalization': True})
    assert run(path, tmp_path / 'lift', '--preset', 'pick101') == 1
    assert 'use_min_max_normalization' in capsys.readouterr().err


def test_an_existing_policy_is_kept_unless_asked(snapshot, tmp_path, capsys):
    assert run(snapshot, tmp_path / 'lift', '--preset', 'pick101') == 0
    assert run(snapshot, tmp_path / 'lift', '--preset', 'pick101', '--name', 'b') == 1
    assert load_policy(tmp_path / 'lift').manifest.name == 'lift'
    assert run(snapshot, tmp_path / 'lift', '--preset', 'pick101', '--name', 'b', '--overwrite') == 0
    assert load_policy(tmp_path / 'lift').manifest.name == 'b'


def test_export_gives_robobase_its_snapshot_back(snapshot, tmp_path):
    run(snapshot, tmp_path / 'lift', '--preset', 'pick101')
    assert run('--export', tmp_path / 'lift', tmp_path / 'back.pt') == 0
    payload = torch.load(tmp_path / 'back.pt', weights_only=True)
    original = read_snapshot(snapshot).tensors
    assert list(payload['agent']) == list(original)
    assert all(torch.equal(payload['agent'][name], tensor) for name, tensor in original.items())
    assert payload['_main_loop_iterations'] == 125_000
    shared = (
        payload['agent']['actor_model.out_mlp.0.bias'],
        payload['agent']['actor.actor_model.out_mlp.0.bias'],
    )
    assert shared[0].data_ptr() == shared[1].data_ptr()
    assert read_source(tmp_path / 'back.pt').agent.spec == SMALL


def test_export_for_a_run_with_other_environments(snapshot, tmp_path):
    run(snapshot, tmp_path / 'lift', '--preset', 'pick101')
    assert run('--export', tmp_path / 'lift', tmp_path / 'back.pt', '--envs', '2') == 0
    assert torch.load(tmp_path / 'back.pt')['agent']['actor_model.hidden_state'].shape == (1, 2, 128)


def test_export_of_a_policy_without_critics_needs_a_word(tmp_path, capsys):
    save_policy(tmp_path / 'p', make_policy())
    assert run('--export', tmp_path / 'p', tmp_path / 'back.pt') == 1
    assert '--fresh-critics' in capsys.readouterr().err
    assert run('--export', tmp_path / 'p', tmp_path / 'back.pt', '--fresh-critics') == 0
    assert len(torch.load(tmp_path / 'back.pt')['agent']) == 98


def test_export_of_a_policy_with_an_ensemble_of_critics_needs_a_word_too(tmp_path, capsys):
    policy = make_policy()
    ensemble = Critic(replace(policy.network, critic=CriticKind.RLPD, num_critics=3))
    save_policy(tmp_path / 'p', policy, critics=(ensemble, ensemble))
    assert run('--export', tmp_path / 'p', tmp_path / 'back.pt') == 1
    assert "'rlpd'; RoboBase loads all or nothing, pass --fresh-critics" in capsys.readouterr().err
    assert run('--export', tmp_path / 'p', tmp_path / 'back.pt', '--fresh-critics') == 0
    assert len(torch.load(tmp_path / 'back.pt')['agent']) == 98


def test_the_cpu_preset_goes_to_robobase_and_back(tmp_path, capsys):
    policy = make_policy(encoder=EncoderPreset.CPU)
    save_policy(tmp_path / 'p', policy)
    assert run('--export', tmp_path / 'p', tmp_path / 'back.pt', '--fresh-critics') == 0
    assert (
        'num_downsample_convs=3 method.encoder_model.num_post_downsample_convs=1' in capsys.readouterr().out
    )
    size, blocks = policy.network.image_size, [block.name for block in policy.manifest.observation.state]
    said = ('--preset', 'pick101', '--image-size', size, '--state', *blocks)
    assert run(tmp_path / 'back.pt', tmp_path / 'wrong', *said) == 1  # strides leave no trace in tensors
    assert 'expected an image size' in capsys.readouterr().err
    assert run(tmp_path / 'back.pt', tmp_path / 'again', *said, '--encoder', 'cpu') == 0
    again = load_policy(tmp_path / 'again')
    assert again.network.strides == (2, 2, 2, 1)
    seen = golden_observation(policy.manifest.observation, 3)
    assert np.array_equal(policy.act(seen), again.act(golden_observation(again.manifest.observation, 3)))


def test_export_of_a_scaled_state_is_refused(tmp_path, capsys):
    spec = robobase_spec()
    scaling = Normalization(
        mode=NormalizationMode.AFFINE, offset=(0.0,) * spec.state_size, scale=(2.0,) * spec.state_size
    )
    save_policy(tmp_path / 'p', make_policy(replace(spec, normalization=scaling)))
    assert run('--export', tmp_path / 'p', tmp_path / 'back.pt', '--fresh-critics') == 1
    assert 'no such networks' in capsys.readouterr().err


def test_B24_loading_changes_no_settings_of_the_caller(snapshot):
    given = ManifestFields(tcp='so101', camera='nexus', control_rate_hz=10.0, action_scale_m=0.01)
    before = (given, json.dumps(CONFIG))
    manifest = convert(read_source(snapshot), given, 'x').manifest
    assert (given, json.dumps(CONFIG)) == before
    assert manifest.control_rate_hz == 10.0
    assert manifest.action.translation_scale_m == (0.01, 0.01, 0.01)
    assert manifest.observation.tcp == 'so101'


def test_F11_a_converted_policy_refuses_another_state(snapshot):
    policy = convert(read_source(snapshot), PICK101, 'x')
    seen = golden_observation(policy.manifest.observation, 0)
    with pytest.raises(ObservationError, match=r'got \(3, 21\)'):
        policy.act(Observation(np.zeros((3, 21), np.float32), seen.images))


def test_L10_the_command_needs_neither_omegaconf_nor_rclpy(snapshot):
    code = (
        'import sys; from drqv2_policy_node.robobase.cli import main; '
        f'code = main([{str(snapshot)!r}]); '
        'sys.exit(code or any(name in sys.modules for name in ("omegaconf", "rclpy", "hydra")))'
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, stdout=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0


def test_help_is_enough_to_start(capsys):
    with pytest.raises(SystemExit) as end:
        run('--help')
    assert end.value.code == 0
    assert '--preset pick101' in capsys.readouterr().out
