# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.joints import (
    GRIPPER_CLOSED_RAD,
    GRIPPER_OPEN_RAD,
    gripper_rad_to_opening,
    JOINT_LIMITS_RAD,
    JOINT_NAMES,
)
from so101_driver.bus.registers import TICKS_PER_TURN
from so101_driver.calibration.calibration import (
    ArmCalibration,
    CalibrationError,
    JointCalibration,
    MAX_TICK,
    RAD_PER_TICK,
    SERVO_IDS,
)

# Measured travel of five real arms [deg], joints in columns; wrist_roll is recorded as a whole turn.
REAL_TRAVELS_DEG = {
    'shoulder_pan': (238.6, 210.5, 236.3, 240.0, 213.6),
    'shoulder_lift': (207.2, 211.9, 209.7, 210.0, 210.8),
    'elbow_flex': (191.6, 194.4, 193.7, 194.2, 196.5),
    'wrist_flex': (205.4, 202.9, 205.3, 208.0, 206.6),
    'gripper': (127.0, 109.0, 126.9, 139.7, 132.4),
}
# Operators hold the middle pose up to 17 degrees beside the middle.
MIDDLES = (2047, 1890, 2215, 2041, 2100)


def real_arm(index, **changes):
    joints = {}
    for name in JOINT_NAMES:
        if name == 'wrist_roll':
            joints[name] = JointCalibration(5, 0, 1627, 0, MAX_TICK)
            continue
        travel = round(REAL_TRAVELS_DEG[name][index] / 360 * TICKS_PER_TURN)
        low = MIDDLES[index] - travel // 2
        joints[name] = JointCalibration(SERVO_IDS[name], 0, -400 + 100 * index, low, low + travel)
    return ArmCalibration(joints, **changes)


def valid_joint(name):
    ids = st.just(SERVO_IDS[name])
    drive = st.sampled_from([0, 1]) if name == 'gripper' else st.just(0)
    ends = st.tuples(st.integers(0, MAX_TICK), st.integers(0, MAX_TICK)).filter(lambda e: e[0] != e[1])
    return st.builds(
        lambda i, d, o, e, s, r: JointCalibration(i, d, o, min(e), max(e), s, r),
        ids,
        drive,
        st.integers(-2047, 2047),
        ends,
        st.sampled_from([-1, 1]),
        st.floats(-3.14, 3.14),
    )


valid_arms = st.builds(
    ArmCalibration,
    st.fixed_dictionaries({name: valid_joint(name) for name in JOINT_NAMES}),
    st.sampled_from(['angle', 'linear']),
)


@pytest.mark.parametrize('index', range(5))
def test_F3_raw_to_rad_to_raw_is_the_identity_for_real_arms(index):
    arm = real_arm(index)
    for step in np.linspace(0, 1, 500):
        raw = np.rint(arm.range_min + step * (arm.range_max - arm.range_min)).astype(int)
        assert (arm.rad_to_ticks(arm.ticks_to_rad(raw)) == raw).all()


