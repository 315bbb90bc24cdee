# SPDX-License-Identifier: Apache-2.0
from contextlib import suppress
from dataclasses import replace
import io
import json
import math
import os
import shutil

import av
import numpy as np
from PIL import Image
import pyarrow.parquet as pq
import pytest

from hilserl_learner.cli.export import main
from hilserl_learner.data.store import (
    BufferHeader,
    BufferWriter,
    Entry,
    Part,
    read_buffer,
    read_header,
    write_header,
)
from hilserl_learner.errors import DatasetError
from hilserl_learner.ingest.ingest import Conversion, ingest
from hilserl_learner.lerobot.dataset import DatasetChoices
from hilserl_learner.lerobot.export import episodes_of, export_dataset, ExportSettings
from hilserl_learner.lerobot.film import choose_episode, write_film
from hilserl_learner.lerobot.metadata import read_info
from hilserl_learner.lerobot.statistics import count_pictures, PictureCounts, vector_statistics
from hilserl_learner.lerobot.units import from_rad
from hilserl_learner.lerobot.writer import ENCODERS, VideoFile
from so101_contract.action import ActionSpec
from so101_contract.observation_spec import get_observation
from so101_contract.session import EventKind
from so101_contract.transition import EpisodeReport, Transition

from .bagmaker import Plan, Session

ACTION = ActionSpec()
CAMERA = 'observation.images.gripper_cam'
PLANS = (
    Plan(8, intervened=frozenset({2, 3, 4})),
    Plan(6, EventKind.TIME_LIMIT),
    Plan(12, EventKind.FAILURE, drop_images=frozenset({6})),
    Plan(7, label=EventKind.DISCARD),
    Plan(5, EventKind.ABORT),
    Plan(5, None),
)


def make_buffer(bag, out, observation='compact', **fields):
    conversion = Conversion(observation=get_observation(observation), action=ACTION, any_spec=True, **fields)
    list(ingest([bag], out, conversion))
    return out


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return Session(tmp_path_factory.mktemp('bags') / 'session').write(PLANS)


@pytest.fixture(scope='module')
def buffer(bag, tmp_path_factory):
    return make_buffer(bag, tmp_path_factory.mktemp('buffers') / 'buffer')


def export(buffer, out, **settings):
    episodes = episodes_of(read_buffer(buffer))
    return export_dataset(read_header(buffer), episodes, out, ExportSettings(**settings))


@pytest.fixture(scope='module')
def dataset(buffer, tmp_path_factory):
    out = tmp_path_factory.mktemp('datasets') / 'v3'
    export(buffer, out)
    return out


def outputs(buffer, kind):
    return [entry.output for entry in read_buffer(buffer) if isinstance(entry.output, kind)]


def same_transitions(one, two, *, pictures):
    """Check that two buffers say the same, and count in how many transitions."""
    first, second = outputs(one, Transition), outputs(two, Transition)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a.episode, a.index, a.terminated, a.truncated) == (
            b.episode,
            b.index,
            b.terminated,
            b.truncated,
        )
        assert (a.intervened, a.action.source) == (b.intervened, b.action.source)
        assert a.reward == pytest.approx(b.reward, abs=1e-6)
        np.testing.assert_allclose(a.action.translation, b.action.translation, atol=1e-6)
        assert a.action.opening == pytest.approx(b.action.opening, abs=1e-6)
        for f, g in zip((*a.frames, a.next_frame), (*b.frames, b.next_frame), strict=True):
            assert (f.index, f.stamp_ns) == (g.index, g.stamp_ns)
            np.testing.assert_allclose(f.state, g.state, atol=1e-6)
            for name, image in f.images.items():
                if pictures:
                    np.testing.assert_array_equal(image, g.images[name])
    return len(first)


FORMATS = {
    'v3 PNG': ({}, True),
    'v2.1 PNG': ({'version': 'v2.1'}, True),
    'v3 AV1': ({'codec': 'av1'}, False),
    'v2.1 H.264 joints': ({'codec': 'h264', 'version': 'v2.1', 'action': 'joints'}, False),
    'v3 discrete': ({'action': 'discrete'}, True),
}


