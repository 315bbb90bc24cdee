# SPDX-License-Identifier: Apache-2.0
import numpy as np

from so101_contract.session import EventKind
from so101_sim.human.expert import Expert
from so101_sim.human.operator import Habits, Operator
from so101_sim.human.session_human import SessionHuman
from so101_sim.tasks import Lift

PROMPT = Habits(patience_steps=4, reaction_steps=(0, 0), shortest_steps=3, hand_back=(0.0, 1.0, 0.0))
HELD = {'touches_static': True, 'touches_moving': True, 'on_table': False, 'cube_position': (0.25, 0.0, 0.05)}


def watching() -> SessionHuman:
    made = SessionHuman(Operator(Lift(), habits=PROMPT), np.random.default_rng(0))
    made.event(EventKind.START, 1)
    return made


def demonstrating() -> SessionHuman:
    return SessionHuman(Expert(Lift()), np.random.default_rng(0))


def test_who_demonstrates_takes_over_when_an_episode_starts_and_answers_every_step(make_truth):
    human = demonstrating()
    assert human.event(EventKind.START, 1).intervene is True
    turns = [human.step(1, False, make_truth(time_s=0.1 * k)) for k in range(5)]
    assert all(turn.action is not None for turn in turns)


def test_nobody_answers_the_last_step(make_truth):
    human = demonstrating()
    human.event(EventKind.START, 1)
    assert human.step(1, True, make_truth()).action is None


def test_who_demonstrates_lets_go_when_the_episode_is_over():
    human = demonstrating()
    human.event(EventKind.START, 1)
    assert human.event(EventKind.SUCCESS, 1).intervene is False
    assert not human.acting
    assert (human.account.episodes, human.account.successes) == (1, 1)


def test_who_joins_in_the_middle_of_an_episode_takes_part(make_truth):
    turn = demonstrating().step(7, False, make_truth())
    assert turn.intervene is True
    assert turn.action is not None


def test_an_episode_whose_start_nobody_heard_is_begun_as_soon_as_the_session_says_that_it_waits():
    human = demonstrating()
    assert human.armed(3).intervene is True
    assert human.armed(3).intervene is None
    assert human.event(EventKind.START, 3).intervene is None
    assert human.event(EventKind.SUCCESS, 3).intervene is False
    assert human.armed(3).intervene is None, 'what was said before it ended comes late'
    assert human.event(EventKind.START, 4).intervene is True


def test_a_start_that_its_steps_have_overtaken_begins_nothing_anew(make_truth):
    human = SessionHuman(Operator(Lift(), habits=PROMPT), np.random.default_rng(0))
    turns = [human.step(1, False, make_truth(time_s=0.1 * k)) for k in range(8)]
    turns.append(human.event(EventKind.START, 1))
    turns += [human.step(1, False, make_truth(time_s=0.8 + 0.1 * k)) for k in range(8)]
    assert [turn.intervene for turn in turns if turn.intervene is not None] == [True]
    assert human.acting
    human.event(EventKind.START, 1)  # the session was started again
    assert not human.acting


def test_an_intervention_takes_over_and_gives_back_once(make_truth):
    human = watching()
    turns = [human.step(1, False, make_truth(time_s=0.1 * k)) for k in range(8)]
    turns += [human.step(1, False, make_truth(time_s=0.8 + 0.1 * k, **HELD)) for k in range(3)]
    assert [turn.intervene for turn in turns if turn.intervene is not None] == [True, False]
    acted = [turn.action is not None for turn in turns]
    begun, ended = (next(k for k, t in enumerate(turns) if t.intervene is wish) for wish in (True, False))
    assert acted == [begun <= k <= ended for k in range(len(turns))]


def test_an_episode_that_ends_ends_the_intervention(make_truth):
    human = watching()
    while not human.acting:
        human.step(1, False, make_truth())
    assert human.event(EventKind.TIME_LIMIT, 1).intervene is False
    assert not human.acting
    assert human.account.interventions == [1]


def test_while_another_human_helps_it_only_watches(make_truth):
    human = watching()
    human.event(EventKind.INTERVENTION_START, 1)
    assert not any(human.step(1, False, make_truth()).action for _ in range(20))
    human.event(EventKind.INTERVENTION_END, 1)
    assert any(human.step(1, False, make_truth()).action for _ in range(20))


def test_a_late_label_of_another_episode_changes_nothing(make_truth):
    human = watching()
    while not human.acting:
        human.step(1, False, make_truth())
    assert human.event(EventKind.DISCARD, 0).intervene is None
    assert human.acting


def test_an_aborted_episode_does_not_count():
    human = demonstrating()
    human.event(EventKind.START, 1)
    human.event(EventKind.ABORT, 1)
    assert human.account.episodes == 0
