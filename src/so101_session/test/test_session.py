# SPDX-License-Identifier: Apache-2.0
"""The session's states, on a simulated arm and clock."""

from collections import Counter
from dataclasses import replace
from itertools import groupby, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from session_world import world

from so101_contract.messages import ExecutedAction
from so101_contract.session import Driver, EventKind, Outcome, Source
from so101_contract.task_report import Status
from so101_session.session.arbiter import Stop
from so101_session.session.clock import Problem
from so101_session.session.episode import SessionError

HUMAN = ExecutedAction(0, 0, (-0.01, 0.0, 0.0), 0.5, Source.TELEOP)


def test_an_episode_begins_with_a_reset_and_ends_at_its_time_limit():
    w = world(time_limit_steps=10, episodes=1)
    w.until('done')
    assert w.kinds == ['RESET_START', 'RESET_DONE', 'START', 'TIME_LIMIT']
    assert [step.index for step in w.steps] == list(range(11))
    assert [action.index for action in w.actions] == list(range(10))


def test_a_time_limit_is_a_truncation_and_no_terminal():
    w = world(time_limit_steps=3, episodes=1)
    w.until('done')
    last = w.steps[-1]
    assert (last.terminated, last.truncated, last.reward) == (False, True, 0.0)


def test_a_success_of_the_simulation_is_terminal_and_rewarded():
    w = world(reward_source='sim', episodes=1)
    w.until('running')
    w.advance(0.5)
    w.status = Status(success=True, good_steps=3)
    w.until('done')
    last = w.steps[-1]
    assert (last.terminated, last.truncated, last.reward) == (True, False, 1.0)
    assert 'SUCCESS' in w.kinds


def test_a_failure_of_the_simulation_is_terminal_and_says_why():
    w = world(reward_source='sim', episodes=1, failure_reward=-0.5)
    w.until('running')
    w.status = Status(failure=True, reason='the cube is out of reach')
    w.until('done')
    assert w.steps[-1].terminated
    assert w.events[-1].reason == 'the cube is out of reach'


def test_a_success_of_the_episode_before_does_not_count_again():
    w = world(reward_source='sim', time_limit_steps=5, episodes=2)
    w.until('running')
    w.status = Status(success=True)
    w.until('done')
    assert w.session.account.tally()['success'] == 1
    assert w.session.account.tally()['time_limit'] == 1


@pytest.mark.parametrize(
    ('outcome', 'terminated', 'reward'),
    [(Outcome.SUCCESS, True, 1.0), (Outcome.FAILURE, True, 0.0), (Outcome.DISCARD, False, 0.0)],
)
def test_the_human_ends_an_episode_with_the_next_step(outcome, terminated, reward):
    w = world()
    w.until('running')
    w.advance(0.5)
    w.session.end_episode(outcome, 0, '')
    w.until('waiting')
    last = w.steps[-1]
    assert (last.terminated, last.truncated, last.reward) == (terminated, not terminated, reward)
    assert outcome.name in w.kinds


def test_a_late_label_is_an_event_about_its_episode():
    w = world(time_limit_steps=5)
    w.until('running')
    w.advance(8.0)
    w.take(w.session.end_episode(Outcome.SUCCESS, 1, ''))
    late = w.events[-1]
    assert (late.kind, late.episode) == (EventKind.SUCCESS, 1)
    assert w.session.account.outcomes[1] is Outcome.SUCCESS


def test_a_label_between_episodes_is_about_the_last_one():
    w = world(time_limit_steps=5, auto=False)
    w.start()
    w.until('running')
    w.until('waiting')
    w.take(w.session.end_episode(Outcome.FAILURE, 0, ''))
    assert (w.events[-1].kind, w.events[-1].episode) == (EventKind.FAILURE, 1)


def test_a_label_of_an_episode_that_never_was_is_refused():
    w = world()
    with pytest.raises(SessionError, match='none yet'):
        w.session.end_episode(Outcome.SUCCESS, 9, '')


