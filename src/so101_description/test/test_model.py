# SPDX-License-Identifier: Apache-2.0
import itertools

import mujoco
import numpy as np
import pytest

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_description.errors import DescriptionError, PresetError
from so101_description.model import arm_index, build_spec, FINGER_PADS, load_model

BODIES = ('world', 'base', 'shoulder', 'upper_arm', 'lower_arm', 'wrist', 'gripper', 'moving_jaw_so101_v1')
VARIANTS = list(itertools.product(('decimated', 'full', 'none'), (True, 'pads', False)))


@pytest.fixture(scope='module')
def models():
    return {
        (visuals, collision): load_model(visuals=visuals, collision=collision)
        for visuals, collision in VARIANTS
    }


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_official_names_stay_in_every_variant(models, variant):
    model = models[variant]
    assert tuple(model.body(i).name for i in range(model.nbody)) == BODIES
    assert tuple(model.joint(i).name for i in range(model.njnt)) == JOINT_NAMES
    assert tuple(model.actuator(i).name for i in range(model.nu)) == JOINT_NAMES
    assert [model.cam(i).name for i in range(model.ncam)] == ['gripper_cam']
    assert {model.site(i).name for i in range(model.nsite)} == {'baseframe', 'tcp'}


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_masses_add_up_to_632_grams_in_every_variant(models, variant):
    assert models[variant].body_mass.sum() == pytest.approx(0.632006, abs=1e-9)
    np.testing.assert_array_equal(models[variant].body_inertia, models['none', False].body_inertia)


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_joint_limits_are_those_of_the_contract(models, variant):
    for name in JOINT_NAMES:
        np.testing.assert_allclose(models[variant].joint(name).range, JOINT_LIMITS_RAD[name], atol=1e-12)


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_what_is_drawn_and_what_collides_is_what_was_asked_for(models, variant):
    visuals, collision = variant
    model = models[variant]
    drawn = (model.geom_group == 2).sum()
    colliding = ((model.geom_contype != 0) | (model.geom_conaffinity != 0)).sum()
    assert drawn == (0 if visuals == 'none' else 17)
    assert colliding == {True: 15, 'pads': 2, False: 0}[collision]
    assert drawn + colliding == model.ngeom


def test_the_fast_model_reads_no_mesh(models):
    model = models['none', False]
    assert (model.ngeom, model.nmesh, model.nmat) == (0, 0, 0)


def test_collision_shapes_do_not_depend_on_the_visuals(models):
    def shapes(model):
        geoms = np.flatnonzero(model.geom_group == 3)
        meshes = model.geom_dataid[geoms]
        return model.geom_size[geoms], model.geom_pos[geoms], model.mesh_vertnum[meshes[meshes >= 0]]

    for expected, found in zip(shapes(models['full', True]), shapes(models['decimated', True]), strict=True):
        np.testing.assert_array_equal(expected, found)


def test_decimated_visuals_hang_where_the_full_ones_hang(models):
    def boxes(model):
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        for geom in np.flatnonzero(model.geom_group == 2):
            mesh = model.geom_dataid[geom]
            first = model.mesh_vertadr[mesh]
            local = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
            world = local @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
            yield world.min(axis=0), world.max(axis=0)

    full = np.array(list(boxes(models['full', False])))
    light = np.array(list(boxes(models['decimated', False])))
    np.testing.assert_allclose(light, full, atol=5e-4)


