# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from drqv2_policy_node.store import load_policy
from hilserl_learner.cli.offline import main
from hilserl_learner.data.store import BufferHeader, BufferWriter, Entry, Part, write_header
from hilserl_learner.training.checkpoint import Checkpoints
from so101_contract.manifest import golden_observation
from so101_contract.observation_spec import get_observation

from .experience import ACTION, make_episode

SPEC = get_observation('compact')
SMALL = ['--json', '--set', 'width=8', '--set', 'num_critics=2', '--set', 'batch_size=4']


@pytest.fixture(scope='module')
def buffer(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'buffer'
    write_header(path, BufferHeader(observation=SPEC, action=ACTION, parts=(Part(name='a', key='k'),)))
    writer = BufferWriter(path / 'a')
    for episode in range(1, 5):
        for transition in make_episode(SPEC, episode, 8, terminated=True):
            writer.append(Entry('', transition))
    writer.close()
    return path


def state_of(out):
    return Checkpoints(out / 'checkpoints').load().tensors


def test_a_buffer_alone_makes_a_policy(buffer, tmp_path, capsys):
    assert main([str(buffer), '--out', str(tmp_path / 'run'), '--updates', '6', *SMALL]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report['transitions'], report['updates']) == (32, 6)
    action = load_policy(tmp_path / 'run' / 'policy').act(golden_observation(SPEC, 1))
    assert np.isfinite(action).all()


def test_a_run_goes_on_where_it_was_left(buffer, tmp_path, capsys):
    for updates in ('3', '6'):
        assert main([str(buffer), '--out', str(tmp_path / 'run'), '--updates', updates, *SMALL]) == 0
    assert Checkpoints(tmp_path / 'run' / 'checkpoints').load().metadata.updates == 6


def test_a_buffer_of_another_observation_is_refused_with_the_difference(buffer, tmp_path, capsys):
    arguments = [str(buffer), '--out', str(tmp_path), '--observation', 'full']
    assert main(arguments) == 1
    assert 'size: 84 run, 64 buffer' in capsys.readouterr().err


WORKER = """
import sys
import torch
from hilserl_learner.cli.offline import _Average, join
from hilserl_learner.cli.offline import main

group = join('cpu')
whole = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
weights = [torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
for weight, rows in zip(weights, (whole, whole[2 * group.rank : 2 * group.rank + 2])):
    optimizer = torch.optim.SGD([weight], 0.1)
    (rows @ weight).square().mean().backward()
    if rows is not whole:
        _Average(group)(optimizer)
    optimizer.step()
torch.testing.assert_close(weights[0], weights[1])
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_of_torchrun_learn_one_agent_like_one_with_twice_the_batch(buffer, tmp_path):
    worker = tmp_path / 'worker.py'
    worker.write_text(WORKER)
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc-per-node',
        '2',
        str(worker),
    ]
    command += [str(buffer), '--out', str(tmp_path / 'two'), '--updates', '3', *SMALL]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'OMP_NUM_THREADS': '1'}
    launcher = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        out, error = launcher.communicate(timeout=600)
    finally:
        launcher.terminate()  # it ends its workers
        launcher.wait(200.0)
    assert launcher.returncode == 0, error  # it is not 0 where the two ended with different networks
    report = json.loads(out.splitlines()[-1])
    assert (report['processes'], report['updates']) == (2, 3)
    assert main([str(buffer), '--out', str(tmp_path / 'one'), '--updates', '3', *SMALL]) == 0
    two, one = state_of(tmp_path / 'two'), state_of(tmp_path / 'one')
    assert set(two) == set(one)
    assert any(not torch.equal(two[name], one[name]) for name in two if name.startswith('agent.actor'))
