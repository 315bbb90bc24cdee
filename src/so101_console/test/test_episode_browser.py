# SPDX-License-Identifier: Apache-2.0
"""The episode browser on a bag that the recorder's own writer made."""

import time

import bag_maker
from bag_maker import edited, Session, write
import cv2
import numpy as np
import pytest

from so101_console.archive.browser import EpisodeBrowser

EPISODES, STEPS = 20, 12


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bags')
    write(folder / 'many', Session(episodes=EPISODES, steps=STEPS).messages())
    return folder


@pytest.fixture
def flights(bags):
    return EpisodeBrowser(str(bags))


def test_every_episode_is_listed_the_newest_first(flights):
    rows = flights.episodes()
    assert [row['episode'] for row in rows] == list(range(EPISODES, 0, -1))
    assert {row['outcome'] for row in rows} == {'success'}
    assert rows[0]['label'] == f'many · {EPISODES}'


def test_a_row_tells_steps_interventions_drops_and_latency(flights):
    row = flights.episodes()[0]
    assert row['steps'] == STEPS - 1
    assert row['intervened'] == STEPS // 3
    assert row['interventions'] == 1
    assert row['dropped'] == 0
    assert row['latency_ms'] == 5.0


def test_a_lost_action_is_a_dropped_step(tmp_path):
    lost = []

    def lose(message):
        lost.append(message)
        return None if len(lost) == 3 else message

    write(tmp_path / 'bag', edited(Session(episodes=1).messages(), '/ee_delta_cmd', lose))
    assert EpisodeBrowser(str(tmp_path)).episodes()[0]['dropped'] == 1


def test_the_steps_of_an_episode_say_who_moved_the_hand_where(flights):
    episode = flights.episode(flights.episodes()[0]['key'])
    lines = episode['steps']
    assert [line['index'] for line in lines] == list(range(STEPS))
    assert [line['who'] for line in lines].count('human') == STEPS // 3
    assert 'mm, gripper' in lines[0]['said']
    assert 'reward 1' in lines[-1]['said']


