# SPDX-License-Identifier: Apache-2.0
"""Sources of the reward, and how their words become one."""

from dataclasses import replace
import itertools
import math

from hypothesis import given
from hypothesis import strategies as st
import pytest

from so101_contract.errors import TaskError
from so101_contract.task.files import task_of_yaml, yaml_of_task
from so101_contract.task.reward import (
    Evidence,
    FRESH_STEPS,
    Grip,
    Jury,
    Opinion,
    RewardSource,
    sources_of,
    Word,
)
from so101_contract.task_report import Status, TaskReport, TaskState

from .truths import TRUTH

CLASSIFIER, GRIPPER, SIM, OPERATOR = (
    RewardSource.CLASSIFIER,
    RewardSource.GRIPPER,
    RewardSource.SIM,
    RewardSource.OPERATOR,
)
HELD = Evidence(commanded=0.0, opening=0.4, load=0.3)


def truth_report(**status):
    return TaskReport(0, 'lift', 'easy', TaskState(TRUTH, Status(**status), 0.0, 0))


def step(index, sees=None, holds=False, episode=1):
    """Return the evidence of a step: what a classifier says of the one before, and what the gripper feels."""
    opinion = None if sees is None else Opinion(episode, index - 1, float(sees), sees)
    held = HELD if holds else Evidence(commanded=1.0, opening=1.0, load=0.0)
    return replace(held, episode=episode, index=index, opinion=opinion)


def words(jury, steps):
    return [jury.judge(evidence)[0] for evidence in steps]


@pytest.mark.parametrize(
    ('text', 'wanted'),
    [('sim', (SIM,)), ('classifier,gripper', (CLASSIFIER, GRIPPER)), (' gripper , sim', (GRIPPER, SIM))],
)
def test_sources_are_named_with_commas_between(text, wanted):
    assert sources_of(text) == wanted


@pytest.mark.parametrize('text', ['', 'truth', 'sim,', 'sim,sim', 'gripper;sim', 'x' * 1000])
def test_what_is_no_source_is_refused_with_those_that_there_are(text):
    with pytest.raises(TaskError, match='sim, operator, classifier, gripper') as caught:
        sources_of(text)
    assert len(str(caught.value)) < 300


def test_the_human_is_no_source_beside_others_since_a_word_of_theirs_always_counts():
    with pytest.raises(TaskError, match='counts beside every other'):
        sources_of('classifier,operator')


def test_the_operator_alone_ends_nothing():
    jury = Jury((OPERATOR,), hold_steps=1)
    assert words(jury, [step(k, sees=True, holds=True) for k in range(1, 9)]) == [Word.OPEN] * 8
    jury.veto()
    assert not jury.vetoed


def test_success_must_last_for_so_many_steps_in_a_row():
    jury = Jury((CLASSIFIER,), hold_steps=3)
    seen = [True, True, False, True, True, True]
    assert words(jury, [step(k, sees) for k, sees in enumerate(seen, 1)]) == [Word.OPEN] * 5 + [Word.SUCCESS]


def test_another_episode_begins_anew():
    jury = Jury((GRIPPER,), hold_steps=2)
    jury.judge(HELD)
    jury.begin()
    assert jury.judge(HELD)[0] is Word.OPEN
    assert jury.judge(HELD)[0] is Word.SUCCESS


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30),
    st.integers(1, 4),
)
def test_a_conjunction_says_success_just_where_all_have_said_so_for_long_enough(said, hold):
    jury = Jury((CLASSIFIER, GRIPPER), hold_steps=hold)
    told = words(jury, [step(k, sees, holds) for k, (sees, holds) in enumerate(said, 1)])
    for k, word in enumerate(told):
        lasted = k + 1 >= hold and all(sees and holds for sees, holds in said[k + 1 - hold : k + 1])
        assert (word is Word.SUCCESS) == lasted


def test_one_failure_is_enough():
    jury = Jury((SIM, GRIPPER), hold_steps=3)
    lost = replace(HELD, report=truth_report(failure=True, reason='the cube is out of reach'))
    assert jury.judge(lost) == (Word.FAILURE, 'the cube is out of reach')


def test_the_simulation_alone_has_held_already_and_in_a_conjunction_all_must():
    done = replace(HELD, report=truth_report(success=True))
    assert Jury((SIM,), hold_steps=3).judge(done)[0] is Word.SUCCESS
    both = Jury((SIM, GRIPPER), hold_steps=3)
    assert words(both, [done] * 3) == [Word.OPEN, Word.OPEN, Word.SUCCESS]


def test_why_names_every_source():
    jury = Jury((CLASSIFIER, GRIPPER))
    assert jury.judge(step(1, sees=True, holds=True)) == (
        Word.SUCCESS,
        'the classifier sees it and the gripper holds something',
    )


# --- the human's veto ---


