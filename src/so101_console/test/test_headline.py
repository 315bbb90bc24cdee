# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest

from so101_console.curves import base_line
from so101_console.headline import headline, SCRIPTED, start_line

RUNNING = {'state': 'running', 'driver': 'policy', 'sentence': 'episode 3 runs', 'intervening': False}


def title(arm='ready', session=RUNNING, wheel=None, reason=''):
    return headline(arm, reason, session, wheel=wheel, page='me').title


@pytest.mark.parametrize(
    ('arm', 'said'), [(None, 'No arm'), ('stopped', 'STOPPED'), ('fault', 'Fault'), ('off', 'Motors off')]
)
def test_an_arm_that_cannot_move_comes_before_everything_else(arm, said):
    found = headline(arm, '', RUNNING, wheel='me', page='me')
    assert found.title == said
    assert found.drives == 'stopped'


def test_the_reason_of_a_fault_is_the_sentence():
    assert headline('fault', 'the elbow is hot', RUNNING, wheel=None, page='me').detail == 'the elbow is hot'


def test_without_a_session_nobody_drives():
    assert title(session=None) == 'Nobody drives'


def test_the_page_with_the_wheel_drives_and_the_others_know():
    assert title(wheel='me') == 'You drive'
    assert title(wheel='another') == 'Another page drives'


def test_a_policy_drives_until_somebody_takes_over():
    assert title() == 'The policy drives'
    assert title(session={**RUNNING, 'driver': 'human', 'intervening': True}) == 'A human drives'


def test_a_human_who_is_asked_to_arrange_the_scene_reads_that_first_and_for_how_long_there_is_time():
    session = {
        **RUNNING,
        'state': 'resetting',
        'sentence': 'arrange the scene: 7 s left, or Start when ready',
    }
    found = headline('ready', '', session, wheel=None, page='me', arranging=True)
    assert found.title == 'Arrange the scene'
    assert found.detail == 'Arrange the scene: 7 s left, or Start when ready.'
    assert headline('stopped', '', session, wheel=None, page='me', arranging=True).title == 'STOPPED'


def test_a_human_at_no_page_has_a_name():
    taken = {**RUNNING, 'driver': 'human', 'intervening': True}

    def found(human):
        return headline('ready', '', taken, wheel=None, page='me', human=human)

    assert found('').detail == 'Episode 3 runs; the human is at another device.'
    assert found('the leader arm').detail == 'Episode 3 runs; the human is at the leader arm.'
    assert found(SCRIPTED).title == 'The scripted operator drives'


def test_a_policy_that_holds_does_not_drive_and_the_reason_is_shown():
    sentence = 'episode 3 runs; the policy holds: an image of the step is stale'
    found = headline(
        'ready', '', {**RUNNING, 'driver': 'nobody', 'sentence': sentence}, wheel=None, page='me'
    )
    assert found.title == 'Nobody drives'
    assert 'the policy holds: an image of the step is stale' in found.detail


def test_a_person_that_is_gone_leaves_nobody_and_says_how_to_go_on():
    session = {**RUNNING, 'driver': 'nobody', 'intervening': True}
    found = headline('ready', '', session, wheel=None, page='me')
    assert found.title == 'Nobody drives'
    assert 'take over, or give back' in found.detail


@pytest.mark.parametrize('state', ['waiting', 'resetting', 'ready', 'armed', 'paused', 'done'])
def test_between_episodes_nobody_drives_even_with_the_wheel(state):
    found = headline('ready', '', {'state': state, 'sentence': 'x'}, wheel='me', page='me')
    assert found.drives == 'nobody'
    assert 'You drive next' in found.detail


@pytest.mark.parametrize(
    ('arm', 'session', 'acts', 'said'),
    [
        ('ready', {'state': 'waiting'}, True, 'back to the start pose, then the policy drives'),
        ('ready', {'state': 'waiting'}, False, 'back to the start pose, then you drive'),
        ('ready', {'state': 'waiting', 'intervening': True}, True, 'back to the start pose, then you drive'),
        ('off', {'state': 'waiting'}, True, 'not before the motors are on'),
        ('ready', None, True, 'no session is running'),
    ],
)
def test_what_start_does_stands_below_its_button(arm, session, acts, said):
    assert start_line(arm, session, acts) == said


@pytest.mark.parametrize(
    ('base', 'trouble', 'share', 'said'),
    [
        ('', '', float('nan'), ''),
        ('bc', '', 0.4, 'On top of bc: the actor acts in 40% of the steps.'),
        ('bc', '', float('nan'), 'On top of bc: the actor acts in 0% of the steps.'),
        ('bc', 'no answer', 0.4, 'Its base is silent: no answer.'),
    ],
)
def test_who_acts_on_top_of_a_base_is_said(base, trouble, share, said):
    assert base_line(SimpleNamespace(base=base, base_trouble=trouble, actor_share=share)) == said


def test_without_a_policy_nothing_is_said_of_a_base():
    assert base_line(None) == ''