@pytest.mark.parametrize(
    ('part', 'sentence'),
    [
        ('camera_runs', 'the camera gripper_cam has sent no image for'),
        ('arm_runs', 'the arm has sent no joint_states for'),
        ('kinematics_runs', 'kinematics_node has sent no tcp_pose for'),
    ],
)
def test_an_episode_whose_input_is_stale_is_cut_short_with_the_reason(part, sentence):
    w = world()
    w.until('running')
    w.advance(0.5)
    setattr(w, part, False)
    w.until('waiting')
    assert w.steps[-1].truncated
    assert not w.steps[-1].terminated
    assert w.events[-1].kind is EventKind.ABORT
    assert sentence in w.events[-1].reason


def test_a_picture_that_is_sent_again_and_again_counts_as_stale():
    w = world()
    w.until('running')
    camera = w.senses.cameras[0]
    w.camera_runs, frozen = False, camera.stamp_ns
    w.advance(1.0, each_step=lambda w: camera.heard(frozen, w.now))
    assert 'ABORT' in w.kinds


def test_an_arm_that_stops_ends_the_episode():
    w = world()
    w.until('running')
    w.senses.arm = Problem('the arm is not enabled: e-stop pressed')
    w.until('waiting')
    assert w.events[-1].reason == 'the arm is not enabled: e-stop pressed'


def test_after_a_fault_the_next_episode_begins_with_a_reset():
    w = world()
    w.until('running')
    w.camera_runs = False
    w.until('waiting')
    w.advance(2.0)
    assert w.session.state.value == 'waiting'
    w.camera_runs = True
    w.until('running')
    assert w.kinds[-3:] == ['RESET_START', 'RESET_DONE', 'START']


def test_without_policy_and_human_the_episode_waits_with_its_first_step():
    w = world()
    w.session.policy_alive = False
    w.until('armed')
    w.advance(5.0)
    assert w.steps == []
    w.session.policy_alive = True
    w.until('running')


def test_demonstrations_need_no_policy():
    w = world(time_limit_steps=20)
    w.session.policy_alive = w.policy_answers = False
    w.until('armed')
    w.advance(1.0, teleop=HUMAN)
    assert {action.source for action in w.actions} == {Source.TELEOP}
    assert w.kinds[-2:] == ['START', 'INTERVENTION_START']


def test_autonomous_episodes_need_no_human():
    w = world(time_limit_steps=20, episodes=3)
    w.until('done', 120.0)
    assert {action.source for action in w.actions} == {Source.POLICY}


def test_an_episode_whose_policy_is_silent_is_cut_short():
    w = world(no_answer_s=1.0)
    w.until('running')
    w.policy_answers = False
    w.until('waiting')
    assert 'the policy has not answered' in w.events[-1].reason
    assert {action.source for action in w.actions[-9:]} == {Source.NONE}


def test_a_policy_that_holds_is_said_with_its_reason_and_drives_nothing():
    w = world(no_answer_s=3.0)
    w.until('running')
    w.policy_answers, w.session.policy_alive, w.session.policy_holds = False, False, 'an image is stale'
    w.advance(0.5)
    assert w.session.sentence == 'episode 1 runs', 'not at the first step'
    w.advance(1.0)
    assert w.session.sentence == 'episode 1 runs; the policy holds: an image is stale'
    assert w.session.driver is Driver.NOBODY
    w.until('armed')
    assert (
        'the policy holds: an image is stale' in next(e for e in w.events if e.kind is EventKind.ABORT).reason
    )
    w.advance(3.0)
    assert w.session.state.value == 'armed', 'no episode runs for a policy that holds'
    assert w.session.sentence.endswith('waits for a policy or a human; the policy holds: an image is stale')
    w.policy_answers, w.session.policy_alive, w.session.policy_holds = True, True, ''
    w.until('running')
    assert w.session.sentence == 'episode 2 runs'


def test_no_transition_spans_a_pause():
    w = world()
    w.until('running')
    w.advance(0.5)
    w.session.paused = True
    w.advance(3.0)
    count = len(w.steps)
    held = w.actions[-1]
    assert (held.index, held.source) == (w.steps[-1].index, Source.NONE)
    w.session.paused = False
    w.advance(0.5)
    assert len(w.steps) > count
    assert [step.index for step in w.steps] == list(range(len(w.steps)))
    assert w.kinds[-2:] == ['PAUSE', 'RESUME']