@pytest.mark.parametrize(
    ('form', 'observation'),
    [*((form, 'compact') for form in FORMATS), ('v3 PNG', 'full'), ('v3 PNG', 'robobase')],
)
def test_a_buffer_comes_back_from_a_dataset_as_it_was(bag, form, observation, tmp_path):
    settings, pictures = FORMATS[form]
    buffer = make_buffer(bag, tmp_path / 'buffer', observation)
    export(buffer, tmp_path / 'dataset', **settings)
    again = make_buffer(tmp_path / 'dataset', tmp_path / 'again', observation)
    assert same_transitions(buffer, again, pictures=pictures) > 30


def test_outcomes_and_interventions_come_back_and_thrown_away_episodes_do_not(buffer, dataset, tmp_path):
    again = make_buffer(dataset, tmp_path / 'again')
    kept = [(r.episode, r.outcome, r.intervened) for r in outputs(buffer, EpisodeReport) if not r.discarded]
    assert [(r.episode, r.outcome, r.intervened) for r in outputs(again, EpisodeReport)] == kept


def test_an_episode_with_a_gap_becomes_two_for_LeRobot_and_one_again_for_us(buffer, dataset):
    table = pq.read_table(dataset / 'data/chunk-000/file-000.parquet')
    third = [
        e
        for e, own in zip(*map(column_of(table), ('episode_index', 'so101.episode')), strict=True)
        if own == 3
    ]
    assert len(set(third)) == 2
    steps = [t.index for t in outputs(buffer, Transition) if t.episode == 3]
    assert any(np.diff(steps) > 1)


def column_of(table):
    return lambda name: table[name].to_pylist()


def test_another_observation_is_made_of_joints_and_pictures(dataset, tmp_path):
    again = make_buffer(dataset, tmp_path / 'again', 'full')
    first = outputs(again, Transition)[0]
    assert first.next_frame.images['gripper_cam'].shape == (3, 84, 84)
    assert first.next_frame.state.shape == (18,)


def test_a_dataset_that_lost_what_only_we_write_is_taken_as_somebody_elses(buffer, dataset, tmp_path):
    info = json.loads((dataset / 'meta/info.json').read_text())
    del info['so101']
    other = shutil.copytree(dataset, tmp_path / 'dataset')
    shutil.rmtree(other / 'so101')
    (other / 'meta/info.json').write_text(json.dumps(info))
    choices = DatasetChoices(units='degrees')
    again = make_buffer(other, tmp_path / 'again', dataset=choices)
    found = outputs(again, Transition)
    assert len(found) >= len(outputs(buffer, Transition)) - 7
    np.testing.assert_allclose(
        found[0].frames[0].state[:6], outputs(buffer, Transition)[0].frames[0].state[:6], atol=1e-6
    )
    np.testing.assert_allclose(found[0].action.translation, outputs(buffer, Transition)[0].action.translation)


# ---- what lies on the disk, read with pyarrow, Pillow and av alone -----------------------------------------


def test_rows_are_on_the_grid_that_LeRobot_looks_frames_up_on(dataset):
    table = pq.read_table(dataset / 'data/chunk-000/file-000.parquet')
    frames = np.array(table['frame_index'].to_pylist())
    times = table['timestamp'].combine_chunks().to_numpy()
    np.testing.assert_array_equal(times, (frames / 10).astype(np.float32))
    assert table['index'].to_pylist() == list(range(len(table)))
    assert (
        pq.ParquetFile(dataset / 'data/chunk-000/file-000.parquet').num_row_groups
        == table['episode_index'][-1].as_py() + 1
    )


def test_columns_have_the_types_and_names_of_LeRobot(dataset):
    table = pq.read_table(dataset / 'data/chunk-000/file-000.parquet')
    info = json.loads((dataset / 'meta/info.json').read_text())
    assert [*info['features']] == table.schema.names
    assert str(table.schema.field('action').type) == 'fixed_size_list<element: float>[4]'
    assert str(table.schema.field('observation.state').type) == 'fixed_size_list<element: float>[6]'
    assert info['features']['observation.state']['names'][0] == 'shoulder_pan.pos'
    assert info['features']['action']['names'] == ['delta_x', 'delta_y', 'delta_z', 'gripper']