def test_a_veto_holds_back_what_the_sources_take_for_success_until_they_have_let_go_of_it():
    jury = Jury((GRIPPER,), hold_steps=2)
    free = Evidence(commanded=1.0, opening=1.0)
    jury.judge(HELD)
    jury.veto()
    assert words(jury, [HELD] * 5) == [Word.OPEN] * 5
    assert words(jury, [free, HELD, HELD, HELD]) == [Word.OPEN] * 4, 'a source that flickers has not let go'
    assert words(jury, [free, free]) == [Word.OPEN] * 2
    assert not jury.vetoed
    assert words(jury, [HELD, HELD]) == [Word.OPEN, Word.SUCCESS]


def test_a_failure_counts_in_spite_of_a_veto():
    jury = Jury((SIM,))
    jury.veto()
    assert jury.judge(Evidence(report=truth_report(failure=True, reason='lost')))[0] is Word.FAILURE


# --- the classifier ---


def test_no_picture_counts_twice_however_long_the_classifier_is_silent():
    jury = Jury((CLASSIFIER,), hold_steps=2)
    seen = Opinion(1, 4, 0.9, True)
    late = [Evidence(episode=1, index=k, opinion=seen) for k in range(5, 5 + FRESH_STEPS)]
    assert words(jury, late) == [Word.OPEN] * len(late)
    assert jury.judge(Evidence(episode=1, index=9, opinion=Opinion(1, 8, 0.9, True)))[0] is Word.SUCCESS


def test_a_classifier_that_has_been_silent_for_too_long_has_said_nothing():
    jury = Jury((CLASSIFIER,), hold_steps=2)
    seen = Opinion(1, 4, 0.9, True)
    words(jury, [Evidence(episode=1, index=k, opinion=seen) for k in range(5, 5 + FRESH_STEPS + 1)])
    assert jury.judge(Evidence(episode=1, index=9, opinion=Opinion(1, 8, 0.9, True)))[0] is Word.OPEN


@pytest.mark.parametrize(
    'opinion',
    [
        None,
        Opinion(2, 4, 0.99, True),
        Opinion(1, 6, 0.99, True),
        Opinion(1, 4, 0.99, True, 'the light is another one'),
        Opinion(1, 4, 0.2, False),
    ],
    ids=['nothing', 'another episode', 'the future', 'it cannot tell', 'it sees none'],
)
def test_a_classifier_says_nothing(opinion):
    assert Jury((CLASSIFIER,)).judge(Evidence(episode=1, index=5, opinion=opinion))[0] is Word.OPEN


# --- the gripper ---


@pytest.mark.parametrize(
    ('change', 'holds'),
    [
        ({}, True),
        ({'load': math.nan}, True),
        ({'commanded': 0.39}, False),
        ({'opening': 0.02}, False),
        ({'opening': 0.9, 'commanded': 0.5}, False),
        ({'load': 0.01}, False),
        ({'opening': math.nan}, False),
        ({'commanded': math.nan}, False),
    ],
    ids=['held', 'no load known', 'not closing', 'on nothing', 'open', 'no press', 'no joints', 'no action'],
)
def test_the_gripper_holds_something_where_closing_meets_it_within_the_band_and_presses(change, holds):
    jury = Jury((GRIPPER,), grip=Grip(opening=(0.1, 0.75), squeeze=0.05, load=0.05))
    assert (jury.judge(replace(HELD, **change))[0] is Word.SUCCESS) == holds


@pytest.mark.parametrize('opening', [(0.5, 0.5), (0.6, 0.2), (-0.1, 0.5), (0.1, 1.5)])
def test_a_band_that_is_none_is_refused(opening):
    with pytest.raises(TaskError, match='low, high'):
        Grip(opening=opening)


# --- in a task ---

TASK = 'name: mine\ninstruction: Do it.\n'


def test_a_task_names_its_sources_and_its_grip_and_the_file_says_them_again():
    task = task_of_yaml(
        TASK + 'reward:\n  source: classifier,gripper\n  hold_s: 0.5\n  grip:\n    opening: [0.2, 0.6]\n'
    )
    assert sources_of(task.reward.source) == (CLASSIFIER, GRIPPER)
    assert task.reward.grip == Grip(opening=(0.2, 0.6))
    assert task_of_yaml(yaml_of_task(task)) == task


def test_a_task_without_a_grip_has_the_hash_that_it_always_had():
    plain, gripped = task_of_yaml(TASK), task_of_yaml(TASK + 'reward:\n  grip:\n    load: 0.1\n')
    assert '"grip"' not in plain.canonical()
    assert plain.hash != gripped.hash


@pytest.mark.parametrize('source', ['truth', 'operator,sim', '[sim]', '7'])
def test_a_task_with_a_source_that_there_is_not_is_refused(source):
    with pytest.raises(TaskError):
        task_of_yaml(f'{TASK}reward:\n  source: {source}\n')


def test_every_pair_of_sources_but_the_human_can_be_named():
    pairs = itertools.permutations(['sim', 'classifier', 'gripper'], 2)
    assert all(len(sources_of(','.join(pair))) == 2 for pair in pairs)