def test_a_fault_in_a_pause_ends_the_episode():
    w = world()
    w.until('running')
    w.session.paused = True
    w.until('paused')
    w.camera_runs = False
    w.until('waiting')
    assert w.steps[-1].truncated


def test_the_session_ends_after_the_wanted_number_of_episodes_that_count():
    w = world(time_limit_steps=5, episodes=2)
    w.until('running')
    w.session.end_episode(Outcome.DISCARD, 0, '')
    w.until('done', 60.0)
    w.advance(3.0)
    assert w.finished
    assert w.session.account.tally() == {
        'success': 0,
        'failure': 0,
        'discard': 1,
        'time_limit': 2,
        'abort': 0,
    }


def test_without_auto_it_waits_for_a_request():
    w = world(auto=False, time_limit_steps=5)
    w.advance(2.0)
    assert w.done == [] or w.steps == []
    assert w.session.start_episode(False) == 1
    w.until('running')
    w.until('waiting')
    w.advance(2.0)
    assert w.session.state.value == 'waiting'


def test_an_episode_may_begin_where_the_arm_is():
    w = world(auto=False)
    w.start(skip_reset=True)
    w.until('running')
    assert w.kinds == ['START']


def test_a_reset_on_request_ends_at_the_start_and_waits():
    w = world(auto=False)
    w.advance(0.1)
    w.session.reset_scene()
    w.until('ready')
    w.advance(1.0)
    assert w.kinds == ['RESET_START', 'RESET_DONE']
    w.session.start_episode(False)
    w.until('running')
    assert w.kinds == ['RESET_START', 'RESET_DONE', 'START']


def test_an_intervention_ends_with_its_episode():
    w = world(time_limit_steps=10, episodes=1)
    w.until('running')
    w.advance(2.0, teleop=HUMAN)
    w.until('done')
    assert w.kinds[-2:] == ['INTERVENTION_END', 'TIME_LIMIT']


def test_a_dead_device_at_the_end_of_an_episode_keeps_the_next_one_from_starting():
    w = world(time_limit_steps=20)
    w.until('running')
    w.advance(0.5, teleop=HUMAN)
    w.advance(5.0)
    assert w.session.state.value == 'waiting'
    assert 'silent' in w.session.sentence
    w.take(w.session.intervene(False, w.now))
    w.until('running')


def test_the_gripper_begins_where_the_reset_left_it():
    w = world()
    w.opening = 0.0
    w.until('running')
    w.advance(1.0)
    openings = [action.opening for action in w.actions]
    assert 0.15 < openings[0] < 0.75
    assert np.abs(np.diff(openings)).max() <= 0.2 + 1e-9
    assert openings[-1] == 0.0


def test_T3_an_episode_of_n_steps_has_one_action_less():
    w = world(time_limit_steps=7, episodes=3)
    w.until('done', 120.0)
    steps = Counter(step.episode for step in w.steps)
    actions = Counter(action.episode for action in w.actions)
    assert steps == {1: 8, 2: 8, 3: 8}
    assert actions == {1: 7, 2: 7, 3: 7}


def test_T8_the_published_action_is_the_one_of_whoever_drove():
    w = world(time_limit_steps=30, episodes=1)
    w.until('running')
    w.advance(0.6)
    w.advance(1.0, teleop=HUMAN)
    w.take(w.session.intervene(False, w.now))
    w.until('done')
    for action in w.actions:
        wanted = {Source.POLICY: 0.01, Source.TELEOP: -0.01, Source.NONE: 0.0}[action.source]
        assert action.translation[0] == wanted
    runs = [source for source, _ in groupby(action.source for action in w.actions)]
    assert [source for source in runs if source is not Source.NONE] == [
        Source.POLICY,
        Source.TELEOP,
        Source.POLICY,
    ]


def test_an_episode_ends_when_the_control_clock_stood_still():
    w = world()
    w.until('running')
    w.now += 2.0
    w.until('waiting')
    assert 'the control clock stood still for 2.' in w.events[-1].reason
    w.until('running')