def test_the_task_is_the_index_of_its_table_so_that_LeRobot_reads_text(dataset):
    table = pq.read_table(dataset / 'meta/tasks.parquet')
    assert json.loads(table.schema.metadata[b'pandas'])['index_columns'] == ['task']
    assert table.to_pydict() == {'task_index': [0], 'task': ['Lift the cube']}


def test_states_are_degrees_and_actions_shares_of_the_scale(buffer, dataset):
    table = pq.read_table(dataset / 'data/chunk-000/file-000.parquet')
    first = outputs(buffer, Transition)[0]
    expected = from_rad(first.frames[-1].state[None, :6].astype(float))[0]
    np.testing.assert_allclose(table['observation.state'][0].as_py(), expected, rtol=1e-6)
    np.testing.assert_allclose(table['action'][0].as_py()[:3], first.action.translation / 0.02, atol=1e-6)
    assert table['action'][0].as_py()[3] == pytest.approx(first.action.opening)


def test_only_a_terminal_step_is_done_and_a_time_limit_is_a_column_of_its_own(dataset):
    table = pq.read_table(dataset / 'data/chunk-000/file-000.parquet').to_pydict()
    flags = zip(*(table[key] for key in ('next.done', 'next.truncated', 'next.success')), strict=True)
    ends = dict(zip(table['so101.episode'], flags, strict=True))
    assert {number: ends[number] for number in (1, 2, 3)} == {
        1: (True, False, True),
        2: (False, True, False),
        3: (True, False, False),
    }
    assert not any(done or won for number in (5, 6) for done, _, won in [ends[number]])


def test_joint_targets_are_where_the_arm_was_next_and_the_gripper_that_was_told(buffer, tmp_path):
    export(buffer, tmp_path / 'dataset', action='joints')
    table = pq.read_table(tmp_path / 'dataset/data/chunk-000/file-000.parquet')
    first = outputs(buffer, Transition)[0]
    expected = from_rad(first.next_frame.state[None, :6].astype(float))[0]
    np.testing.assert_allclose(table['action'][0].as_py()[:5], expected[:5], rtol=1e-5)
    assert table['action'][0].as_py()[5] == pytest.approx(100 * first.action.opening, abs=1e-4)


def test_a_discrete_gripper_has_the_numbers_of_HIL_SERL(buffer, tmp_path):
    export(buffer, tmp_path / 'dataset', action='discrete')
    table = pq.read_table(tmp_path / 'dataset/data/chunk-000/file-000.parquet')
    assert {row[3] for row in table['action'].to_pylist()} <= {0.0, 1.0, 2.0}


@pytest.mark.parametrize('codec', ['av1', 'h264'])
def test_a_video_has_a_frame_for_each_row_close_to_its_picture(buffer, codec, tmp_path):
    dataset = tmp_path / 'dataset'
    smooth = tmp_path / 'smooth'
    smooth_buffer(buffer, smooth)
    export(smooth, dataset, codec=codec)
    with av.open(str(dataset / f'videos/{CAMERA}/chunk-000/file-000.mp4')) as video:
        frames = [(frame.time, frame.to_ndarray(format='rgb24')) for frame in video.decode(video=0)]
    pictures = [t.frames[-1].images['gripper_cam'].transpose(1, 2, 0) for t in outputs(smooth, Transition)]
    assert len(frames) == len(pictures)
    for k, ((time, frame), picture) in enumerate(zip(frames, pictures, strict=True)):
        assert time == pytest.approx(k / 10, abs=1e-6)
        error = np.mean((frame.astype(float) - picture) ** 2)
        assert 10 * math.log10(255**2 / max(error, 1e-9)) > 28.0


