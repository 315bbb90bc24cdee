# SPDX-License-Identifier: Apache-2.0
"""What we write has the structure of what `ros2 bag record` writes, and is whole at any time."""

import io
from pathlib import Path
import struct
import subprocess
import sys
import zlib

import bag_maker
from bag_maker import Session, write
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Schema
from mcap.writer import MCAP0_MAGIC
import pytest
from rosbags.rosbag2 import Reader
import yaml

from so101_bags.fix import fix_bag
from so101_bags.metadata import (
    definition_of,
    OfferedQos,
    read_attachments,
    read_mcap_metadata,
    read_session_metadata,
)
from so101_bags.storage import BagError, open_bags
from so101_bags.write import BagWriter, Extras

GENUINE = Path(__file__).parent / 'data' / 'genuine' / 'mcap_plain'
LATCHED_QOS = OfferedQos(durability='transient_local', lifespan=('10', '0'))


def spans(data, at):
    """Opcode, content and place of each record from an offset on."""
    while at < len(data) - 8:
        opcode, size = struct.unpack_from('<BQ', data, at)
        yield opcode, data[at + 9 : at + 9 + size], at
        at += 9 + size


def records(path):
    """The records of a file, outermost level, as (opcode, content)."""
    data = path.read_bytes()
    assert data[:8] == data[-8:] == MCAP0_MAGIC
    return [(opcode, body) for opcode, body, _ in spans(data, 8)]


def channels(path):
    """Topic -> (encoding, keys of the metadata, metadata, schema name, schema encoding, schema text)."""
    found, schemas = {}, {}
    for opcode, body in records(path):
        stream = ReadDataStream(io.BytesIO(body))
        if opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            schema = schemas[channel.schema_id]
            found[channel.topic] = (
                channel.message_encoding,
                channel.metadata,
                schema.name,
                schema.encoding,
                schema.data,
            )
    return found


def copy_of_genuine(folder, **options):
    """Write the messages of the genuine bag with our writer, with the same QoS."""
    writer = BagWriter(folder, **options)
    with open_bags(GENUINE) as bag:
        for message in bag.messages():
            if message.topic not in writer.topics:
                qos = LATCHED_QOS if message.topic == '/rosout' else OfferedQos()
                writer.add_topic(message.topic, definition_of(message.msgtype), [qos])
            writer.write(message.topic, message.log_ns, message.log_ns, message.data)
        messages = [(m.topic, m.log_ns, m.data) for m in bag.messages()]
    writer.close()
    return messages


def test_a_genuine_bag_copied_is_the_same_bag(tmp_path):
    messages = copy_of_genuine(tmp_path / 'copy')
    with Reader(tmp_path / 'copy') as ours, Reader(GENUINE) as genuine:
        assert [(c.topic, t, bytes(d)) for c, t, d in ours.messages()] == messages
        assert (ours.message_count, ours.start_time, ours.end_time) == (
            genuine.message_count,
            genuine.start_time,
            genuine.end_time,
        )
        theirs = {c.topic: c for c in genuine.connections}
        for connection in ours.connections:
            other = theirs[connection.topic]
            assert (connection.msgtype, connection.digest, connection.ext, connection.msgcount) == (
                other.msgtype,
                other.digest,
                other.ext,
                other.msgcount,
            )


def test_schemas_and_channels_are_those_of_ros2_bag_record(tmp_path):
    copy_of_genuine(tmp_path / 'copy')
    ours, genuine = channels(tmp_path / 'copy' / 'copy_0.mcap'), channels(GENUINE / 'mcap_plain_0.mcap')
    assert len(ours) == 4
    for topic, found in ours.items():
        encoding, metadata, name, form, text = genuine[topic]
        assert (found[0], found[2], found[3]) == (encoding, name, form) == ('cdr', name, 'ros2msg')
        assert found[1] == metadata
        assert sorted(found[4].split(b'=' * 80)) == sorted(text.split(b'=' * 80)) or topic.endswith(
            'camera_info'
        )
        assert sorted(found[4].split()) == sorted(text.split())  # parts may come in another order


def test_the_file_has_the_same_kinds_of_records_as_a_genuine_one(tmp_path):
    copy_of_genuine(tmp_path / 'copy')
    ours = [opcode for opcode, _ in records(tmp_path / 'copy' / 'copy_0.mcap')]
    genuine = [opcode for opcode, _ in records(GENUINE / 'mcap_plain_0.mcap')]
    assert set(ours) == set(genuine)
    assert ours[0] == Opcode.HEADER
    assert ours[-1] == Opcode.FOOTER


