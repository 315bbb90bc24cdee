# SPDX-License-Identifier: Apache-2.0
"""The trial: its statistics, its plan and sheet, and the node that carries it out."""

import json
import math
import re

import numpy as np
import pytest
import scipy.integrate

from hilserl_learner.errors import LearnerError
from hilserl_learner.trial.protocol import make_plan, Plan, RECORD, Record, Trial
from hilserl_learner.trial.sheet import draw_sheet
from hilserl_learner.trial.verdict import better, evidence, pairs_needed, Tally, verdict

AREA = (0.18, 0.32, -0.07, 0.07)
PAIRS = 60


def play(rng, a, b, pairs=PAIRS):
    """Return what is said of two policies of known success, asked after every pair."""
    tally = Tally()
    for _ in range(pairs):
        tally = tally.add(bool(rng.random() < a), bool(rng.random() < b))
        if winner := better(tally):
            return winner
    return ''


@pytest.mark.parametrize(('wins', 'losses'), [(0, 0), (3, 0), (9, 2), (4, 11), (30, 10)])
def test_the_evidence_is_the_integral_that_it_is_said_to_be(wins, losses):
    n = wins + losses
    value, _ = scipy.integrate.quad(lambda q: 2.0 * q**wins * (1.0 - q) ** losses, 0.5, 1.0)
    assert evidence(wins, losses) == pytest.approx(2.0**n * value, rel=1e-6)


@pytest.mark.parametrize('alike', [0.5, 0.9])
def test_of_policies_that_are_alike_one_in_twenty_at_most_is_called_better(alike):
    rng = np.random.default_rng(7)
    said = [play(rng, alike, alike) for _ in range(1000)]
    assert sum(map(bool, said)) <= 50


@pytest.mark.parametrize(('a', 'b', 'found'), [(0.5, 0.9, 900), (0.9, 0.6, 700), (0.7, 0.95, 500)])
def test_of_policies_that_differ_the_better_one_is_found_and_hardly_ever_the_other(a, b, found):
    rng = np.random.default_rng(3)
    said = [play(rng, a, b) for _ in range(1000)]
    right, wrong = ('B', 'A') if b > a else ('A', 'B')
    assert said.count(right) >= found
    assert said.count(wrong) <= 50


def test_a_verdict_says_how_far_it_is_from_there():
    assert verdict(Tally(10, 0, 9, 1)).startswith('B is better with 95%')
    assert verdict(Tally(10, 9, 0, 1)).startswith('A is better with 95%')
    soon = Tally(6, 1, 5, 0)
    more = pairs_needed(soon)
    assert f'about {2 * more} more trials' in verdict(soon)
    grown = Tally(6, 1 + round(more / 12), 5 + round(more * 5 / 12), 0)
    assert better(grown) == 'B'
    assert pairs_needed(Tally(10, 3, 3, 0)) is None
    assert 'so alike' in verdict(Tally(10, 3, 3, 0))
    assert 'no place' in verdict(Tally())


def test_a_plan_spreads_its_places_and_draws_who_begins(tmp_path):
    plan = make_plan(['a', 'b'], 36, AREA, seed=1)
    x0, x1, y0, y1 = AREA
    cells = {(int((p.x - x0) / (x1 - x0) * 6), int((p.y - y0) / (y1 - y0) * 6)) for p in plan.places}
    assert len(cells) >= 34, 'one place in each cell, but for what rounding moved over an edge'
    assert {'AB', 'BA'} == set(plan.order)
    assert 8 < plan.order.count('AB') < 28
    assert len(plan.trials) == 72
    assert make_plan(['a', 'b'], 36, AREA, seed=1) == plan != make_plan(['a', 'b'], 36, AREA, seed=2)
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    with pytest.raises(LearnerError, match='without a trial'):
        plan.write(tmp_path)


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{',
        '[]',
        '[' * 100_000,
        '{"policies": ["a"], "area": [0,1,0], "places": [], "order": [], "seed": 0}',
        '9' * 5000,
    ],
)
def test_a_plan_that_is_none_gets_a_sentence(tmp_path, text):
    (tmp_path / 'plan.json').write_text(text)
    with pytest.raises(LearnerError, match='expected the plan of a trial'):
        Plan.read(tmp_path)


def test_an_area_that_no_arm_reaches_is_refused():
    for area in (
        (0.3, 0.2, -0.1, 0.1),
        (0.0, 0.9, -0.1, 0.1),
        (math.nan, 0.3, -0.1, 0.1),
        (5.0, 5.1, 0.0, 0.1),
    ):
        with pytest.raises(LearnerError, match='in reach'):
            make_plan(['a'], 4, area, seed=0)
    with pytest.raises(LearnerError, match='one or two policies'):
        make_plan([], 4, AREA, seed=0)


def test_a_record_outlives_a_power_cut_and_takes_late_labels(tmp_path):
    plan = make_plan(['a', 'b'], 2, AREA, seed=1)
    record = Record(plan, tmp_path)
    assert record.next() == 0
    for number, success in enumerate((True, False, True)):
        record.add(Trial(number, number + 5, success, ''))
    with (tmp_path / RECORD).open('a') as file:
        file.write('{"number": 3, "epi')
    again = Record(plan, tmp_path)
    assert again.trials == record.trials
    assert again.next() == 3
    assert again.relabel(1, True, 'seen too late')
    assert not again.relabel(1, True, 'once more')
    assert Record(plan, tmp_path).trials[1] == Trial(1, 6, True, 'seen too late')
    assert again.tally == Tally(both=1), 'the place that was tried with one alone is no pair'
    assert sum(map(len, (again.of('A'), again.of('B')))) == 3
    assert 'A (a): ' in again.report()[0]


def test_the_sheet_is_a4_and_to_scale(tmp_path):
    plan = make_plan(['a'], 9, AREA, seed=0)
    draw_sheet(plan, tmp_path / 'sheet.pdf')
    data = (tmp_path / 'sheet.pdf').read_bytes()
    width, height = (float(v) for v in re.search(rb'MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]', data).groups())
    assert (width / 72 * 25.4, height / 72 * 25.4) == pytest.approx((297, 210), abs=0.1)
    with pytest.raises(LearnerError, match='A4'):
        draw_sheet(make_plan(['a'], 4, (0.1, 0.35, -0.2, 0.2), seed=0), tmp_path / 'large.pdf')


def test_lines_of_a_record_that_are_no_trials_are_passed_over(tmp_path):
    plan = make_plan(['a'], 3, AREA, seed=1)
    (tmp_path / RECORD).write_text('\n'.join(['null', '{}', json.dumps({'number': 0})]))
    assert Record(plan, tmp_path).next() == 0
