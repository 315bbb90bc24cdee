# SPDX-License-Identifier: Apache-2.0
"""Runs as they lie on the disk, and jobs as processes that end."""

import csv
import fcntl
import os
import time

import pytest

from hilserl_learner.live.identity import FEED_LOCK, IDENTITY, RunIdentity
from so101_console.archive.jobs import Job, Jobs
from so101_console.archive.runs import is_in_use, options_of, read_episodes, Runs

SIMULATED = RunIdentity(
    scene='simulated arm, lift, easy',
    observation='compact 0123456789ab',
    action='0123456789ab',
    policy='default',
    agent='hil',
    task='lift 0123456789ab',
)
COLUMNS = ('steps', 'episode', 'success', 'episode_steps', 'return', 'intervened', 'takeovers')


def make_run(folder, wins=3, episodes=30, identity=SIMULATED):
    """A run's folder with what the page reads: identity, table of episodes, a policy."""
    (folder / 'log').mkdir(parents=True)
    (folder / IDENTITY).write_text(identity.to_json())
    with (folder / 'log' / 'episodes.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(1, episodes + 1):
            won = int(number % 5 < wins)
            writer.writerow([number * 50, number, won, 50, won, 10 if number % 2 else 0, number % 2])
    policy = folder / 'checkpoints' / 'best' / 'policy'
    policy.mkdir(parents=True)
    (policy / 'manifest.json').write_text('{}')
    return folder


def test_a_run_is_listed_with_what_it_was_made_with_and_how_it_does(tmp_path):
    run = make_run(tmp_path / 'lift-1')
    (row,) = Runs(str(tmp_path)).rows()
    assert row['name'] == 'lift-1'
    assert row['made'] == 'simulated arm, lift, easy, compact, from default, hil'
    assert row['success'] == pytest.approx(0.6)
    low, high = row['between']
    assert low < 0.6 < high
    assert not row['now']
    assert (row['steps'], row['episodes']) == (1500, 30)
    assert row['commands']['go on'] == f'./so101 up run:={run}'
    assert row['commands']['export'].startswith(f'./so101 export {run}/online --out datasets/')
    curve = Runs(str(tmp_path)).curve('lift-1')['rows']
    assert curve[-1][:2] == [30, pytest.approx(0.6)]


def test_the_run_that_somebody_learns_in_is_the_one_that_goes_on_now(tmp_path):
    run = make_run(tmp_path / 'now')
    with (run / FEED_LOCK).open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_in_use(run)
        assert Runs(str(tmp_path)).rows()[0]['now']
    assert not is_in_use(run)


@pytest.mark.parametrize(
    ('changes', 'options'),
    [
        ({}, []),
        ({'scene': 'simulated arm, place, gap, left'}, ['task:=place', 'preset:=gap', 'namespace:=left']),
        ({'policy': 'none'}, ['checkpoint:=none']),
        ({'policy': 'mine 3 0123456789ab'}, ['checkpoint:=FOLDER_OF_mine']),
        ({'observation': 'full 0123456789ab'}, ['observation:=full']),
        ({'scene': 'real arm cal-1', 'task': 'place 01'}, ['sim:=false', 'port:=/dev/so101', 'task:=place']),
    ],
    ids=str,
)
def test_a_command_names_the_options_that_a_run_was_made_with(changes, options):
    from dataclasses import replace

    assert options_of(replace(SIMULATED, **changes)) == options


def test_damaged_runs_are_no_end_of_the_list(tmp_path):
    make_run(tmp_path / 'whole')
    broken = make_run(tmp_path / 'broken')
    (broken / IDENTITY).write_bytes(b'\xff\x00{')
    torn = make_run(tmp_path / 'torn')
    (torn / 'log' / 'episodes.csv').write_bytes(b'steps,episode\n\x00\xff,\n,,,,,,\n1,1,nan,inf,1,1,1\n')
    names = [row['name'] for row in Runs(str(tmp_path)).rows()]
    assert sorted(names) == ['torn', 'whole']
    assert read_episodes(torn) == []


def test_a_job_that_takes_too_long_is_ended_and_says_so(tmp_path, monkeypatch):
    jobs = Jobs(longest_s=0.5)
    monkeypatch.setattr('so101_console.archive.jobs.export_words', lambda words: ['sleep', '1000'])
    assert jobs._start(Job('A', 'a', [], tmp_path / 'a')) == ''
    assert 'wait until it is done' in jobs._start(Job('B', 'b', [], tmp_path / 'b'))
    pid = jobs._process.pid
    deadline = time.monotonic() + 300.0
    while jobs.account()['state'] == 'runs':
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert jobs.account()['state'] == 'failed'
    assert 'was ended' in jobs.account()['said']
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_job_that_is_refused_says_why_and_the_next_one_may_begin(tmp_path):
    jobs = Jobs()
    assert jobs.dataset('none', tmp_path / 'nothing', tmp_path / 'out') == ''
    deadline = time.monotonic() + 300.0
    while jobs.account()['state'] == 'runs':
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert jobs.account()['state'] == 'failed'
    assert 'nothing' in jobs.account()['said']
    (tmp_path / 'there').mkdir()
    assert 'is there already' in jobs.dataset('none', tmp_path, tmp_path / 'there')
    jobs.close()
