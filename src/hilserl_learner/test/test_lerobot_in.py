# SPDX-License-Identifier: Apache-2.0
import builtins
from dataclasses import replace
import json
import math
from pathlib import Path
import random
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hilserl_learner.data.store import read_buffer
from hilserl_learner.errors import DatasetError, IngestError
from hilserl_learner.ingest.cli import main
from hilserl_learner.ingest.ingest import Conversion, ingest
from hilserl_learner.lerobot import metadata
from hilserl_learner.lerobot.convert import DatasetConverter
from hilserl_learner.lerobot.dataset import DatasetChoices, fetch
from hilserl_learner.lerobot.metadata import read_info
from hilserl_learner.lerobot.reader import DatasetReader
from hilserl_learner.lerobot.units import from_rad
from so101_contract.action import ActionSpec
from so101_contract.image import preprocess
from so101_contract.joints import gripper_opening_to_rad, JOINT_NAMES, limits_arrays
from so101_contract.observation_spec import CameraSpec, get_observation
from so101_contract.session import Outcome
from so101_contract.transition import Transition
from so101_driver.calibration.calibration import ArmCalibration, JointCalibration, SERVO_IDS
from so101_driver.calibration.lerobot_units import JointScale, UNITS
from so101_kinematics.fk import ForwardKinematics

DATA = Path(__file__).parent / 'data' / 'lerobot'
SPEC, ACTION = get_observation('compact'), ActionSpec()
WRIST = ('gripper_cam=wrist',)
GENUINE = {
    'v30/image': (3, 30),
    'v30/video': (3, 30),
    'v30/hil': (3, 30),
    'v30/multifile': (6, 17),
    'v30/converted_from_v21': (3, 30),
    'v21/image': (3, 30),
    'v21/video': (3, 30),
}
ROWS = 'data/chunk-000/file-000.parquet'
MOVIE = 'videos/observation.images.wrist/chunk-000/file-000.mp4'


def convert(
    dataset,
    out,
    *,
    cameras=WRIST,
    units='degrees',
    reward='bag',
    zero_actions='refuse',
    over=False,
    **choices,
):
    chosen = DatasetChoices(units=units, cameras=cameras, **choices)
    conversion = Conversion(observation=SPEC, action=ACTION, zero_actions=zero_actions, dataset=chosen)
    (done,) = ingest([dataset], out, conversion, reward=reward, replace_all=over)
    return done


def converted(dataset, **choices):
    """Return the transitions of each episode, and what was said."""
    chosen = DatasetChoices(**{'units': 'degrees', 'cameras': WRIST, **choices})
    converter = DatasetConverter(dataset, chosen, SPEC, ACTION)
    return list(converter.episodes()), converter


def pictures(name, camera='observation.images.wrist'):
    """Return every picture of a camera of a dataset."""
    info = read_info(DATA / name)
    reader = DatasetReader(info, ())
    found = [p.astype(int) for e in info.episodes for _, p in reader.pictures(e, camera, range(e.length))]
    reader.close()
    return found


def copy_of(name, folder):
    return Path(shutil.copytree(DATA / name, folder / 'dataset'))


def edit(path, **columns):
    """Put other values into columns of a Parquet file; a function gets the old ones, None removes the column."""
    table = pq.read_table(path)
    for key, change in columns.items():
        name = key.replace('__', '.')
        at = table.schema.get_field_index(name)
        if change is None:
            table = table.drop_columns([name])
        elif at < 0:
            table = table.append_column(name, pa.array(change))
        else:
            values = change(table[name].to_pylist())
            table = table.set_column(at, name, pa.array(values, table.schema.field(at).type))
    pq.write_table(table, path)


def edit_info(dataset, change):
    path = dataset / 'meta/info.json'
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def add_column(dataset, key, dtype, values):
    edit(dataset / ROWS, **{key.replace('.', '__'): values})
    edit_info(
        dataset, lambda info: info['features'].update({key: {'dtype': dtype, 'shape': [1], 'names': None}})
    )


# ---- what LeRobot itself wrote -----------------------------------------------------------------------------


