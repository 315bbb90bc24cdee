# SPDX-License-Identifier: Apache-2.0
"""The pages of results are written from finished runs, and keep what they were given before."""

import json

import pytest
import results
from results import EXPERIMENTS, write_up

from hilserl_learner.cli.train import parser
from hilserl_learner.training.settings import Settings

EVALUATION = 'steps,wall_s,cpu_s,updates,episodes,success,low,high,mean_steps,verdict\n'
TRAIN = 'steps,wall_s,unaided,intervention\n'


def a_run(runs, name, seed, rate, *, finished=True):
    """A run directory as `so101 train` and the page's command leave it."""
    path = runs / f'{name}_{seed}'
    path.mkdir(parents=True)
    rows = [f'{n},{n / 10},{n / 20},{n},20,{rate * n / 1000},0.1,0.9,20,best\n' for n in (500, 1000)]
    (path / 'evaluation.csv').write_text(EVALUATION + ''.join(rows))
    (path / 'train.csv').write_text(TRAIN + '500,50,0.1,0.5\n1000,100,0.8,0.1\n')
    if finished:
        report = {
            'seed': seed,
            'steps': 1000,
            'episodes': 100,
            'success': rate,
            'interval': [rate - 0.05, rate],
            'mean_steps': 20.04 if rate else None,
            'wall_s': 100.0,
            'cpu_s': 50.0,
            'policy': str(path / 'best'),
        }
        (path / 'report.json').write_text(json.dumps(report))
    return path


@pytest.fixture
def page(tmp_path):
    made = tmp_path / 'docs' / 'results.md'
    made.parent.mkdir()
    made.write_text('# Results\n\n<!-- headline -->\nold\n<!-- end -->\n\nwritten by hand\n')
    return made


@pytest.fixture
def notebook(page):
    made = page.parent / 'notebook' / 'learning.md'
    made.parent.mkdir()
    made.write_text('# Notebook\n\n<!-- figures -->\nold\n<!-- end -->\n\nwritten by hand\n')
    return made


def arguments(runs, page, notebook):
    return ['--runs', str(runs), '--page', str(page), '--notebook', str(notebook)]


def test_finished_runs_come_into_the_notebook_and_others_do_not(tmp_path, page, notebook):
    a_run(tmp_path, 'easy', 0, 0.98)
    a_run(tmp_path, 'easy', 1, 0.5, finished=False)
    a_run(tmp_path, 'easy', 2, 0.0)
    assert results.main(['--draw-only', *arguments(tmp_path, page, notebook)]) == 0
    text = notebook.read_text()
    rows = [line for line in text.splitlines() if line.startswith('| lift, easy')]
    assert rows == [
        '| lift, easy, 5 demonstrations, operator | 0 | 1000 | 98% of 100 (93% to 98%) | 20.0 | 1.7 | 0.8 |',
        '| lift, easy, 5 demonstrations, operator | 2 | 1000 | 0% of 100 (-5% to 0%) |  | 1.7 | 0.8 |',
    ]
    assert 'old' not in text
    assert text.startswith('# Notebook\n')
    assert text.endswith('<!-- end -->\n\nwritten by hand\n')
    assert '![lift](../results/lift.png)' in text
    assert (page.parent / 'results' / 'lift.png').stat().st_size > 0


def test_the_headline_counts_all_seeds_of_a_kind_together(tmp_path, page, notebook):
    a_run(tmp_path, 'easy', 0, 0.98)
    a_run(tmp_path, 'easy', 1, 0.5, finished=False)
    a_run(tmp_path, 'easy', 2, 1.0)
    a_run(tmp_path, 'no_demos', 0, 0.7)
    write_up(tmp_path, page, notebook)
    text = page.read_text()
    assert [line.split(' | ')[1:] for line in text.splitlines() if line.startswith('| lift')] == [
        ['2', '1000', '**198 of 200** (96.4% to 99.7%)', '1 |'],
    ]
    assert '    ./so101 train --steps 6000 --seed 0 --out runs/easy_0 --demos 5' in text
    assert 'old' not in text
    assert text.startswith('# Results\n')
    assert text.endswith('<!-- end -->\n\nwritten by hand\n')


def test_no_path_of_the_machine_comes_along(tmp_path, page, notebook):
    a_run(tmp_path, 'easy', 0, 0.98)
    write_up(tmp_path, page, notebook)
    kept = page.parent / 'results' / 'easy_0'
    assert {path.name for path in kept.iterdir()} == {'evaluation.csv', 'train.csv', 'report.json'}
    assert str(tmp_path) not in (kept / 'report.json').read_text()


def test_what_an_earlier_machine_made_stays_until_it_is_made_again(tmp_path, page, notebook):
    a_run(tmp_path / 'first', 'easy', 0, 0.98)
    a_run(tmp_path / 'first', 'easy', 1, 0.9)
    write_up(tmp_path / 'first', page, notebook)
    a_run(tmp_path / 'second', 'easy', 1, 0.95)
    a_run(tmp_path / 'second', 'no_demos', 0, 0.7)
    write_up(tmp_path / 'second', page, notebook)
    rows = [line for line in notebook.read_text().splitlines() if line.startswith('| lift')]
    assert [line.split(' | ')[3][:3] for line in rows] == ['98%', '95%', '70%']
    assert (page.parent / 'results' / 'ablation.png').exists()


def test_every_experiment_is_a_command_that_train_accepts():
    before = set()
    for experiment in EXPERIMENTS:
        options = parser().parse_args(experiment.arguments(1, 'out', 'policy'))
        values = dict(item.partition('=')[::2] for item in options.set)
        settings = Settings.with_options(values, agent=options.agent, preset=options.preset, env=options.env)
        assert settings.seed == 0
        assert not experiment.begins_with or experiment.begins_with in before
        before.add(experiment.name)


def test_a_run_that_fails_ends_the_command_and_leaves_the_pages_alone(tmp_path, page, notebook, capfd):
    (tmp_path / 'easy_0').write_text('a file where the run would be')
    code = results.main([*arguments(tmp_path, page, notebook), '--only', 'easy'])
    assert code == 1
    assert 'seed 1' not in capfd.readouterr().err
    assert 'old' in page.read_text()
    assert 'old' in notebook.read_text()