def test_the_picture_of_a_step_is_the_one_that_the_step_names(tmp_path):
    folder = write(tmp_path / 'bag', Session(episodes=2, steps=6).messages())
    flights = EpisodeBrowser(str(tmp_path))
    key = flights.episodes()[0]['key']
    seen = [flights.frame(key, index) for index in range(6)]
    assert all(seen)
    assert len(set(seen)) == 6
    assert cv2.imdecode(np.frombuffer(seen[0], np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
    assert folder.exists()


def test_a_replay_shows_every_camera_that_the_steps_name(tmp_path):
    write(tmp_path / 'bag', Session(episodes=1, steps=6, front=True).messages())
    browser = EpisodeBrowser(str(tmp_path))
    key = browser.episodes()[0]['key']
    assert browser.episode(key)['cameras'] == ['gripper_cam', 'front_cam']
    wrist, front = (browser.frame(key, 2, camera) for camera in (0, 1))
    assert wrist
    assert front
    assert wrist != front
    assert browser.frame(key, 2, 2) is None


def test_a_replay_reads_around_its_step_and_not_the_whole_bag(flights, monkeypatch):
    key = flights.episodes()[EPISODES // 2]['key']
    assert flights.frame(key, 0)
    monkeypatch.setattr('so101_console.archive.recorded.open_bags', None)  # what follows is there already
    assert all(flights.frame(key, index) for index in range(STEPS))


def test_a_bag_is_read_again_only_when_it_has_changed(flights, monkeypatch):
    before = flights.episodes()
    monkeypatch.setattr('so101_console.archive.recorded.open_bags', None)
    assert flights.episodes() == before


def test_the_episodes_of_a_bag_that_is_still_recorded_are_listed_with_their_pictures(tmp_path):
    write(tmp_path / 'whole', Session(episodes=1).messages())
    write(tmp_path / 'open', Session(episodes=2, steps=6).messages(), closed=False)
    flights = EpisodeBrowser(str(tmp_path))
    rows = {row['label']: row for row in flights.episodes()}
    assert set(rows) == {'whole · 1', 'open · 1', 'open · 2'}
    assert flights.frame(rows['open · 1']['key'], 2)
    assert flights.problems == []


def test_a_damaged_bag_is_a_sentence_and_not_the_end(tmp_path):
    bag = write(tmp_path / 'bag', Session(episodes=1).messages())
    file = next(bag.glob('*.mcap'))
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    file.write_bytes(content[:-2000])
    flights = EpisodeBrowser(str(tmp_path))
    assert flights.episodes() == []
    assert flights.problems


def test_an_event_of_a_kind_that_only_a_newer_version_knows_costs_no_episode(tmp_path):
    messages = Session(episodes=2).messages()
    said = next(message for message in messages if message.topic == '/session/event')
    later = said._replace(data=bag_maker.event(said.log_ns, 1, 200), log_ns=said.log_ns + 1)
    write(tmp_path / 'bag', sorted([*messages, later], key=lambda message: message.log_ns))
    flights = EpisodeBrowser(str(tmp_path))
    assert [row['outcome'] for row in flights.episodes()] == ['success', 'success']
    assert flights.problems == []


def test_no_folder_is_an_empty_list(tmp_path):
    flights = EpisodeBrowser(str(tmp_path / 'nothing'))
    assert flights.episodes() == []
    assert flights.episode('x/1') is None
    assert flights.frame('x/1', 0) is None


def test_episodes_of_two_arms_in_one_bag_are_told_apart(tmp_path):
    one = Session(episodes=1, namespace='/left').messages()
    two = Session(episodes=1, namespace='/right', steps=8).messages()
    write(tmp_path / 'bag', sorted([*one, *two], key=lambda message: message.log_ns))
    rows = EpisodeBrowser(str(tmp_path)).episodes()
    assert sorted(row['steps'] for row in rows) == [7, 11]
    assert len({row['key'] for row in rows}) == 2


def test_what_a_classifier_and_a_learner_said_stands_by_the_steps(tmp_path):
    pytest.importorskip('rclpy')
    from rclpy.serialization import serialize_message
    from so101_interfaces.msg import LearnerStatus, SuccessOpinion

    from so101_bags.storage import RawMessage

    messages = Session(episodes=2, steps=6).messages()
    first, last = messages[0].log_ns, messages[-1].log_ns
    for at, value in ((first - 1, 0.25), ((first + last) // 2, 0.75)):
        said = serialize_message(LearnerStatus(q_mean=value))
        messages.append(RawMessage('/learner/status', 'so101_interfaces/msg/LearnerStatus', at, said))
    for index, probability in ((2, 0.125), (3, float('nan'))):
        said = serialize_message(SuccessOpinion(episode=1, index=index, probability=probability))
        messages.append(
            RawMessage('/classifier/opinion', 'so101_interfaces/msg/SuccessOpinion', last + index, said)
        )
    write(tmp_path / 'bag', sorted(messages, key=lambda message: message.log_ns))
    flights = EpisodeBrowser(str(tmp_path))
    second, one = (flights.episode(row['key']) for row in flights.episodes())
    assert [step['score'] for step in one['steps']] == [None, None, 0.125, None, None, None]
    assert {step['q'] for step in one['steps']} == {0.25}
    assert second['steps'][-1]['q'] == 0.75
    assert [event['said'] for event in one['events']] == ['start', 'success']
    assert [step['at'] for step in one['steps']] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_a_look_through_the_bags_says_how_far_it_is_and_ends(tmp_path):
    for number in range(4):
        write(tmp_path / f'bag{number}', Session(episodes=1, steps=6).messages())
    flights = EpisodeBrowser(str(tmp_path))
    told = [flights.look()]
    assert told[0]['reading'] is not None
    deadline = time.monotonic() + 300.0
    while told[-1]['reading'] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        told.append(flights.look())
    assert len(told[-1]['rows']) == 4
    assert flights.look()['rows'] == told[-1]['rows'], 'what is known is told while it is looked again'
