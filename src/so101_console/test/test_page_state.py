# SPDX-License-Identifier: Apache-2.0
"""What messages become on the page."""

import json
import math
import time

import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, LearnerStatus, SessionStatus, Step
from visualization_msgs.msg import Marker, MarkerArray

from so101_console.curves import NAMES, OF_LEARNER
from so101_console.page_state import PageState
from so101_contract.errors import ContractError
from so101_contract.joints import JOINT_NAMES
from so101_contract.session import to_record

CAMERA = {'age': 0.05, 'fps': 20, 'problem': ''}


@pytest.fixture
def picture():
    return PageState(lambda positions: positions.tolist())


def state(picture, later=0.0, wheel=None):
    return picture.state(time.monotonic() + later, wheel, 'me', CAMERA)


def arm(state=ArmStatus.ENABLED, **fields):
    six = [0.0] * 6
    known = {
        'temperature': [30.0] * 6,
        'voltage': [7.4] * 6,
        'load': six,
        'error': [0] * 6,
        'torque': [True] * 6,
    }
    return ArmStatus(state=state, name=list(JOINT_NAMES), **{**known, **fields})


def joints(first):
    return serialize_message(JointState(name=list(JOINT_NAMES), position=[first, 0.0, 0.0, 0.0, 0.0, 0.0]))


def delta(episode, index, source, at=0):
    message = EeDelta(episode=episode, index=index, source=source)
    message.header.stamp = Time(sec=1, nanosec=at)
    return message


def test_the_page_always_says_whether_is_recorded(picture):
    assert state(picture)['recording'] == {'said': 'Nothing is recorded.', 'bad': False}
    picture.recorder.hear(DiagnosticStatus(message='Records into bags/one. 40.0 GB are left on the disk.'))
    told = state(picture, later=1.0)['recording']
    assert told == {'said': 'Records into bags/one. 40.0 GB are left on the disk.', 'bad': False}
    assert state(picture, later=60.0)['recording']['bad']
    picture.recorder.hear(DiagnosticStatus(message='Nothing is recorded: no.', level=DiagnosticStatus.ERROR))
    told = state(picture, later=61.0)
    assert told['recording']['bad']


def test_an_empty_picture_can_be_sent_as_json(picture):
    told = state(picture)
    assert json.loads(json.dumps(told, allow_nan=False))['title'] == 'No arm'


def test_joints_are_read_only_once_for_all_pages(picture):
    asked = []
    picture = PageState(lambda positions: asked.append(1) or positions.tolist())
    picture.newest.keep('joints')(joints(0.5))
    for _ in range(5):
        assert state(picture)['poses'][0] == 0.5
    assert len(asked) == 1
    picture.newest.keep('joints')(joints(0.6))
    assert state(picture)['poses'][0] == pytest.approx(0.6)


def test_a_joint_message_without_a_joint_is_a_note_and_not_the_end(picture):
    picture.newest.keep('joints')(serialize_message(JointState(name=['elbow_flex'], position=[0.0])))
    assert not state(picture)['poses']
    assert 'lacks' in state(picture)['note']


NO_JOINTS = [
    b'',
    b'\0\1\0\0',
    b'\xff' * 60,
    serialize_message(JointState(name=list(JOINT_NAMES), position=[math.nan] * 6)),
    serialize_message(JointState(name=list(JOINT_NAMES), position=[1e308] * 6)),
    serialize_message(JointState(name=['x'] * 6, position=[0.0] * 6)),
]


@pytest.mark.parametrize('content', NO_JOINTS, ids=range(len(NO_JOINTS)))
@pytest.mark.parametrize('name', ['joints', 'tcp', 'markers'])
def test_whatever_comes_the_page_is_told_the_rest_and_goes_on(picture, name, content):
    picture.on_arm(arm())
    picture.newest.keep(name)(content)
    told = state(picture)
    assert told['arm'] == 'ready'
    json.dumps(told, allow_nan=False)
    picture.newest.keep('joints')(joints(0.5))
    assert state(picture)['poses'][0] == 0.5


