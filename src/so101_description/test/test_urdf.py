# SPDX-License-Identifier: Apache-2.0
"""The generated URDF, read by two readers that share no code with the writer: yourdfpy and MuJoCo's own."""

import io
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import mujoco
import numpy as np
import pytest
import yourdfpy

from so101_contract.joints import BASE_FRAME, JOINT_LIMITS_RAD, JOINT_NAMES, limits_arrays, TCP_FRAME
from so101_description.cameras import CAMERA_PRESETS
from so101_description.errors import PresetError
from so101_description.model import arm_index, decimated_directory, load_model, official_directory
from so101_description.pose import Pose
from so101_description.tcp import TCP_PRESETS, TcpPreset
from so101_description.urdf import CAMERA_LINK, CAMERA_OPTICAL_FRAME, urdf_text

BODIES = ('base', 'shoulder', 'upper_arm', 'lower_arm', 'wrist', 'gripper', 'moving_jaw_so101_v1')
LINKS = tuple(f'{body}_link' for body in BODIES)
FRAMES = (TCP_FRAME, CAMERA_LINK, CAMERA_OPTICAL_FRAME)
POSES = 1000


@pytest.fixture(scope='module')
def text():
    return urdf_text()


@pytest.fixture(scope='module')
def root(text):
    return ET.fromstring(text)


@pytest.fixture(scope='module')
def joint_vectors():
    lower, upper = limits_arrays()
    return np.random.default_rng(101).uniform(lower, upper, (POSES, 6))


def local_path(fname):
    return fname.replace('package://so101_description/meshes', str(decimated_directory()))


def read_with_yourdfpy(text, load_meshes=False):
    return yourdfpy.URDF.load(
        io.BytesIO(text.encode()),
        load_meshes=load_meshes,
        filename_handler=local_path,
        build_scene_graph=True,
    )


def read_with_mujoco(text):
    """Compile the URDF with MuJoCo, every link kept as a body of its own."""
    options = '<mujoco><compiler fusestatic="false" strippath="false" discardvisual="true"/></mujoco></robot>'
    without_meshes = ET.fromstring(text)
    for link in without_meshes.findall('link'):
        for kind in ('visual', 'collision'):
            for element in link.findall(kind):
                link.remove(element)
    plain = ET.tostring(without_meshes, encoding='unicode')
    return mujoco.MjModel.from_xml_string(plain.replace('</robot>', options))


def truth(joint_vectors, **presets):
    """Poses (n, 4, 4) of every link, by name, from the MJCF."""
    model = load_model(visuals='none', collision=False, **presets)
    data = mujoco.MjData(model)
    arm = arm_index(model)
    poses = {name: np.tile(np.eye(4), (len(joint_vectors), 1, 1)) for name in (*LINKS, *FRAMES)}

    def put(name, i, position, rotation):
        poses[name][i, :3, 3] = position
        poses[name][i, :3, :3] = rotation.reshape(3, 3)

    for i, q in enumerate(joint_vectors):
        data.qpos[arm.qpos] = q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        for body, link in zip(BODIES, LINKS, strict=True):
            put(link, i, data.body(body).xpos, data.body(body).xmat)
        put(TCP_FRAME, i, data.site_xpos[arm.tcp_site], data.site_xmat[arm.tcp_site])
        camera = data.cam_xmat[arm.camera].reshape(3, 3)  # x right, y up, looks along -z
        right, up, forward = camera[:, 0], camera[:, 1], -camera[:, 2]
        position = data.cam_xpos[arm.camera]
        put(CAMERA_OPTICAL_FRAME, i, position, np.stack([right, -up, forward], axis=1))
        put(CAMERA_LINK, i, position, np.stack([forward, -right, up], axis=1))
    return poses


def by_yourdfpy(robot, joint_vectors, links):
    poses = {name: np.empty((len(joint_vectors), 4, 4)) for name in links}
    for i, q in enumerate(joint_vectors):
        robot.update_cfg(dict(zip(JOINT_NAMES, q, strict=True)))
        for name in links:
            poses[name][i] = robot.get_transform(name, BASE_FRAME)
    return poses


def by_mujoco(model, joint_vectors, links):
    data = mujoco.MjData(model)
    address = [model.joint(name).qposadr[0] for name in JOINT_NAMES]
    poses = {name: np.tile(np.eye(4), (len(joint_vectors), 1, 1)) for name in links}
    for i, q in enumerate(joint_vectors):
        data.qpos[address] = q
        mujoco.mj_kinematics(model, data)
        for name in links:
            poses[name][i, :3, 3] = data.body(name).xpos
            poses[name][i, :3, :3] = data.body(name).xmat.reshape(3, 3)
    return poses


