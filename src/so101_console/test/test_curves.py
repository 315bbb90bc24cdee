# SPDX-License-Identifier: Apache-2.0
import json
import math

from so101_console.coach import Episodes
from so101_console.curves import Curves, HISTORY, NAMES


def row(value):
    return dict.fromkeys(NAMES, value)


def test_a_page_hears_of_each_row_once():
    curves = Curves()
    curves.add(row(1.0))
    first = curves.since(0)
    assert len(first['rows']) == 1
    assert curves.since(first['until'])['rows'] == []
    curves.add(row(2.0))
    assert [r[0] for r in curves.since(first['until'])['rows']] == [2.0]


def test_thinned_rows_are_sent_all_over_again():
    curves = Curves()
    for number in range(HISTORY):
        curves.add(row(float(number)))
    told = curves.since(0)['until']
    curves.add(row(0.0))
    again = curves.since(told)
    assert again['from'] == 0
    assert len(again['rows']) == HISTORY // 2 + 1


def test_what_is_not_known_is_null_in_json():
    curves = Curves()
    curves.add(row(math.nan))
    assert json.loads(json.dumps(curves.since(0)['rows'])) == [[None] * len(NAMES)]


def test_an_episode_is_counted_and_relabelled():
    episodes = Episodes()
    for human in (False, True, True, False, True):
        episodes.action(1, human=human)
    episodes.end(1, 'failure')
    episodes.end(1, 'success', 'it did lift it')
    (seen,) = episodes.rows(10)
    assert (seen['steps'], seen['intervened'], seen['interventions'], seen['outcome']) == (5, 3, 2, 'success')
    assert episodes.numbers()[0].success


def test_a_discarded_episode_does_not_count_for_the_coach():
    episodes = Episodes()
    episodes.action(1, human=False)
    episodes.end(1, 'discard')
    assert episodes.numbers() == []
