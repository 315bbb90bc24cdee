# SPDX-License-Identifier: Apache-2.0
"""The sink writes in order, splits between episodes, and says in one sentence why it ends."""

import shutil

from bag_maker import event, Session
import pytest

from so101_bags.messages import Decoders
from so101_bags.metadata import definition_of, OfferedQos, read_session_metadata
from so101_bags.storage import BagError, open_bags
from so101_bags.write import BagWriter
from so101_contract.session import EventKind
from so101_session.recorder.sink import NewMessage, NewTopic, Note, Sink

EVENT, EVENT_TYPE = '/session/event', 'so101_interfaces/msg/EpisodeEvent'


def topic(name=EVENT, msgtype=EVENT_TYPE):
    return NewTopic(name, definition_of(msgtype), [OfferedQos()], False)


def said(number, kind, stamp=10**18, **fields):
    return NewMessage(EVENT, stamp, stamp, event(stamp, number, kind, **fields))


def play(folder, batches, **options):
    """Submit batches; return the account."""
    sink = Sink(BagWriter(folder), metadata=options.pop('metadata', {}), **options)
    for batch in batches:
        sink.submit(batch)
    assert sink.close(20.0)
    return sink.account


def test_a_split_comes_between_episodes_before_the_reset_or_the_start(tmp_path):
    kinds = (EventKind.RESET_START, EventKind.RESET_DONE, EventKind.START, EventKind.SUCCESS)
    said_in_order = [(number, kind) for number in range(1, 6) for kind in kinds]
    said_in_order.insert(
        9, (2, EventKind.FAILURE)
    )  # a late label does not count as another episode's end twice
    events = [said(number, kind, i) for i, (number, kind) in enumerate(said_in_order)]
    play(tmp_path / 'bag', [[topic()], *([item] for item in events)], split_episodes=2)
    found = []
    for file in sorted((tmp_path / 'bag').glob('*.mcap')):
        with open_bags(file) as bag:
            found.append([Decoders().event()(message.data) for message in bag.messages()])
    assert all(events[0].kind == EventKind.RESET_START for events in found)
    starts = [[e.episode for e in events if e.kind == EventKind.START] for events in found]
    assert starts == [[1, 2], [3, 4], [5]]


def test_contract_and_calibration_that_the_session_names_are_stored(tmp_path):
    start = said(1, EventKind.START, observation_hash='aa', action_hash='bb', calibration_id='cc')
    account = play(
        tmp_path / 'bag', [[topic(), start]], metadata={'observation_hash': 'aa', 'observation': '{}'}
    )
    assert account.metadata == {
        'observation_hash': 'aa',
        'observation': '{}',
        'action_hash': 'bb',
        'calibration_id': 'cc',
    }
    assert read_session_metadata(tmp_path / 'bag') == account.metadata


def test_an_observation_that_is_not_the_sessions_is_not_stored_as_if_it_were(tmp_path, caplog):
    start = said(1, EventKind.START, observation_hash='other')
    account = play(
        tmp_path / 'bag', [[topic(), start]], metadata={'observation_hash': 'mine', 'observation': '{}'}
    )
    assert account.metadata == {'observation_hash': 'other'}
    assert 'give both the same parameter' in caplog.text


def test_what_the_disk_cannot_take_is_counted_as_lost(tmp_path):
    messages = [NewMessage(EVENT, i, i, bytes(1000)) for i in range(100)]
    account = play(tmp_path / 'bag', [[topic(), *messages]], backlog_mb=0.05)
    assert account.lost == 100
    assert play(tmp_path / 'other', [[topic(), *messages]], backlog_mb=1.0).lost == 0


def test_a_disk_that_is_nearly_full_ends_the_recording_with_a_whole_bag(tmp_path):
    items = [NewMessage('/joint_states', m.log_ns, m.log_ns, m.data) for m in Session(1).messages()[:50]]
    first = topic('/joint_states', 'sensor_msgs/msg/JointState')
    account = play(tmp_path / 'bag', [[first, *items]], min_free_mb=1e12)
    assert isinstance(account.error, BagError)
    assert 'free the disk and record again' in str(account.error)
    with open_bags(tmp_path / 'bag') as bag:
        assert bag.count == 50


def test_a_folder_that_vanishes_ends_the_recording_with_a_sentence(tmp_path):
    sink = Sink(BagWriter(tmp_path / 'bag'), metadata={})
    shutil.rmtree(tmp_path / 'bag')
    sink.submit([topic(), said(1, EventKind.START)])
    assert sink.close(20.0)
    assert not sink.running
    assert 'expected to write to' in str(sink.account.error)


@pytest.mark.parametrize('data', [b'', b'\0\1\0\0', bytes(30)])
def test_an_event_that_cannot_be_read_is_stored_all_the_same(data, tmp_path):
    account = play(tmp_path / 'bag', [[topic(), NewMessage(EVENT, 1, 1, data)]])
    assert account.error is None
    assert account.messages == 1


def test_notes_become_metadata(tmp_path):
    from so101_bags.metadata import read_mcap_metadata

    play(tmp_path / 'bag', [[topic(), Note('parameters /a', {'x': '1'})]])
    assert ('parameters /a', {'x': '1'}) in list(read_mcap_metadata(tmp_path / 'bag' / 'bag_0.mcap'))
