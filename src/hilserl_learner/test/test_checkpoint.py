# SPDX-License-Identifier: Apache-2.0
import errno
import json
import logging
import os
from pathlib import Path
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.torch import load
import torch

from drqv2_policy_node.store import load_policy
from hilserl_learner.agents.common import make_agent
from hilserl_learner.errors import CheckpointError
from hilserl_learner.training.checkpoint import (
    BEST,
    BufferPosition,
    Checkpoints,
    compare_configs,
    MANIFEST,
    Metadata,
    POLICY,
    STATE,
)
from hilserl_learner.training.trainer import prepare_cpu, Trainer, TrainerConfig
from so101_contract.manifest import golden_observation, StepUnit, Workspace

from .experience import ACTION, make_episode, small_spec

SPEC = small_spec(48)


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    prepare_cpu(1)


def tensors(value=0.0):
    return {
        'weights': torch.full((4, 3), value),
        'counter': torch.tensor(7),
        'rng': torch.arange(5, dtype=torch.uint8),
    }


def metadata(updates=0, **fields):
    return Metadata(updates=updates, env_steps=2 * updates, **fields)


def make_trainer(seed=0):
    agent = make_agent('hil', SPEC, {'width': 8, 'num_critics': 2, 'shift': 1}, seed=seed)
    trainer = Trainer(
        agent, SPEC, ACTION, TrainerConfig(batch_size=4, start_steps=1, std_schedule='linear(0.2,0.1,20)')
    )
    for episode in range(1, 4):
        for transition in make_episode(SPEC, episode, 6, terminated=True):
            trainer.add(transition)
    return trainer


def make_policy(agent):
    return agent.policy(
        name='test',
        version=3,
        observation=SPEC,
        action=ACTION,
        control_rate_hz=10.0,
        ik_profile='setpoint',
        reset_pose=(0.0,) * 6,
        workspace=Workspace(low=(0, 0, 0), high=(1, 1, 1)),
        std_schedule='0.1',
        std_unit=StepUnit.ENV_STEPS,
        calibration_id=None,
        source_sha256=None,
    )


def test_what_is_saved_comes_back(tmp_path):
    store = Checkpoints(tmp_path)
    said = metadata(
        12,
        version=3,
        std=0.15,
        config='{"utd": 1.0}',
        positions=(BufferPosition(part='a', segment=1, offset=9),),
    )
    store.save(tensors(1.5), said)
    saved = store.load()
    assert saved.metadata == said
    assert all(torch.equal(saved.tensors[name], value) for name, value in tensors(1.5).items())


def test_B15_an_empty_directory_begins_from_the_start_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(tmp_path / 'run').load() is None
    assert 'no checkpoint' in caplog.text


