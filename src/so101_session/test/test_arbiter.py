# SPDX-License-Identifier: Apache-2.0
"""Every step gets exactly one action, from one source; hands change cleanly."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.action import ActionSpec
from so101_contract.errors import ActionError
from so101_contract.messages import ExecutedAction
from so101_contract.session import Source
from so101_session.session.arbiter import Arbiter, HandOver, Stop
from so101_session.session.takeover import GripperRamp, Takeover, TakeoverRules

PERIOD = 0.1
NAN = float('nan')


def make(**rules):
    ramp = GripperRamp(0.2, 5)
    ramp.begin(0.5)
    return Arbiter(ActionSpec(), Takeover(TakeoverRules(**rules)), ramp, PERIOD)


def policy(index, episode=1, x=0.01, opening=0.5):
    return ExecutedAction(episode, index, (x, 0.0, 0.0), opening, Source.POLICY)


def human(x=-0.01, opening=0.5):
    return ExecutedAction(0, 0, (x, 0.0, 0.0), opening, Source.TELEOP)


def actions(answers):
    return [answer for answer in answers if isinstance(answer, ExecutedAction)]


def sources(answers):
    return [action.source for action in actions(answers)]


def test_the_policy_answers_its_step_at_once():
    arbiter = make()
    arbiter.open_step(1, 0, 0.0)
    (answer,) = arbiter.policy(policy(0), 0.02)
    assert (answer.episode, answer.index, answer.source) == (1, 0, Source.POLICY)
    assert answer.translation.tolist() == [0.01, 0.0, 0.0]


def test_a_second_answer_to_a_step_is_dropped_and_counted():
    arbiter = make()
    arbiter.open_step(1, 0, 0.0)
    arbiter.policy(policy(0), 0.02)
    assert arbiter.policy(policy(0), 0.03) == []
    assert arbiter.counts['repeated'] == 1


def test_a_late_answer_is_dropped_and_counted():
    arbiter = make()
    arbiter.open_step(1, 0, 0.0)
    arbiter.close_step()
    arbiter.open_step(1, 1, 0.1)
    assert arbiter.policy(policy(0), 0.11) == []
    assert arbiter.counts['late'] == 1


def test_T8_an_answer_that_the_next_one_would_overtake_is_not_executed():
    arbiter = make()
    arbiter.open_step(1, 0, 0.0)
    assert arbiter.policy(policy(0), 0.09) == []
    assert sources(arbiter.close_step()) == [Source.NONE]
    assert arbiter.counts['late'] == 1


def test_T8_what_a_human_says_at_the_end_of_a_step_is_for_the_next_one():
    arbiter = make()
    arbiter.intervene(True, 0.0)
    arbiter.open_step(1, 0, 0.0)
    assert actions(arbiter.teleop(human(), 0.09)) == []
    arbiter.close_step()
    assert sources(arbiter.open_step(1, 1, 0.1)) == [Source.TELEOP]


def test_an_answer_to_another_episode_is_dropped():
    arbiter = make()
    arbiter.open_step(2, 0, 0.0)
    assert arbiter.policy(policy(0, episode=1), 0.01) == []
    assert arbiter.counts['foreign'] == 1


def test_a_step_without_an_answer_ends_with_a_hold():
    arbiter = make()
    arbiter.ramp.begin(0.3)
    arbiter.open_step(1, 0, 0.0)
    (hold,) = arbiter.close_step()
    assert (hold.index, hold.source, hold.opening) == (0, Source.NONE, 0.3)
    assert not hold.translation.any()
    assert arbiter.unanswered == 1


@pytest.mark.parametrize(('x', 'opening'), [(NAN, 0.5), (0.01, NAN)], ids=['x', 'opening'])
def test_what_is_not_finite_is_no_action_and_what_is_refused_is_counted(x, opening):
    with pytest.raises(ActionError, match='finite'):
        policy(0, x=x, opening=opening)
    arbiter = make()
    arbiter.open_step(1, 0, 0.0)
    arbiter.refuse()
    assert arbiter.counts['refused'] == 1
    assert sources(arbiter.close_step()) == [Source.NONE]


def test_the_human_answers_with_what_was_said_shortly_before_the_tick():
    arbiter = make()
    arbiter.teleop(human(), 0.0)
    assert sources(arbiter.open_step(1, 0, 0.02)) == [Source.TELEOP]


def test_the_human_answers_with_the_first_message_after_the_tick():
    arbiter = make()
    arbiter.intervene(True, 0.0)
    arbiter.open_step(1, 0, 0.0)
    assert sources(arbiter.teleop(human(), 0.04)) == [Source.TELEOP]
    assert arbiter.teleop(human(), 0.05) == []


def test_the_last_word_counts_again_after_half_a_step():
    arbiter = make()
    arbiter.teleop(human(x=-0.005), 0.0)
    arbiter.open_step(1, 0, 0.01)
    arbiter.close_step()
    arbiter.open_step(1, 1, 0.11)
    assert arbiter.poll(0.15) == []
    (answer,) = arbiter.poll(0.162)
    assert answer.translation[0] == -0.005


def test_a_command_of_a_human_is_cut_to_what_a_policy_can_say():
    arbiter = make()
    arbiter.intervene(True, 0.0)
    arbiter.open_step(1, 0, 0.0)
    (answer,) = actions(arbiter.teleop(human(x=-0.5), 0.01))
    assert answer.translation[0] == pytest.approx(-0.02)
    assert arbiter.clips.fraction['x'] == 1.0


def test_a_human_that_takes_over_after_the_answer_gets_the_next_step():
    arbiter = make()
    arbiter.open_step(1, 0, 0.0)
    arbiter.policy(policy(0), 0.01)
    assert arbiter.teleop(human(), 0.05) == []
    arbiter.close_step()
    taken, answer = arbiter.open_step(1, 1, 0.1)
    assert taken == HandOver(1, to_human=True)
    assert answer.source is Source.TELEOP


def test_the_policy_is_overruled_while_the_human_drives():
    arbiter = make()
    arbiter.intervene(True, 0.0)
    arbiter.open_step(1, 0, 0.0)
    assert arbiter.policy(policy(0), 0.01) == []
    assert arbiter.counts['overruled'] == 1


def test_a_dead_device_hands_control_to_nobody():
    arbiter = make()
    arbiter.intervene(True, 0.0)
    now, seen = 0.0, []
    for index in range(60):
        seen += arbiter.open_step(1, index, now)
        if index < 5:
            seen += arbiter.teleop(human(), now + 0.01)
        seen += arbiter.policy(policy(index), now + 0.02) + arbiter.poll(now + 0.06) + arbiter.close_step()
        now += PERIOD
    kinds = sources(seen)
    assert kinds[:5] == [Source.TELEOP] * 5
    assert set(kinds[9:]) == {Source.NONE}
    assert Source.POLICY not in kinds


def test_T4_the_opening_goes_on_from_the_last_one_when_hands_change():
    arbiter = make()
    arbiter.open_step(1, 0, 0.0)
    arbiter.policy(policy(0, opening=0.1), 0.01)
    arbiter.ramp.begin(0.1)
    openings = []
    for index in range(1, 8):
        now = index * PERIOD
        arbiter.close_step()
        arbiter.open_step(1, index, now)
        openings += [a.opening for a in actions(arbiter.teleop(human(opening=1.0), now + 0.06))]
    assert np.diff([0.1, *openings]).max() <= 0.2 + 1e-9
    assert openings[-1] == 1.0


def gone():
    return ExecutedAction(0, 0, (0.0, 0.0, 0.0), 0.5, Source.NONE)


def test_a_human_that_goes_in_mid_step_stops_the_arm_at_once_and_the_step_is_aborted():
    arbiter = make()
    arbiter.intervene(True, 0.0)
    arbiter.open_step(1, 0, 0.0)
    assert sources(arbiter.teleop(human(), 0.01)) == [Source.TELEOP]
    assert arbiter.teleop(gone(), 0.03) == [Stop()]
    assert arbiter.aborted
    assert arbiter.teleop(gone(), 0.04) == [], 'once'
    assert arbiter.close_step() == [], 'the step has had its action'
    arbiter.open_step(1, 1, 0.1)
    assert not arbiter.aborted
    assert arbiter.poll(0.16) == [], 'the last word is not repeated'
    assert sources(arbiter.close_step()) == [Source.NONE]


def test_a_step_without_motion_is_not_cut_when_the_human_goes():
    arbiter = make()
    arbiter.intervene(True, 0.0)
    arbiter.open_step(1, 0, 0.0)
    arbiter.teleop(human(x=0.0), 0.01)
    assert arbiter.teleop(gone(), 0.03) == [Stop()]
    assert not arbiter.aborted


def test_word_of_a_page_that_is_gone_neither_takes_over_nor_stops_the_policy():
    arbiter = make()
    arbiter.open_step(1, 0, 0.0)
    arbiter.policy(policy(0), 0.01)
    assert arbiter.teleop(gone(), 0.03) == []
    assert not arbiter.aborted
    arbiter.close_step()
    assert arbiter.open_step(1, 1, 0.1) == []


def test_a_human_that_comes_back_drives_again():
    arbiter = make()
    arbiter.intervene(True, 0.0)
    arbiter.open_step(1, 0, 0.0)
    arbiter.teleop(human(), 0.01)
    arbiter.teleop(gone(), 0.02)
    arbiter.close_step()
    arbiter.open_step(1, 1, 0.1)
    assert sources(arbiter.teleop(human(), 0.12)) == [Source.TELEOP]


# --- any sequence of events ---

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ['policy', 'late', 'wrong', 'teleop', 'take', 'give', 'poll', 'refused', 'gone', 'tick']
        ),
        st.floats(0.0, 0.06),
    ),
    max_size=150,
)


def play(events, arbiter):
    """Play events with steps at their ticks; return what came out, in order."""
    now, index, out = 0.0, 0, list(arbiter.open_step(1, 0, 0.0))
    for kind, pause in events:
        now += pause
        if kind == 'policy':
            out += arbiter.policy(policy(index), now)
        elif kind == 'late':
            out += arbiter.policy(policy(max(index - 1, 0)), now)
        elif kind == 'wrong':
            out += arbiter.policy(policy(index, episode=7), now)
        elif kind == 'refused':
            arbiter.refuse()
        elif kind == 'gone':
            out += arbiter.teleop(gone(), now)
        elif kind == 'teleop':
            out += arbiter.teleop(human(), now)
        elif kind in ('take', 'give'):
            out += arbiter.intervene(kind == 'take', now)
        elif kind == 'poll':
            out += arbiter.poll(now)
        else:
            out += arbiter.close_step()
            index += 1
            out += arbiter.open_step(1, index, now)
    return out + arbiter.close_step(), index + 1


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_whatever_happens_every_step_has_exactly_one_action_and_they_come_in_order(events):
    out, steps = play(events, make())
    assert [action.index for action in actions(out)] == list(range(steps))


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_whatever_happens_sources_agree_with_the_flags(events):
    out, _ = play(events, make())
    intervening = False
    for answer in out:
        if isinstance(answer, HandOver):
            assert answer.to_human is not intervening
            intervening = answer.to_human
        elif isinstance(answer, Stop):
            assert intervening, 'nobody stops the policy but by taking over'
        elif intervening:
            assert answer.source is not Source.POLICY
        else:
            assert answer.source is not Source.TELEOP


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.integers(1, 6))
def test_whatever_happens_flags_do_not_flicker(events, dwell):
    out, _ = play(events, make(dwell_steps=dwell))
    edges = [answer for answer in out if isinstance(answer, HandOver)]
    for start, end in pairwise(edges):
        if start.to_human:
            assert end.index - start.index >= dwell


@settings(max_examples=150, deadline=None)
@given(EVENTS.filter(lambda events: all(kind != 'take' for kind, _ in events)), st.integers(1, 6))
def test_what_was_on_its_way_does_not_take_over_again(events, dwell):
    out, _ = play(events, make(dwell_steps=dwell))
    edges = [answer for answer in out if isinstance(answer, HandOver)]
    assert all(b.index - a.index >= dwell for a, b in pairwise(edges))
