# SPDX-License-Identifier: Apache-2.0
import pytest

from hilserl_learner.training.log import ValueAlarm
from so101_console.coach import advice, CoachConfig, EpisodeNumbers, LearnerNumbers, Scene, summary
from so101_contract.config import Q_MARGIN


def episodes(count, *, steps=50, intervened=0, interventions=0, success=False):
    return [EpisodeNumbers(steps, intervened, interventions, success)] * count


def said(*arguments):
    return ' '.join(advice(*arguments))


def test_it_says_nothing_of_too_few_episodes():
    assert advice(episodes(4)) == []


def test_it_asks_for_help_while_hardly_anything_is_rewarded():
    text = said(episodes(20))
    assert 'at least a third' in text
    assert '20 to 30 steps' in text


def test_T10_long_and_rare_interventions_are_warned_of():
    mixed = [*episodes(18, success=True), *episodes(2, intervened=80, interventions=1, success=True)]
    assert 'long, rare ones make the learner believe in too much' in said(mixed)


def test_short_corrections_and_rewards_need_no_advice():
    assert advice(episodes(20, intervened=12, interventions=1, success=True)) == []


def test_it_says_when_no_help_is_needed_any_more():
    assert 'no help any more' in said(episodes(20, success=True))


def test_B18_P14_a_q_above_its_bound_comes_first():
    assert advice(episodes(20), LearnerNumbers(q_mean=3.0, q_bound=1.0))[0].startswith('The learner believes')


def test_without_demonstrations_it_asks_for_some():
    assert 'show the task' in said([], LearnerNumbers(state='waiting'))


def test_the_numbers_behind_the_advice_are_said_with_what_they_should_be():
    assert summary([]) == '0 of the 5 episodes that it takes to judge.'
    said = summary([EpisodeNumbers(50, 10, 1, True)] * 3 + [EpisodeNumbers(50, 0, 0, False)] * 3)
    assert '50% rewarded (at least a third)' in said
    assert '10 steps a correction' in said


def test_the_coach_and_the_learner_speak_of_divergence_at_the_same_value():
    quiet, loud = 1.0 + 0.5 * Q_MARGIN, 1.0 + 2.0 * Q_MARGIN
    assert not advice([], LearnerNumbers(q_mean=quiet, q_bound=1.0))
    assert advice([], LearnerNumbers(q_mean=loud, q_bound=1.0))
    alarm = ValueAlarm(patience=1)
    assert not alarm.update(quiet)
    assert alarm.update(loud)


@pytest.mark.parametrize(
    'habits',
    [
        {'intervened': 45, 'interventions': 1, 'success': True},
        {'intervened': 0, 'interventions': 0, 'success': False},
        {},
    ],
    ids=['long', 'alone and failing', 'nothing'],
)
def test_nobody_is_told_to_do_better_where_the_scripted_operator_helps(habits):
    scene = Scene(simulated=True, scripted=True)
    text = ' '.join(advice(episodes(20, **habits), None, CoachConfig(), scene))
    assert 'Your corrections' not in text
    assert 'help more' not in text
    assert 'scripted operator' in text


def test_an_arm_that_needs_no_help_is_to_be_tried_with_the_command_for_it():
    best = episodes(20, success=True)
    assert './so101 trial' in said(best)
    assert 'preset:=' not in said(best)
    assert 'preset:=wide' in ' '.join(advice(best, None, CoachConfig(), Scene(simulated=True)))