def test_metadata_yaml_equals_that_of_ros2_bag_record(tmp_path):
    copy_of_genuine(tmp_path / 'mcap_plain')
    ours, genuine = (
        yaml.safe_load((folder / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
        for folder in (tmp_path / 'mcap_plain', GENUINE)
    )
    topics = {topic['topic_metadata']['name']: topic for topic in genuine.pop('topics_with_message_count')}
    for topic in ours.pop('topics_with_message_count'):
        assert topic == topics[topic['topic_metadata']['name']]
    assert list(ours) == list(genuine)
    assert ours == genuine


def test_the_summary_points_to_what_it_says_and_its_checksums_hold(tmp_path):
    copy_of_genuine(tmp_path / 'copy', compression='zstd')
    data = (tmp_path / 'copy' / 'copy_0.mcap').read_bytes()
    start, offsets_start, crc = struct.unpack_from('<QQI', data, len(data) - 28)
    assert crc == zlib.crc32(data[start : len(data) - 12])
    assert data[offsets_start] == Opcode.SUMMARY_OFFSET
    seen = set()
    for kind, body, _ in spans(data, start):
        if kind == Opcode.SUMMARY_OFFSET:
            opcode, at, size = struct.unpack('<BQQ', body)
            if size:  # mcap notes empty groups too
                assert data[at] == opcode
                seen.add(opcode)
        if kind == Opcode.CHUNK_INDEX:
            first, last, at, size, length = struct.unpack_from('<QQQQI', body)
            assert data[at] == Opcode.CHUNK
            assert struct.unpack_from('<Q', data, at + 1)[0] == size - 9
            for _channel, place in struct.iter_unpack('<HQ', body[36 : 36 + length]):
                assert data[place] == Opcode.MESSAGE_INDEX
            assert first <= last
        if kind in (Opcode.METADATA_INDEX, Opcode.ATTACHMENT_INDEX):
            at, size = struct.unpack_from('<QQ', body)
            assert data[at] == (Opcode.METADATA if kind == Opcode.METADATA_INDEX else Opcode.ATTACHMENT)
            assert struct.unpack_from('<Q', data, at + 1)[0] == size - 9
    assert {Opcode.SCHEMA, Opcode.CHANNEL, Opcode.STATISTICS, Opcode.CHUNK_INDEX} <= seen


@pytest.mark.parametrize('compression', ['none', 'zstd'])
def test_P19_after_every_flush_everything_can_be_read_while_the_bag_goes_on_growing(compression, tmp_path):
    writer = BagWriter(tmp_path / 'bag', compression=compression)
    messages = Session(episodes=1, steps=5).messages()
    for i, message in enumerate(messages, 1):
        writer.add_topic(message.topic, definition_of(message.msgtype), [OfferedQos()])
        writer.write(message.topic, message.log_ns, message.log_ns, message.data)
        if i % 20 == 0:
            writer.flush()
            with open_bags(tmp_path / 'bag') as bag:
                assert sum(1 for _ in bag.messages()) == bag.count == i
                assert bag.unfinished == [tmp_path / 'bag' / 'bag_0.mcap']
    writer.close()
    with Reader(tmp_path / 'bag') as reader:
        assert sum(1 for _ in reader.messages()) == len(messages) == reader.message_count


def test_what_was_written_once_is_never_written_over(tmp_path):
    """So whoever reads at any moment finds the same bytes, and more behind them."""
    writer, file = BagWriter(tmp_path / 'bag'), tmp_path / 'bag' / 'bag_0.mcap'
    writer.add_topic('/joint_states', definition_of('sensor_msgs/msg/JointState'))
    before = file.read_bytes()
    for i in range(100):
        writer.write('/joint_states', i, i, bytes(100))
        writer.flush()
        now = file.read_bytes()
        assert now.startswith(before)
        assert len(now) > len(before)
        before = now
    writer.close()
    assert file.read_bytes().startswith(before)


def test_a_bag_is_read_by_others_at_every_moment_of_its_recording(tmp_path):
    """The writer in a process of its own, as fast as it can; readers never see anything but a whole beginning."""
    program = f'import sys; sys.path.insert(0, {str(Path(bag_maker.__file__).parent)!r})\n{RECORDING}'
    command = [sys.executable, '-c', program, str(tmp_path / 'bag')]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline()
        whole = [message.data for message in Session(episodes=1, steps=5).messages()]
        seen = []
        while not seen or seen[-1] == seen[0] or (len(seen) < 200 and seen[-1] < 5 * len(whole)):
            with open_bags(tmp_path / 'bag') as bag:
                found = [message.data for message in bag.messages()]
            assert [data in whole for data in found].count(False) == 0
            seen.append(len(found))
        writer.kill()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
    fix = fix_bag(tmp_path / 'bag')
    assert fix.messages >= seen[-1]


def test_splits_lose_nothing_and_each_file_can_be_read_alone(tmp_path):
    messages = Session().messages()
    writer = BagWriter(tmp_path / 'bag', split_bytes=200_000)
    writer.add_topic('/robot_description', definition_of('std_msgs/msg/String'), latched=True)
    writer.write(
        '/robot_description', messages[0].log_ns, messages[0].log_ns, b'\x00\x01\x00\x00\x02\x00\x00\x00a\x00'
    )
    for i, message in enumerate(messages):
        writer.add_topic(message.topic, definition_of(message.msgtype), [OfferedQos()])
        writer.write(message.topic, message.log_ns, message.log_ns, message.data)
        if i % 20 == 0:
            writer.flush()
    writer.close()
    files = sorted((tmp_path / 'bag').glob('*.mcap'))
    assert len(files) >= 3
    for file in files:
        with open_bags(file) as bag:
            assert bag.topics['/robot_description'].count == 1
            assert bag.topics['/joint_states'].definitions
    with open_bags(tmp_path / 'bag') as bag:
        assert bag.count == len(messages) + len(files)
        assert [m.data for m in bag.messages(['/session/step'])] == [
            m.data for m in messages if m.topic == '/session/step'
        ]
    with Reader(tmp_path / 'bag') as reader:
        assert reader.message_count == len(messages) + len(files)


def test_contract_calibration_and_configuration_travel_in_every_file(tmp_path):
    extras = Extras(
        {'so101': {'calibration_id': 'cal-9'}}, {'driver.yaml': b'a: 1\n'}, {'action_hash': '12:ab'}
    )
    bag = write(tmp_path / 'bag', Session().messages(), extras=extras, split_bytes=200_000)
    files = sorted(bag.glob('*.mcap'))
    assert len(files) > 1
    for file in files:
        assert dict(read_mcap_metadata(file))['so101'] == {'calibration_id': 'cal-9'}
        assert 'serialized_metadata' in dict(read_mcap_metadata(file))['rosbag2']
        assert read_attachments(file) == {'driver.yaml': b'a: 1\n'}
    assert read_session_metadata(bag) == {'calibration_id': 'cal-9', 'action_hash': '12:ab'}
    assert yaml.safe_load((bag / 'metadata.yaml').read_text())['rosbag2_bagfile_information'][
        'custom_data'
    ] == {'action_hash': '12:ab'}


def test_a_folder_that_exists_is_not_overwritten(tmp_path):
    (tmp_path / 'bag').mkdir()
    with pytest.raises(BagError, match='new folder'):
        BagWriter(tmp_path / 'bag')


def test_one_topic_has_one_type(tmp_path):
    writer = BagWriter(tmp_path / 'bag')
    writer.add_topic('/a', definition_of('std_msgs/msg/String'))
    with pytest.raises(BagError, match='one topic of a bag has one type'):
        writer.add_topic('/a', definition_of('sensor_msgs/msg/Image'))
    writer.close()


def test_an_unknown_type_is_named_in_one_sentence():
    with pytest.raises(BagError, match='install no_such_msgs'):
        definition_of('no_such_msgs/msg/Thing')


RECORDING = """
from itertools import count
from pathlib import Path
from bag_maker import Session
from so101_bags.metadata import definition_of
from so101_bags.write import BagWriter
messages = Session(episodes=1, steps=5).messages()
writer = BagWriter(Path(sys.argv[1]), compression='zstd', split_bytes=500_000)
for turn in count():
    for i, message in enumerate(messages):
        writer.add_topic(message.topic, definition_of(message.msgtype))
        writer.write(message.topic, message.log_ns + turn * 10**9, message.log_ns, message.data)
        if i % 7 == 0:
            writer.flush()
    print(turn, flush=True)
"""

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import bag_maker
from so101_bags.storage import BagError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    bag_maker.write(Path(sys.argv[1]), bag_maker.Session(episodes=4).messages(), flush_every=20)
except BagError as error:
    print(error)
    sys.exit(3)
"""


def test_P19_a_full_disk_gives_one_sentence_and_the_bag_is_whole_up_to_there(tmp_path):
    folder = tmp_path / 'bag'
    command = [sys.executable, '-c', FULL_DISK, str(folder), str(Path(bag_maker.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 3, done.stderr
    assert 'the bag is whole up to here' in done.stdout
    assert done.stdout.count('\n') == 1
    whole = bag_maker.Session(episodes=4).messages()
    with open_bags(folder) as bag:
        found = [m.data for m in bag.messages()]
    assert len(found) > 100
    assert found == [m.data for m in whole[: len(found)]]
    assert (folder / 'bag_0.mcap').stat().st_size > 250_000
