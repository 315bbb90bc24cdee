# SPDX-License-Identifier: Apache-2.0
"""Every agent learns on the Fetch robot through the same command, from state and from pixels, with joints as actions too."""

import json
from pathlib import Path

import numpy as np
import pytest

from drqv2_policy_node.store import load_policy
from hilserl_learner.cli import compare as compare_cli
from hilserl_learner.cli import eval as eval_cli
from hilserl_learner.cli import train as train_cli
from hilserl_learner.data.collect import Collector, demonstrate
from hilserl_learner.data.store import BufferWriter, Entry, pack_transition, read_part
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.comparison import Contender, Measured, paired_difference, rows_of
from hilserl_learner.training.evaluate import EpisodeOutcome, Evaluation
from hilserl_learner.training.log import read_table
from hilserl_learner.training.settings import make_env, observation_name
from so101_contract.observation_spec import get_observation

TINY = ['--demos', '1', '--set', 'width=16', '--set', 'batch_size=8', '--set', 'start_steps=5']
SHORT = ['--set', 'eval_every=0', '--set', 'log_every=5', '--set', 'final_episodes=1']


def train(out, *arguments):
    return train_cli.main(['--json', '--out', str(out), *arguments, *TINY, *SHORT])


@pytest.mark.parametrize('agent', ['hil', 'sac', 'faithful', 'bc'])
def test_each_agent_learns_from_state_with_joints_as_actions(agent, tmp_path, capsys):
    assert train(tmp_path / 'run', '--env', 'FetchPush-joint-locked', '--agent', agent, '--steps', '10') == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report['steps'], report['updates']) == (10, 10)
    policy = load_policy(tmp_path / 'run' / 'last')
    env = make_env('FetchPush-joint', 'easy', 'state')
    env.reset(seed=0)
    assert policy.act(env.observation()).shape == (7,)
    assert policy.manifest.ik_profile == 'fetch joint'
    # The transitions on the disk are those that were lived through: the run goes on.
    assert (
        train(
            tmp_path / 'run', '--resume', '--env', 'FetchPush-joint-locked', '--agent', agent, '--steps', '14'
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])['updates'] == 14
    assert [row['steps'] for row in read_table(tmp_path / 'run' / 'train.csv')] == ['5', '10']


@pytest.mark.parametrize('agent', ['hil', 'faithful'])
def test_it_learns_from_two_cameras(agent, tmp_path, capsys):
    arguments = ('--env', 'FetchReach-cartesian', '--observation', 'pixels', '--agent', agent, '--steps', '2')
    assert train(tmp_path / 'run', *arguments, '--set', 'final_episodes=0') == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])['updates'] == 2
    policy = load_policy(tmp_path / 'run' / 'last')
    assert len(policy.manifest.observation.cameras) == 2
    assert not policy.manifest.observation.privileged
    assert observation_name(policy, 'FetchReach-cartesian') == 'pixels'


def test_eval_counts_the_successes_of_such_a_policy(tmp_path, capsys):
    assert train(tmp_path / 'run', '--env', 'FetchReach-joint', '--steps', '3') == 0
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    code = eval_cli.main(
        [str(tmp_path / 'run' / 'last'), '--json', '--env', 'FetchReach-joint', '--episodes', '1']
    )
    assert code == 0
    evaluated = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (evaluated['success'], evaluated['failed_at']) == (trained['success'], trained['failed_at'])


def test_a_transition_that_moves_joints_comes_back_from_the_disk(tmp_path):
    env = make_env('FetchReach-joint', 'easy', 'state')
    episode = next(demonstrate(env, 1, seed=3))
    writer = BufferWriter(tmp_path)
    for transition in episode:
        writer.append(Entry('demo', transition))
    writer.close()
    read = [entry.output for entry in read_part(tmp_path, env.observation_spec)]
    assert len(read) == len(episode)
    assert all(one.action.translation.shape == (6,) for one in read)
    pairs = zip(read, episode, strict=True)
    assert all(pack_transition('', one) == pack_transition('', other) for one, other in pairs)