def assert_same_poses(found, expected, links, position=1e-5, rotation=1e-5):
    for name in links:
        np.testing.assert_allclose(
            found[name][:, :3, 3], expected[name][:, :3, 3], atol=position, err_msg=f'position of {name}'
        )
        np.testing.assert_allclose(
            found[name][:, :3, :3], expected[name][:, :3, :3], atol=rotation, err_msg=f'rotation of {name}'
        )


def test_yourdfpy_finds_every_link_where_the_mjcf_has_it(text, joint_vectors):
    found = by_yourdfpy(read_with_yourdfpy(text), joint_vectors, (*LINKS, *FRAMES))
    assert_same_poses(found, truth(joint_vectors), (*LINKS, *FRAMES), position=1e-9, rotation=1e-9)


@pytest.mark.parametrize('camera', list(CAMERA_PRESETS))
@pytest.mark.parametrize('tcp', list(TCP_PRESETS))
def test_mujoco_finds_every_link_where_the_mjcf_has_it(tcp, camera, joint_vectors):
    vectors = joint_vectors if (tcp, camera) == ('so101', 'nexus') else joint_vectors[:50]
    found = by_mujoco(read_with_mujoco(urdf_text(tcp=tcp, camera=camera)), vectors, (*LINKS[1:], *FRAMES))
    expected = truth(vectors, tcp=tcp, camera=camera)
    assert_same_poses(found, expected, (*LINKS[1:], *FRAMES), position=1e-9, rotation=1e-9)


def test_the_official_urdf_agrees_within_its_rounding(text, joint_vectors):
    vectors = joint_vectors[:200]
    official = yourdfpy.URDF.load(str(official_directory() / 'so101_new_calib.urdf'), load_meshes=False)
    links = (*LINKS, TCP_FRAME)
    expected = by_yourdfpy(official, vectors, links)
    assert_same_poses(by_yourdfpy(read_with_yourdfpy(text), vectors, links), expected, links, rotation=3e-5)


def test_every_name_of_the_official_urdf_is_there(root):
    official = ET.parse(official_directory() / 'so101_new_calib.urdf').getroot()
    for kind in ('link', 'joint'):
        names = [element.get('name') for element in root.findall(kind)]
        assert len(names) == len(set(names))
        assert {element.get('name') for element in official.findall(kind)} <= set(names)


def test_joints_are_a_tree_from_base_link_in_the_order_of_the_contract(root):
    links = {link.get('name') for link in root.findall('link')}
    parents = {}
    for joint in root.findall('joint'):
        parents[joint.find('child').get('link')] = joint.find('parent').get('link')
    assert links - set(parents) == {BASE_FRAME}
    assert set(parents.values()) <= links
    moving = [joint.get('name') for joint in root.findall('joint') if joint.get('type') == 'revolute']
    assert tuple(moving) == JOINT_NAMES


def test_limits_are_those_of_the_contract_bit_for_bit_and_of_the_servo(root):
    for name in JOINT_NAMES:
        limit = root.find(f"joint[@name='{name}']/limit")
        assert (float(limit.get('lower')), float(limit.get('upper'))) == JOINT_LIMITS_RAD[name]
        assert float(limit.get('effort')) == 1.9
        assert float(limit.get('velocity')) == 5.0


def test_masses_and_inertias_are_those_of_the_mjcf(root):
    model = load_model(visuals='none', collision=False)
    total = 0.0
    for body, link in zip(BODIES, LINKS, strict=True):
        inertial = root.find(f"link[@name='{link}']/inertial")
        mass = float(inertial.find('mass').get('value'))
        total += mass
        assert mass == model.body(body).mass[0]
        origin = inertial.find('origin')
        np.testing.assert_allclose(
            np.fromstring(origin.get('xyz'), sep=' '), model.body(body).ipos, atol=1e-15
        )
        assert origin.get('rpy') == '0 0 0'
        entries = {key: float(value) for key, value in inertial.find('inertia').attrib.items()}
        inertia = np.array(
            [
                [entries['ixx'], entries['ixy'], entries['ixz']],
                [entries['ixy'], entries['iyy'], entries['iyz']],
                [entries['ixz'], entries['iyz'], entries['izz']],
            ]
        )
        principal = np.linalg.eigvalsh(inertia)
        np.testing.assert_allclose(principal, np.sort(model.body(body).inertia), rtol=1e-9)
        assert 0 < principal[2] < principal[0] + principal[1]
    assert total == pytest.approx(0.632006)


def test_inertias_are_those_of_the_official_urdf(root):
    official = ET.parse(official_directory() / 'so101_new_calib.urdf').getroot()
    for link in LINKS:
        ours, theirs = (
            tree.find(f"link[@name='{link}']/inertial/inertia").attrib for tree in (root, official)
        )
        for key, value in theirs.items():
            assert float(ours[key]) == pytest.approx(float(value), abs=1e-12)


