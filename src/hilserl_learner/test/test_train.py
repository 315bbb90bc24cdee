# SPDX-License-Identifier: Apache-2.0
"""Train, stop, go on, evaluate, draw: the commands on the simulated arm with its camera, with tiny budgets."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from drqv2_policy_node.store import find_policy, load_critics, load_policy
from hilserl_learner.agents.common import make_agent
from hilserl_learner.agents.hil import HilAgent, HilConfig
from hilserl_learner.cli import eval as eval_cli
from hilserl_learner.cli import train as train_cli
from hilserl_learner.data.collect import Collector
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.checkpoint import Checkpoints
from hilserl_learner.training.evaluate import EpisodeOutcome, EvalScore, Evaluation
from hilserl_learner.training.log import read_table, RunLog, RunTracker
from hilserl_learner.training.run import Training, TrainRun
from hilserl_learner.training.settings import make_env, RunConfig, Settings
from hilserl_learner.training.trainer import Trainer, TrainerConfig
from so101_testing.reach import ReachEnv

TINY = [
    '--demos',
    '1',
    '--set',
    'width=16',
    '--set',
    'num_critics=2',
    '--set',
    'batch_size=8',
    '--set',
    'start_steps=5',
]
SHORT = ['--json', '--set', 'eval_every=0', '--set', 'log_every=10', '--set', 'final_episodes=1']


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run of 20 steps, the last line that it printed, and its directory."""
    out = tmp_path_factory.mktemp('train') / 'run'
    command = [
        sys.executable,
        '-m',
        'hilserl_learner.cli.train',
        '--steps',
        '20',
        '--out',
        str(out),
        *TINY,
        *SHORT,
    ]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
    return out, json.loads(printed.splitlines()[-1])


def test_train_makes_its_steps_and_leaves_policy_log_and_settings(run):
    out, report = run
    assert (report['steps'], report['updates'], report['episodes']) == (20, 20, 1)
    assert (
        load_policy(out / 'last').manifest.observation
        == make_env('SO101Lift-v0', 'easy', 'compact').observation_spec
    )
    assert [row['steps'] for row in read_table(out / 'train.csv')] == ['10', '20']
    assert json.loads((out / 'config.json').read_text())['agent_options'] == {'num_critics': 2, 'width': 16}


def test_B25_eval_acts_with_the_weights_of_the_training_and_says_which(run, tmp_path, capsys):
    out, report = run
    picture, table = tmp_path / 'map.png', tmp_path / 'episodes.csv'
    code = eval_cli.main(
        [str(out / 'last'), '--json', '--episodes', '1', '--png', str(picture), '--csv', str(table)]
    )
    evaluated = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0
    # The training's own last evaluation was of one episode with the same seed.
    assert (evaluated['success'], evaluated['failed_at']) == (report['success'], report['failed_at'])
    saved = Checkpoints(out / 'checkpoints').load().tensors
    agent = HilAgent(
        load_policy(out / 'last').manifest.observation, HilConfig(width=16, num_critics=2), seed=9
    )
    agent.load_state_dict({k.removeprefix('agent.'): v for k, v in saved.items() if k.startswith('agent.')})
    manifest = load_policy(out / 'last').manifest
    fields = {
        name: getattr(manifest, name)
        for name in manifest.to_dict()
        if name not in ('golden', 'tensors_sha256')
    }
    assert evaluated['weights_sha256'] == agent.policy(**fields).manifest.tensors_sha256
    assert picture.read_bytes().startswith(b'\x89PNG')
    assert len(table.read_text().splitlines()) == 2


def test_a_run_that_begins_with_the_policy_of_another_one_goes_on_with_its_critics(run, tmp_path):
    out, _ = run
    code = train_cli.main(
        ['--steps', '1', '--out', str(tmp_path / 'next'), '--policy', str(out / 'last'), *TINY, *SHORT]
    )
    assert code == 0
    after, before = (load_critics(path / 'last')[0].state_dict() for path in (tmp_path / 'next', out))
    for name, value in after.items():
        torch.testing.assert_close(value, before[name], rtol=0.0, atol=0.01)


def test_values_that_have_no_effect_beside_a_policy_are_refused_with_those_that_have():
    for policy in ('default', 'runs/somewhere'):
        with pytest.raises(LearnerError, match=r'set gamma_with_policy=0\.9$'):
            Settings.with_options({'gamma': '0.9'}, policy=policy)
    assert Settings.with_options({'gamma': '0.9'}).trainer.gamma == 0.9
    assert Settings.with_options({'gamma': '0.9'}, policy='none').trainer.gamma == 0.9
    assert (
        Settings.with_options({'gamma_with_policy': '0.9'}, policy='default').trainer.gamma_with_policy == 0.9
    )