def smooth_buffer(source, out):
    """Write the buffer again with pictures that a camera could have made; the bags' are noise."""
    header = read_header(source)
    writer = BufferWriter(out / 'part')
    x, y = np.meshgrid(np.arange(64), np.arange(64))

    def smooth(frame):
        image = np.stack([2 * x + 3 * frame.index, 2 * y, x + y]).clip(0, 255).astype(np.uint8)
        return replace(frame, images={'gripper_cam': image})

    for entry in read_buffer(source):
        output = entry.output
        if isinstance(output, Transition):
            output = replace(
                output, frames=tuple(map(smooth, output.frames)), next_frame=smooth(output.next_frame)
            )
        writer.append(Entry(entry.stream, output))
    writer.close()
    write_header(out, replace(header, parts=(Part(name='part'),)))


def test_pictures_are_PNG_to_the_bit(buffer, dataset):
    table = pq.read_table(dataset / 'data/chunk-000/file-000.parquet', columns=[CAMERA])
    for cell, transition in zip(table[CAMERA].to_pylist(), outputs(buffer, Transition), strict=True):
        picture = np.array(Image.open(io.BytesIO(cell['bytes'])))
        np.testing.assert_array_equal(picture, transition.frames[-1].images['gripper_cam'].transpose(1, 2, 0))


def test_files_are_begun_anew_where_one_is_full(buffer, tmp_path, monkeypatch):
    monkeypatch.setattr('hilserl_learner.lerobot.writer.DATA_FILE_MB', 0.05)
    monkeypatch.setattr('hilserl_learner.lerobot.writer.VIDEO_FILE_MB', 0.01)
    monkeypatch.setattr('hilserl_learner.lerobot.writer.CHUNK_FILES', 2)
    export(buffer, tmp_path / 'png')
    export(buffer, tmp_path / 'dataset', codec='h264')
    assert len({e.data.split('/')[1] for e in read_info(tmp_path / 'png').episodes}) > 1
    videos = [e.videos[CAMERA] for e in read_info(tmp_path / 'dataset').episodes]
    assert len({name for name, _ in videos}) > 2
    for name in ('png', 'dataset'):
        again = make_buffer(tmp_path / name, tmp_path / f'{name}.again')
        same_transitions(buffer, again, pictures=name == 'png')


# ---- statistics --------------------------------------------------------------------------------------------


def test_statistics_of_vectors_are_those_of_numpy():
    rows = np.random.default_rng(0).normal(size=(257, 3))
    found = vector_statistics(rows)
    np.testing.assert_allclose(found['q01'], np.quantile(rows, 0.01, axis=0))
    np.testing.assert_allclose(found['std'], rows.std(axis=0))
    assert found['count'] == [257]


def test_statistics_of_pictures_are_exact_over_every_pixel_of_every_episode():
    pictures = np.random.default_rng(0).integers(0, 200, (7, 9, 11, 3), dtype=np.uint8)
    every = PictureCounts()
    for part in (pictures[:3], pictures[3:]):
        every.merge(count_pictures(part))
    found, pixels = every.statistics(), pictures.reshape(-1, 3) / 255
    for name, share in (('q01', 0.01), ('q10', 0.1), ('q50', 0.5), ('q90', 0.9), ('q99', 0.99)):
        np.testing.assert_allclose(np.ravel(found[name]), np.quantile(pixels, share, axis=0), atol=1e-12)
    np.testing.assert_allclose(np.ravel(found['mean']), pixels.mean(axis=0))
    np.testing.assert_allclose(np.ravel(found['std']), pixels.std(axis=0))
    assert (np.shape(found['min']), found['count']) == ((3, 1, 1), [7])


def test_the_dataset_has_statistics_of_every_feature(dataset):
    statistics = json.loads((dataset / 'meta/stats.json').read_text())
    info = json.loads((dataset / 'meta/info.json').read_text())
    assert statistics.keys() == info['features'].keys()
    table = pq.read_table(dataset / 'data/chunk-000/file-000.parquet')
    states = np.array(table['observation.state'].to_pylist())
    np.testing.assert_allclose(
        statistics['observation.state']['q90'], np.quantile(states, 0.9, axis=0), rtol=1e-6
    )


# ---- the command -------------------------------------------------------------------------------------------