def test_F14_joints_are_found_by_name_behind_a_loose_cube():
    scene = mujoco.MjSpec()
    cube = scene.worldbody.add_body(name='cube', pos=[0.2, 0, 0.015])
    cube.add_freejoint()
    cube.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.015] * 3, mass=0.03)
    scene.attach(
        build_spec(visuals='none', collision='pads'), prefix='arm/', frame=scene.worldbody.add_frame()
    )
    model = scene.compile()
    arm = arm_index(model, prefix='arm/')
    np.testing.assert_array_equal(arm.qpos, np.arange(7, 13))
    np.testing.assert_array_equal(arm.qvel, np.arange(6, 12))
    np.testing.assert_array_equal(arm.ctrl, np.arange(6))

    alone = load_model(visuals='none', collision='pads')
    q = np.array([0.3, -0.4, 0.5, 0.6, -0.7, 0.1])
    poses = []
    for each, prefix in ((model, 'arm/'), (alone, '')):
        data = mujoco.MjData(each)
        index = arm_index(each, prefix)
        data.qpos[index.qpos] = q
        mujoco.mj_forward(each, data)
        poses.append((data.site_xpos[index.tcp_site].copy(), data.cam_xmat[index.camera].copy()))
    np.testing.assert_allclose(poses[0][0], poses[1][0], atol=1e-12)
    np.testing.assert_allclose(poses[0][1], poses[1][1], atol=1e-12)


def test_two_arms_with_meshes_fit_in_one_scene_of_another_folder(tmp_path):
    scene_file = tmp_path / 'scene.xml'
    scene_file.write_text('<mujoco><compiler meshdir="nowhere" angle="degree"/><worldbody/></mujoco>')
    scene = mujoco.MjSpec.from_file(str(scene_file))
    for prefix, y in (('left/', 0.3), ('right/', -0.3)):
        frame = scene.worldbody.add_frame(pos=[0, y, 0])
        scene.attach(build_spec(collision=False), prefix=prefix, frame=frame)
    model = scene.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    left, right = arm_index(model, 'left/'), arm_index(model, 'right/')
    np.testing.assert_allclose(
        data.site_xpos[left.tcp_site] - data.site_xpos[right.tcp_site], (0, 0.6, 0), atol=1e-12
    )
    np.testing.assert_allclose(
        model.jnt_range[model.jnt_qposadr.searchsorted(left.qpos)],
        list(JOINT_LIMITS_RAD.values()),
        atol=1e-12,
    )


def test_specs_are_independent_of_each_other():
    first, second = build_spec(visuals='none', collision=False), build_spec(visuals='none', collision=False)
    first.site('tcp').pos = [9, 9, 9]
    np.testing.assert_allclose(second.site('tcp').pos, (-0.0079, -0.000218121, -0.0981274))


def test_finger_pads_can_be_reshaped():
    spec = build_spec(visuals='none', collision='pads')
    for name in FINGER_PADS:
        spec.geom(name).size = [0.002, 0.008, 0.012]
    model = spec.compile()
    np.testing.assert_array_equal(model.geom(FINGER_PADS[0]).size, (0.002, 0.008, 0.012))


def test_the_model_moves_and_stays_finite():
    model = load_model(visuals='none', collision='pads')
    data = mujoco.MjData(model)
    arm = arm_index(model)
    data.ctrl[arm.ctrl] = (0.2, 0.2, -0.2, 0.2, 0.2, 0.2)
    mujoco.mj_step(model, data, nstep=1000)
    np.testing.assert_allclose(data.qpos[arm.qpos], data.ctrl[arm.ctrl], atol=0.01)


def test_the_spec_survives_a_round_trip_through_xml():
    spec = build_spec()
    spec.compile()
    again = mujoco.MjModel.from_xml_string(spec.to_xml())
    assert (again.nmesh, again.ngeom) == (23, 32)


@pytest.mark.parametrize(
    ('arguments', 'error', 'part'),
    [
        ({'visuals': 'pretty'}, DescriptionError, "visuals as one of .* got 'pretty'"),
        ({'visuals': None}, DescriptionError, 'visuals as one of'),
        ({'collision': 'hulls'}, DescriptionError, "collision as True, False or 'pads', got 'hulls'"),
        ({'collision': None}, DescriptionError, 'collision as True'),
        ({'tcp': 'gripperframe'}, PresetError, 'TCP presets'),
        ({'camera': 'wrist_cam'}, PresetError, 'camera presets'),
    ],
)
def test_unknown_arguments_are_refused_with_the_known_ones(arguments, error, part):
    with pytest.raises(error, match=part):
        build_spec(**arguments)
