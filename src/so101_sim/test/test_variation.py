# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from so101_sim.scene.scene import load_scene, scene_index, SceneConfig
from so101_sim.scene.start import Variation, Varier

EVERYTHING = Variation(
    cube_hue=True,
    table_shade=0.2,
    light_turn_rad=0.4,
    light_change=0.3,
    camera_shift_m=0.003,
    camera_turn_deg=2.0,
    cube_mass_change=0.3,
    cube_friction_change=0.3,
)
FIELDS = (
    *('geom_rgba', 'light_dir', 'light_diffuse', 'cam_pos', 'cam_quat'),
    *('body_mass', 'body_inertia', 'geom_friction'),
)


@pytest.fixture
def scene():
    model = load_scene(SceneConfig())
    return model, Varier(model, scene_index(model), SceneConfig())


def snapshot(model):
    return {name: getattr(model, name).copy() for name in FIELDS}


def same(first, second):
    return all(np.allclose(first[name], second[name], atol=1e-7) for name in FIELDS)


def test_no_variation_restores_the_nominal_scene(scene):
    model, varier = scene
    nominal = snapshot(model)
    varier.apply(EVERYTHING, np.random.default_rng(0))
    assert not same(snapshot(model), nominal)
    varier.apply(Variation(), np.random.default_rng(1))
    assert same(snapshot(model), nominal)


def test_a_seed_decides_the_scene_whatever_came_before(scene):
    model, varier = scene
    varier.apply(EVERYTHING, np.random.default_rng(5))
    first = snapshot(model)
    varier.apply(EVERYTHING, np.random.default_rng(6))
    assert not same(snapshot(model), first)
    varier.apply(EVERYTHING, np.random.default_rng(5))
    assert same(snapshot(model), first)


def test_each_switch_draws_as_much_chance_as_any_other():
    states = []
    for variation in (Variation(), EVERYTHING):
        model = load_scene(SceneConfig())
        rng = np.random.default_rng(7)
        Varier(model, scene_index(model), SceneConfig()).apply(variation, rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


def test_the_camera_stays_within_its_jitter(scene):
    model, varier = scene
    camera = scene_index(model).arm.camera
    place, quat = model.cam_pos[camera].copy(), model.cam_quat[camera].copy()
    for seed in range(20):
        varier.apply(EVERYTHING, np.random.default_rng(seed))
        assert np.linalg.norm(model.cam_pos[camera] - place) <= 0.003 * np.sqrt(3) + 1e-9
        turn = 2.0 * np.arccos(min(1.0, abs(float(model.cam_quat[camera] @ quat))))
        assert np.degrees(turn) <= 2.0 * np.sqrt(3) + 1e-6
        assert np.linalg.norm(model.cam_quat[camera]) == pytest.approx(1.0)


def test_a_light_that_is_turned_keeps_its_length(scene):
    model, varier = scene
    light = scene_index(model).light
    length = np.linalg.norm(model.light_dir[light])
    for seed in range(10):
        varier.apply(Variation(light_turn_rad=0.5), np.random.default_rng(seed))
        assert np.linalg.norm(model.light_dir[light]) == pytest.approx(length)
