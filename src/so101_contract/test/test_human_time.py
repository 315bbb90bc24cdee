# SPDX-License-Identifier: Apache-2.0
"""What a session costs a human, counted from its events."""

import math

import pytest

from so101_contract.human_time import HumanTime, LABEL_S, MadeUpSession, UNAIDED, WINDOW
from so101_contract.messages import EpisodeEventRecord
from so101_contract.session import EventKind as K
from so101_contract.session import HumanSeconds, Outcome

S = 1_000_000_000


def counted(
    *events: tuple[float, K, int] | tuple[float, K, int, int] | tuple[float, K, int, int, bool],
) -> HumanTime:
    """Return the count of events: second, kind, episode, index, and whether a human says so."""
    time = HumanTime()
    for second, kind, episode, *more in events:
        index, by_human = (*more, *(0, False)[len(more) :])
        time.event(EpisodeEventRecord(episode, kind, round(second * S), index, by_human=by_human))
    return time


def test_a_takeover_lasts_until_the_human_gives_back_or_the_episode_ends():
    time = counted(
        (0, K.START, 1), (2, K.INTERVENTION_START, 1, 20), (5, K.INTERVENTION_END, 1, 50),
        (6, K.INTERVENTION_START, 1, 60), (8, K.INTERVENTION_END, 1, 80), (8, K.SUCCESS, 1, 80),
    )  # fmt: skip
    assert time.spent() == HumanSeconds(takeovers=5.0)


def test_a_human_that_drives_from_the_first_step_on_demonstrates():
    time = counted(
        (0, K.START, 1),
        (1, K.INTERVENTION_START, 1, 0),
        (7, K.INTERVENTION_END, 1, 60),
        (7, K.SUCCESS, 1, 60),
    )
    assert time.spent() == HumanSeconds(demonstrations=6.0)


def test_what_goes_on_is_counted_up_to_now():
    time = counted((0, K.START, 1), (2, K.INTERVENTION_START, 1, 20))
    assert time.spent().takeovers == 0.0
    assert time.spent(5 * S).takeovers == 3.0
    assert time.spent(1 * S).takeovers == 0.0  # a clock that was set back


def test_a_label_costs_its_time_also_a_late_one():
    time = counted(
        (0, K.START, 1),
        (9, K.SUCCESS, 1, 90, True),
        (30, K.FAILURE, 1, 0, True),
        (31, K.START, 2),
        (40, K.SUCCESS, 2),
    )
    assert time.spent() == HumanSeconds(labels=2 * LABEL_S)


def test_resets_and_waiting_go_until_they_are_over_and_pauses_are_waiting():
    time = counted(
        (0, K.NEED_START, 0), (4, K.NEED_OVER, 0), (5, K.START, 1), (6, K.INTERVENTION_START, 1, 10),
        (8, K.PAUSE, 1, 30), (11, K.RESUME, 1, 30), (12, K.TIME_LIMIT, 1, 40), (13, K.NEED_RESET, 0),
        (20, K.NEED_OVER, 0), (21, K.PUT_BACK, 0),
    )  # fmt: skip
    assert time.spent() == HumanSeconds(takeovers=3.0, resets=7.0, waiting=7.0)
    assert (time.by_arm, time.by_human) == (1, 1)
    assert time.spent().worked == 10.0


def session_of(good: list[bool]) -> MadeUpSession:
    """Return a session: a demonstration, then an episode of ten steps for each, helped for two where it was not good."""
    made = MadeUpSession(0.1)
    for _ in range(30):
        made.step(by_human=True)
    made.end(Outcome.SUCCESS)
    for unaided in good:
        for step in range(10):
            made.step(by_human=not unaided and step >= 8)
        made.end(Outcome.SUCCESS)
    return made


def test_the_minutes_until_unaided_are_those_up_to_the_first_window_that_is_good_enough():
    enough = math.ceil(UNAIDED * WINDOW)
    bad = [False] * 10
    time = session_of(bad + [True] * (WINDOW - 1)).time
    assert time.until_unaided_s == pytest.approx(3.0 + 10 * 0.2)
    assert math.isnan(session_of(bad + [True] * (enough - 1)).time.until_unaided_s)
    assert time.spent() == HumanSeconds(demonstrations=3.0, takeovers=2.0)
    later = session_of(bad + [True] * WINDOW + [False] * 5).time
    assert later.until_unaided_s == time.until_unaided_s  # what comes afterwards changes nothing


def test_a_late_label_changes_what_was_unaided():
    time = HumanTime()
    for episode in range(1, WINDOW + 1):
        time.event(EpisodeEventRecord(episode, K.START, 10 * episode * S))
        time.event(EpisodeEventRecord(episode, K.SUCCESS, 10 * episode * S + S))
    assert time.until_unaided_s == 0.0
    for episode in (3, 5, 7):
        time.event(EpisodeEventRecord(episode, K.FAILURE, 900 * S, by_human=True))
    assert math.isnan(time.until_unaided_s)


def test_what_was_thrown_away_or_cut_short_says_nothing_of_the_policy():
    time = HumanTime()
    for episode in range(1, 2 * WINDOW):
        kind = K.SUCCESS if episode % 2 else (K.DISCARD if episode % 4 else K.ABORT)
        time.event(EpisodeEventRecord(episode, K.START, 10 * episode * S))
        time.event(EpisodeEventRecord(episode, kind, 10 * episode * S + S))
    assert time.until_unaided_s == 0.0


def test_events_that_make_no_sense_cost_nothing_and_break_nothing():
    time = counted(
        (5, K.SUCCESS, 9, 0, False), (4, K.RESUME, 1), (3, K.INTERVENTION_END, 4), (2, K.NEED_OVER, 0),
        (9, K.INTERVENTION_START, 3, 4), (1, K.START, 1), (0, K.ABORT, 2),
    )  # fmt: skip
    assert time.spent() == HumanSeconds()


def test_the_sentence_and_the_report_say_the_same():
    time = session_of([True] * WINDOW).time
    assert 'demonstrations 0.1' in time.sentence
    assert 'unaided after' in time.sentence
    report = time.report()
    assert report['human_min'] == report['demonstrations_min'] == 0.05
    assert session_of([]).time.report()['until_unaided_min'] is None
