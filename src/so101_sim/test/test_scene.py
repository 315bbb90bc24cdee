# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from so101_description.model import load_model
from so101_kinematics.ik import InverseKinematics
from so101_sim.errors import PresetError, SimulationError
from so101_sim.scene.presets import GAP_SCENE, get_preset
from so101_sim.scene.scene import load_scene, scene_index, SceneConfig, set_contacts
from so101_sim.scene.servo import get_servo
from so101_sim.scene.simulation import Simulation
from so101_sim.scene.start import home_pose


def test_the_arm_in_the_scene_weighs_what_the_official_one_does():
    model = load_scene(SceneConfig())
    assert model.body_subtreemass[model.body('arm/base').id] == pytest.approx(
        load_model(visuals='none', collision=False).body_subtreemass[0], abs=1e-9
    )


@pytest.mark.parametrize('contacts', ['fingers', 'pads', 'official'])
def test_every_kind_of_contacts_has_both_fingers(contacts):
    model = load_scene(SceneConfig(contacts=contacts))
    index = scene_index(model)
    for finger, body in (
        (index.static_finger, 'arm/gripper'),
        (index.moving_finger, 'arm/moving_jaw_so101_v1'),
    ):
        assert model.geom_contype[finger] or model.geom_conaffinity[finger]
        assert model.geom_bodyid[finger] == model.body(body).id


def test_the_fingers_lie_on_the_visible_inner_faces():
    model = load_scene(SceneConfig())
    data, index = mujoco.MjData(model), scene_index(model)
    mujoco.mj_forward(model, data)
    finger = index.static_finger
    axes, half = data.geom_xmat[finger].reshape(3, 3), model.geom_size[finger]
    face = data.geom_xpos[finger] + axes[:, 0] * half[0]
    tip = face - axes[:, 2] * half[2]
    tcp = data.site_xpos[index.arm.tcp_site]
    # The preset so101 is the tip of the static finger, 6 mm from its very end.
    assert np.linalg.norm(tip - tcp) < 0.007
    assert abs((tcp - face) @ axes[:, 0]) < 0.0012


def test_unknown_contacts_are_refused_with_a_list():
    with pytest.raises(PresetError, match="'fingers', 'pads', 'official'"):
        set_contacts(mujoco.MjSpec(), 'magnets')


@pytest.mark.parametrize('change', [{'cube_half_size': 0.2}, {'cube_mass': 0.0}, {'cube_friction': 0.0}])
def test_an_impossible_cube_is_refused(change):
    with pytest.raises(PresetError, match='expected a cube'):
        SceneConfig(**change)


def test_models_of_equal_configurations_are_independent():
    first, second = load_scene(SceneConfig()), load_scene(SceneConfig())
    first.geom_rgba[:] = 0.0
    first.opt.gravity[:] = 0.0
    assert second.geom_rgba.any()
    assert second.opt.gravity[2] == -9.81


def test_the_gap_is_as_large_as_promised():
    def look(config):
        model = load_scene(config)
        data, index = mujoco.MjData(model), scene_index(model)
        mujoco.mj_forward(model, data)
        gripper = data.xmat[index.arm.gripper_body].reshape(3, 3)
        camera = gripper.T @ data.cam_xmat[index.arm.camera].reshape(3, 3)
        place = gripper.T @ (data.cam_xpos[index.arm.camera] - data.xpos[index.arm.gripper_body])
        return data.site_xpos[index.arm.tcp_site].copy(), place, camera

    (tcp, place, camera), (tcp_gap, place_gap, camera_gap) = look(SceneConfig()), look(GAP_SCENE)
    assert np.linalg.norm(tcp_gap - tcp) == pytest.approx(0.008, abs=0.0005)
    assert np.linalg.norm(place_gap - place) == pytest.approx(0.010, abs=0.0005)
    turn = np.degrees(np.arccos((np.trace(camera.T @ camera_gap) - 1.0) / 2.0))
    assert turn == pytest.approx(3.0, abs=0.1)
    assert GAP_SCENE.servo.lag_s > 0.0
    assert np.degrees(GAP_SCENE.servo.backlash_rad) == pytest.approx(1.0)