def test_a_run_begins_with_the_policy_that_is_shipped(tmp_path):
    settings = Settings.with_options({'steps': '1'}, policy='default', demos='0', operator='none')
    training = Training(settings, tmp_path / 'run')
    shipped = find_policy('default', settings.observation)
    (critic, _), agent = load_critics(shipped), training.agent
    assert all(
        torch.equal(*pair) for pair in zip(critic.parameters(), agent.critic.parameters(), strict=True)
    )
    assert training.trainer.std == 0.05
    assert training.policy().manifest.tensors_sha256 == load_policy(shipped).manifest.tensors_sha256
    training.close()


def test_B22_an_evaluation_keeps_what_the_camera_saw(run, capsys):
    out, report = run
    row = read_table(out / 'evaluation.csv')[-1]
    assert float(row['image_mean_r']) == pytest.approx(report['image_mean'][0], abs=0.01)
    assert 20.0 < report['image_mean'][0] < 235.0


def test_a_run_goes_on_where_it_was_stopped(run):
    out, _ = run
    code = train_cli.main(['--steps', '30', '--out', str(out), '--resume', *TINY, *SHORT])
    assert code == 0
    assert [row['steps'] for row in read_table(out / 'train.csv')] == ['10', '20', '30']
    metadata = Checkpoints(out / 'checkpoints').load().metadata
    assert (metadata.env_steps, metadata.updates) == (30, 30)


def test_another_run_is_not_written_over_and_other_settings_are_not_taken_up(run, capsys):
    out, _ = run
    assert train_cli.main(['--steps', '20', '--out', str(out), *TINY, *SHORT]) == 1
    assert 'add --resume' in capsys.readouterr().err
    assert train_cli.main(['--steps', '40', '--out', str(out), '--resume', '--seed', '5', *TINY, *SHORT]) == 1
    assert 'seed: 0 before, 5 now' in capsys.readouterr().err