@pytest.mark.parametrize('name', GENUINE)
def test_every_genuine_dataset_becomes_a_buffer(name, tmp_path):
    done = convert(DATA / name, tmp_path / 'buffer')
    assert (done.report.episodes, done.report.transitions) == GENUINE[name]
    found = [entry.output for entry in read_buffer(tmp_path / 'buffer')]
    assert sum(isinstance(one, Transition) for one in found) == done.report.transitions


@pytest.mark.parametrize('name', GENUINE)
def test_every_picture_of_every_genuine_dataset_is_decoded_once(name):
    info = read_info(DATA / name)
    for camera in info.cameras:
        assert len(pictures(name, camera)) == info.frames


def test_PNG_and_video_and_both_versions_give_the_same_actions_and_states():
    reference, _ = converted(DATA / 'v30/image')
    for name in ('v30/video', 'v30/converted_from_v21', 'v21/image', 'v21/video'):
        other, _ = converted(DATA / name)
        for (one, _), (two, _) in zip(reference, other, strict=True):
            for a, b in zip(one, two, strict=True):
                np.testing.assert_array_equal(a.action.translation, b.action.translation)
                np.testing.assert_array_equal(a.next_frame.state, b.next_frame.state)


def test_video_frames_are_those_of_their_rows():
    png, video = (pictures('v30/image'), pictures('v30/video'))
    difference = np.array([[np.abs(one - other).mean() for other in video] for one in png])
    assert difference.diagonal().max() < 5.0
    assert difference.diagonal().mean() < 0.7 * difference.diagonal(3).mean()


def test_joint_targets_move_a_setpoint_to_where_the_last_target_is():
    fk, info = ForwardKinematics(SPEC.tcp), read_info(DATA / 'v30/image')
    table = pq.read_table(DATA / 'v30/image' / ROWS)
    scale = JointScale('degrees')
    targets = scale.to_rad(np.array(table['action'].to_pylist()))
    measured = scale.to_rad(np.array(table['observation.state'].to_pylist()))
    episodes, converter = converted(DATA / 'v30/image')
    assert max(converter.clipped.values()) == 0.0
    for (episode, _), place in zip(episodes, info.episodes, strict=True):
        last = place.first + len(episode) - 1
        moved = sum(t.action.translation for t in episode)
        way = fk.pose(targets[last]).position - fk.pose(measured[place.first]).position
        np.testing.assert_allclose(moved, way, atol=1e-9)


def test_what_a_clipped_action_could_not_do_is_done_by_the_next_ones(tmp_path):
    dataset = copy_of('v30/image', tmp_path)
    fast = lambda rows: [[20.0, *row[1:]] for row in rows]
    edit(dataset / ROWS, action=fast)
    episodes, converter = converted(dataset)
    assert converter.clipped['y'] >= 0.2
    episode = episodes[1][0]
    fk, scale = ForwardKinematics(SPEC.tcp), JointScale('degrees')
    target = scale.to_rad(np.array(pq.read_table(dataset / ROWS)['action'].to_pylist()))[
        10 + len(episode) - 1
    ]
    begin = fk.pose(episode[0].frames[-1].state[:6].astype(float)).position
    reached = begin + sum(t.action.translation for t in episode)
    np.testing.assert_allclose(reached, fk.pose(target).position, atol=1e-6)
    assert np.abs([t.action.translation for t in episode]).max() <= 0.02 + 1e-12


def test_thirty_rows_per_second_become_ten_steps_by_time():
    episodes, _ = converted(DATA / 'v30/multifile')
    table = pq.read_table(DATA / 'v30/multifile' / ROWS)
    said = JointScale('degrees').positions(np.array(table['observation.state'].to_pylist()))
    first = episodes[0][0]
    for k, transition in enumerate(first):
        np.testing.assert_allclose(transition.frames[-1].state[:6], said[3 * k], atol=1e-6)
    stamps = [t.frames[-1].stamp_ns for t in first]
    np.testing.assert_allclose(np.diff(stamps), 1e8, atol=1e3)


