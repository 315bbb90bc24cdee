# SPDX-License-Identifier: Apache-2.0
"""Nothing moves unasked: what Start and Reset do in each state, what takes them back, and who drives afterwards."""

import pytest
from session_world import world

from so101_contract.messages import ExecutedAction
from so101_contract.session import Driver, EventKind, SessionState, Source, what_start_does
from so101_session.session.clock import (
    ArmWatch,
    CONNECTED_AGAIN,
    NEW_SESSION,
    Problem,
    STARTED_AGAIN,
    STOPPED,
)
from so101_session.session.episode import SessionError

HUMAN = ExecutedAction(0, 0, (-0.01, 0.0, 0.0), 0.5, Source.TELEOP)
OFF = Problem('the arm is not enabled: e-stop pressed')


def goals(w):
    return len(w.goals)


def test_on_metal_nothing_moves_before_start_and_the_session_says_what_start_does():
    w = world(autostart=False)
    w.senses.arm = Problem('the arm is not enabled: torque is off until the arm is enabled')
    w.advance(3.0)
    w.senses.arm = None
    w.advance(5.0)
    assert w.session.state is SessionState.WAITING
    assert w.session.sentence == 'waiting for Start: back to the start pose, then the policy drives'
    assert (goals(w), w.actions) == (0, [])
    w.start()
    w.until('running')


@pytest.mark.parametrize('when', ['resetting', 'armed', 'running', 'paused'])
def test_after_a_stop_in_any_state_it_waits_for_start(when):
    w = world()
    w.session.policy_alive = when != 'armed'
    w.until('running' if when == 'paused' else when)
    w.session.paused = when == 'paused'
    w.until(when)
    w.senses.arm = OFF
    w.advance(1.0)
    w.senses.arm, w.session.paused, w.session.policy_alive = None, False, True
    moved = goals(w), len(w.actions)
    w.advance(10.0)
    assert w.session.sentence == (
        'waiting for Start, since the arm was stopped: back to the start pose, then the policy drives'
    )
    assert (goals(w), len(w.actions)) == moved
    w.session.start_episode(False)
    w.until('running')


@pytest.mark.parametrize('when', ['resetting', 'running'])
def test_a_stop_that_is_over_before_the_next_tick_stops_all_the_same_and_at_once(when):
    w = world()
    w.until(when)
    w.stop_arm()
    moved = goals(w), len(w.actions)
    w.take(w.session.motion(w.now, w.q))
    step = w.steps[-1] if w.steps else None
    if step is not None:
        answer = ExecutedAction(step.episode, step.index, (0.01, 0.0, 0.0), 0.5, Source.POLICY)
        w.take(w.session.policy(answer, w.now) + w.session.teleop(HUMAN, w.now))
    assert (goals(w), len(w.actions)) == moved
    w.advance(5.0)
    assert w.session.sentence.startswith('waiting for Start, since the arm was stopped')
    assert all(action.source is Source.NONE for action in w.actions[moved[1] :])
    assert w.events[-1].kind in (EventKind.ABORT, EventKind.RESET_DONE)
    assert goals(w) == moved[0]


def test_start_is_refused_while_something_is_missing_and_moves_nothing_later():
    w = world(autostart=False)
    w.senses.arm = OFF
    w.advance(1.0)
    with pytest.raises(SessionError, match='e-stop pressed; mend that, then ask again'):
        w.session.start_episode(False)
    with pytest.raises(SessionError, match='e-stop pressed'):
        w.session.reset_scene()
    w.senses.arm = None
    w.advance(5.0)
    assert w.session.sentence.startswith('waiting for Start: ')
    assert goals(w) == 0


def test_a_start_in_the_moment_of_a_stop_is_refused():
    w = world(autostart=False)
    w.advance(1.0)
    w.stop_arm()
    with pytest.raises(SessionError, match='the arm was stopped'):
        w.session.start_episode(False)


def test_what_is_no_stop_of_the_arm_takes_nothing_back():
    w = world()
    w.until('running')
    w.camera_runs = False
    w.until('waiting')
    w.camera_runs = True
    w.until('running')


def test_reset_in_an_episode_cuts_it_short_goes_back_and_waits_for_start():
    w = world()
    w.until('running')
    w.session.reset_scene()
    w.until('ready')
    assert w.kinds[-3:] == ['ABORT', 'RESET_START', 'RESET_DONE']
    assert next(e for e in w.events if e.kind is EventKind.ABORT).reason == 'a reset was asked for'
    assert w.steps[-1].truncated
    w.advance(3.0)
    assert w.session.sentence == 'waiting for Start: the policy drives'
    w.session.start_episode(False)
    w.until('running')
    assert w.kinds.count('RESET_START') == 2, 'it is at the start already'


def test_start_in_an_episode_cuts_it_short_and_begins_the_next():
    w = world(auto=False)
    w.start()
    w.until('running')
    assert w.session.start_episode(False) == 2
    w.until('waiting')
    w.until('running')
    assert w.kinds[-4:] == ['ABORT', 'RESET_START', 'RESET_DONE', 'START']


