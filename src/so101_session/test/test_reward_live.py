# SPDX-License-Identifier: Apache-2.0
"""Rewards without the truth: what the session does with the words of its sources and of the human."""

import pytest
from session_world import world

from so101_contract.session import Outcome
from so101_contract.task.reward import Evidence
from so101_contract.task_report import Status
from so101_interfaces_py.params import ParameterError
from so101_session.session.episode import SessionError

HELD = Evidence(opening=0.5, load=0.3)
"""The gripper is commanded to close, by `opening` of the world, and something is between its fingers."""


def running(**config):
    w = world(**{'simulated': True, **config})
    if not w.config.auto:
        w.start()
    w.until('running')
    w.advance(0.5)
    return w


def test_an_episode_ends_where_the_classifier_has_seen_success_for_long_enough():
    w = running(reward_source='classifier', episodes=1)
    w.sees = True
    before = len(w.steps)
    w.until('done')
    assert len(w.steps) - before == 3, 'as the usual 0.3 s say'
    assert (w.steps[-1].terminated, w.steps[-1].reward) == (True, 1.0)
    assert w.events[-1].reason == 'the classifier sees it'


def test_a_conjunction_waits_for_the_gripper():
    w = running(reward_source='classifier,gripper', time_limit_steps=1000)
    w.sees = True
    w.advance(2.0)
    assert w.session.episode is not None
    w.opening, w.evidence = 0.0, HELD
    w.until('waiting')
    assert w.events[-1].reason == 'the classifier sees it and the gripper holds something'


def test_the_truth_decides_nothing_where_it_is_no_source_and_is_told_beside_what_was_called_so():
    w = running(reward_source='classifier', time_limit_steps=30, episodes=3)
    w.status = Status(success=True, good_steps=3)
    w.advance(0.5)
    assert w.session.episode is not None
    w.until('waiting')
    assert w.kinds[-1] == 'TIME_LIMIT'
    assert any('in truth a success' in sentence for sentence in w.sentences)
    w.sees = True
    w.until('done')
    account = w.session.account
    assert account.measured() == {'measured': 3, 'truly': 1, 'false_success': 2, 'false_failure': 1}
    assert any('in truth none' in sentence for sentence in w.sentences)


def test_a_veto_keeps_the_episode_running_until_the_sources_have_let_go():
    w = running(reward_source='classifier', time_limit_steps=1000)
    w.sees = True
    w.take(w.session.see(False))
    assert w.kinds[-1] == 'NOT_YET'
    w.advance(2.0)
    assert w.session.episode is not None
    w.sees = False
    w.advance(0.5)
    w.sees = True
    w.until('waiting')
    assert 'SUCCESS' in w.kinds


def test_a_veto_names_the_step_that_the_human_has_seen():
    w = running(reward_source='classifier')
    w.take(w.session.see(False))
    event = w.events[-1]
    assert (event.episode, event.index) == (1, w.steps[-1].index)


def test_success_now_labels_pictures_and_ends_nothing():
    w = running(reward_source='operator', time_limit_steps=1000)
    w.take(w.session.see(True))
    w.advance(1.0)
    assert w.kinds[-1] == 'SUCCESS_NOW'
    assert w.session.episode is not None


def test_not_yet_right_after_a_success_makes_it_one_that_was_cut_short():
    w = running(reward_source='classifier', auto=False)
    w.sees = True
    w.until('waiting')
    assert w.session.account.last == (1, Outcome.SUCCESS)
    w.take(w.session.see(False))
    assert w.session.account.last == (1, Outcome.TIME_LIMIT)
    assert (w.kinds[-1], w.events[-1].episode) == ('TIME_LIMIT', 1)
    with pytest.raises(SessionError, match='nothing to do'):
        w.session.see(False)
    w.take(w.session.see(True))
    assert w.kinds[-1] == 'SUCCESS'


def test_a_word_about_nothing_is_refused():
    w = world(simulated=True)
    with pytest.raises(SessionError, match='press Start'):
        w.session.see(True)


def test_another_episode_begins_without_the_veto_of_the_one_before():
    w = running(reward_source='classifier', time_limit_steps=20, episodes=2)
    w.take(w.session.see(False))
    w.until('waiting')
    w.sees = True
    w.until('done')
    assert w.kinds[-1] == 'SUCCESS'


def test_what_is_no_source_stops_the_node_with_a_sentence():
    with pytest.raises(ParameterError, match='reward_source'):
        world(reward_source='truth')


def test_a_classifier_that_cannot_tell_is_told_while_the_episode_runs():
    w = running(reward_source='classifier', time_limit_steps=1000)
    w.advance(2.0)
    assert 'classifier is silent' in w.session.sentence
    w.sees = False
    w.advance(0.5)
    assert 'classifier' not in w.session.sentence