def test_states_and_drivers_of_a_newer_version_are_shown_with_their_sentence(picture):
    picture.on_arm(arm())
    picture.on_session(to_record(SessionStatus(state=9, driver=7, sentence='it dances')))
    told = state(picture)
    assert (told['title'], told['drives']) == ('A state that this page does not know', 'you')
    assert told['detail'].startswith('It dances.')
    picture.on_arm(arm(9, reason='it swims'))
    told = state(picture, later=1.0)
    assert (told['arm'], told['drives'], told['detail']) == ('unknown', 'stopped', 'it swims')
    assert {check['name']: check['finding'] for check in told['checks']}['arm'] == 'it swims'


@pytest.mark.parametrize(
    'fields',
    [{'temperature': []}, {'error': [0]}, {'torque': [True] * 7}, {'name': [], 'load': [0.0]}],
    ids=lambda fields: next(iter(fields)),
)
def test_a_status_with_more_or_fewer_values_than_servos_is_refused_and_the_last_one_stays(picture, fields):
    picture.on_arm(arm())
    bad = arm()
    for name, values in fields.items():
        setattr(bad, name, values)
    with pytest.raises(ContractError, match='one value of each servo'):
        picture.on_arm(bad)
    assert len(state(picture)['servos']) == 6


def test_an_event_of_an_unknown_kind_is_refused_and_changes_nothing(picture):
    with pytest.raises(ContractError, match='kind of event, got 200'):
        picture.on_event(EpisodeEvent(kind=200, episode=1))
    assert state(picture)['episodes'] == []


def step(episode, index):
    message = Step(episode=episode, index=index, decimals=3, joint_position=[0.0] * 6)
    message.header.stamp = Time(sec=1, nanosec=index)
    return message


@pytest.mark.parametrize('heard', ['first', 'late', 'never'])
def test_an_episode_can_be_looked_at_again_and_corrected_whenever_its_start_was_heard(picture, heard):
    start = EpisodeEvent(kind=EpisodeEvent.START, episode=1)
    if heard == 'first':
        picture.on_event(start)
    for index in range(3):
        picture.on_step(step(1, index))
        if heard == 'late' and index == 0:
            picture.on_event(start)
        picture.on_command(delta(1, index, EeDelta.SOURCE_POLICY))
    picture.on_event(EpisodeEvent(kind=EpisodeEvent.SUCCESS, episode=1))
    (row,) = state(picture)['episodes']
    assert row['correctable']
    assert [each['index'] for each in picture.memory.account(row['key'])['steps']] == [0, 1, 2]


def test_any_number_of_warnings_and_episodes_takes_little_memory(picture):
    for number in range(300):
        warned = DiagnosticStatus(level=DiagnosticStatus.WARN, name=f'{number}')
        picture.on_diagnostics(DiagnosticArray(status=[warned] * 100))
        picture.on_command(EeDelta(episode=number + 1, source=EeDelta.SOURCE_POLICY))
    assert len(picture._diagnostics) <= 33
    assert len(picture._episodes._open) <= 20


def test_a_mute_servo_leaves_the_angles_of_the_others(picture):
    picture.on_arm(arm())
    others = [name for name in JOINT_NAMES if name != 'elbow_flex']
    told = JointState(name=others, position=[math.radians(10.0)] * 5)
    picture.newest.keep('joints')(serialize_message(told))
    angles = {row['name']: row['angle'] for row in state(picture)['servos']}
    assert angles == {**dict.fromkeys(others, 10.0), 'elbow_flex': None}


def test_nan_of_a_servo_that_was_never_read_is_unknown(picture):
    picture.on_arm(arm(temperature=[math.nan] * 6))
    told = state(picture)
    assert told['servos'][0]['temperature'] is None
    json.dumps(told, allow_nan=False)


def test_an_arm_that_falls_silent_is_no_arm(picture):
    picture.on_arm(arm())
    assert state(picture)['arm'] == 'ready'
    assert state(picture, later=3.0)['title'] == 'No arm'