@settings(max_examples=150, deadline=None)
@given(valid_arms, st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_F3_raw_to_rad_to_raw_is_the_identity_for_every_calibration(arm, where):
    raw = np.rint(arm.range_min + np.array(where) * (arm.range_max - arm.range_min)).astype(int)
    assert np.abs(arm.rad_to_ticks(arm.ticks_to_rad(raw)) - raw).max() <= 1


@settings(max_examples=150, deadline=None)
@given(valid_arms, st.lists(st.integers(0, MAX_TICK), min_size=6, max_size=6))
def test_F3_every_encoder_position_survives_the_round_trip(arm, raw):
    assert (arm.rad_to_encoder_ticks(arm.ticks_to_rad(raw)) == raw).all()


@settings(max_examples=100, deadline=None)
@given(valid_arms, st.lists(st.integers(-32767, 32767), min_size=6, max_size=6))
def test_F4_positions_outside_one_turn_are_wrapped_and_never_sign_flipped(arm, raw):
    wrapped = np.array(raw) % TICKS_PER_TURN
    np.testing.assert_allclose(arm.ticks_to_rad(raw), arm.ticks_to_rad(wrapped), atol=1e-9)


def test_F4_a_joint_pushed_past_tick_zero_reads_a_little_past_its_limit():
    joints = dict(real_arm(0).joints)
    joints['shoulder_pan'] = JointCalibration(1, 0, 0, 0, 2700)
    arm = ArmCalibration(joints)
    at_stop = arm.ticks_to_rad([0, 2000, 2000, 2000, 2000, 2000])[0]
    for raw in (-6, 4090):
        beyond = arm.ticks_to_rad([raw, 2000, 2000, 2000, 2000, 2000])[0]
        assert beyond == pytest.approx(at_stop - 6 * RAD_PER_TICK)


@settings(max_examples=100, deadline=None)
@given(valid_arms, st.lists(st.floats(-20, 20), min_size=6, max_size=6))
def test_F4_a_goal_never_leaves_the_recorded_range(arm, rad):
    goal = arm.rad_to_ticks(rad)
    assert (goal >= arm.range_min).all()
    assert (goal <= arm.range_max).all()


def test_F4_a_goal_beyond_the_range_stops_at_the_nearer_end():
    arm = real_arm(0)
    assert (arm.rad_to_ticks(np.full(6, 6.0)) == arm.range_max).all()
    assert (arm.rad_to_ticks(np.full(6, -6.0)) == arm.range_min).all()


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_refused(bad):
    arm = real_arm(0)
    values = [0, 0, bad, 0, 0, 0]
    for convert in (arm.rad_to_ticks, arm.ticks_to_rad, arm.rad_to_encoder_ticks, arm.velocity_to_rad_s):
        with pytest.raises(ValueError, match='finite'):
            convert(values)


@pytest.mark.parametrize('shape', [(5,), (7,), (6, 5), ()])
def test_vectors_of_another_length_are_refused(shape):
    with pytest.raises(ValueError, match=r'\(\.\.\., 6\)'):
        real_arm(0).ticks_to_rad(np.zeros(shape))


@pytest.mark.parametrize('index', range(5))
def test_F1_angles_of_a_real_arm_are_rad_near_the_model_limits_and_no_degrees(index):
    arm = real_arm(index)
    for ends in (arm.ticks_to_rad(arm.range_min), arm.ticks_to_rad(arm.range_max)):
        for name, angle in zip(JOINT_NAMES, ends, strict=True):
            low, high = JOINT_LIMITS_RAD[name]
            assert low - 0.55 <= angle <= high + 0.55


@settings(max_examples=100, deadline=None)
@given(valid_arms, st.lists(st.integers(0, MAX_TICK), min_size=6, max_size=6))
def test_F1_no_arm_joint_can_ever_read_more_than_half_a_turn_from_its_zero(arm, raw):
    offsets = [arm[name].offset_rad for name in JOINT_NAMES]
    assert (np.abs(arm.ticks_to_rad(raw) - offsets)[:5] <= math.pi + 1e-9).all()


def test_P5_units_are_rad_and_a_quarter_turn_is_1024_ticks():
    arm = real_arm(0)
    middle = np.array([arm[name].middle for name in JOINT_NAMES])
    turned = arm.ticks_to_rad(middle + 512) - arm.ticks_to_rad(middle - 512)
    np.testing.assert_allclose(turned, math.pi / 2)


def test_the_zero_of_an_arm_joint_is_the_middle_of_its_range():
    arm = real_arm(1)
    middle = [arm[name].middle for name in JOINT_NAMES]
    np.testing.assert_allclose(arm.ticks_to_rad(middle)[:5], 0, atol=1e-12)


def test_joint_states_beyond_the_model_limits_are_not_clamped():
    arm = real_arm(0)  # its pan turns 238.6 degrees where the model has 220
    assert arm.ticks_to_rad(arm.range_max)[0] == pytest.approx(math.radians(119.3), abs=0.002)
    assert arm.ticks_to_rad(arm.range_max)[0] > JOINT_LIMITS_RAD['shoulder_pan'][1]


@pytest.mark.parametrize('index', range(5))
def test_F2_leader_and_follower_in_one_pose_read_equal(index):
    # The same physical pose: the same angle from each joint's own middle, whatever middle and travel it has.
    follower, leader = real_arm(0), real_arm(index, gripper_map='linear')
    for angle in np.linspace(-1.5, 1.5, 31):
        ticks = [
            np.rint([arm[name].middle + angle / RAD_PER_TICK for name in JOINT_NAMES])
            for arm in (follower, leader)
        ]
        difference = follower.ticks_to_rad(ticks[0])[:5] - leader.ticks_to_rad(ticks[1])[:5]
        assert np.abs(difference).max() < math.radians(1)


def test_F2_a_leader_trigger_spans_exactly_the_model_gripper():
    leader = real_arm(1, gripper_map='linear')
    assert leader.ticks_to_rad(leader.range_min)[5] == pytest.approx(GRIPPER_CLOSED_RAD)
    assert leader.ticks_to_rad(leader.range_max)[5] == pytest.approx(GRIPPER_OPEN_RAD)


@pytest.mark.parametrize('index', range(5))
def test_the_jaw_angle_is_true_from_the_closed_end(index):
    arm = real_arm(index)
    closed = arm.ticks_to_rad(arm.range_min)
    assert closed[5] == pytest.approx(GRIPPER_CLOSED_RAD)
    assert gripper_rad_to_opening(closed[5]) == pytest.approx(0)
    opened = arm.ticks_to_rad(arm.range_min + 1000)
    assert opened[5] - closed[5] == pytest.approx(1000 * RAD_PER_TICK)


def test_the_linear_gripper_map_would_be_a_quarter_off():
    true, linear = real_arm(3), real_arm(3, gripper_map='linear')
    ticks = true.range_max
    assert true.ticks_to_rad(ticks)[5] / linear.ticks_to_rad(ticks)[5] > 1.25


def test_a_mirrored_gripper_closes_towards_higher_ticks():
    arm = real_arm(0)
    mirrored = ArmCalibration({**arm.joints, 'gripper': replace(arm['gripper'], drive_mode=1)})
    assert mirrored.ticks_to_rad(mirrored.range_max)[5] == pytest.approx(GRIPPER_CLOSED_RAD)
    assert mirrored.ticks_to_rad(mirrored.range_min)[5] > GRIPPER_OPEN_RAD


def test_P4_sign_and_offset_bring_a_joint_to_the_model():
    arm = real_arm(0)
    turned = ArmCalibration(
        {**arm.joints, 'elbow_flex': replace(arm['elbow_flex'], sign=-1, offset_rad=-0.218)}
    )
    ticks = [arm[name].middle + 300 for name in JOINT_NAMES]
    assert turned.ticks_to_rad(ticks)[2] == pytest.approx(-300 * RAD_PER_TICK - 0.218)
    assert turned.velocity_to_rad_s(np.full(6, 100.0))[2] == pytest.approx(-100 * RAD_PER_TICK)


@settings(max_examples=50, deadline=None)
@given(valid_arms)
def test_velocity_is_the_derivative_of_position(arm):
    middle = np.array([arm[name].middle for name in JOINT_NAMES])
    np.testing.assert_allclose(
        arm.ticks_to_rad(middle + 10) - arm.ticks_to_rad(middle), arm.velocity_to_rad_s(np.full(6, 10.0))
    )


def test_lerobot_counts_4095_ticks_which_is_a_fortieth_of_a_degree_in_a_hundred():
    arm = real_arm(0)
    ticks = [arm[name].middle + 1138 for name in JOINT_NAMES]  # 100 degrees
    ours = math.degrees(arm.ticks_to_rad(ticks)[0])
    lerobots = (ticks[0] - arm['shoulder_pan'].middle) * 360 / 4095
    assert lerobots - ours == pytest.approx(0.0244, abs=2e-4)


def test_batches_convert_like_single_vectors():
    arm = real_arm(0)
    batch = np.random.default_rng(1).integers(0, 4096, (4, 3, 6))
    np.testing.assert_array_equal(arm.ticks_to_rad(batch)[2, 1], arm.ticks_to_rad(batch[2, 1]))
    assert arm.rad_to_ticks(np.zeros((4, 3, 6))).shape == (4, 3, 6)


def test_the_input_is_left_as_it_was():
    arm, ticks = real_arm(0), np.full(6, 2000.0)
    arm.ticks_to_rad(ticks)
    arm.rad_to_ticks(ticks)
    assert (ticks == 2000).all()


def test_P4_the_calibration_id_changes_with_every_number_and_with_nothing_else():
    arm = real_arm(0)
    assert arm.calibration_id == real_arm(0).calibration_id
    assert len(arm.calibration_id) == 12
    ids = {arm.calibration_id, real_arm(0, gripper_map='linear').calibration_id}
    changes = [
        {'homing_offset': 1},
        {'range_min': 1},
        {'range_max': 4000},
        {'sign': -1},
        {'offset_rad': 0.001},
    ]
    for name in JOINT_NAMES:
        for change in changes:
            joints = {**arm.joints, name: replace(arm[name], **change)}
            ids.add(ArmCalibration(joints).calibration_id)
    assert len(ids) == 2 + 6 * len(changes)
    shuffled = {name: arm[name] for name in reversed(JOINT_NAMES)}
    assert ArmCalibration(shuffled).calibration_id == arm.calibration_id


def test_the_calibration_id_is_the_same_on_every_machine():
    arm = ArmCalibration({name: JointCalibration(SERVO_IDS[name], 0, 0, 1000, 3000) for name in JOINT_NAMES})
    assert arm.calibration_id == '2be16e7c7cf1'


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'homing_offset': 2114}, 'homing_offset must be -2047 to 2047, got 2114'),
        ({'homing_offset': -2048}, 'homing_offset'),
        ({'homing_offset': 30841}, 'homing_offset'),
        ({'homing_offset': 1.5}, 'whole number'),
        ({'range_min': 1000.0}, 'whole number'),
        ({'range_min': True}, 'whole number'),
        ({'range_min': '12'}, 'whole number'),
        ({'range_max': None}, 'whole number'),
        ({'range_min': -3}, '0 to 4095'),
        ({'range_max': 4096}, '0 to 4095'),
        ({'range_min': 3000, 'range_max': 1000}, 'wraps around'),
        ({'range_min': 2046, 'range_max': 2046}, 'not moved'),
        ({'drive_mode': 2}, 'drive_mode'),
        ({'id': 253}, 'id must be'),
        ({'sign': 0}, 'sign'),
        ({'offset_rad': 12.5}, 'not degrees'),
        ({'offset_rad': math.nan}, 'offset_rad'),
    ],
)
def test_P3_impossible_joint_calibrations_are_refused_with_a_sentence(change, says):
    good = {'id': 1, 'drive_mode': 0, 'homing_offset': 0, 'range_min': 1000, 'range_max': 3000}
    with pytest.raises(CalibrationError, match=says):
        JointCalibration(**{**good, **change})


def test_P3_wrong_sets_of_joints_are_refused_with_a_sentence():
    joints = dict(real_arm(0).joints)
    with pytest.raises(CalibrationError, match='without gripper'):
        ArmCalibration({name: joints[name] for name in JOINT_NAMES[:-1]})
    with pytest.raises(CalibrationError, match='with elbow_roll'):
        ArmCalibration({**joints, 'elbow_roll': joints['elbow_flex']})
    with pytest.raises(CalibrationError, match='1 for shoulder_pan and shoulder_lift'):
        ArmCalibration({**joints, 'shoulder_lift': replace(joints['shoulder_lift'], id=1)})
    with pytest.raises(CalibrationError, match='shoulder_lift: expected servo ID 2, got 9'):
        ArmCalibration({**joints, 'shoulder_lift': replace(joints['shoulder_lift'], id=9)})
    with pytest.raises(CalibrationError, match='wrist_roll: drive_mode must be 0'):
        ArmCalibration({**joints, 'wrist_roll': replace(joints['wrist_roll'], drive_mode=1)})
    with pytest.raises(CalibrationError, match='gripper_map'):
        ArmCalibration(joints, 'percent')
