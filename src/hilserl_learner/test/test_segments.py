# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path
import random
import resource
import signal
import subprocess
import sys
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from hilserl_learner.data.segments import (
    MAGIC,
    NEWEST,
    segment_numbers,
    segment_path,
    SegmentReader,
    SegmentWriter,
)
from hilserl_learner.errors import SegmentError


def payloads(directory):
    return [record.payload for record in SegmentReader(directory).poll()]


def write(directory, *contents, **options):
    writer = SegmentWriter(directory, **options)
    for content in contents:
        writer.append(1, content)
    writer.close()


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=60), max_size=20), st.lists(st.integers(0, 20), max_size=4))
def test_what_is_written_is_read_across_files_and_writers(tmp_path_factory, contents, rolls):
    directory = tmp_path_factory.mktemp('log')
    writer = SegmentWriter(directory)
    for number, content in enumerate(contents):
        if number in rolls:
            writer.roll()
        writer.append(number % 256, content)
    writer.close()
    assert payloads(directory) == contents


def test_a_reader_follows_a_writer(tmp_path):
    writer, reader = SegmentWriter(tmp_path), SegmentReader(tmp_path)
    assert list(reader.poll()) == []
    for number in range(5):
        writer.append(1, bytes([number]))
        assert [record.payload for record in reader.poll()] == [bytes([number])]
        if number == 2:
            writer.roll()
    assert reader.damaged == []


def test_a_reader_goes_on_from_a_position(tmp_path):
    write(tmp_path, b'one', b'two')
    reader = SegmentReader(tmp_path)
    next(reader.poll())
    assert [r.payload for r in SegmentReader(tmp_path, reader.position).poll()] == [b'two']


@pytest.mark.parametrize('cut', range(1, 12))
def test_an_unfinished_record_is_waited_for_and_skipped_once_another_file_follows(tmp_path, cut):
    write(tmp_path, b'first', b'second')
    path = segment_path(tmp_path, 0)
    os.truncate(path, path.stat().st_size - cut)
    assert payloads(tmp_path) == [b'first']
    write(tmp_path, b'third')
    reader = SegmentReader(tmp_path)
    assert [record.payload for record in reader.poll()] == [b'first', b'third']
    assert 'unfinished' in reader.damaged[0]


def test_a_writer_never_touches_what_an_earlier_one_wrote(tmp_path):
    write(tmp_path, b'first')
    before = segment_path(tmp_path, 0).read_bytes()
    write(tmp_path, b'second')
    assert segment_path(tmp_path, 0).read_bytes() == before
    assert segment_numbers(tmp_path) == [0, 1]


def test_a_flipped_bit_loses_the_rest_of_its_file_only_and_is_told(tmp_path):
    writer = SegmentWriter(tmp_path)
    for content in (b'a' * 50, b'b' * 50, b'c' * 50):
        writer.append(1, content)
    writer.roll()
    writer.append(1, b'd')
    writer.close()
    path = segment_path(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)
    reader = SegmentReader(tmp_path)
    assert [record.payload for record in reader.poll()] == [b'a' * 50, b'd']
    assert 'checksum' in reader.damaged[0]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_no_damage_of_a_file_makes_reading_fail(tmp_path_factory, where, value):
    directory = tmp_path_factory.mktemp('log')
    write(directory, b'a' * 30, b'b' * 30)
    write(directory, b'c')
    path = segment_path(directory, 0)
    data = bytearray(path.read_bytes())
    data[where % len(data)] = value
    path.write_bytes(data)
    assert payloads(directory)[-1] == b'c'


def test_a_file_of_another_kind_is_skipped_and_told(tmp_path):
    segment_path(tmp_path, 0).write_bytes(b'not a segment at all')
    write(tmp_path, b'good')
    reader = SegmentReader(tmp_path)
    assert [record.payload for record in reader.poll()] == [b'good']
    assert 'begin like a segment' in reader.damaged[0]


def test_an_empty_file_of_a_writer_killed_at_its_start_is_no_obstacle(tmp_path):
    segment_path(tmp_path, 0).write_bytes(MAGIC[:3])
    write(tmp_path, b'good')
    assert payloads(tmp_path) == [b'good']


