# SPDX-License-Identifier: Apache-2.0
import pytest

from so101_console.page_state import headline

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
