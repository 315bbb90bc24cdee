# SPDX-License-Identifier: Apache-2.0
"""Whatever cut a bag off, everything that is whole in it comes back, and the original stays as it is."""

import json
from pathlib import Path
import shutil
import sqlite3

from backports import zstd
from bag_maker import Session, SPEC, write
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin
from test_bag_reader import keys, write_foreign

from so101_bags import cli
from so101_bags.fix import fix_bag
from so101_bags.salvage import is_whole, salvage
from so101_bags.storage import BagError, open_bags

GENUINE = Path(__file__).parent / 'data' / 'genuine'
MESSAGES = Session(episodes=1, steps=8).messages()
FLUSH = 40


def payloads(path):
    with open_bags(path) as bag:
        return [message.data for message in bag.messages()]


@pytest.fixture(scope='module', params=['none', 'zstd'])
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole') / 'bag'
    return write(folder, MESSAGES, compression=request.param, flush_every=FLUSH)


def cut(bag, folder, size):
    """A copy of a bag whose file was cut off."""
    copy = folder / 'bag'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bag, copy)
    file = next(copy.glob('*.mcap'))
    file.write_bytes(file.read_bytes()[:size])
    return copy


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 1.0))
def test_P19_a_file_cut_anywhere_gives_back_everything_before_the_cut(whole, tmp_path_factory, share):
    folder = tmp_path_factory.mktemp('cut')
    content = next(whole.glob('*.mcap')).read_bytes()
    size = 50 + int(share * (len(content) - 50))
    broken = cut(whole, folder, size)
    report = fix_bag(broken)
    found = payloads(report.target)
    assert found == [message.data for message in MESSAGES[: len(found)]]
    assert report.messages == len(found)
    with Reader(report.target) as reader:
        assert reader.message_count == len(found)


def test_what_is_cut_off_costs_no_whole_message_of_the_last_chunk(tmp_path):
    bag = write(tmp_path / 'one' / 'bag', MESSAGES, flush_every=10**9)
    content = next(bag.glob('*.mcap')).read_bytes()
    broken = cut(bag, tmp_path / 'cut', int(0.8 * len(content)))
    found = payloads(fix_bag(broken).target)
    assert found == [message.data for message in MESSAGES[: len(found)]]
    assert len(found) > 0.7 * len(MESSAGES)


def test_a_cut_in_a_compressed_chunk_gives_back_what_is_before_it(tmp_path):
    quiet = [m for m in MESSAGES if not m.topic.endswith('image_raw')] * 30
    bag = write(tmp_path / 'one' / 'bag', quiet, flush_every=10**9, compression='zstd')
    content = next(bag.glob('*.mcap')).read_bytes()
    broken = cut(bag, tmp_path / 'cut', int(0.5 * len(content)))
    with Reader(fix_bag(broken).target) as reader:
        assert reader.message_count > 0.2 * len(quiet)


def test_the_original_is_not_touched(whole, tmp_path):
    broken = cut(whole, tmp_path / 'cut', 20_000)
    before = {path.name: path.read_bytes() for path in broken.iterdir()}
    fix_bag(broken)
    assert {path.name: path.read_bytes() for path in broken.iterdir()} == before
    assert sorted(path.name for path in broken.parent.iterdir()) == ['bag', 'bag_fixed']


def test_in_place_keeps_the_damaged_one_beside(whole, tmp_path):
    broken = cut(whole, tmp_path / 'cut', 20_000)
    before = next(broken.glob('*.mcap')).read_bytes()
    report = fix_bag(broken, in_place=True)
    assert report.target == broken
    assert payloads(broken)
    assert next(broken.with_name('bag.damaged').glob('*.mcap')).read_bytes() == before
    with pytest.raises(BagError, match='something is there'):
        fix_bag(broken, in_place=True)


def test_a_failure_leaves_nothing_behind(tmp_path):
    folder = tmp_path / 'bag'
    folder.mkdir()
    (folder / 'bag_0.mcap').write_bytes(b'nonsense' * 100)
    with pytest.raises(BagError, match='cannot be repaired'):
        fix_bag(folder)
    assert [path.name for path in tmp_path.iterdir()] == ['bag']


def test_a_whole_bag_with_stale_metadata_gets_new_ones(whole, tmp_path):
    copy = tmp_path / 'bag'
    shutil.copytree(whole, copy)
    (copy / 'metadata.yaml').unlink()
    report = fix_bag(copy)
    assert report.metadata_only
    with Reader(report.target) as reader, Reader(whole) as first:
        assert reader.message_count == len(MESSAGES)
        assert [c.ext for c in reader.connections] == [c.ext for c in first.connections]
        assert [c.digest for c in reader.connections] == [c.digest for c in first.connections]


def test_metadata_that_are_no_yaml_do_not_stop_it(whole, tmp_path):
    copy = tmp_path / 'bag'
    shutil.copytree(whole, copy)
    (copy / 'metadata.yaml').write_text('{{{ no yaml')
    assert fix_bag(copy).messages == len(MESSAGES)


def test_a_split_bag_is_repaired_where_only_its_last_file_is_damaged(tmp_path):
    bag = write(tmp_path / 'bag', MESSAGES, split_bytes=100_000, flush_every=20)
    files = sorted(bag.glob('*.mcap'))
    assert len(files) > 2
    files[-1].write_bytes(files[-1].read_bytes()[:-400])
    report = fix_bag(bag)
    assert report.repaired == [files[-1].name]
    found = payloads(report.target)
    assert found == [message.data for message in MESSAGES[: len(found)]]