def test_B17_a_full_disk_ends_in_a_sentence_and_the_log_is_as_it_was(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = SegmentWriter(tmp_path)
    writer.append(1, b'x' * 1000)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
        with pytest.raises(SegmentError, match='free space'):
            writer.append(1, b'y' * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    writer.append(1, b'z')
    writer.close()
    assert payloads(tmp_path) == [b'x' * 1000, b'z']


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(SegmentError, match='file/log'):
        SegmentWriter(tmp_path / 'file' / 'log')


WRITER = """
import sys
from pathlib import Path
from hilserl_learner.data.segments import SegmentWriter
writer = SegmentWriter(Path(sys.argv[1]), segment_bytes=20000)
number = int(sys.argv[2])
while True:
    if writer.full:
        writer.roll()
    writer.append(1, number.to_bytes(4, 'little') * 200)
    print(number, flush=True)
    number += 1
"""


def test_B17_P18_kill_9_of_the_writer_loses_no_acknowledged_record(tmp_path):
    acknowledged = 0
    chance = random.Random(1)
    for _ in range(int(os.environ.get('SO101_KILLS', '4'))):
        process = subprocess.Popen(
            [sys.executable, '-c', WRITER, str(tmp_path), str(acknowledged)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, sys.path))},
        )
        first = process.stdout.readline()
        assert int(first) == acknowledged
        time.sleep(chance.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        told = [int(line) for line in process.stdout.read().split('\n')[:-1]]
        process.wait()
        acknowledged = (told[-1] if told else int(first)) + 1
        stored = [int.from_bytes(content[:4], 'little') for content in payloads(Path(tmp_path))]
        assert stored[:acknowledged] == list(range(acknowledged))
        acknowledged = len(stored)


def test_what_is_left_over_at_the_end_is_told_once_nobody_writes(tmp_path):
    write(tmp_path, b'one', b'two')
    path = segment_path(tmp_path, 0)
    content = bytearray(path.read_bytes())
    content[len(MAGIC) + 9 + len(b'one') + 1] ^= (
        0x40  # the second record says that it is longer than the file
    )
    path.write_bytes(content)
    reader = SegmentReader(tmp_path)
    assert [record.payload for record in reader.poll()] == [b'one']
    assert reader.damaged == []  # it may still be written
    reader.finish()
    assert [str(path) in said and 'unfinished' in said for said in reader.damaged] == [True]


@pytest.mark.parametrize('lost', [[0], [1], [1, 2], [3], [2, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize('begun_again', [False, True])
def test_a_missing_file_is_told_be_it_the_newest(tmp_path, lost, begun_again):
    writer = SegmentWriter(tmp_path)
    for payload in (b'a', b'b', b'c', b'd'):
        writer.append(1, payload)
        writer.roll()
    for number in lost:
        segment_path(tmp_path, number).unlink()
    if begun_again:
        writer = SegmentWriter(tmp_path)
        writer.append(1, b'e')
        writer.close()
    reader = SegmentReader(tmp_path)
    assert len(list(reader.poll())) == 4 - len(lost) + begun_again
    reader.finish()
    assert len(reader.damaged) == 1
    assert all(segment_path(tmp_path, number).name in reader.damaged[0] for number in (lost[0], lost[-1]))


@pytest.mark.parametrize('content', [None, b'', b'-1', b'\xff\xfe', b'9' * 30, b'seven'])
def test_without_a_whole_word_which_file_is_the_newest_the_rest_is_read_all_the_same(tmp_path, content):
    writer = SegmentWriter(tmp_path)
    writer.append(1, b'a')
    writer.close()
    mark = tmp_path / NEWEST
    mark.unlink() if content is None else mark.write_bytes(content)
    reader = SegmentReader(tmp_path)
    assert [record.payload for record in reader.poll()] == [b'a']
    reader.finish()
    assert reader.damaged == []
    assert SegmentWriter(tmp_path).position.segment == 1