def test_velocities_are_differences_over_the_times_of_the_rows():
    episodes, _ = converted(DATA / 'v30/multifile')
    table = pq.read_table(DATA / 'v30/multifile' / ROWS)
    said = JointScale('degrees').positions(np.array(table['observation.state'].to_pylist()))
    times = np.array(table['timestamp'].to_pylist())
    second = episodes[0][0][1].frames[-1].state
    expected = (said[3] - said[2]) / (times[3] - times[2])
    np.testing.assert_allclose(second[6:12], expected, rtol=1e-5)
    assert np.all(episodes[0][0][0].frames[-1].state[6:12] == 0.0)


def test_HIL_actions_are_displacements_in_metres_and_a_gripper_that_may_stay():
    table = pq.read_table(DATA / 'v30/hil' / ROWS)
    actions = np.array(table['action'].to_pylist())
    episodes, converter = converted(DATA / 'v30/hil', delta_scale_m=0.01)
    done = 0
    for episode, _ in episodes:
        opening = None
        for t in episode:
            row = actions[done + t.index]
            np.testing.assert_allclose(t.action.translation, np.clip(row[:3], -1, 1) * 0.01, atol=1e-9)
            expected = {0.0: 0.0, 2.0: 1.0}.get(float(row[3]), opening)
            assert expected is None or t.action.opening == expected
            opening = t.action.opening
        done += len(episode) + (not episode[-1].terminated)
    assert any('0.01 m' in text for text in converter.said)


def test_a_success_is_terminal_and_an_end_without_reward_is_cut_short_and_said():
    episodes, converter = converted(DATA / 'v30/image')
    ends = [(e[-1].terminated, e[-1].truncated, report.outcome) for e, report in episodes]
    assert ends.count((True, False, Outcome.SUCCESS)) == 2
    assert ends.count((False, True, Outcome.TIME_LIMIT)) == 1
    assert any('cut short by time, which the dataset does not say' in text for text in converter.said)


@pytest.mark.parametrize(
    ('columns', 'expected'),
    [
        ({'next.truncated': False}, (True, False, Outcome.FAILURE)),
        ({'next.truncated': True}, (False, True, Outcome.TIME_LIMIT)),
        ({'next.success': True}, (True, False, Outcome.SUCCESS)),
    ],
    ids=['done but not truncated', 'truncated', 'success'],
)
def test_columns_that_tell_terminal_from_time_limit_are_believed(columns, expected, tmp_path):
    dataset = copy_of('v30/image', tmp_path)
    edit(dataset / ROWS, next__reward=lambda rows: [0.0] * len(rows))
    done = pq.read_table(dataset / ROWS)['next.done'].to_pylist()
    for key, value in columns.items():
        add_column(dataset, key, 'bool', [value and one for one in done])
    episodes, _ = converted(dataset)
    assert {(e[-1].terminated, e[-1].truncated, report.outcome) for e, report in episodes} == {expected}


def test_the_column_intervention_says_who_drove(tmp_path):
    dataset = copy_of('v30/image', tmp_path)
    add_column(dataset, 'intervention', 'bool', [k % 2 == 0 for k in range(31)])
    episodes, converter = converted(dataset)
    assert [t.intervened for t in episodes[0][0]] == [k % 2 == 0 for k in range(len(episodes[0][0]))]
    assert not any("human's" in text for text in converter.said)


def test_one_task_of_several_can_be_taken():
    episodes, _ = converted(DATA / 'v30/image', task='Push the cube')
    assert [report.episode for _, report in episodes] == [3]
    with pytest.raises(DatasetError, match='choose one of them'):
        converted(DATA / 'v30/image', task='Fold the towel')


def test_demonstrations_without_rewards_can_be_called_successes(tmp_path):
    done = convert(DATA / 'v30/multifile', tmp_path / 'buffer', reward='success')
    assert (done.report.successes, done.report.reward) == (6, 6.0)
    assert any('there are no rewards' in text for text in done.report.said)


def test_a_reward_that_needs_a_simulation_is_refused_for_a_dataset(tmp_path):
    with pytest.raises(IngestError, match='has no ground truth'):
        convert(DATA / 'v30/image', tmp_path / 'buffer', reward='sim')
    assert not (tmp_path / 'buffer').exists()


