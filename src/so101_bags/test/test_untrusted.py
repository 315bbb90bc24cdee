# SPDX-License-Identifier: Apache-2.0
"""Bags that would hurt whoever reads them."""

import io
import os
import subprocess
import sys
import tempfile

from backports import zstd
from bag_maker import Session, write
import lz4.frame
from mcap.writer import CompressionType, Writer
import pytest
from test_bag_reader import keys, SPEC

from so101_bags import untrusted
from so101_bags.check.bag import check_bag
from so101_bags.fix import fix_bag
from so101_bags.metadata import definition_of
from so101_bags.records import read_records
from so101_bags.storage import BagError, METADATA, open_bags, RawMessage, storage_files
from so101_bags.untrusted import MOST_BYTES, unpack, unpack_file


@pytest.fixture
def bag(tmp_path):
    return write(tmp_path / 'bag', Session(episodes=1, steps=4).messages())


@pytest.fixture(autouse=True)
def nothing_is_left_in_the_temporary_folder(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp('temporary')
    monkeypatch.setattr(tempfile, 'tempdir', str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    'text',
    [
        '[' * 200_000,
        'rosbag2_bagfile_information: [1]',
        'rosbag2_bagfile_information: {relative_file_paths: [1]}',
        'rosbag2_bagfile_information: {relative_file_paths: {a: 1}}',
        'rosbag2_bagfile_information: {custom_data: [1]}',
    ],
)
def test_hostile_metadata_are_refused_and_the_bag_is_repaired(bag, text):
    good = keys([bag])
    (bag / METADATA).write_text(text)
    with pytest.raises(BagError, match=METADATA):
        storage_files(bag)
    with pytest.raises(BagError, match=METADATA):
        check_bag(bag)
    assert keys([fix_bag(bag).target]) == good


@pytest.mark.parametrize('kind', ['fifo', 'folder', 'device'])
def test_what_is_no_plain_file_is_never_waited_for(bag, kind):
    (file,) = bag.glob('*.mcap')
    for path in (bag / METADATA, file):
        kept = path.read_bytes()
        path.unlink()
        if kind == 'fifo':
            os.mkfifo(path)
        elif kind == 'folder':
            path.mkdir()
        else:
            path.symlink_to('/dev/zero')
        with pytest.raises(BagError, match='a pipe or a device'), open_bags(bag):
            pass
        path.rmdir() if kind == 'folder' else path.unlink()
        path.write_bytes(kept)


def bomb(size):
    """Zeros, packed."""
    out = io.BytesIO()
    with zstd.open(out, 'wb') as packed:
        for _ in range(size >> 20):
            packed.write(bytes(1 << 20))
    return out.getvalue()


@pytest.mark.parametrize('read', [check_bag, fix_bag, lambda bag: list(read_records(bag, SPEC))])
def test_a_file_that_unpacks_to_gigabytes_is_refused(bag, read):
    (file,) = bag.glob('*.mcap')
    file.unlink()
    packed = file.with_name(f'{file.name}.zstd')
    packed.write_bytes(bomb(MOST_BYTES + (1 << 20)))
    metadata = bag / METADATA
    metadata.write_text(
        metadata.read_text()
        .replace(file.name, packed.name)
        .replace("compression_mode: ''", 'compression_mode: FILE')
        .replace("compression_format: ''", 'compression_format: zstd')
    )
    before = {path.name for path in bag.parent.iterdir()}
    with pytest.raises(BagError, match='do not trust'):
        read(bag)
    assert {path.name for path in bag.parent.iterdir()} == before


@pytest.mark.parametrize('size', [MOST_BYTES + 1, 1 << 40])
@pytest.mark.parametrize('form', ['zstd', 'lz4'])
def test_a_chunk_is_unpacked_no_further_than_it_declares_and_never_beyond_the_bound(bag, form, size):
    (file,) = bag.glob('*.mcap')
    zeros = bytes(16 << 20)
    body = zstd.compress(zeros) if form == 'zstd' else lz4.frame.compress(zeros)
    unpackers = untrusted.storage_mcap.DECOMPRESSORS
    assert unpackers[form](body, len(zeros)) == zeros
    for declared in (0, 100, len(zeros) - 1):
        with pytest.raises(ValueError, match='at most'):
            unpackers[form](body, declared)
    large = zstd.compress(bytes(MOST_BYTES + 2)) if form == 'zstd' else None
    if large is not None:
        with pytest.raises(ValueError, match='at most'):
            unpackers[form](large, size)
    assert file.exists()


def test_a_message_is_unpacked_up_to_the_bound():
    assert unpack(zstd.compress(b'abc')) == b'abc'
    with pytest.raises(ValueError, match='at most 1000 bytes'):
        unpack(zstd.compress(bytes(1001)), 1000)


def test_a_legitimate_file_of_pictures_unpacks(tmp_path):
    plain = os.urandom(1000) * 100
    (tmp_path / 'a.zstd').write_bytes(zstd.compress(plain))
    unpack_file(tmp_path / 'a.zstd', tmp_path / 'a')
    assert (tmp_path / 'a').read_bytes() == plain


@pytest.mark.parametrize(
    'text',
    [
        'this is @ no definition',
        'Missing field',
        'int32 a\n' + '=' * 80 + '\nMSG: pkg/Event\n' + 'pkg/Event inner\n',
        'int32 value_that_is_long\n' * 20_000,
    ],
)
def test_a_definition_that_nobody_needs_does_not_make_a_bag_unreadable(bag, tmp_path, text):
    good = keys([bag])
    strange = tmp_path / 'strange.mcap'
    with strange.open('wb') as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start('ros2', 'test')
        with open_bags(bag) as raw:
            messages = [
                *raw.messages(),
                RawMessage('/x/_service_event', 'pkg/srv/Set_Event', 1, b'\0\1\0\0abcd'),
            ]
        channels = {}
        for message in messages:
            if message.topic not in channels:
                ours = message.msgtype.startswith('pkg/')
                data = text if ours else definition_of(message.msgtype).text
                schema = writer.register_schema(message.msgtype, 'ros2msg', data.encode())
                channels[message.topic] = writer.register_channel(message.topic, 'cdr', schema)
            writer.add_message(channels[message.topic], message.log_ns, message.data, message.log_ns)
        writer.finish()
    assert keys([strange]) == good
    assert check_bag(strange).episodes


@pytest.mark.parametrize('surface', ['bag', 'bag-genuine', 'bag-zstd', 'bag-sqlite', 'metadata'])
def test_mutants_end_in_a_result_or_a_sentence(surface):
    """A short seed of `tools/fuzz`."""
    tools = os.path.join(os.path.dirname(__file__), '..', '..', '..', 'tools')
    done = subprocess.run(
        [sys.executable, os.path.join(tools, 'fuzz.py'), surface, '--mutants', '8'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
