# SPDX-License-Identifier: Apache-2.0

import pytest

from hilserl_learner.cli.plot import band, Curve, draw, label_of, Panel, read_curve
from hilserl_learner.cli.plot import main as plot_main
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.log import EVALUATION, read_table, RunLog, TRAIN

PNG = b'\x89PNG'


def make_run(directory, rates, config=None):
    with RunLog(directory, tensorboard=False) as log:
        for number, rate in enumerate(rates):
            step = 100 * (number + 1)
            log.write(EVALUATION, step, {'wall_s': 6.0 * number, 'success': rate})
            log.write(TRAIN, step, {'wall_s': 6.0 * number, 'unaided': rate, 'intervention': 1 - rate})
    if config is not None:
        (directory / 'config.json').write_text(config)
    return directory


def test_a_run_that_goes_on_appends_to_its_table(tmp_path):
    for step in (1, 2):
        with RunLog(tmp_path, tensorboard=False) as log:
            log.write(TRAIN, step, {'a': 0.5})
    assert read_table(tmp_path / 'train.csv') == [{'steps': '1', 'a': '0.5'}, {'steps': '2', 'a': '0.5'}]


def test_a_new_column_widens_the_table_and_old_lines_stay(tmp_path):
    with RunLog(tmp_path, tensorboard=False) as log:
        log.write(TRAIN, 1, {'a': 1.0})
        log.write(TRAIN, 2, {'a': 2.0, 'b': 3.0})
        log.write(TRAIN, 3, {'a': 4.0})
    rows = read_table(tmp_path / 'train.csv')
    assert [(row['a'], row['b']) for row in rows] == [('1', ''), ('2', '3'), ('4', '')]


def test_P17_the_same_numbers_are_there_for_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path) as log:
        log.write(TRAIN, 5, {'q_mean': 0.25, 'verdict': 'best'})
    events = EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
    (event,) = events.Scalars('train/q_mean')
    assert (event.step, event.value) == (5, 0.25)


def test_runs_that_differ_in_their_seed_become_one_line_with_a_band(tmp_path):
    curves = [
        read_curve(make_run(tmp_path / str(i), [0.0, i / 2]), Panel(EVALUATION, 'success', ''))
        for i in range(3)
    ]
    x, mean, low, high = band(curves, points=3)
    assert x.tolist() == [100, 150, 200]
    assert (mean[-1], low[-1], high[-1]) == (0.5, 0.0, 1.0)


def test_a_band_goes_as_far_as_the_shortest_run(tmp_path):
    short, long = Curve(x=_array(0, 10), y=_array(0, 1)), Curve(x=_array(0, 20), y=_array(0, 2))
    x, mean, _, _ = band([short, long], points=2)
    assert (x[-1], mean[-1]) == (10.0, 1.0)


def _array(*values):
    import numpy as np

    return np.array(values, dtype=np.float64)


def test_runs_are_named_after_what_was_varied(tmp_path):
    config = (
        '{"env": "SO101Lift-v0", "preset": "easy", "agent": "hil", "demos": "0", "operator": "none", "policy": "",'
        ' "agent_options": {"bc_weight": 0.0}, "seed": 3}'
    )
    assert (
        label_of(make_run(tmp_path, [0.0], config))
        == 'lift, easy, hil, 0 demos, no interventions, bc_weight 0.0'
    )


def test_plot_draws_a_picture_by_one_command(tmp_path, capsys):
    runs = [make_run(tmp_path / name, [0.0, 0.5, 1.0]) for name in ('a', 'b')]
    out = tmp_path / 'picture.png'
    assert plot_main([*map(str, runs), '--out', str(out), '--title', 'easy', '--minutes']) == 0
    assert out.read_bytes().startswith(PNG)
    draw({'both': runs}, out)
    assert capsys.readouterr().out.strip() == str(out)


def test_plot_says_what_a_directory_without_a_run_lacks(tmp_path, capsys):
    assert plot_main([str(tmp_path), '--out', str(tmp_path / 'x.png')]) == 1
    assert 'expected a run with evaluation.csv' in capsys.readouterr().err
    with pytest.raises(LearnerError):
        read_curve(tmp_path, Panel(TRAIN, 'success', ''))