def test_actions_of_nothing_although_the_arm_moved_are_refused_and_can_be_repaired(tmp_path):
    dataset = copy_of('v30/image', tmp_path)
    edit(dataset / ROWS, action=lambda rows: [rows[0]] * len(rows))
    edit(
        dataset / ROWS,
        observation__state=lambda rows: [[2.0 * (k % 12), *row[1:]] for k, row in enumerate(rows)],
    )
    with pytest.raises(IngestError, match='every action is zero'):
        convert(dataset, tmp_path / 'buffer')
    assert not (tmp_path / 'buffer').exists()
    done = convert(dataset, tmp_path / 'buffer', zero_actions='repair')
    assert done.report.repaired == (1, 2, 3)


def test_the_same_dataset_is_converted_once_and_another_choice_is_another_conversion(tmp_path):
    first = convert(DATA / 'v30/image', tmp_path / 'buffer')
    moved = copy_of('v30/image', tmp_path)
    again = convert(moved, tmp_path / 'buffer')
    other = convert(moved, tmp_path / 'buffer', cameras=('gripper_cam=front',), over=True)
    assert (first.reused, again.reused, other.reused) == (False, True, False)
    assert again.report.said == first.report.said


# ---- units -------------------------------------------------------------------------------------------------


def calibration():
    joints = {name: JointCalibration(number, 0, 0, 900, 3100) for name, number in SERVO_IDS.items()}
    return ArmCalibration(joints | {'gripper': JointCalibration(6, 1, 0, 1500, 2900)})


def test_any_units_and_back_are_the_same():
    rng = np.random.default_rng(1)
    rad = rng.uniform(*limits_arrays(), size=(50, 6))
    np.testing.assert_allclose(JointScale('degrees').to_rad(from_rad(rad)), rad, atol=1e-12)
    for units in UNITS:
        scale = JointScale(units)
        np.testing.assert_allclose(scale.to_rad(scale.from_rad(rad)), rad, atol=1e-12)


def test_a_calibration_turns_every_unit_into_the_same_angles():
    arm = calibration()
    ticks = np.array([[2000.0, 1500, 2500, 2050, 1800, 2200]])
    share = (ticks - 900) / 2200
    gripper = 1.0 - (2200 - 1500) / 1400
    degrees = np.append((ticks[0, :5] - 2000) * 360 / 4095, 100 * gripper)[None]
    percent = np.append(200 * share[0, :5] - 100, 100 * gripper)[None]
    expected = arm.ticks_to_rad(ticks)
    np.testing.assert_allclose(JointScale('degrees', arm).to_rad(degrees), expected, atol=1e-9)
    np.testing.assert_allclose(JointScale('range', arm).to_rad(percent), expected, atol=1e-9)
    np.testing.assert_allclose(JointScale('degrees', arm).from_rad(expected), degrees, atol=1e-9)
    np.testing.assert_allclose(JointScale('range', arm).from_rad(expected), percent, atol=1e-9)


def test_without_a_calibration_the_gripper_goes_over_the_range_of_the_model():
    said = JointScale('range').to_rad(np.array([[100.0, 0, 0, 0, 100, 50]]))
    assert said[0, 5] == pytest.approx(gripper_opening_to_rad(0.5))
    assert said[0, 4] == pytest.approx(math.pi, abs=1e-3)


def scaled(dataset, factor):
    for key in ('action', 'observation__state'):
        edit(dataset / ROWS, **{key: lambda rows: (factor * np.array(rows)).tolist()})


@pytest.mark.parametrize(
    ('factor', 'units', 'sentence'),
    [
        (1.0, '', r'expected --units.*may be degrees or range'),
        (1.0, 'rad', r'in rad, got .* that would be degrees or range'),
        (math.pi / 180, 'degrees', r'in degrees, got .* that would be rad'),
        (math.pi / 180, 'range', r'in range, got .* that would be rad'),
        (1.08, 'range', r'in range, got .* that would be degrees'),
        (40.0, 'degrees', 'none of them stays within the limits'),
    ],
)
def test_units_that_cannot_be_are_refused_and_the_sentence_says_which(factor, units, sentence, tmp_path):
    dataset = copy_of('v30/image', tmp_path)
    scaled(dataset, factor)
    if 'rad' in sentence and factor < 1:  # percent of an opening becomes an angle too
        edit(dataset / ROWS, observation__state=lambda rows: [[*row[:5], 0.5] for row in rows])
    with pytest.raises(DatasetError, match=sentence):
        convert(dataset, tmp_path / 'buffer', units=units)
    assert not (tmp_path / 'buffer').exists()


