# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import os

import numpy as np
import pytest

from hilserl_learner.data.segments import SegmentWriter
from hilserl_learner.data.store import (
    BufferHeader,
    BufferWriter,
    Entry,
    Part,
    part_digest,
    PartReader,
    read_buffer,
    read_header,
    read_part,
    write_header,
)
from hilserl_learner.errors import IngestError, SegmentError
from hilserl_learner.ingest.account import BagReport
from so101_contract.session import Outcome
from so101_contract.transition import EpisodeReport, Reason

from .experience import ACTION, make_episode, small_spec

SPEC = small_spec()


def make_report(episode, **fields):
    values = {
        'outcome': Outcome.SUCCESS,
        'steps': 4,
        'transitions': 3,
        'intervened': 1,
        'dropped': {},
        'discarded': False,
    }
    return EpisodeReport(episode=episode, **{**values, **fields})


def assert_same(one, two):
    assert (one.episode, one.index, one.reward, one.revision) == (
        two.episode,
        two.index,
        two.reward,
        two.revision,
    )
    assert (one.terminated, one.truncated, one.intervened) == (two.terminated, two.truncated, two.intervened)
    np.testing.assert_array_equal(one.action.translation, two.action.translation)
    assert one.action.opening == two.action.opening
    for a, b in zip((*one.frames, one.next_frame), (*two.frames, two.next_frame), strict=True):
        assert (a.episode, a.index, a.stamp_ns) == (b.episode, b.index, b.stamp_ns)
        np.testing.assert_array_equal(a.state, b.state)
        assert list(a.images) == list(b.images)
        for camera in a.images:
            np.testing.assert_array_equal(a.images[camera], b.images[camera])


@pytest.mark.parametrize(
    'spec', [small_spec(), small_spec(4, 1), small_spec(6, 4, cameras=2), small_spec(cameras=0)]
)
def test_B12_transitions_survive_a_save_and_load_round_trip_for_any_stack(tmp_path, spec):
    episodes = [
        make_episode(spec, n, 6, intervened=(2,), terminated=n == 1, truncated=n == 2) for n in (1, 2)
    ]
    write_header(tmp_path, BufferHeader(observation=spec, action=ACTION, parts=(Part(name='a'),)))
    writer = BufferWriter(tmp_path / 'a')
    for transition in (*episodes[0], *episodes[1]):
        writer.append(Entry('arm', transition))
    writer.close()
    entries = list(read_buffer(tmp_path))
    assert [entry.stream for entry in entries] == ['arm'] * 12
    for entry, expected in zip(entries, (*episodes[0], *episodes[1]), strict=True):
        assert_same(entry.output, expected)


def test_B2_terminated_and_truncated_both_survive(tmp_path):
    done, cut = make_episode(SPEC, 1, 1, terminated=True), make_episode(SPEC, 2, 1, truncated=True)
    writer = BufferWriter(tmp_path)
    writer.append(Entry('', done[0]))
    writer.append(Entry('', cut[0]))
    flags = [(e.output.terminated, e.output.truncated) for e in PartReader(tmp_path, SPEC).poll()]
    assert flags == [(True, False), (False, True)]


def test_reports_labels_and_discards_are_kept_in_order(tmp_path):
    episode = make_episode(SPEC, 1, 3, truncated=True)
    late = replace(episode[-1], reward=1.0, terminated=True, truncated=False, revision=1)
    report = make_report(1, dropped={Reason.IMAGE: 2}, discarded=True, outcome=None)
    writer = BufferWriter(tmp_path)
    for output in (*episode, late, report):
        writer.append(Entry('', output))
    *_, relabelled, told = PartReader(tmp_path, SPEC).poll()
    assert_same(relabelled.output, late)
    assert told.output == report


def test_every_file_can_be_read_by_itself(tmp_path):
    episode = make_episode(SPEC, 1, 30)
    writer = BufferWriter(tmp_path, segment_bytes=400)
    for transition in episode:
        writer.append(Entry('', transition))
    writer.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 3
    for gone in files[:3]:
        gone.unlink()
    reader = PartReader(tmp_path, SPEC)
    left = list(reader.poll())
    assert reader.incomplete == 0
    assert 0 < len(left) < 30
    assert_same(left[-1].output, episode[-1])


