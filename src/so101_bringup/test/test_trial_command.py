# SPDX-License-Identifier: Apache-2.0
"""`./so101 trial`: the whole command, on the twin."""

from dataclasses import fields
import json
import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

import torch

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import find_policy, load_policy, save_policy

TRIAL = [sys.executable, '-m', 'so101_bringup.cli', 'trial']
QUIET = ['console:=false', '--trials', '1']


@pytest.fixture(scope='module')
def idle(tmp_path_factory):
    """Return the folder of a policy that has the shipped one's manifest and never moves."""
    policy = load_policy(find_policy('default', 'compact'))
    with torch.no_grad():
        for weights in policy.actor.parameters():
            weights.zero_()
    said = {field.name: getattr(policy.manifest, field.name) for field in fields(policy.manifest)}
    del said['golden'], said['tensors_sha256']
    folder = tmp_path_factory.mktemp('idle') / 'policy'
    save_policy(folder, Policy.create(policy.encoder, policy.actor, **said))
    return folder


def run(*words):
    return subprocess.run(
        [*TRIAL, *map(str, words)], capture_output=True, text=True, timeout=900.0, check=False
    )


def test_two_policies_take_turns_on_the_twin_and_each_is_counted(tmp_path, idle, renders):
    folder = tmp_path / 'trial'
    done = run('default', idle, '--out', folder, *QUIET)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (folder / 'trials.jsonl').read_text().splitlines()]
    order = json.loads((folder / 'plan.json').read_text())['order'][0]
    by = dict(zip(order, lines, strict=True))
    assert by['A']['success'], 'the policy that is shipped lifts the cube of easy'
    assert not by['B']['success'], 'one that never moves does not'
    assert 'A (' in done.stdout
    assert ': 1 of 1 (' in done.stdout
    assert 'Not known yet which is better' in done.stdout
    again = run('--resume', '--out', folder, *QUIET)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (folder / 'trials.jsonl').read_text().count('\n') == 2, 'all of it was done'


def test_what_cannot_be_tried_gets_a_sentence_before_anything_starts(tmp_path, idle):
    nothing = run(idle, '/nowhere', '--out', tmp_path / 'x')
    assert nothing.returncode == 2
    assert nothing.stderr.count('\n') == 1
    assert 'expected the folder of a policy' in nothing.stderr
    assert not (tmp_path / 'x').exists()
    none = run('--resume', '--out', tmp_path / 'x')
    assert none.returncode == 2
    assert 'expected the plan of a trial' in none.stderr
    sheet = run(idle, '--out', tmp_path / 'y', '--sheet', tmp_path / 'sheet.pdf')
    assert sheet.returncode == 0
    assert (tmp_path / 'sheet.pdf').read_bytes().startswith(b'%PDF')
    assert '--resume' in sheet.stdout