def test_start_while_an_episode_waits_for_its_driver_does_not_cut_it_short():
    w = world(auto=False)
    w.session.policy_alive = False
    w.start()
    w.until('armed')
    assert w.session.start_episode(False) == 1
    w.advance(2.0)
    assert w.kinds[-1] == 'START'


@pytest.mark.parametrize('ask', ['start_episode', 'reset_scene'])
def test_start_and_reset_end_a_pause(ask):
    w = world()
    w.until('running')
    w.session.paused = True
    w.until('paused')
    w.session.start_episode(False) if ask == 'start_episode' else w.session.reset_scene()
    w.until('running' if ask == 'start_episode' else 'ready')


def test_a_pause_in_a_reset_holds_the_arm_where_it_is():
    w = world()
    w.until('resetting')
    w.advance(0.3)
    w.session.paused = True
    w.advance(0.1)
    q, moved = w.q.copy(), goals(w)
    w.advance(3.0)
    assert goals(w) == moved
    assert abs(w.q - q).max() < 1e-9
    assert w.session.sentence == 'paused; the arm holds until you press Pause again'
    w.session.paused = False
    w.until('running')


def test_a_process_that_stood_still_leads_the_arm_no_further():
    w = world()
    w.until('resetting')
    w.now += 4.0
    assert w.session.motion(w.now, w.q) == []


def test_giving_back_without_a_policy_leaves_a_demonstration_running():
    w = world(auto=False)
    w.session.policy_alive = w.policy_answers = False
    w.start()
    w.until('armed')
    w.advance(1.0, teleop=HUMAN)
    w.take(w.session.intervene(False, w.now))
    w.advance(6.0)
    assert w.session.state is SessionState.RUNNING
    assert w.session.driver is Driver.NOBODY
    assert w.session.sentence == 'episode 1 runs; nobody drives: take over, or label it'
    w.advance(0.5, teleop=HUMAN)
    assert w.session.driver is Driver.HUMAN
    assert w.session.sentence == 'episode 1 runs'


def test_a_key_held_over_the_end_of_an_episode_leaves_the_next_one_to_the_policy():
    w = world(time_limit_steps=40)
    w.until('running')
    w.advance(3.0, teleop=HUMAN)
    while (
        w.session.account.started < 2 or not w.steps[-1].index
    ):  # over its end, the reset and the next one's START
        w.advance(0.1, teleop=HUMAN)
    w.advance(0.5, teleop=HUMAN)
    w.advance(1.0)
    assert w.session.account.started == 2
    assert w.session.driver is Driver.POLICY
    assert w.actions[-1].source is Source.POLICY
    w.advance(0.5, teleop=HUMAN)
    assert w.session.driver is Driver.HUMAN, 'pressed anew it counts'


def test_a_human_that_still_acts_when_the_next_demonstration_begins_drives_it():
    w = world(time_limit_steps=20)
    w.session.policy_alive = w.policy_answers = False
    w.until('armed')
    w.advance(9.0, teleop=HUMAN)
    assert w.session.account.started >= 2
    assert {action.source for action in w.actions if action.episode == 2} == {Source.TELEOP}


@pytest.mark.parametrize(
    ('state', 'policy', 'text'),
    [
        (SessionState.WAITING, True, 'back to the start pose, then the policy drives'),
        (SessionState.WAITING, False, 'back to the start pose, then you drive'),
        (SessionState.READY, True, 'the policy drives'),
        (SessionState.RUNNING, True, 'ends this episode, back to the start pose, then the policy drives'),
        (SessionState.ARMED, True, ''),
        (SessionState.DONE, True, ''),
    ],
)
def test_what_start_does_is_said_once_for_every_state(state, policy, text):
    assert what_start_does(state, policy) == text


class Watch:
    """`ArmWatch` with what `arm/status` says of an arm that is on."""

    def __init__(self):
        self.watch, self.cycles = ArmWatch(), 0

    def hear(self, problem=None, cycles=None, **said):
        self.cycles = self.cycles + 10 if cycles is None else cycles
        fields = {'latched': False, 'moved': False, 'reconnects': 0, 'now_s': self.cycles / 100.0, **said}
        return self.watch.hear(problem, cycles=self.cycles, **fields)


def test_an_arm_that_switches_itself_on_as_it_starts_was_not_stopped():
    watch = Watch()
    assert [watch.hear(OFF), watch.hear(), watch.hear(moved=True)] == ['', '', '']
    assert watch.hear(OFF, moved=True) == STOPPED


def test_motors_that_somebody_switches_on_later_need_start():
    watch = Watch()
    assert [watch.hear(OFF) for _ in range(40)][-1] == STOPPED


def test_a_stop_that_was_latched_needs_start_even_before_the_first_motion():
    watch = Watch()
    assert watch.hear(OFF, latched=True) == STOPPED


def test_an_arm_that_is_started_or_connected_again_needs_start():
    watch = Watch()
    assert watch.hear(moved=True, cycles=500) == NEW_SESSION
    assert watch.hear(moved=True) == ''
    assert watch.hear(cycles=3) == STARTED_AGAIN
    assert watch.hear(reconnects=1) == CONNECTED_AGAIN