def test_a_reset_puts_everything_where_it_was_asked_to_be(simulation):
    q = np.array([0.2, -0.3, 0.4, 1.1, 0.3, 0.8])
    simulation.reset(q, (0.2, 0.1, 0.015), 0.5)
    truth = simulation.truth()
    assert np.abs(simulation.joint_positions - q).max() < 0.01
    assert truth.cube_position == pytest.approx((0.2, 0.1, 0.015), abs=2e-4)
    assert 2.0 * np.arctan2(truth.cube_quat_wxyz[3], truth.cube_quat_wxyz[0]) == pytest.approx(0.5, abs=1e-3)
    assert truth.time_s == 0.0
    assert truth.on_table
    assert not truth.held


def test_a_reset_forgets_everything_before_it(simulation):
    q = np.array([0.0, -0.25, 0.3, 1.2, 0.0, 0.5])
    simulation.reset(q, (0.25, 0.0, 0.015))
    first = simulation.data.qpos.copy()
    simulation.step(200, q + 0.3, torque=np.array([True, False, True, True, True, True]))
    simulation.reset(q, (0.25, 0.0, 0.015))
    assert np.array_equal(simulation.data.qpos, first)


@pytest.mark.parametrize('q', [np.zeros(5), np.full(6, np.nan)], ids=['short', 'NaN'])
def test_a_bad_start_is_refused(simulation, q):
    with pytest.raises(SimulationError, match='expected 6 joint positions'):
        simulation.reset(q, (0.25, 0.0, 0.015))


def test_a_cube_that_is_put_somewhere_lies_there_while_the_arm_goes_on(simulation):
    before = simulation.joint_positions.copy()
    simulation.place_cube((0.3, -0.1, 0.015), 0.4)
    simulation.step(100, before)
    assert simulation.truth().cube_position == pytest.approx((0.3, -0.1, 0.015), abs=3e-4)
    assert simulation.truth().cube_speed < 1e-3


def test_a_finger_does_not_press_the_cube_into_the_table():
    simulation = Simulation()
    ik = InverseKinematics()
    start = home_pose(ik)
    simulation.reset(start, (0.25, 0.0, 0.015))
    lowest = 1.0
    for height in np.linspace(0.08, 0.025, 30):
        down = ik.solve((0.25, 0.0, height), start, pitch=np.radians(75.0)).q
        down[-1] = start[-1]
        simulation.step(20, down)
        lowest = min(lowest, simulation.truth().cube_position[2])
    assert simulation.truth().touches_static
    assert lowest > 0.0135


def test_every_preset_of_the_task_place_has_a_tray_that_the_cube_is_not_in():
    for name in ('easy', 'wide', 'gap'):
        preset = get_preset(name, 'place')
        simulation = Simulation(preset.scene)
        ik = InverseKinematics()
        rng = np.random.default_rng(0)
        for _ in range(5):
            q, cube, yaw = preset.start.sample(rng, ik, 0.015)
            simulation.reset(q, cube, yaw)
            assert simulation.truth().tray_position is not None
            assert not simulation.truth().in_tray


def test_a_shadow_map_or_multisampling_is_not_there_by_default():
    model = load_scene(SceneConfig())
    assert model.vis.quality.shadowsize == 0
    assert model.vis.quality.offsamples == 0


def test_the_servo_of_the_scene_is_a_real_one_not_the_official_models():
    model = load_scene(SceneConfig())
    index = scene_index(model)
    assert np.allclose(model.actuator_forcerange[index.arm.ctrl], (-1.91, 1.91))
    official = load_scene(replace(SceneConfig(), servo=get_servo('official')))
    assert np.allclose(official.actuator_forcerange[index.arm.ctrl], (-3.35, 3.35))
    assert np.allclose(official.dof_damping[index.arm.qvel], 0.60, atol=1e-6)