def test_frames_are_written_once(tmp_path):
    spec = small_spec(32)
    writer = BufferWriter(tmp_path)
    for transition in make_episode(spec, 1, 50):
        writer.append(Entry('', transition))
    writer.close()
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 51 * (3 * 32**2 + 24) * 1.1 + 50 * 140


def test_a_reader_follows_a_writer(tmp_path):
    writer, reader = BufferWriter(tmp_path), PartReader(tmp_path, SPEC)
    for transition in make_episode(SPEC, 1, 5):
        writer.append(Entry('', transition))
        (entry,) = reader.poll()
        assert_same(entry.output, transition)


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in ('one', 'two'):
        writer = BufferWriter(tmp_path / name)
        for transition in make_episode(SPEC, 1, 5):
            writer.append(Entry('', transition))
        writer.close()
    assert part_digest(tmp_path / 'one') == part_digest(tmp_path / 'two')


def test_B29_the_header_says_what_the_transitions_mean_and_nothing_else_is_needed(tmp_path):
    header = BufferHeader(observation=SPEC, action=ACTION, parts=(Part(name='a', key='k'),))
    write_header(tmp_path, header)
    assert read_header(tmp_path) == header


def test_a_directory_that_is_no_buffer_gets_a_sentence(tmp_path):
    with pytest.raises(SegmentError, match='ingest'):
        read_header(tmp_path)


def test_a_header_of_another_observation_is_noticed(tmp_path):
    writer = BufferWriter(tmp_path)
    writer.append(Entry('', make_episode(SPEC, 1, 1)[0]))
    with pytest.raises(SegmentError, match='another buffer'):
        list(PartReader(tmp_path, small_spec(8)).poll())


def test_a_part_that_is_not_there_is_told(tmp_path, caplog):
    write_header(tmp_path, BufferHeader(observation=SPEC, action=ACTION, parts=(Part(name='gone', key='k'),)))
    assert list(read_buffer(tmp_path)) == []
    assert f'{tmp_path / "gone"} is not there' in caplog.text


@pytest.mark.parametrize('lost', [1, 40, 4000])
def test_an_unfinished_end_of_a_part_is_told(tmp_path, caplog, lost):
    writer = BufferWriter(tmp_path / 'part')
    for transition in make_episode(SPEC, 1, 40):
        writer.append(Entry('', transition))
    writer.close()
    path = next((tmp_path / 'part').glob('*.seg'))
    path.write_bytes(path.read_bytes()[:-lost])
    assert len(list(read_part(tmp_path / 'part', SPEC))) < 40
    assert 'unfinished' in caplog.text


def test_a_record_that_is_whole_and_says_nonsense_gets_a_sentence(tmp_path):
    writer = SegmentWriter(tmp_path / 'part')
    writer.append(3, b'\0\0[' * 10)
    writer.close()
    with pytest.raises(SegmentError, match='says something else'):
        list(read_part(tmp_path / 'part', SPEC))


@pytest.mark.parametrize('name', ['', '..', '.', '../other', '/etc', 'a/b', 'a\0b', 'x' * 300])
def test_a_part_never_lies_outside_of_its_buffer(name):
    with pytest.raises(SegmentError, match='the name of a folder in the buffer'):
        Part(name=name)


def test_a_pipe_in_the_place_of_a_file_is_never_waited_for(tmp_path):
    write_header(tmp_path, BufferHeader(observation=SPEC, action=ACTION, parts=(Part(name='live'),)))
    (tmp_path / 'live').mkdir()
    os.mkfifo(tmp_path / 'live' / '000000.seg')
    with pytest.raises(SegmentError, match='a pipe or a device where a plain file belongs'):
        list(read_buffer(tmp_path))


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"outcomes": 7}', '[' * 100_000, '{"episodes": 1e999}'])
def test_a_damaged_report_of_a_bag_names_its_file(tmp_path, text):
    (tmp_path / 'report.json').write_text(text)
    with pytest.raises(IngestError, match=r'the report of a bag in .*report\.json'):
        BagReport.read(tmp_path / 'report.json')