def test_units_need_not_be_said_where_only_one_is_possible(tmp_path):
    dataset = copy_of('v30/image', tmp_path)
    scaled(dataset, 1.08)
    assert convert(dataset, tmp_path / 'buffer', units='').report.transitions == 30


def test_targets_in_other_units_than_the_state_are_refused_but_a_leader_may_go_further(tmp_path):
    dataset = copy_of('v30/image', tmp_path)
    edit(
        dataset / ROWS,
        action=lambda old: [[*row[:1], -115.0, *row[2:]] if k % 3 else row for k, row in enumerate(old)],
    )
    with pytest.raises(DatasetError, match='in degrees like'):
        convert(dataset, tmp_path / 'buffer')
    edit(
        dataset / ROWS,
        action=lambda old: [[*row[:1], -80.0 if k % 3 else -115.0, *row[2:]] for k, row in enumerate(old)],
    )
    assert convert(dataset, tmp_path / 'buffer').report.transitions == 30


def test_a_row_beyond_the_limits_costs_the_transitions_that_need_it(tmp_path):
    dataset = copy_of('v30/multifile', tmp_path)
    edit_one = lambda rows: [*rows[:-1], [-140.0, *rows[-1][1:]]]
    edit(dataset / 'data/chunk-000/file-001.parquet', observation__state=edit_one)
    episodes, _ = converted(dataset, rate_hz=30.0)
    dropped = episodes[-1][1].dropped
    assert sum(dropped.values()) >= 1
    assert len(episodes[-1][0]) + sum(dropped.values()) == 12


# ---- cameras -----------------------------------------------------------------------------------------------


def test_cameras_are_matched_by_name_or_where_there_is_no_choice(tmp_path):
    assert convert(DATA / 'v30/multifile', tmp_path / 'one', cameras=()).report.transitions == 17
    with pytest.raises(DatasetError, match=r'--camera gripper_cam=observation.images.front'):
        convert(DATA / 'v30/image', tmp_path / 'two', cameras=())
    with pytest.raises(DatasetError, match='gripper_cam'):
        convert(DATA / 'v30/image', tmp_path / 'two', cameras=('eye=wrist',))
    full = ('gripper_cam=observation.images.wrist',)
    assert convert(DATA / 'v30/image', tmp_path / 'two', cameras=full).report.transitions == 30


def test_two_cameras_are_found_by_their_names():
    spec = replace(SPEC, cameras=(CameraSpec('wrist', 32), CameraSpec('front', 32)))
    converter = DatasetConverter(DATA / 'v30/image', DatasetChoices(units='degrees'), spec, ACTION)
    episodes = list(converter.episodes())
    first = episodes[0][0][0].next_frame.images
    assert [*first] == ['wrist', 'front']
    expected = preprocess(pictures('v30/image', 'observation.images.front')[1].astype(np.uint8), size=32)
    np.testing.assert_array_equal(first['front'], expected)


@pytest.mark.parametrize(
    'names',
    [
        [f'main_{name}' for name in JOINT_NAMES],
        list(JOINT_NAMES),
        {'motors': [f'{name}.pos' for name in JOINT_NAMES]},
        {f'{name}.pos': k for k, name in enumerate(JOINT_NAMES)},
        None,
    ],
    ids=['main_', 'plain', 'motors', 'places', 'none'],
)
def test_joints_have_had_several_names(names, tmp_path):
    dataset = copy_of('v30/image', tmp_path)
    feature('observation.state', names=names)(dataset)
    assert len(converted(dataset)[0]) == 3


def test_joints_are_taken_by_name_and_not_by_place(tmp_path):
    dataset = copy_of('v30/image', tmp_path)
    feature('observation.state', names=[f'{name}.pos' for name in reversed(JOINT_NAMES)])(dataset)
    edit(dataset / ROWS, observation__state=lambda old: [row[::-1] for row in old])
    swapped, straight = converted(dataset)[0], converted(DATA / 'v30/image')[0]
    np.testing.assert_array_equal(swapped[0][0][3].next_frame.state, straight[0][0][3].next_frame.state)