def test_two_parts_of_a_buffer_that_count_alike_do_not_mix(bag, tmp_path):
    other = Session(tmp_path / 'other', start_ns=1_600_000_000_000_000_000).write([Plan(5)])
    conversion = Conversion(observation=get_observation('compact'), action=ACTION)
    list(ingest([bag, other], tmp_path / 'buffer', conversion))
    report = export(tmp_path / 'buffer', tmp_path / 'dataset')
    assert report.renumbered == 1
    again = make_buffer(tmp_path / 'dataset', tmp_path / 'again')
    assert len({t.episode for t in outputs(again, Transition)}) == 6


def test_the_command_exports_a_bag_at_another_size(bag, tmp_path, capsys):
    argv = [str(bag), '--out', str(tmp_path / 'dataset'), '--image-size', '48']
    assert main(argv) == 0
    assert 'are in' in capsys.readouterr().out
    assert read_info(tmp_path / 'dataset').features[CAMERA].shape == (48, 48, 3)
    again = make_buffer(tmp_path / 'dataset', tmp_path / 'again')
    assert outputs(again, Transition)[0].next_frame.images['gripper_cam'].shape == (3, 64, 64)


def test_nothing_is_replaced_and_nothing_half_is_left(buffer, tmp_path, capsys):
    (tmp_path / 'there').mkdir()
    assert main([str(buffer), '--out', str(tmp_path / 'there')]) == 1
    assert 'expected nothing at' in capsys.readouterr().err
    with pytest.raises(DatasetError, match='expected an episode to export'):
        export_dataset(read_header(buffer), [], tmp_path / 'none', ExportSettings())
    odd = Session(tmp_path / 'bag').write([Plan(5)])
    assert main([str(odd), '--out', str(tmp_path / 'odd'), '--image-size', '47', '--video', 'h264']) == 1
    assert 'use --video none' in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bag', 'there']


def test_the_film_of_an_episode_shows_every_step(buffer, tmp_path, capsys):
    out = tmp_path / 'film.mp4'
    assert main([str(buffer), '--out', str(out), '--episode', '1']) == 0
    with av.open(str(out)) as film:
        frames = [frame.to_ndarray(format='rgb24') for frame in film.decode(video=0)]
    assert len(frames) == 8 + 10
    border = [tuple(int(v) for v in frame[200, 1]) for frame in frames[:8]]
    human = [red > blue for red, _, blue in border]
    assert human == [k in (2, 3, 4) for k in range(8)]


@pytest.mark.parametrize('codec', ENCODERS)
def test_an_encoder_leaves_the_rest_of_the_machine_its_processor(codec, tmp_path):
    video = VideoFile(tmp_path / 'film.mp4', codec, 10, (48, 64))
    for shade in range(30):
        video.add(np.full((48, 64, 3), shade, np.uint8))
    schedulers = []
    for thread in os.listdir('/proc/self/task'):
        with suppress(ProcessLookupError):  # one of another test's has just ended
            schedulers.append(os.sched_getscheduler(int(thread)))
    video.close()
    assert len(schedulers) > 1
    assert set(schedulers) == {os.SCHED_OTHER}


def test_a_film_needs_an_episode_that_is_there(buffer, tmp_path, capsys):
    assert main([str(buffer), '--out', str(tmp_path / 'film.mp4')]) == 1
    assert 'expected --episode N' in capsys.readouterr().err
    with pytest.raises(DatasetError, match=r'expected an episode 9, got 1, 2, 3, 5, 6'):
        choose_episode(episodes_of(read_buffer(buffer)), 9)


def test_a_buffer_without_cameras_has_no_film(buffer, tmp_path):
    first = next(episodes_of(read_buffer(buffer)))
    blind = [
        replace(
            t,
            frames=tuple(replace(f, images={}) for f in t.frames),
            next_frame=replace(t.next_frame, images={}),
        )
        for t in first.transitions
    ]
    with pytest.raises(DatasetError, match='nothing can be shown'):
        write_film(replace(first, transitions=tuple(blind)), tmp_path / 'film.mp4')


def test_a_buffer_of_nothing_says_so(tmp_path, capsys):
    write_header(tmp_path, BufferHeader(observation=get_observation('compact'), action=ACTION))
    assert main([str(tmp_path), '--out', str(tmp_path / 'out')]) == 1
    assert 'expected an episode to export' in capsys.readouterr().err