def test_a_chunk_with_a_wrong_checksum_is_left_out_and_the_rest_is_kept(tmp_path):
    bag = write(tmp_path / 'bag', MESSAGES, flush_every=FLUSH)
    file = next(bag.glob('*.mcap'))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content[:-10])
    report = fix_bag(bag)
    found = payloads(report.target)
    assert len(MESSAGES) - 2 * FLUSH <= len(found) < len(MESSAGES)
    assert any('damaged' in note for note in report.notes)


def test_bare_files_are_repaired_too(whole, tmp_path):
    file = tmp_path / 'alone.mcap'
    file.write_bytes(next(whole.glob('*.mcap')).read_bytes()[:-100])
    assert not is_whole(file)
    report = fix_bag(file)
    assert report.target == tmp_path / 'alone_fixed.mcap'
    assert is_whole(report.target)
    assert len(payloads(report.target)) == report.messages > 0


@pytest.mark.parametrize('keep', [0.5, 0.9, 1.0])
def test_a_genuine_recording_that_was_cut_off_is_repaired(keep, tmp_path):
    bag = tmp_path / 'mcap_plain'
    shutil.copytree(GENUINE / 'mcap_plain', bag)
    (bag / 'metadata.yaml').unlink()
    file = next(bag.glob('*.mcap'))
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) - 100])
    found, genuine = payloads(fix_bag(bag).target), payloads(GENUINE / 'mcap_plain')
    assert len(found) > (keep - 0.15) * len(genuine)
    assert set(found) <= set(genuine)


def test_a_compressed_file_that_was_cut_off_is_repaired(tmp_path):
    bag = tmp_path / 'zipped'
    shutil.copytree(GENUINE / 'mcap_zstd_file', bag)
    file = next(bag.glob('*.zstd'))
    plain = zstd.decompress(file.read_bytes())
    pieces = [zstd.compress(plain[i : i + 20_000]) for i in range(0, len(plain), 20_000)]
    file.write_bytes(b''.join(pieces)[: int(0.8 * sum(map(len, pieces)))])
    found = payloads(fix_bag(bag).target)
    assert len(found) > 100
    assert set(found) <= set(payloads(GENUINE / 'mcap_zstd_file'))


def test_an_sqlite_bag_whose_recorder_was_killed_gives_back_its_journal(tmp_path):
    bag = write_foreign(tmp_path / 'sql', MESSAGES, StoragePlugin.SQLITE3)
    file = next(bag.glob('*.db3'))
    killed = tmp_path / 'killed'
    killed.mkdir()
    with sqlite3.connect(file) as database:
        database.execute('PRAGMA journal_mode=WAL')
        database.execute('PRAGMA wal_autocheckpoint=0')
        database.execute('INSERT INTO messages SELECT NULL, topic_id, timestamp + 1, data FROM messages')
        database.commit()
        for path in bag.iterdir():  # as a kill leaves it: the journal was not merged
            shutil.copyfile(path, killed / path.name)
    database.close()
    with pytest.raises(BagError, match='run bag-fix on it'):
        payloads(killed)
    report = fix_bag(killed)
    assert report.messages == 2 * len(MESSAGES)
    assert len(payloads(report.target)) == 2 * len(MESSAGES)


def test_messages_outside_of_chunks_are_put_in_order(tmp_path):
    """As `ros2 bag record --storage-preset-profile fastwrite` leaves them, where two came in swapped."""
    from mcap.writer import IndexType, Writer

    from so101_bags.metadata import definition_of

    definition = definition_of('sensor_msgs/msg/JointState')
    joints = [m for m in MESSAGES if m.topic == '/joint_states'][:20]
    with (tmp_path / 'flat.mcap').open('wb') as file:
        plain = {'repeat_channels': False, 'repeat_schemas': False, 'use_statistics': False}
        writer = Writer(
            file, use_chunking=False, index_types=IndexType.NONE, use_summary_offsets=False, **plain
        )
        writer.start('ros2', 'test')
        schema = writer.register_schema(definition.msgtype, 'ros2msg', definition.text.encode())
        channel = writer.register_channel('/joint_states', 'cdr', schema, {'offered_qos_profiles': ''})
        for message in [joints[1], joints[0], *joints[2:]]:
            writer.add_message(channel, message.log_ns, message.data, message.log_ns)
        writer.finish()
    with pytest.raises(BagError, match='run bag-fix on it'):
        payloads(tmp_path / 'flat.mcap')
    assert payloads(fix_bag(tmp_path / 'flat.mcap').target) == [message.data for message in joints]


def test_repaired_records_equal_those_of_the_whole_bag(whole, tmp_path):
    content = next(whole.glob('*.mcap')).read_bytes()
    broken = cut(whole, tmp_path / 'cut', int(0.9 * len(content)))
    found = keys(fix_bag(broken).target, SPEC)
    assert found == keys(whole, SPEC)[: len(found)]


def test_files_that_are_no_mcap_are_refused(tmp_path):
    (tmp_path / 'a').write_bytes(b'no')
    with pytest.raises(BagError, match='expected an MCAP file'):
        salvage(tmp_path / 'a', tmp_path / 'b')


def test_the_command_line_tells_what_was_saved(whole, tmp_path, capsys):
    broken = cut(whole, tmp_path / 'cut', 20_000)
    assert cli.fix_main([str(broken), '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['messages'] == len(payloads(told['target']))
    assert cli.fix_main([str(broken), '--out', str(tmp_path / 'other')]) == 0
    assert 'repaired' in capsys.readouterr().out
    assert cli.fix_main([str(tmp_path / 'none')]) == 2
    assert 'found nothing' in capsys.readouterr().err
