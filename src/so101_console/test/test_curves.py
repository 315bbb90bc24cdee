# SPDX-License-Identifier: Apache-2.0
import json
import math

import pytest

from so101_console.coach import CoachConfig, EpisodeNumbers, Episodes
from so101_console.curves import CHARTS, charts, Curves, HISTORY, NAMES
from so101_contract.interval import wilson

GOOD = EpisodeNumbers(steps=50, intervened=10, interventions=1, success=True)
ALONE = EpisodeNumbers(steps=40, intervened=0, interventions=0, success=True)
BAD = EpisodeNumbers(steps=100, intervened=0, interventions=0, success=False)


def rows(curves, told=0):
    return [dict(zip(NAMES, row, strict=True)) for row in curves.since(told)['rows']]


def test_there_is_a_row_for_each_episode_with_the_success_of_the_last_twenty_and_its_interval():
    curves = Curves()
    for number in range(1, 31):
        curves.close(0, number, BAD if number <= 15 else ALONE if number % 2 else GOOD, number / 10)
    seen = rows(curves)
    assert [row['episode'] for row in seen] == list(range(1, 31))
    assert seen[-1]['success'] == 0.75
    assert seen[-1]['unaided'] == 0.35
    assert (seen[-1]['success_low'], seen[-1]['success_high']) == pytest.approx(wilson(15, 20), abs=1e-4)
    assert seen[-1]['correction'] == 10.0
    assert seen[-1]['human_minutes'] == 3.0


def test_a_page_hears_of_each_row_once_and_again_of_the_one_that_has_changed():
    curves = Curves()
    curves.close(0, 1, GOOD)
    first = curves.since(0)
    assert len(first['rows']) == 1
    assert curves.since(first['until'])['rows'] == []
    curves.close(0, 2, BAD)
    told = curves.since(first['until'])
    assert (told['from'], [row[0] for row in told['rows']]) == (1, [2])
    curves.hear({'q_mean': 0.5, 'q_bound': 1.0})
    again = curves.since(told['until'])
    assert again['from'] == 1
    assert dict(zip(NAMES, again['rows'][0], strict=True))['q_mean'] == 0.5


def test_a_late_label_corrects_every_row_that_the_episode_has_a_part_in():
    curves = Curves()
    for number in range(1, 41):
        curves.close(0, number, BAD)
    told = curves.since(0)['until']
    curves.close(0, 10, GOOD)
    assert curves.since(told)['from'] == 9
    changed = {row['episode'] for row in rows(curves) if row['success']}
    assert changed == set(range(10, 30))
    curves.close(0, 10, None)
    assert not any(row['success'] for row in rows(curves)), 'one that is thrown away counts for nothing'


def test_the_numbers_of_a_session_that_began_anew_go_on_behind_the_others():
    curves = Curves()
    for life, number in ((0, 1), (0, 2), (1, 1), (1, 2)):
        curves.close(life, number, GOOD)
    assert [row['episode'] for row in rows(curves)] == [1, 2, 3, 4]


def test_many_episodes_are_thinned_and_sent_all_over_again():
    curves = Curves()
    for number in range(1, HISTORY + 1):
        curves.close(0, number, GOOD)
    told = curves.since(0)['until']
    curves.close(0, HISTORY + 1, BAD)
    again = curves.since(told)
    assert again['from'] == 0
    assert HISTORY // 2 <= len(again['rows']) <= HISTORY // 2 + 1
    assert again['rows'][-1][0] == HISTORY + 1
    for number in range(HISTORY + 2, 3 * HISTORY):
        curves.close(0, number, BAD)
    assert len(curves.since(0)['rows']) <= HISTORY


def test_what_is_not_known_is_null_in_json():
    curves = Curves()
    curves.hear({'q_mean': math.nan})
    told = json.loads(json.dumps(curves.since(0)))
    assert told['rows'] == [[0] + [None] * (len(NAMES) - 1)]


def test_the_healthy_ranges_are_the_thresholds_of_the_coach():
    told = {
        chart['title']: chart['healthy']
        for chart in charts(CoachConfig(coach_long_steps=12, coach_rewarded=0.4))
    }
    assert told['Success'] == [0.4, None]
    assert told['Correction'] == [None, 12.0]
    assert told['Q of its bound'] == [None, 'q_bound']
    assert len(told) == len(CHARTS)


def test_an_episode_is_counted_and_relabelled():
    episodes = Episodes()
    for human in (False, True, True, False, True):
        episodes.action(1, human=human)
    episodes.end(1, 'failure')
    episodes.end(1, 'success', 'it did lift it')
    (seen,) = episodes.rows(10)
    assert (seen['steps'], seen['intervened'], seen['interventions'], seen['outcome']) == (5, 3, 2, 'success')
    assert episodes.numbers()[0].success


def test_a_session_that_begins_anew_relabels_no_episode_of_the_one_before():
    episodes = Episodes()
    for _ in range(2):
        episodes.begin(1)
        episodes.action(1, human=False)
        episodes.end(1, 'failure')
    episodes.end(1, 'success')
    newest, before = episodes.rows(10)
    assert (newest['outcome'], before['outcome']) == ('success', 'failure')
    assert newest['correctable']
    assert not before['correctable']


def test_a_discarded_episode_does_not_count_for_the_coach():
    episodes = Episodes()
    episodes.action(1, human=False)
    episodes.end(1, 'discard')
    assert episodes.numbers() == []