def test_mujoco_reads_the_same_masses(text):
    assert read_with_mujoco(text).body_mass.sum() == pytest.approx(0.632006)


def test_every_mesh_uri_names_a_shipped_file_and_every_file_is_used(root):
    uris = {mesh.get('filename') for mesh in root.iter('mesh')}
    prefix = 'package://so101_description/meshes/'
    assert all(uri.startswith(prefix) for uri in uris)
    assert {uri.removeprefix(prefix) for uri in uris} == {p.name for p in decimated_directory().glob('*.stl')}


def test_visuals_appear_where_the_mjcf_draws_them(text, joint_vectors):
    robot = read_with_yourdfpy(text, load_meshes=True)
    model = load_model(collision=False)
    data = mujoco.MjData(model)
    arm = arm_index(model)
    assert len(robot.scene.geometry) == model.ngeom == 17
    for q in joint_vectors[:5]:
        data.qpos[arm.qpos] = q
        mujoco.mj_forward(model, data)
        robot.update_cfg(dict(zip(JOINT_NAMES, q, strict=True)))
        assert robot.base_link == BASE_FRAME
        expected = []
        for geom in range(model.ngeom):
            mesh = model.geom_dataid[geom]
            first = model.mesh_vertadr[mesh]
            vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
            world = vertices @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
            expected.append(np.concatenate([world.min(axis=0), world.max(axis=0)]))
        found = []
        for node in robot.scene.graph.nodes_geometry:
            transform, name = robot.scene.graph.get(node, BASE_FRAME)
            world = robot.scene.geometry[name].vertices @ transform[:3, :3].T + transform[:3, 3]
            found.append(np.concatenate([world.min(axis=0), world.max(axis=0)]))
        distance = np.abs(np.array(expected)[:, None] - np.array(found)).max(axis=2)
        assert (distance.min(axis=1) < 1e-6).all()
        assert (distance.min(axis=0) < 1e-6).all()


def test_colours_are_those_of_the_mjcf(root):
    colours = {m.get('name'): m.find('color').get('rgba') for m in root.findall('material')}
    assert sorted(colours.values()) == ['0.1 0.1 0.1 1', '1 0.82 0.12 1']
    for visual in root.iter('visual'):
        part = visual.find('geometry/mesh').get('filename').rsplit('/', 1)[1]
        expected = '0.1 0.1 0.1 1' if part.startswith('sts3215') else '1 0.82 0.12 1'
        assert colours[visual.find('material').get('name')] == expected


def test_what_is_drawn_is_what_collides(root):
    for link in root.findall('link'):
        drawn, solid = (
            [(e.find('origin').attrib, e.find('geometry/mesh').get('filename')) for e in link.findall(kind)]
            for kind in ('visual', 'collision')
        )
        assert drawn == solid


def test_mujoco_loads_the_urdf_with_its_meshes():
    text = urdf_text(mesh_uri=str(decimated_directory()))
    options = '<mujoco><compiler strippath="false" discardvisual="false"/></mujoco></robot>'
    model = mujoco.MjModel.from_xml_string(text.replace('</robot>', options))
    assert model.nmeshface == 19994
    assert model.ngeom == 34


def test_mesh_uri_and_name_are_the_callers():
    text = urdf_text(mesh_uri='file:///opt/meshes/', name='left & <right>')
    root = ET.fromstring(text)
    assert root.get('name') == 'left & <right>'
    assert all(m.get('filename').startswith('file:///opt/meshes/') for m in root.iter('mesh'))
    assert not any('//' in m.get('filename')[8:] for m in root.iter('mesh'))


def test_text_has_no_encoding_declaration_and_is_always_the_same():
    assert urdf_text() == urdf_text()
    assert urdf_text().startswith('<?xml version="1.0"?>\n<robot')
    assert urdf_text().isascii()


def test_a_tcp_of_your_own_becomes_the_frame():
    text = urdf_text(tcp=TcpPreset('mine--too', Pose((0, 0, -0.104)), 'here'))
    origin = ET.fromstring(text).find("joint[@name='gripper_frame_joint']/origin")
    assert origin.get('xyz') == '0 0 -0.104'


def test_unknown_presets_are_refused():
    with pytest.raises(PresetError, match='TCP presets'):
        urdf_text(tcp='tool0')


def test_command_line_writes_the_same_text(tmp_path):
    env = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path), '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1'}
    command = [sys.executable, '-m', 'so101_description.urdf', '--tcp', 'pick101']
    printed = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert printed.stdout == urdf_text(tcp='pick101')
    path = tmp_path / 'so101.urdf'
    subprocess.run([*command, '--output', str(path)], env=env, check=True)
    assert path.read_text() == printed.stdout
