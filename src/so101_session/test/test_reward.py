# SPDX-License-Identifier: Apache-2.0
"""Outcomes, rewards, and the account of episodes."""

import pytest
from session_world import truth

from so101_contract.session import Outcome, Source
from so101_contract.task.reward import Evidence
from so101_contract.task.spec import Ending
from so101_contract.task_report import Status, TaskReport, TaskState
from so101_session.session.episode import Account, Episode, SessionError, Verdict
from so101_session.session.step import jury_of, Rewards, verdict_of


def report(resets=3, **status):
    return TaskReport(0, 'lift', 'easy', TaskState(truth(), Status(**status), 0.0, resets))


def test_the_first_step_has_earned_nothing():
    assert Rewards(step=-0.1).of(0, Outcome.SUCCESS) == 0.0


@pytest.mark.parametrize(
    ('outcome', 'reward'),
    [
        (None, -0.1),
        (Outcome.SUCCESS, 9.9),
        (Outcome.FAILURE, -1.1),
        (Outcome.TIME_LIMIT, -0.1),
        (Outcome.ABORT, -0.1),
    ],
)
def test_a_step_earns_its_own_reward_and_the_one_of_the_outcome(outcome, reward):
    assert Rewards(success=10.0, failure=-1.0, step=-0.1).of(5, outcome) == pytest.approx(reward)


def judged(told, ends=tuple(Ending)):
    jury = jury_of('sim', 10.0)
    return verdict_of(*jury.judge(Evidence(resets=3, report=told)), ends)


def test_the_judge_of_the_simulation_is_followed():
    assert judged(report(success=True)).outcome is Outcome.SUCCESS
    assert judged(report(failure=True, reason='lost')) == Verdict(Outcome.FAILURE, 'lost')
    assert judged(report()) is None
    assert judged(None) is None


def test_what_does_not_end_episodes_of_a_task_does_not():
    assert judged(report(success=True), (Ending.FAILURE, Ending.TIME_LIMIT)) is None
    assert judged(report(failure=True, reason='lost'), (Ending.SUCCESS, Ending.TIME_LIMIT)) is None


def test_a_report_from_before_the_reset_is_not_followed():
    assert judged(report(resets=2, success=True)) is None


def test_the_truth_of_a_simulation_stands_beside_what_episodes_are_called():
    account = Account()
    for number, (told, truly) in enumerate(
        [
            (Outcome.SUCCESS, True),
            (Outcome.SUCCESS, False),
            (Outcome.TIME_LIMIT, True),
            (Outcome.FAILURE, False),
            (Outcome.ABORT, True),
        ],
        1,
    ):
        episode = Episode(number, 10, resets=3)
        episode.measure(report(resets=2, success=True))  # of the episode before
        episode.measure(report(success=truly))
        account.close(episode, told)
    assert account.measured() == {'measured': 4, 'truly': 2, 'false_success': 1, 'false_failure': 1}
    account.relabel(2, Outcome.TIME_LIMIT)
    assert account.measured()['false_success'] == 0


def test_a_goal_that_is_reached_as_the_episode_ends_is_no_false_success():
    episode = Episode(1, 10)
    episode.measure(report(good_steps=1))
    assert episode.done_in_truth
    episode.measure(report())
    assert episode.done_in_truth is False
    assert Episode(2, 10).done_in_truth is None


def test_the_first_verdict_counts_but_a_human_may_still_throw_the_episode_away():
    episode = Episode(1, 100)
    episode.end(Verdict(Outcome.SUCCESS))
    episode.end(Verdict(Outcome.FAILURE))
    assert episode.verdict.outcome is Outcome.SUCCESS
    episode.end(Verdict(Outcome.DISCARD))
    assert episode.verdict.outcome is Outcome.DISCARD


def test_discarded_and_aborted_episodes_do_not_count():
    account = Account()
    for number, outcome in enumerate(Outcome, 1):
        account.close(Episode(number, 10), outcome)
    assert account.counted == 3


def test_T10_share_and_length_of_interventions_are_counted():
    episode = Episode(1, 100)
    for source in (1, 1, 2, 2, 0, 2, 1, 2, 1, 1):
        episode.note(Source(source))
    assert (episode.actions, episode.runs) == (9, [3, 1])
    account = Account()
    account.close(episode, Outcome.SUCCESS)
    assert account.intervention_rate == pytest.approx(4 / 9)
    assert account.intervention_length == 2.0


def test_an_unknown_episode_cannot_be_relabelled():
    account = Account()
    account.close(Episode(1, 10), Outcome.SUCCESS)
    assert account.relabel(0, Outcome.FAILURE) == 1
    with pytest.raises(SessionError, match='1 to 1'):
        account.relabel(2, Outcome.SUCCESS)


def test_the_account_says_what_became_of_the_episodes():
    account = Account()
    assert str(account) == 'no episode yet'
    account.close(Episode(1, 10), Outcome.SUCCESS)
    account.close(Episode(2, 10), Outcome.TIME_LIMIT)
    assert str(account) == '2 episodes: 1 success, 1 time limit'
