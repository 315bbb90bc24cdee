# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.torch import load, save
import torch

from drqv2_policy_node import store
from drqv2_policy_node.networks import Critic, SPEC_KEY
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import (
    CRITICS,
    load_critics,
    load_policy,
    MANIFEST,
    pack,
    save_policy,
    StoreError,
    SUMS,
    TENSORS,
    unpack,
)
from so101_contract.errors import ContractError, ManifestError
from so101_contract.manifest import golden_observation

from .test_policy import make_policy


@pytest.fixture(scope='module')
def policy():
    return make_policy()


@pytest.fixture(scope='module')
def critics(policy):
    generator = torch.Generator().manual_seed(5)
    return Critic(policy.network, generator), Critic(policy.network, generator)


def same(one, two):
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_B10_a_policy_acts_bit_for_bit_the_same_behind_the_wire(policy):
    there = unpack(*pack(policy))
    for pattern in range(5):
        seen = golden_observation(policy.manifest.observation, pattern)
        assert np.array_equal(there.act(seen), policy.act(seen))
    assert there.manifest == policy.manifest
    assert there.network == policy.network


def test_a_policy_comes_back_from_disk_with_its_critics(policy, critics, tmp_path):
    folder = save_policy(tmp_path / 'deep' / 'p', policy, critics=critics, source={'config': {'a': 1}})
    again = load_policy(folder)
    assert same(again.encoder, policy.encoder)
    assert same(again.actor, policy.actor)
    loaded = load_critics(folder)
    assert same(loaded[0], critics[0])
    assert same(loaded[1], critics[1])
    assert json.loads((folder / 'source.json').read_text()) == {'config': {'a': 1}}
    assert os.listdir(tmp_path / 'deep') == ['p']


def test_the_sums_are_those_that_sha256sum_checks(policy, critics, tmp_path):
    folder = save_policy(tmp_path / 'p', policy, critics=critics)
    assert (
        subprocess.run(
            ['sha256sum', '-c', SUMS], cwd=folder, stdout=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    )


def test_a_policy_without_critics_has_none(policy, tmp_path):
    assert load_critics(save_policy(tmp_path / 'p', policy)) is None


def test_nothing_of_a_stored_policy_is_a_pickle(policy, critics, tmp_path):
    folder = save_policy(tmp_path / 'p', policy, critics=critics)
    for file in folder.iterdir():
        head = file.read_bytes()[:64]
        assert head[:1] != b'\x80'
        assert not head.startswith(b'PK')


@pytest.mark.parametrize('name', [MANIFEST, TENSORS, CRITICS])
@pytest.mark.parametrize('damage', ['flip', 'cut', 'remove'])
def test_damage_to_any_file_is_refused_by_name(policy, critics, tmp_path, name, damage):
    folder = save_policy(tmp_path / 'p', policy, critics=critics)
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == 'remove':
        path.unlink()
    else:
        path.write_bytes(content if damage == 'flip' else content[:-7])
    if name == CRITICS and damage == 'remove':
        assert load_critics(folder) is None
        return
    with pytest.raises(StoreError, match=name):
        load_critics(folder) if name == CRITICS else load_policy(folder)


@pytest.mark.parametrize('tensor', range(22))
def test_B11_a_change_of_any_tensor_on_the_way_is_noticed(policy, tensor):
    manifest, payload = pack(policy)
    tensors = load(payload)
    name = sorted(tensors)[tensor]
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] += 1e-3
    changed = save(tensors, metadata={SPEC_KEY: policy.network.to_json(indent=None)})
    with pytest.raises(StoreError, match='damaged or belong to another manifest'):
        unpack(manifest, changed)


def test_B11_there_are_22_tensors_to_act_with(policy):
    assert len(load(pack(policy)[1])) == 22


def test_the_manifest_of_another_policy_is_refused(policy):
    with pytest.raises(StoreError, match='another manifest'):
        unpack(pack(make_policy(seed=1))[0], pack(policy)[1])


def test_a_policy_that_acts_differently_here_is_refused(policy):
    golden = replace(policy.manifest.golden, action=(0.0, 0.0, 0.0, 0.9))
    lying = Policy(policy.encoder, policy.actor, replace(policy.manifest, golden=golden))
    with pytest.raises(ManifestError, match='golden observation'):
        unpack(*pack(lying))


def test_nothing_is_overwritten_unless_asked(policy, tmp_path):
    save_policy(tmp_path / 'p', policy)
    other = make_policy(seed=1)
    with pytest.raises(StoreError, match='name another'):
        save_policy(tmp_path / 'p', other)
    assert load_policy(tmp_path / 'p').manifest == policy.manifest
    save_policy(tmp_path / 'p', other, overwrite=True)
    assert load_policy(tmp_path / 'p').manifest == other.manifest
    assert os.listdir(tmp_path) == ['p']


@pytest.mark.parametrize('exchange', [True, False], ids=['exchange', 'rename'])
def test_a_policy_is_replaced_with_and_without_help_of_the_system(policy, tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(store, '_exchange', lambda *_: False)
    for seed in (1, 2, 3):
        save_policy(tmp_path / 'p', make_policy(seed=seed), overwrite=True)
        assert load_policy(tmp_path / 'p').manifest == make_policy(seed=seed).manifest
    assert os.listdir(tmp_path) == ['p']


KILLED = """
import os, sys
from drqv2_policy_node.store import load_policy, save_policy
one, two = load_policy(sys.argv[1]), load_policy(sys.argv[2])
print('ready', flush=True)
while True:
    save_policy(sys.argv[3], one, overwrite=True)
    save_policy(sys.argv[3], two, overwrite=True)
"""


def test_a_kill_while_a_policy_is_replaced_leaves_a_whole_one(policy, tmp_path):
    other = make_policy(seed=1)
    one, two = save_policy(tmp_path / 'one', policy), save_policy(tmp_path / 'two', other)
    target = save_policy(tmp_path / 'p', policy)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    for delay in (0.011, 0.05):
        command = [sys.executable, '-c', KILLED, str(one), str(two), str(target)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b'ready\n'
            time.sleep(delay)
            process.kill()
        assert load_policy(target).manifest.hash in {policy.manifest.hash, other.manifest.hash}


def test_overwriting_never_removes_a_directory_that_is_no_policy(policy, tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'cat.jpg').write_text('cat')
    with pytest.raises(StoreError):
        save_policy(tmp_path / 'photos', policy, overwrite=True)
    assert (tmp_path / 'photos' / 'cat.jpg').exists()


def test_a_full_disk_leaves_nothing_behind(policy, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space'):
        save_policy(tmp_path / 'p', policy)
    assert os.listdir(tmp_path) == []


def test_a_directory_without_a_policy_is_one_sentence(tmp_path):
    with pytest.raises(StoreError, match=r'expected a policy with manifest\.json'):
        load_policy(tmp_path)


def test_a_policy_of_the_future_is_refused(policy, tmp_path):
    manifest, payload = pack(policy)
    with pytest.raises(ContractError, match='unknown'):
        unpack(json.dumps(json.loads(manifest) | {'colour': 'red'}), payload)
