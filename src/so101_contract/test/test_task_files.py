# SPDX-License-Identifier: Apache-2.0
"""A task is a file: what it may say, what is refused and how, and what its hash covers."""

from dataclasses import replace
import os

import pytest

from so101_contract.errors import SpecMismatchError, TaskError
from so101_contract.manifest import PolicyManifest
from so101_contract.observation_spec import Crop, get_observation
from so101_contract.task.files import (
    get_task,
    observed,
    read_task,
    task_names,
    task_of_yaml,
    told_task,
    write_task,
    yaml_of_task,
)
from so101_contract.task.spec import require_same_task, TaskCamera, TaskSpec

HEAD = 'name: tap\ninstruction: Tap the bell.\n'


@pytest.mark.parametrize('name', task_names())
def test_every_shipped_task_can_be_read_and_written_again(name, tmp_path):
    task = get_task(name)
    assert task.name == name
    write_task(tmp_path / 'again.yaml', task)
    assert read_task(tmp_path / 'again.yaml') == task
    assert TaskSpec.from_json(task.to_json()) == task


@pytest.mark.parametrize('observation', ['compact', 'full', 'robobase'])
def test_the_task_lift_observes_what_was_observed_before_there_were_tasks(observation):
    assert get_task('lift').observe(observation) == get_observation(observation)
    assert observed(None, observation) == get_observation(observation)


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        ('camera: 3', 'did you mean cameras'),
        ('cameras: {wrist: 3}', 'as a list'),
        ('cameras: [{nama: wrist}]', 'did you mean name'),
        ('cameras: [{name: wrist}, {name: gripper_cam}]', 'each once'),
        ('cameras: [{name: "../x"}]', 'small letters'),
        ('cameras: [{name: wrist, crop: {top: -1, left: 0, height: 3, width: 3}}]', 'inside the image'),
        ('start: {xyz: [1, 2]}', '3 entries'),
        ('start: {xyz: [0.2, 0, 5]}', 'within 0.6 m'),
        ('workspace: {low: [0, 0, 0]}', 'expected high in workspace'),
        ('workspace: {low: [0.3, 0, 0], high: [0.4, 0.1, 0.1]}', 'start within the workspace'),
        ('reward: {source: god}', 'sim, operator, classifier, gripper'),
        ('time_limit_s: .nan', 'finite number'),
        ('time_limit_s: 1.0e+300', '0.5 to 3600 s'),
        ('ends: [success]', 'time_limit among the ends'),
        ('gripper: suction', "['jaw', 'closed']"),
        ('simulation: {goal: lift, object: can}', 'goal push for a can'),
        ('name: other', 'each key once'),
        ('human: 5', 'of type str'),
        ('a: [', 'expected YAML'),
        ('x: &a [*a]', 'contains itself'),
    ],
)
def test_what_cannot_be_is_refused_with_one_sentence(more, said):
    with pytest.raises(ValueError, match='expected') as refused:
        task_of_yaml(f'{HEAD}{more}\n')
    assert said in str(refused.value)


@pytest.mark.parametrize('content', [b'\xff\xfe', b'- ' * 60_000, b'[' * 90_000, b'5'])
def test_what_is_no_task_file_is_refused_with_its_name(content, tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_bytes(content)
    with pytest.raises(TaskError, match=r'mine\.yaml'):
        get_task(str(path))


def test_a_task_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(TaskError, match='lift, place, push_can'):
        get_task('lifft')
    with pytest.raises(TaskError, match='got none'):
        get_task('nowhere/mine.yaml')
    assert told_task('') is None


def test_the_hash_covers_what_is_learned_and_not_what_is_only_said():
    task = get_task('lift')
    assert replace(task, human='Sing.').hash == task.hash
    assert replace(task, cameras=(TaskCamera(name='wrist', device='/dev/video7'),)).hash == task.hash
    assert replace(task, time_limit_s=11.0).hash != task.hash
    assert replace(task, instruction='Lift it.').hash != task.hash


def test_another_task_is_refused_with_every_difference_and_an_old_file_is_taken():
    lift, place = get_task('lift'), get_task('place')
    require_same_task(None, place)
    require_same_task(lift, None)
    require_same_task(lift, lift.meaning)
    with pytest.raises(SpecMismatchError, match=r'time_limit_s: 10\.0 here, 15\.0 there'):
        require_same_task(lift, place)


def test_a_manifest_without_a_task_is_the_manifest_that_it_was():
    assert 'task' in PolicyManifest.OPTIONAL


def test_cameras_can_be_chosen_and_keep_the_crop_that_the_task_gives_them():
    crop = Crop(0, 80, 480, 480)
    task = replace(get_task('lift'), cameras=(TaskCamera(name='wrist', crop=crop), TaskCamera(name='side')))
    chosen = task.with_cameras(['front=/dev/video2', 'wrist'])
    assert [(camera.topic, camera.device) for camera in chosen.cameras] == [
        ('front_cam', '/dev/video2'),
        ('gripper_cam', ''),
    ]
    spec = chosen.observe('compact')
    assert spec.camera_names == ('front_cam', 'gripper_cam')
    assert spec.cameras[1].crop == crop
    assert task.with_cameras(['']) == task
    assert get_observation('compact', cameras=['wrist', 'front']).camera_names == ('gripper_cam', 'front_cam')


def test_a_file_says_only_what_differs():
    assert yaml_of_task(task_of_yaml(HEAD)) == HEAD


def test_a_pipe_in_the_place_of_a_task_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.yaml')
    with pytest.raises(TaskError, match='a pipe or a device'):
        get_task(str(tmp_path / 'pipe.yaml'))
