# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch

from hilserl_learner.data.collect import EpisodeResult
from hilserl_learner.training.evaluate import BestCheckpoint, EvalScore, EvalVerdict, ImageStatistics
from hilserl_learner.training.log import EpisodeMeter, InterventionAdvice, Meter, ValueAlarm


def result(success=True, steps=10, intervened=0, takeovers=0):
    return EpisodeResult(1, success, steps, float(success), intervened, takeovers)


def test_a_meter_means_over_the_updates_that_report_an_entry():
    meter = Meter()
    meter.add({'a': torch.tensor(1.0), 'b': torch.tensor(4.0)})
    meter.add({'a': torch.tensor(3.0)})
    assert meter.take() == {'a': 2.0, 'b': 4.0}
    assert meter.take() == {}


def test_T10_intervened_share_and_run_length_are_of_the_last_episodes():
    meter = EpisodeMeter(window=2)
    meter.add(result(steps=100, intervened=100, takeovers=1))
    meter.add(result(steps=30, intervened=9, takeovers=3))
    meter.add(result(success=False, steps=10))
    rates = meter.rates()
    assert rates['intervention'] == pytest.approx(9 / 40)
    assert rates['run_length'] == 3.0
    assert (rates['success'], rates['unaided']) == (0.5, 0.0)
    assert meter.episodes == 3


def test_T10_long_or_lasting_interventions_are_warned_of():
    advice = InterventionAdvice(longest_steps=40.0, share=0.5, after_episodes=60)
    assert 'last 50 steps' in advice.update({'run_length': 50.0, 'intervention': 0.1}, 3)
    assert '60%' in advice.update({'run_length': 5.0, 'intervention': 0.6}, 60)
    assert advice.update({'run_length': 5.0, 'intervention': 0.6}, 59) == ''


def test_rates_before_the_first_episode_are_not_numbers():
    assert math.isnan(EpisodeMeter().rates()['success'])


def test_B18_values_above_the_largest_return_raise_an_alarm_that_lasts_as_they_do():
    alarm = ValueAlarm(bound=1.0, margin=0.05, patience=3)
    assert [bool(alarm.update(q)) for q in (1.2, 1.2, 1.2, 1.2, 0.9, 1.2)] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert 'above 1' in ValueAlarm(patience=1).update(3.0)


def test_B18_values_that_are_no_numbers_raise_the_alarm():
    assert ValueAlarm(patience=1).update(math.nan)


def test_B18_values_within_the_bound_raise_none():
    alarm = ValueAlarm()
    assert not any(alarm.update(q) for q in np.linspace(-1.0, 1.04, 50))


def test_B22_a_change_of_light_raises_an_alarm_and_noise_does_not():
    rng = np.random.default_rng(0)
    images = rng.integers(40, 200, (50, 3, 16, 16)).astype(np.uint8)
    training = ImageStatistics.of(images)
    again = ImageStatistics.of(rng.integers(40, 200, (20, 3, 16, 16)).astype(np.uint8))
    assert training.alarm(again) == ''
    darker = ImageStatistics.of((images * 0.7).astype(np.uint8))
    assert 'restore the light' in training.alarm(darker)
    assert training.drift(darker) == pytest.approx(36.0 / 46.0, abs=0.05)


def score(successes, episodes=20, steps=15.0, step=1000):
    return EvalScore(successes, episodes, steps, step)


def judged(best, one):
    verdict = best.judge(one)
    if verdict is EvalVerdict.BEST:
        best.keep(one, {'step': torch.tensor(one.step)})
    return verdict


def test_the_best_is_kept_and_equal_rates_are_decided_by_speed():
    best = BestCheckpoint()
    assert judged(best, score(15, step=1)) is EvalVerdict.BEST
    assert judged(best, score(14, step=2)) is EvalVerdict.FINE
    assert judged(best, score(15, steps=12.0, step=3)) is EvalVerdict.BEST
    assert judged(best, score(15, steps=13.0, step=4)) is EvalVerdict.FINE
    assert int(best.state['step']) == 3


def test_a_collapse_is_called_one_only_where_chance_does_not_explain_it():
    best = BestCheckpoint()
    judged(best, score(20))
    assert judged(best, score(15)) is EvalVerdict.FINE
    assert judged(best, score(8)) is EvalVerdict.COLLAPSED
    assert best.score == score(20)


def test_few_episodes_make_no_best():
    best = BestCheckpoint()
    assert judged(best, score(10, episodes=10)) is EvalVerdict.TOO_FEW
    assert best.score is None
    assert best.state == {}


def test_a_policy_that_never_succeeds_is_no_error():
    best = BestCheckpoint()
    assert judged(best, score(0, steps=math.nan)) is EvalVerdict.BEST
    assert judged(best, score(1)) is EvalVerdict.BEST