@pytest.mark.parametrize('name', [STATE, MANIFEST])
@pytest.mark.parametrize('damage', ['flip', 'cut', 'gone'])
def test_B15_a_damaged_checkpoint_falls_back_to_the_one_before_with_a_sentence(
    tmp_path, caplog, name, damage
):
    store = Checkpoints(tmp_path)
    store.save(tensors(1.0), metadata(1))
    path = store.save(tensors(2.0), metadata(2)) / name
    content = bytearray(path.read_bytes())
    if damage == 'gone':
        path.unlink()
    else:
        content[len(content) // 2] ^= 255
        path.write_bytes(content[: len(content) // 2] if damage == 'cut' else content)
    with caplog.at_level(logging.WARNING):
        saved = store.load()
    assert saved.metadata.updates == 1
    assert 'the checkpoint before it is used' in caplog.text


def test_an_edited_counter_is_noticed(tmp_path, caplog):
    store = Checkpoints(tmp_path)
    store.save(tensors(1.0), metadata(1))
    path = store.save(tensors(2.0), metadata(2)) / MANIFEST
    path.write_text(path.read_text().replace('"updates": 2', '"updates": 2000'))
    assert store.load().metadata.updates == 1
    assert 'the file was changed' in caplog.text


def test_a_manifest_of_before_there_was_a_hash_is_read(tmp_path):
    store = Checkpoints(tmp_path)
    path = store.save(tensors(2.0), metadata(2)) / MANIFEST
    said = json.loads(path.read_text())
    del said['sha256']
    path.write_text(json.dumps(said))
    assert store.load().metadata.updates == 2


def test_B32_where_every_checkpoint_is_damaged_nothing_begins_from_the_start_unasked(tmp_path):
    store = Checkpoints(tmp_path)
    for number in (1, 2):
        (store.save(tensors(), metadata(number)) / STATE).write_bytes(b'')
    with pytest.raises(CheckpointError, match='damaged'):
        store.load()


def test_B32_counters_and_noise_continue_after_a_resume(tmp_path):
    one = make_trainer()
    for _ in range(5):
        one.step()
    Checkpoints(tmp_path).save(one.state_dict(), metadata(one.agent.updates, std=one.std))
    two = make_trainer(seed=9)
    two.load_state_dict(Checkpoints(tmp_path).load().tensors)
    assert (two.agent.updates, two.steps, two.std) == (one.agent.updates, one.steps, one.std)
    assert two.std < 0.2


def test_training_goes_on_bit_for_bit_after_a_resume(tmp_path):
    one, two = make_trainer(), make_trainer(seed=9)
    for _ in range(3):
        one.step()
    Checkpoints(tmp_path).save(one.state_dict(), metadata(3))
    two.load_state_dict(Checkpoints(tmp_path).load().tensors)
    for _ in range(3):
        one.step()
        two.step()
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_B10_the_stored_policy_acts_like_the_learner_bit_for_bit(tmp_path):
    trainer = make_trainer()
    trainer.step()
    path = Checkpoints(tmp_path).save(trainer.state_dict(), metadata(1), make_policy(trainer.agent))
    observation = golden_observation(SPEC, 5)
    stored = load_policy(path / POLICY).act(observation)
    assert np.array_equal(stored, trainer.agent.act(observation))


def test_only_the_newest_are_kept_and_the_best_one_stays(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    store.save(tensors(9.0), metadata(9), best=True)
    for number in range(5):
        store.save(tensors(), metadata(number))
    assert store.names == ['000003', '000004']
    assert store.load_best().metadata.updates == 9


def test_a_better_one_replaces_the_best_one(tmp_path):
    store = Checkpoints(tmp_path)
    for number in (1, 2):
        store.save(tensors(number), metadata(number), best=True)
    assert store.load_best().metadata.updates == 2
    assert store.names == []


def test_going_back_without_a_best_one_says_so(tmp_path):
    with pytest.raises(CheckpointError, match='20 episodes'):
        Checkpoints(tmp_path).load_best()


def test_what_a_killed_writer_left_is_cleaned_up(tmp_path):
    store = Checkpoints(tmp_path)
    store.save(tensors(1.0), metadata(1))
    store.save(tensors(2.0), metadata(2), best=True)
    (tmp_path / '.000001.partial').mkdir()
    (tmp_path / BEST).rename(tmp_path / f'.{BEST}.old')  # killed between the two renames
    again = Checkpoints(tmp_path)
    assert list(tmp_path.glob('.*'))  # a reader touches nothing
    again.clean()
    assert again.load_best().metadata.updates == 2
    assert again.names == ['000000']
    assert not list(tmp_path.glob('.*'))


def test_B17_a_full_disk_ends_in_a_sentence_and_the_previous_one_is_usable(tmp_path):
    store = Checkpoints(tmp_path)
    store.save(tensors(1.0), metadata(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        with pytest.raises(CheckpointError, match='free space'):
            store.save({'weights': torch.zeros(10_000)}, metadata(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert store.load().metadata.updates == 1
    assert not list(tmp_path.glob('.*'))


def test_a_directory_that_cannot_be_written_ends_in_a_sentence(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(CheckpointError, match=os.strerror(errno.ENOTDIR)):
        Checkpoints(tmp_path / 'file' / 'x').save(tensors(), metadata())


def test_B24_loading_changes_no_configuration_and_differences_are_listed(tmp_path):
    store = Checkpoints(tmp_path)
    store.save(tensors(), metadata(config='{"utd": 1.0, "gamma": 0.97}'))
    present = {'utd': 2.0, 'gamma': 0.97, 'new': 1}
    lines = compare_configs(json.loads(store.load().metadata.config), present)
    assert lines == ['utd: 1.0 saved, 2.0 now']
    assert present == {'utd': 2.0, 'gamma': 0.97, 'new': 1}


def test_B21_no_file_of_a_checkpoint_is_a_pickle(tmp_path):
    trainer = make_trainer()
    path = Checkpoints(tmp_path).save(trainer.state_dict(), metadata(), make_policy(trainer.agent))
    files = [file for file in path.rglob('*') if file.is_file()]
    assert {file.suffix for file in files} == {'.json', '.safetensors', ''}
    for file in files:
        if file.suffix == '.safetensors':
            assert load(file.read_bytes())
        elif file.suffix == '.json':
            assert json.loads(file.read_text())
        else:
            assert file.name == 'SHA256SUMS'


WRITER = """
import sys
from pathlib import Path
import torch
from hilserl_learner.training.checkpoint import Checkpoints, Metadata
store = Checkpoints(Path(sys.argv[1]))
store.clean()
saved = store.load()
number = saved.metadata.updates if saved else 0
while True:
    number += 1
    tensors = {'weights': torch.full((200_000,), float(number))}
    store.save(tensors, Metadata(updates=number, env_steps=number))
    print(number, flush=True)
    store.save(tensors, Metadata(updates=number, env_steps=number), best=True)
"""


def test_B17_kill_9_at_any_moment_leaves_a_loadable_checkpoint(tmp_path):
    acknowledged, chance = 0, random.Random(2)
    for _ in range(int(os.environ.get('SO101_KILLS', '2'))):
        process = subprocess.Popen(
            [sys.executable, '-c', WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, sys.path))},
        )
        first = int(process.stdout.readline())
        assert first in (
            acknowledged + 1,
            acknowledged + 2,
        )  # one more may have been in place, but not yet told
        time.sleep(chance.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        told = [int(line) for line in process.stdout.read().split('\n')[:-1]]
        process.wait()
        acknowledged = told[-1] if told else first
        store = Checkpoints(Path(tmp_path))
        store.clean()
        saved = store.load()
        assert saved.metadata.updates >= acknowledged
        assert float(saved.tensors['weights'][-1]) == saved.metadata.updates
        if (Path(tmp_path) / BEST).exists():
            assert store.load_best().metadata.updates >= 1
        acknowledged = saved.metadata.updates
