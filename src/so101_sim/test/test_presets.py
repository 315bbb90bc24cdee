# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from so101_contract.errors import TaskError
from so101_contract.joints import limits_arrays
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.ik import InverseKinematics
from so101_sim.errors import PresetError
from so101_sim.scene.presets import ArmControl, get_preset, PRESETS, SCENE_PARTS, with_nominal
from so101_sim.scene.start import AtPoint, AtPose, home_pose, NearCube, Start

ALL = [(name, 'lift') for name in PRESETS] + [(name, 'place') for name in ('easy', 'wide', 'gap')]


@pytest.mark.parametrize(('name', 'task'), ALL)
def test_every_start_of_every_preset_can_be_reached(name, task):
    preset = get_preset(name, task)
    ik = InverseKinematics(ForwardKinematics(preset.control.kinematics.tcp))
    rng = np.random.default_rng(0)
    low, high = limits_arrays()
    for _ in range(20):
        q, cube, yaw = preset.start.sample(rng, ik, preset.scene.cube_half_size)
        assert ((q >= low) & (q <= high)).all()
        for value, bounds in zip(
            (*cube[:2], yaw), (preset.start.cube_x, preset.start.cube_y, preset.start.cube_yaw), strict=False
        ):
            assert bounds[0] <= value <= bounds[1]


def test_a_seed_decides_the_start():
    ik = InverseKinematics()
    start = get_preset('wide').start
    first, again, other = (start.sample(np.random.default_rng(seed), ik, 0.015) for seed in (1, 1, 2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def test_easy_and_wide_spread_the_cube_as_promised():
    easy, wide = get_preset('easy').start, get_preset('wide').start
    assert np.allclose(np.ptp([easy.cube_x, easy.cube_y], axis=1), 0.06)
    assert np.allclose(np.ptp([wide.cube_x, wide.cube_y], axis=1), 0.14)
    assert np.degrees(wide.cube_yaw) == pytest.approx((-45.0, 45.0))


def test_home_can_be_gripped_and_lifted_from():
    ik = InverseKinematics()
    for x in (0.18, 0.25, 0.32):
        for y in (-0.07, 0.07):
            for z in (0.014, 0.075):
                at = np.array([x, y]) * (1.0 - 0.021 / np.hypot(x - 0.04, y))
                found = ik.solve((*at, z), home_pose(ik), pitch=ik.fk.pitch(home_pose(ik)))
                assert found.position_error < 1e-3, (x, y, z)


def test_pick101_has_the_numbers_of_its_environment():
    preset = get_preset('pick101')
    config = preset.control.kinematics
    assert (preset.control.rate_hz, config.profile, config.tcp, preset.max_steps) == (
        50.0,
        'pick101',
        'pick101',
        200,
    )
    assert (preset.task.height_m, preset.task.hold_steps) == (0.08, 10)
    assert preset.observation.state_size == 18
    assert preset.observation.tcp == preset.scene.tcp == 'pick101'
    assert preset.observation.camera_preset == preset.scene.camera == 'pick101'
    assert preset.scene.servo.stall_torque == 3.35
    assert (preset.scene.cube_mass, preset.scene.cube_half_size, preset.scene.cube_friction) == (
        0.03,
        0.015,
        0.5,
    )


def test_pick101_starts_over_the_cube_with_both_wrist_joints_at_a_right_angle():
    preset = get_preset('pick101')
    ik = InverseKinematics(ForwardKinematics('pick101'))
    rng = np.random.default_rng(3)
    for _ in range(5):
        q, cube, _ = preset.start.sample(rng, ik, 0.015)
        assert np.allclose(q[3:5], np.pi / 2)
        assert np.allclose(ik.fk.pose(q).position - cube, (0.0, -0.015, 0.035), atol=1e-3)


def test_stage_four_of_pick101_starts_some_way_off_and_stage_zero_in_the_default_pose():
    ik = InverseKinematics(ForwardKinematics('pick101'))
    rng = np.random.default_rng(0)
    for _ in range(10):
        q, cube, _ = get_preset('pick101_stage4').start.sample(rng, ik, 0.015)
        tcp = ik.fk.pose(q).position
        assert 0.079 < np.linalg.norm((tcp - cube)[:2]) < 0.121
        assert tcp[2] == pytest.approx(0.10, abs=1e-3)
    q, cube, _ = get_preset('pick101_stage0').start.sample(rng, ik, 0.015)
    assert not q.any()
    assert np.abs(cube[:2] - (0.40, -0.10)).max() <= 0.03


@pytest.mark.parametrize(('name', 'task'), [('hard', 'lift'), ('easy', 'juggle'), ('pick101', 'place')])
def test_what_does_not_exist_is_refused_with_a_list(name, task):
    with pytest.raises((PresetError, TaskError), match='expected'):
        get_preset(name, task)


def test_a_start_that_cannot_be_reached_is_refused_and_does_not_hang():
    start = Start(arm=AtPoint(centre=(1.0, 0.0, 0.5)))
    with pytest.raises(PresetError, match='reach'):
        start.sample(np.random.default_rng(0), InverseKinematics(), 0.015)


def test_a_pose_with_a_spread_stays_within_the_limits():
    low, high = limits_arrays()
    arm = AtPose(q=tuple(high), spread=0.5)
    for seed in range(5):
        q = arm.sample(np.random.default_rng(seed), InverseKinematics(), np.zeros(3))
        assert ((q >= low) & (q <= high)).all()


def test_starting_near_a_cube_that_is_out_of_reach_is_no_draw():
    assert (
        NearCube().sample(np.random.default_rng(0), InverseKinematics(), np.array([0.9, 0.0, 0.015])) is None
    )


@pytest.mark.parametrize('change', [{'rate_hz': 15.0}, {'rate_hz': 100.0}, {'latency_s': 0.1}])
def test_rates_that_do_not_fit_together_are_refused(change):
    with pytest.raises(PresetError):
        replace(ArmControl(), **change)


def test_gap_with_every_part_nominal_is_wide():
    gap, wide = get_preset('gap'), get_preset('wide')
    assert gap.scene != wide.scene
    assert with_nominal(gap, SCENE_PARTS) == replace(wide, name='gap')


@pytest.mark.parametrize('part', SCENE_PARTS)
def test_each_part_of_gap_differs_and_can_be_nominal_alone(part):
    gap = get_preset('gap')
    changed = with_nominal(gap, [part]).scene
    assert changed != gap.scene
    others = [name for name in SCENE_PARTS if name != part]
    assert with_nominal(replace(gap, scene=changed), others) == with_nominal(gap, SCENE_PARTS)


def test_a_part_that_no_scene_has_is_refused():
    with pytest.raises(PresetError, match=r"'camera', 'light'.*got 'wind'"):
        with_nominal(get_preset('gap'), ['wind'])
