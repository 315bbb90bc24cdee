# SPDX-License-Identifier: Apache-2.0
"""Rooms drawn by a number: each is itself wherever it is named, and no two are alike."""

import numpy as np
import pytest

from so101_contract.task.files import task_names
from so101_interfaces_py.topics import WRIST_CAMERA
from so101_sim.env import ArmEnv
from so101_sim.errors import PresetError
from so101_sim.scene.presets import get_preset, get_scene_preset
from so101_sim.scene.rooms import enter, FIRST_UNSEEN, number_of
from so101_sim.scene.scene import load_scene
from so101_sim.scene.start import Variation

A, B = f'room-{FIRST_UNSEEN}', f'room-{FIRST_UNSEEN + 1}'


@pytest.fixture
def make(renders):
    made = []

    def make_(preset):
        made.append(ArmEnv(preset=preset))
        return made[-1]

    yield make_
    for env in made:
        env.close()


@pytest.mark.parametrize('task', task_names())
def test_a_room_is_the_same_each_time_and_others_are_not(task):
    first, second, other = (get_preset(name, task).scene for name in (A, A, B))
    assert first == second
    plain = get_preset('wide', task).scene
    for part in (
        'table_rgb',
        'table_pattern',
        'walls',
        'light_direction',
        'ambient',
        'servo',
        'camera_turn_deg',
    ):
        assert getattr(first, part) != getattr(other, part) != getattr(plain, part), part
    for part in ('tray_position', 'mark_position', 'mark_radius', 'shape'):
        assert getattr(first, part) == getattr(other, part) == getattr(plain, part), part


def test_a_can_keeps_its_size_and_a_cube_does_not():
    size = {name: get_preset(A, name).scene.cube_half_size for name in ('lift', 'push_can')}
    assert size['lift'] != get_preset('wide', 'lift').scene.cube_half_size
    assert size['push_can'] == get_preset('wide', 'push_can').scene.cube_half_size


@pytest.mark.parametrize('number', [0, 1, 7, 9999, 10_000, 123_456, 2**31 - 1])
def test_every_room_can_be_built_and_worked_in(number):
    preset = get_preset(f'room-{number}')
    env = ArmEnv(preset=preset, images=False)
    env.reset(seed=number)
    *_, info = env.step(np.zeros(4))
    assert not info['status'].failure
    assert env.truth().cube_position[2] == pytest.approx(preset.scene.cube_half_size, abs=0.001)


@pytest.mark.parametrize(
    'name', ['room-', 'room--1', 'room-1.5', 'room-99999999999', f'room-{2**31}', 'room', 'Room-1']
)
def test_what_is_no_number_names_no_room(name):
    assert number_of(name) is None
    with pytest.raises(PresetError, match='room-N'):
        get_preset(name)


def test_training_draws_only_rooms_that_are_for_training_and_another_in_each_episode(monkeypatch):
    env, entered = ArmEnv(preset='rooms', images=False), []
    go = env._enter
    monkeypatch.setattr(env, '_enter', lambda number: entered.append(number) or go(number))
    for seed in range(20):
        env.reset(seed=seed)
    assert max(entered) < FIRST_UNSEEN
    assert len(set(entered)) > 15


def test_a_scene_that_enters_a_room_is_that_room_to_the_bit():
    a, b = (load_scene(get_preset(name).scene) for name in (A, B))
    enter(a, b)
    for name in dir(b):
        wanted = getattr(b, name)
        if isinstance(wanted, np.ndarray):
            assert np.array_equal(getattr(a, name), wanted), name
    assert np.array_equal(a.vis.headlight.ambient, b.vis.headlight.ambient)
    assert (a.stat.extent, a.stat.meansize) == (b.stat.extent, b.stat.meansize)


def test_pictures_and_servos_after_rooms_were_changed_are_those_of_the_room_itself(make):
    wanderer = make('rooms')
    for seed in (1, 2):
        wanderer.reset(seed=seed)
    there = make(wanderer.preset)
    for env in (wanderer, there):
        env._varier.apply(Variation(), np.random.default_rng(0))  # nothing of what varies within a room
        env.simulation.reset(env.home, (0.25, 0.01, env.preset.scene.cube_half_size))
    assert wanderer.simulation.servos.servo == there.simulation.servos.servo
    seen = [env.picture(WRIST_CAMERA, 64, 64) for env in (wanderer, there)]
    assert np.array_equal(*seen)
    assert seen[0].std() > 1.0


def test_equal_seeds_give_equal_bits_in_changing_rooms_too(make):
    one, other = make('rooms'), make('rooms')
    other.reset(seed=99)
    for _ in range(2):
        for name, value in one.reset(seed=4)[0].items():
            assert np.array_equal(value, other.reset(seed=4)[0][name]), name


def test_an_arm_that_runs_is_in_one_room():
    assert get_scene_preset(A, 'lift').rooms == 0
    with pytest.raises(PresetError, match='name a room, such as room-10000'):
        get_scene_preset('rooms', 'lift')