def test_the_human_takes_over_where_nothing_moves(tmp_path):
    from hilserl_learner.data.collect import ScriptedOperator

    env = make_env('FetchPickAndPlace-joint-locked', 'easy', 'state')
    collector, results = Collector(env, human=ScriptedOperator(env), seed=1), []
    while len(results) < 2:
        collected = collector.step(lambda _: np.zeros(7, np.float32))
        results += [collected.result] if collected.result is not None else []
    assert any(result.success for result in results)
    assert all(0 < result.intervened < result.steps for result in results)


def test_compare_puts_runs_beside_the_floor_and_the_expert(tmp_path, capsys):
    arguments = [
        '--env',
        'FetchReach-joint',
        '--train',
        'bc',
        '--seeds',
        '0,1',
        '--steps',
        '6',
        '--episodes',
        '2',
    ]
    code = compare_cli.main(
        [
            *('zero', 'random', 'expert', *arguments, '--reward', 'classic', '--out', str(tmp_path / 'out')),
            *(*TINY, *SHORT, '--set', 'final_episodes=0'),
        ]
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert printed == (tmp_path / 'out' / 'comparison.md').read_text()
    rows = json.loads((tmp_path / 'out' / 'comparison.json').read_text())
    assert [row['who'] for row in rows] == ['zero', 'random', 'expert', 'bc']
    assert rows[2]['success'] == 1.0
    assert -50.0 < rows[2]['reward'][0] < 0.0
    assert [len(row['runs']) for row in rows] == [1, 1, 1, 2]
    assert (tmp_path / 'out' / 'comparison.png').read_bytes().startswith(b'\x89PNG')
    run = min((tmp_path / 'out' / 'runs').iterdir())
    assert compare_cli.main([str(run), 'zero', '--episodes', '1', '--out', str(tmp_path / 'again')]) == 0
    assert '| FetchReach-joint | bc |' in capsys.readouterr().out


def test_runs_of_other_settings_are_rows_of_their_own():
    def measured(label, kind, run):
        contender = Contender('FetchReach-joint', 'easy', label, Path(run) / 'best', kind)
        return Measured(contender, Evaluation((EpisodeOutcome(True, 3, (0.0, 0.0), 1.0),), None), 1.0, 0.1)

    rows = rows_of([measured('hil', 'a', 'r0'), measured('hil', 'b', 'r1'), measured('hil', 'a', 'r2')])
    assert [(row.label, len(row.measured)) for row in rows] == [('hil (r0)', 2), ('hil (r1)', 1)]


def test_a_difference_of_few_pairs_does_not_claim_to_be_certain():
    one, other = np.ones((1, 10), bool), np.zeros((1, 10), bool)
    difference, low, high = paired_difference(one, other)
    assert difference == 1.0
    assert 0.3 < low < high <= 1.0
    same = paired_difference(one, one)
    assert same[0] == 0.0
    assert same[1] < 0.0 < same[2]


def test_what_cannot_be_compared_or_trained_is_said(tmp_path, capsys):
    assert compare_cli.main([str(tmp_path), '--out', str(tmp_path / 'out')]) == 1
    assert 'expected zero, random, expert, the directory of a run' in capsys.readouterr().err
    assert train_cli.main(['--env', 'FetchFly-joint', '--steps', '1', '--out', str(tmp_path / 'a')]) == 1
    assert 'e.g. FetchPickAndPlace-cartesian' in capsys.readouterr().err
    arguments = [
        '--env',
        'FetchPush-joint',
        '--observation',
        'compact',
        '--steps',
        '1',
        '--out',
        str(tmp_path / 'b'),
    ]
    assert train_cli.main(arguments) == 1
    assert "['state', 'pixels']" in capsys.readouterr().err
    with pytest.raises(LearnerError, match='as they were published'):
        make_env('FetchPush-joint', 'gap', 'state')


def test_our_own_environments_are_as_they_were():
    env = make_env('SO101Lift-v0', 'easy', 'compact')
    assert env.observation_spec == get_observation('compact')
    assert env.action_spec.size == 4
    env.close()
