# SPDX-License-Identifier: Apache-2.0
"""What an earlier version left on disk is still worth something: a bag, a run, its buffer, policy and checkpoint.

`data/before` was written by the version that still said `session/status` in JSON, `policy_tau` and `hold_weight`:
two demonstrations recorded from the running graph, and a training run of twelve steps. `expected.json` holds what that
version read from them.
"""

import hashlib
import json
from pathlib import Path
import shutil

import numpy as np
import pytest

from drqv2_policy_node.store import load_critics, load_policy
from hilserl_learner.cli import train
from hilserl_learner.data.store import read_buffer
from hilserl_learner.ingest.cli import main as ingest
from so101_bags.cli import check_main
from so101_contract.transition import Transition
from so101_driver.calibration.files import load

BEFORE = Path(__file__).parent / 'data' / 'before'
EXPECTED = json.loads((BEFORE / 'expected.json').read_text())


def plain(transition):
    """A transition as the earlier version wrote it down."""
    image = next(iter(transition.next_frame.images.values()))
    return {
        'episode': transition.episode,
        'index': transition.index,
        'reward': transition.reward,
        'terminated': bool(transition.terminated),
        'truncated': bool(transition.truncated),
        'intervened': bool(transition.intervened),
        'image': hashlib.sha256(image.tobytes()).hexdigest()[:16],
    }


def assert_as_before(folder, expected):
    found = [e.output for e in read_buffer(folder) if isinstance(e.output, Transition)]
    assert [plain(one) for one in found] == [
        {name: value for name, value in row.items() if name not in ('action', 'state')} for row in expected
    ]
    for one, row in zip(found, expected, strict=True):
        np.testing.assert_array_equal([*one.action.translation, one.action.opening], row['action'])
        np.testing.assert_allclose(one.next_frame.state[:6], row['state'], atol=1e-6)


def test_the_buffer_of_a_run_gives_every_transition():
    assert_as_before(BEFORE / 'run' / 'buffer', EXPECTED['run'])


def test_a_bag_with_ground_truth_in_json_is_ingested_to_the_same_transitions(tmp_path):
    assert ingest([str(BEFORE / 'bag'), '--out', str(tmp_path / 'buffer'), '--reward', 'sim']) == 0
    assert_as_before(tmp_path / 'buffer', EXPECTED['ingested'])


def test_a_bag_of_before_is_fit_to_learn_from(capsys):
    assert check_main([str(BEFORE / 'bag'), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['episodes'][1]['steps'] == 18


def test_a_policy_acts_as_it_did():
    policy = load_policy(BEFORE / 'run' / 'last')
    for pattern, action in enumerate(EXPECTED['golden']):
        np.testing.assert_allclose(policy.golden_action(pattern), action, atol=1e-6)
    assert load_critics(BEFORE / 'run' / 'last') is not None


def test_a_run_whose_settings_have_old_names_goes_on(tmp_path, capsys):
    out = shutil.copytree(BEFORE / 'run', tmp_path / 'run')
    shrunk = ['width=16', 'num_critics=2', 'batch_size=8', 'start_steps=5', 'eval_every=0', 'log_every=10']
    renamed = {
        'ema_tau': '0.01',
        'ema_growth_updates': '500',
        'critic_warmup_updates': '7',
        'color_jitter': '0.3',
        'table_randomization': '0.5',
        'prior_weight': '0.2',
    }
    words = [
        '--json',
        '--out',
        str(out),
        '--resume',
        '--demos',
        '1',
        '--steps',
        '14',
        '--set',
        'final_episodes=1',
    ]
    for value in [*shrunk, *(f'{name}={value}' for name, value in renamed.items())]:
        words += ['--set', value]
    assert train.main(words) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report['steps'], report['updates']) == (14, 14)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('policy_tau', 'ema_tau'),
        ('hold_weight', 'prior_weight'),
        ('light', 'color_jitter'),
        ('gripper_price', 'grasp_penalty'),
    ],
)
def test_an_old_name_on_the_command_line_is_refused_with_the_new_one(tmp_path, old, new, capsys):
    assert train.main(['--out', str(tmp_path / 'run'), '--steps', '1', '--set', f'{old}=0.1']) == 1
    assert f'set {new} instead' in capsys.readouterr().err


def test_a_calibration_file_with_its_sidecar_means_the_same_angles():
    calibration = load(BEFORE / 'calibration' / 'virtual.json')
    assert calibration.calibration_id == EXPECTED['calibration']['id']
    angles = calibration.ticks_to_rad(np.array([100, 1000, 2048, 2500, 3000, 2100]))
    np.testing.assert_allclose(angles, EXPECTED['calibration']['rad'], atol=1e-12)