# ---- damaged -----------------------------------------------------------------------------------------------


def change(**values):
    return lambda dataset: edit_info(dataset, lambda info: info.update(values))


def feature(key, **values):
    return lambda dataset: edit_info(dataset, lambda info: info['features'][key].update(values))


def rows(**columns):
    return lambda dataset: edit(dataset / ROWS, **columns)


def cut(path, share):
    def apply(dataset):
        content = (dataset / path).read_bytes()
        (dataset / path).write_bytes(content[: int(len(content) * share)])

    return apply


def replaced(path, content):
    return lambda dataset: (dataset / path).write_bytes(content)


def remove(path):
    return lambda dataset: (dataset / path).unlink()


def smaller_picture(dataset):
    picture = dataset / 'small.png'
    Image.new('RGB', (32, 32)).save(picture)
    cell = {'bytes': picture.read_bytes(), 'path': None}
    edit(dataset / ROWS, **{'observation__images__wrist': lambda old: [cell, *old[1:]]})


def broken_picture(dataset):
    edit(
        dataset / ROWS,
        **{
            'observation__images__wrist': lambda old: [
                {'bytes': old[0]['bytes'][:90], 'path': None},
                *old[1:],
            ]
        },
    )


NAN = lambda old: [[math.nan, *old[0][1:]], *old[1:]]
JITTER = lambda old: [value + 0.005 * (k == 4) for k, value in enumerate(old)]
HALF_RATE = lambda old: [*old[:10], *(2 * value for value in old[10:22]), *old[22:]]
NAMES = [f'joint_{k}' for k in range(6)]
EPISODE_TABLE = 'meta/episodes/chunk-000/file-000.parquet'