def test_B32_a_killed_run_goes_on_and_no_recorded_step_is_lost(tmp_path):
    out = tmp_path / 'run'
    command = [
        sys.executable,
        '-m',
        'hilserl_learner.cli.train',
        '--steps',
        '100000',
        '--out',
        str(out),
        *TINY,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90.0
    segment = out / 'buffer' / 'online' / '000000.seg'
    while not (segment.exists() and segment.stat().st_size > 200_000):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(10.0)
    values = {'width': '16', 'num_critics': '2', 'batch_size': '8', 'start_steps': '5', 'steps': '100000'}
    training = Training(Settings.with_options(values, demos='1'), out, resume=True)
    recorded = len(list(training.directory.recorded('online')))
    assert recorded > 10
    assert training.trainer.steps == recorded
    assert len(training.trainer.demo) > 5
    training.close()


def test_eval_shows_what_a_difference_of_gap_costs(run, capsys):
    brightness = []
    for parts in ((), ('--nominal', 'light'), ('--nominal', 'light', '--nominal', 'camera')):
        assert (
            eval_cli.main([str(run[0] / 'last'), '--json', '--preset', 'gap', '--episodes', '1', *parts]) == 0
        )
        report = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert report['nominal'] == list(parts[1::2])
        brightness.append(sum(report['image_mean']))
    assert brightness[1] > 1.5 * brightness[0]
    assert brightness[2] != brightness[1]


def test_eval_ends_with_a_table_for_people_unless_json_is_asked_for(run, capsys):
    assert eval_cli.main([str(run[0] / 'last'), '--episodes', '2']) == 0
    shown = capsys.readouterr().out
    assert '{' not in shown
    assert re.search(r'success +\d+%', shown), shown
    assert re.search(r'its 95 % interval +\d+% to \d+%', shown), shown
    assert 'sha256' not in shown


def test_what_does_not_exist_is_named_with_what_does(tmp_path, capsys):
    assert train_cli.main(['--env', 'Nowhere-v0', '--out', str(tmp_path / 'a')]) == 1
    assert "expected one of the tasks lift, place, push_can, got 'Nowhere-v0'" in capsys.readouterr().err
    assert train_cli.main(['--set', 'colour=1', '--out', str(tmp_path / 'b')]) == 1
    assert "got 'colour'" in capsys.readouterr().err
    assert eval_cli.main([str(tmp_path / 'none')]) == 1
    assert 'so101 eval: expected' in capsys.readouterr().err
    with pytest.raises(LearnerError, match='use_gravity'):
        Settings.with_options({'use_gravity': 'true'})


def test_values_given_as_text_reach_the_configuration_that_owns_them():
    settings = Settings.with_options({'utd': '2', 'bc_weight': '0.1', 'steps': '7', 'rollback': 'false'})
    assert settings.trainer.utd == 2.0
    assert settings.agent_options == {'bc_weight': 0.1}
    assert (settings.run.steps, settings.run.rollback) == (7, False)


# ---- without the arm: what a run does about its evaluations ----------------------------------------------------------


def reach_run(tmp_path, monkeypatch, rates, *, rollback=True, judge_start=False):
    """A run on the small task whose evaluations come out as told; also the agent's std of each save of the best."""
    env = ReachEnv()
    agent = make_agent('hil', env.observation_spec, {'width': 16, 'num_critics': 2})
    trainer = Trainer(agent, env.observation_spec, config=TrainerConfig(batch_size=8, start_steps=4))
    told = iter(rates)

    def evaluate(_env, _act, episodes, **_options):
        good = next(told)
        return Evaluation(tuple(EpisodeOutcome(i < good, 10, (0.2, 0.0)) for i in range(episodes)), None)

    monkeypatch.setattr('hilserl_learner.training.run.evaluate', evaluate)
    log, checkpoints = RunLog(tmp_path, tensorboard=False), Checkpoints(tmp_path / 'checkpoints')
    tracker = RunTracker(trainer, log, checkpoints, config={}, q_bound=1.0)
    config = RunConfig(
        steps=20 * (len(rates) - judge_start),
        log_every=1000,
        eval_every=20,
        eval_episodes=20,
        final_episodes=0,
        rollback=rollback,
    )
    saved = []
    made = TrainRun(trainer, Collector(env), env, tracker, config, save=saved.append, judge_start=judge_start)
    return made, saved


def weights(run):
    return run.trainer.agent.state_dict()['actor.out_mlp.0.weight']


def test_the_agent_of_the_best_evaluation_is_kept(tmp_path, monkeypatch):
    made, saved = reach_run(tmp_path, monkeypatch, [5, 15, 14])
    outcome = made.run()
    assert made.tracker.best.score.step == 40
    assert saved.count('best') == 2
    assert outcome.alarms == ()
    assert not torch.equal(made.tracker.best.state['actor.out_mlp.0.weight'], weights(made))


def test_a_collapse_brings_the_best_agent_back(tmp_path, monkeypatch):
    made, _ = reach_run(tmp_path, monkeypatch, [20, 3])
    (alarm,) = made.run().alarms
    assert 'success fell from 100% at step 20 to 15% at step 40' in alarm
    assert torch.equal(made.tracker.best.state['actor.out_mlp.0.weight'], weights(made))
    assert made.trainer.agent.updates > made.tracker.best.state['counter.updates']
    assert abs(made.trainer.owed) < 1.0  # those since the best one are not made up for in one go


def test_without_rollback_a_collapse_is_only_told(tmp_path, monkeypatch):
    made, _ = reach_run(tmp_path, monkeypatch, [20, 3], rollback=False)
    (alarm,) = made.run().alarms
    assert 'set rollback' in alarm
    assert not torch.equal(made.tracker.best.state['actor.out_mlp.0.weight'], weights(made))


def test_what_a_run_begins_with_is_the_best_until_it_is_beaten(tmp_path, monkeypatch):
    made, saved = reach_run(tmp_path, monkeypatch, [12, 11, 13], judge_start=True)
    made.run()
    assert (made.tracker.best.score.step, made.tracker.best.score.successes) == (40, 13)
    assert saved.count('best') == 2
    steps = [row['steps'] for row in read_table(tmp_path / 'evaluation.csv')]
    assert steps == ['0', '20', '40']


def test_learning_goes_on_from_where_it_is_although_it_began_better(tmp_path, monkeypatch):
    made, saved = reach_run(tmp_path, monkeypatch, [20, 3], judge_start=True)
    (alarm,) = made.run().alarms
    assert 'at step 0 to 15% at step 20; the run goes on' in alarm
    assert saved.count('best') == 1  # which holds what it began with
    assert not torch.equal(made.tracker.best.state['actor.out_mlp.0.weight'], weights(made))


def test_an_evaluations_interval_holds_the_rate():
    outcomes = tuple(EpisodeOutcome(i < 95, 12, (0.2, 0.0)) for i in range(100))
    evaluation = Evaluation(outcomes, None)
    low, high = evaluation.interval
    assert low < evaluation.rate == 0.95 < high
    assert (round(low, 3), round(high, 3)) == (0.888, 0.978)
    assert evaluation.report()['mean_steps'] == 12.0


def test_a_score_of_nothing_but_failures_compares():
    assert EvalScore(1, 20, 10.0, 5).better_than(EvalScore(0, 20, float('nan'), 1))
    assert not np.isnan(EvalScore(0, 20, float('nan'), 1).rate)
