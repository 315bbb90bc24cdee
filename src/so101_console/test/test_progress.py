# SPDX-License-Identifier: Apache-2.0
"""One sentence that says whether it is getting better, and how sure that is."""

from so101_console.coach import EpisodeNumbers
from so101_console.headline import progress


def episodes(*outcomes, helped=False):
    return [EpisodeNumbers(20, 5 * helped, int(helped), bool(good)) for good in outcomes]


def test_too_few_episodes_say_after_how_many_more_it_can_be_said():
    assert progress([]) == 'Is it getting better? That can be said after 5 more episodes.'
    assert progress(episodes(1, 1, 1, 1)).endswith('after 1 more episode.')


def test_the_first_ones_have_a_rate_with_its_interval_and_nothing_to_compare_with():
    said = progress(episodes(*[1] * 5))
    assert said == (
        'Last 5 episodes: 100% succeeded (57 to 100 %). There are too few before them to compare with.'
    )


def test_a_clear_difference_is_said_and_a_small_one_may_be_chance():
    bad, good = episodes(*[0] * 20), episodes(*[1] * 20)
    assert progress(bad + good).startswith('It is getting better. Last 20 episodes: 100% succeeded')
    assert progress(good + bad).startswith('It is getting worse.')
    half = episodes(*[0, 1] * 10)
    assert progress(half + half).startswith('It is as it was.')
    slightly = episodes(*[0, 1] * 9, 1, 1)
    assert progress(half + slightly).startswith('It seems better, but that may be chance.')
    assert progress(slightly + half).startswith('It seems worse, but that may be chance.')


def test_successes_with_help_are_told_apart():
    said = progress(episodes(*[1] * 6, helped=True) + episodes(*[1] * 4))
    assert ', 4 of them without help.' in said