DAMAGE = {
    'too many rows said': ('v30/image', change(total_frames=32), 'expected total_frames 31'),
    'too many episodes said': ('v30/image', change(total_episodes=4), 'expected total_episodes 3'),
    'another version': ('v30/image', change(codebase_version='v4.0'), 'codebase_version v3.0 or v2.1'),
    'no rate': ('v30/image', change(fps=0), 'expected fps above 0'),
    'a rate that is no number': ('v30/image', change(fps='10'), 'expected fps above 0'),
    'a slow rate': ('v30/image', change(fps=5), 'at least 10 rows per second|5 rows per second'),
    'no features': ('v30/image', change(features={}), 'features'),
    'foreign joints': ('v30/image', feature('observation.state', names=NAMES), 'not a dataset of an SO-101'),
    'foreign targets': ('v30/image', feature('action', names=NAMES), 'six joint targets|not a dataset of'),
    'a huge shape': ('v30/image', feature('observation.state', shape=[2**40]), 'vectors up to'),
    'a huge picture': ('v30/image', feature('observation.images.wrist', shape=[10**9, 64, 3]), 'pictures of'),
    'a negative shape': ('v30/image', feature('action', shape=[-6]), 'a dtype and a shape'),
    'another shape': ('v30/image', feature('observation.state', shape=[12]), '12 entries'),
    'an unknown type': ('v30/image', feature('action', dtype='object'), 'a dtype and a shape'),
    'a path out of the folder': (
        'v30/image',
        change(data_path='../../x/{chunk_index}{file_index}'),
        'reaches out of its folder',
    ),
    'an absolute path': ('v30/image', change(data_path='/etc/{file_index}'), 'reaches out of its folder'),
    'a path that swells': ('v30/image', change(data_path='{file_index:099999999d}'), 'in the dataset'),
    'a path by attribute': ('v30/image', change(data_path='{file_index.__class__}'), 'in the dataset'),
    'a path of other words': ('v30/image', change(data_path='data/{episode}'), 'made of'),
    'a video path out of the folder': ('v30/video', change(video_path='../{video_key}'), 'out of its folder'),
    'no video path': ('v30/video', change(video_path=None), 'a template as video_path'),
    'provenance of another': ('v30/image', change(so101={'x': 1}), 'export again, or remove that key'),
    'JSON without end': ('v30/image', replaced('meta/info.json', b'{"a":' * 100_000), 'expected JSON'),
    'JSON that is a list': ('v30/image', replaced('meta/info.json', b'[1]'), 'expected a JSON object'),
    'JSON that is no text': ('v30/image', replaced('meta/info.json', b'\xff\xfe{}'), 'readable text'),
    'no table of episodes': ('v30/image', remove(EPISODE_TABLE), 'copy all of it'),
    'a cut table of episodes': ('v30/image', cut(EPISODE_TABLE, 0.6), 'expected a whole Parquet file'),
    'an episode twice': (
        'v30/image',
        lambda d: edit(d / EPISODE_TABLE, episode_index=lambda old: [0, 0, 1]),
        'expected episode 1',
    ),
    'no rows': ('v30/image', remove(ROWS), 'found none; copy the whole dataset'),
    'cut rows': ('v30/image', cut(ROWS, 0.7), 'expected a whole Parquet file'),
    'rows that are garbage': ('v30/image', replaced(ROWS, b'PAR1' + bytes(99)), 'whole Parquet file'),
    'a missing row': (
        'v30/converted_from_v21',
        lambda d: pq.write_table(pq.read_table(d / ROWS).slice(0, 30), d / ROWS),
        'expected 31 rows',
    ),
    'no column of actions': ('v30/image', rows(action=None), 'expected the columns'),
    'a column too many': ('v30/image', rows(extra=list(range(31))), r"got \['extra'\] too"),
    'no number in a state': ('v30/image', rows(observation__state=NAN), 'observation.state.*row 0'),
    'no number in an action': ('v30/image', rows(action=NAN), 'in every row of action'),
    'no number in a reward': (
        'v30/image',
        rows(next__reward=lambda old: [*old[:-1], math.inf]),
        'next.reward.*row 30',
    ),
    'an empty cell': ('v30/image', rows(next__reward=lambda old: [None, *old[1:]]), 'next.reward'),
    'times that jitter': ('v30/image', rows(timestamp=JITTER), 'the time 0.4000 s in row 4 of episode 0'),
    'mixed rates': ('v30/image', rows(timestamp=HALF_RATE), 'datasets of several rates cannot be mixed'),
    'times that begin late': (
        'v30/image',
        rows(timestamp=lambda old: [value + 5.0 for value in old]),
        'the time 0.0000 s in row 0',
    ),
    'time that stands still': ('v30/image', rows(timestamp=lambda old: [0.0] * 31), 'rows per second'),
    'rows of another episode': (
        'v30/image',
        rows(episode_index=lambda old: [7, *old[1:]]),
        'expected episode_index 0',
    ),
    'a row twice': ('v30/image', rows(frame_index=lambda old: [0, 0, *old[2:]]), 'expected frame_index 1'),
    'a gripper of HIL between': (
        'v30/hil',
        rows(action=lambda old: [[*row[:3], 0.4] for row in old]),
        r'0 \(close\), 1 \(stay\) or 2 \(open\)',
    ),
    'a picture of another size': ('v30/image', smaller_picture, 'pictures of 64 rows and 64 columns'),
    'half a picture': ('v30/image', broken_picture, 'expected a picture in'),
    'no picture': (
        'v30/image',
        rows(**{'observation__images__wrist': lambda old: [None, *old[1:]]}),
        'a picture in every row',
    ),
    'no column of pictures': ('v30/image', rows(**{'observation__images__wrist': None}), 'no such column'),
    'no video': ('v30/video', remove(MOVIE), 'expected the video .* found none'),
    'half a video': ('v30/video', cut(MOVIE, 0.5), 'whole video|expected a frame at'),
    'a video without index': ('v30/video', cut(MOVIE, 0.1), 'expected a whole video'),
    'a video that is garbage': ('v30/video', replaced(MOVIE, b'\0' * 500), 'expected a whole video'),
    'a video of an unknown codec': (
        'v30/video',
        lambda d: (d / MOVIE).write_bytes((d / MOVIE).read_bytes().replace(b'av01', b'xx01')),
        'no decoder for its codec',
    ),
    'a video of another camera size': (
        'v30/video',
        feature('observation.images.wrist', shape=[480, 640, 3]),
        'pictures of 480 rows and 640 columns',
    ),
    'a video of another episode': (
        'v30/video',
        lambda d: shutil.copy(
            DATA / 'v21/video/videos/chunk-000/observation.images.wrist/episode_000000.mp4', d / MOVIE
        ),
        'shorter than the rows',
    ),
    'v2.1 without its rows': ('v21/image', remove('data/chunk-000/episode_000001.parquet'), 'found none'),
    'v2.1 without its episodes': ('v21/image', remove('meta/episodes.jsonl'), 'found none'),
    'v2.1 with half an episode': (
        'v21/image',
        replaced('meta/episodes.jsonl', b'{"episode_index": 0'),
        'expected JSON',
    ),
    'v2.1 without a length': (
        'v21/image',
        replaced('meta/episodes.jsonl', b'{"episode_index": 0, "tasks": []}'),
        'with its length and tasks',
    ),
    'v2.1 without a video': (
        'v21/video',
        remove('videos/chunk-000/observation.images.wrist/episode_000002.mp4'),
        'expected the video',
    ),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_dataset_gets_a_sentence_and_leaves_nothing_behind(damage, tmp_path):
    name, apply, sentence = DAMAGE[damage]
    dataset = copy_of(name, tmp_path)
    apply(dataset)
    with pytest.raises(DatasetError, match=sentence):
        convert(dataset, tmp_path / 'buffer')
    assert not (tmp_path / 'buffer').exists()


@pytest.mark.parametrize('name', GENUINE)
def test_flipped_and_lost_bytes_give_a_dataset_or_a_sentence_and_nothing_else(name, tmp_path):
    rng = random.Random(name)
    dataset = copy_of(name, tmp_path)
    files = [path for path in sorted(dataset.rglob('*')) if path.is_file() and 'stats' not in path.name]
    refused = 0
    for _ in range(8):
        path = rng.choice(files)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 20))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.randrange(len(damaged))] if rng.random() < 0.3 else damaged)
        try:
            converted(dataset)
        except DatasetError:
            refused += 1
        path.write_bytes(whole)
    assert refused