def test_the_stop_is_what_the_arm_says_and_not_what_was_pressed(picture):
    picture.on_arm(arm(ArmStatus.E_STOP, reason='e-stop pressed'))
    assert state(picture)['arm'] == 'stopped'
    assert state(picture)['title'] == 'STOPPED'


def test_the_target_and_the_workspace_come_from_the_markers(picture):
    ball, box = Marker(type=Marker.SPHERE), Marker(type=Marker.CUBE)
    ball.pose.position.x, box.pose.position.z = 0.2, 0.1
    box.scale.x = box.scale.y = box.scale.z = 0.2
    picture.newest.keep('markers')(serialize_message(MarkerArray(markers=[ball, box])))
    told = state(picture)
    assert told['target'] == [0.2, 0.0, 0.0]
    assert told['box'] == {'low': [-0.1, -0.1, 0.0], 'high': [0.1, 0.1, 0.2]}


def test_an_episode_is_listed_with_what_happened_in_it(picture):
    picture.on_arm(arm(clamped=5, lost=2))
    picture.on_event(EpisodeEvent(kind=EpisodeEvent.START, episode=4))
    for index, source in enumerate([EeDelta.SOURCE_POLICY, EeDelta.SOURCE_TELEOP, EeDelta.SOURCE_NONE]):
        step = Step(episode=4, index=index)
        step.header.stamp = Time(sec=1, nanosec=0)
        picture.on_step(step)
        picture.on_command(delta(4, index, source, at=12_000_000))
    picture.on_arm(arm(clamped=8, lost=3))
    picture.on_event(EpisodeEvent(kind=EpisodeEvent.SUCCESS, episode=4, reason='the person says success'))
    row = state(picture, later=1.0)['episodes'][0]
    assert row['outcome'] == 'success'
    assert (row['steps'], row['intervened'], row['interventions'], row['dropped']) == (2, 1, 1, 1)
    assert (row['clamped'], row['lost'], row['latency_ms']) == (3, 1, 12.0)


def test_a_session_that_pauses_goes_on_by_the_same_button(picture):
    assert picture.meaning('pause') == 'pause'
    running = SessionStatus.RUNNING
    picture.on_session(to_record(SessionStatus(state=running, sentence='episode 1 runs', paused=True)))
    assert picture.meaning('pause') == 'resume'


def test_clear_means_the_stop_or_the_fault_whichever_it_is(picture):
    assert picture.meaning('clear') == 'clear'
    picture.on_arm(arm(ArmStatus.FAULT))
    assert picture.meaning('clear') == 'clear_fault'


def test_the_learner_fills_the_curves_and_unknown_numbers_are_gaps(picture):
    picture.on_learner(LearnerStatus(state='learning', q_mean=math.nan, utd=0.5, q_bound=1.0))
    rows = picture.curves.since(0)['rows']
    assert rows[0][NAMES.index('q_mean')] is None
    assert rows[0][NAMES.index('utd')] == 0.5
    json.dumps(rows, allow_nan=False)
    assert 'Learning' in state(picture)['learner']


def test_who_may_give_back_is_the_driver_or_anybody_once_it_is_gone(picture):
    status = SessionStatus(state=SessionStatus.RUNNING, intervening=True, sentence='x')
    picture.on_session(to_record(status))
    assert state(picture)['can_give']
    assert not state(picture, wheel='another')['can_give']
    assert state(picture, wheel='me')['can_give']


def test_what_the_learner_does_not_know_is_shown_as_unknown_and_never_as_zero(picture):
    names = [n for n, kind in LearnerStatus.get_fields_and_field_types().items() if kind == 'float']
    picture.on_learner(LearnerStatus(state='waiting', **dict.fromkeys(names, math.nan)))
    assert ' at -/s' in state(picture)['learner']
    row = dict(zip(NAMES, picture.curves.since(0)['rows'][0], strict=True))
    assert {row[name] for name in OF_LEARNER if name in names} == {None}
    assert not any('believes' in sentence for sentence in state(picture)['coach'])