def test_T10_a_long_intervention_is_warned_of():
    w = world(time_limit_steps=30, episodes=1, long_intervention_steps=10)
    w.until('running')
    w.advance(3.5, teleop=HUMAN)
    assert any('steps in a row; several short corrections teach more' in s for s in w.sentences)


def test_T9_a_camera_that_hangs_does_not_delay_the_human():
    w = world()
    w.until('running')
    w.advance(0.5, teleop=HUMAN)
    w.camera_runs, count, named = False, len(w.steps), w.senses.cameras[0].stamp_ns
    w.advance(0.4, teleop=HUMAN)
    assert len(w.steps) == count + 4
    assert {step.image_stamps_ns for step in w.steps[-3:]} == {(named,)}
    assert [action.source for action in w.actions[-4:]] == [Source.TELEOP] * 4


def test_P24_a_step_names_the_newest_measurements():
    w = world(time_limit_steps=10, episodes=1)
    w.until('done')
    for step in w.steps:
        assert 0 <= step.stamp_ns - step.joint_stamp_ns < 0.03e9
        assert 0 <= step.stamp_ns - step.image_stamps_ns[0] < 0.03e9


CALLS = st.lists(
    st.sampled_from(
        [
            'success',
            'discard',
            'late',
            'pause',
            'resume',
            'take',
            'give',
            'act',
            'camera',
            'mute',
            'pass',
            'reset',
            'start',
        ]
    ),
    max_size=25,
)


@settings(max_examples=30, deadline=None)
@given(CALLS)
def test_whatever_happens_nothing_crosses_an_episode(calls):
    w = world(time_limit_steps=8, reset_step_deg=10.0)
    for call in calls:
        teleop = None
        try:
            if call in ('success', 'discard'):
                w.take(w.session.end_episode(Outcome[call.upper()], 0, ''))
            elif call == 'late':
                w.take(w.session.end_episode(Outcome.SUCCESS, 1, ''))
            elif call in ('pause', 'resume'):
                w.session.paused = call == 'pause'
            elif call in ('take', 'give'):
                w.take(w.session.intervene(call == 'take', w.now))
            elif call == 'act':
                teleop = HUMAN
            elif call == 'camera':
                w.camera_runs = not w.camera_runs
            elif call == 'mute':
                w.policy_answers = not w.policy_answers
            elif call == 'reset':
                w.session.reset_scene()
            elif call == 'start':
                w.session.start_episode(True)
        except SessionError:
            pass
        w.advance(0.7, teleop=teleop)
    by_episode = {number: list(steps) for number, steps in groupby(w.steps, key=lambda step: step.episode)}
    assert list(by_episode) == sorted(by_episode)
    for number, steps in by_episode.items():
        assert [step.index for step in steps] == list(range(len(steps)))
        assert all(not step.ends for step in steps[:-1])
        assert all(a.stamp_ns < b.stamp_ns for a, b in pairwise(steps))
        indices = [action.index for action in w.actions if action.episode == number]
        assert indices == list(range(len(indices)))
        closed = steps[-1].ends
        assert len(indices) in ((len(steps) - 1,) if closed else (len(steps) - 1, len(steps)))
        assert closed or number == max(by_episode)


def test_a_step_whose_motion_was_given_up_gives_no_transition_and_all_others_do():
    w = world(time_limit_steps=40, episodes=1)
    w.until('running')
    w.advance(0.64, teleop=HUMAN)
    w.take(w.session.teleop(replace(HUMAN, translation=(0.0, 0.0, 0.0), source=Source.NONE), w.now))
    assert [effect for effect in w.done if isinstance(effect, Stop)] == [Stop()]
    cut = max(action.index for action in w.actions)
    w.advance(0.5)
    w.take(w.session.intervene(False, w.now))
    w.until('done')
    indices = [step.index for step in w.steps]
    assert sorted(set(range(indices[-1] + 1)) - set(indices)) == [cut + 1], 'the step has no successor'
    assert [action.index for action in w.actions] == indices[:-1], 'every other one has exactly one action'
    nobody = [a for a in w.actions if cut < a.index <= cut + 4]
    assert all(a.source is Source.NONE for a in nobody), 'a human that is gone teaches nothing'