def test_JSON_that_is_too_long_is_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, 'MAX_JSON_BYTES', 100)
    with pytest.raises(DatasetError, match='more than the 100 bytes'):
        convert(DATA / 'v30/image', tmp_path / 'buffer')


def test_a_table_that_unpacks_to_too_much_is_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, 'MAX_TABLE_BYTES', 1000)
    with pytest.raises(DatasetError, match='1000 bytes'):
        convert(DATA / 'v30/image', tmp_path / 'buffer')


# ---- the command -------------------------------------------------------------------------------------------


def test_the_command_says_what_the_dataset_does_not(tmp_path, capsys):
    argv = [
        str(DATA / 'v30/hil'),
        '--out',
        str(tmp_path / 'buffer'),
        '--units',
        'degrees',
        '--camera',
        WRIST[0],
    ]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert 'which the dataset does not say' in said
    assert '30 transitions are in' in said


def test_the_command_takes_a_folder_of_datasets(tmp_path, capsys):
    argv = [str(DATA / 'v21'), '--out', str(tmp_path / 'b'), '--units', 'degrees', '--camera', WRIST[0]]
    assert main(argv) == 0
    assert '60 transitions are in' in capsys.readouterr().out


def test_the_command_refuses_with_one_sentence(tmp_path, capsys):
    assert main([str(DATA / 'v30/image'), '--out', str(tmp_path / 'buffer')]) == 1
    assert 'expected the pictures of the camera gripper_cam' in capsys.readouterr().err
    assert main(['--out', str(tmp_path / 'buffer')]) == 1
    assert 'expected a bag or a dataset' in capsys.readouterr().err
    missing = ['--calibration', str(tmp_path / 'no.json')]
    assert main([str(DATA / 'v30/image'), '--out', str(tmp_path / 'buffer'), *missing]) == 1
    assert 'there is no such file' in capsys.readouterr().err


def test_a_dataset_of_the_hub_needs_what_is_not_installed_here(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith('huggingface_hub'):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(DatasetError, match='pip install huggingface_hub'):
        fetch('lerobot/pusht')


def test_who_ingests_bags_does_not_load_what_datasets_need():
    code = 'import hilserl_learner.ingest.cli, sys; print({"pyarrow", "av"} & set(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'set()'
