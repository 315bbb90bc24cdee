# SPDX-License-Identifier: Apache-2.0
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.action import ActionSpec, ClipCounter, DiscreteGripper, EeDeltaValue, GripperConvention
from so101_contract.errors import ActionError
from so101_contract.joints import GRIPPER_CLOSED_RAD, GRIPPER_OPEN_RAD, gripper_opening_to_rad

CONTINUOUS = [c for c in GripperConvention if c is not GripperConvention.DISCRETE]
scales = st.floats(1e-3, 0.2)
specs = st.builds(
    ActionSpec,
    translation_scale_m=st.tuples(scales, scales, scales) | scales,
    gripper=st.sampled_from(CONTINUOUS),
)


@pytest.mark.parametrize('axis', [0, 1, 2])
@pytest.mark.parametrize('scale', [0.02, 0.05, (0.01, 0.02, 0.04)])
def test_A4_an_action_of_one_is_the_scale_in_metres_exactly_once(axis, scale):
    spec = ActionSpec(translation_scale_m=scale)
    action = np.zeros(4)
    action[axis] = 1.0
    value = spec.to_wire(action)
    expected = np.zeros(3)
    expected[axis] = scale if isinstance(scale, float) else scale[axis]
    np.testing.assert_array_equal(value.translation, expected)


@given(specs, st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_F10_network_and_wire_round_trip(spec, numbers):
    action = np.array(numbers)
    low, high = spec.gripper.range
    action[3] = low + (action[3] + 1) / 2 * (high - low)
    value = spec.to_wire(action)
    back = spec.from_wire(value.translation, value.opening)
    np.testing.assert_allclose(back.values, action, atol=1e-9 * (high - low))
    assert not any(value.clipped)
    assert not any(back.clipped)


@given(specs, st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4))
def test_a_float32_message_does_not_count_as_clipped(spec, numbers):
    value = spec.to_wire([*numbers[:3], spec.gripper.range[1]])
    back = spec.from_wire(value.translation.astype(np.float32), float(np.float32(value.opening)))
    assert not any(back.clipped)


@given(specs, st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_clipping_is_reported_per_entry_and_stays_in_range(spec, numbers):
    value = spec.to_wire(numbers)
    assert np.all(np.abs(value.translation) <= spec.translation_scale_m)
    assert 0.0 <= value.opening <= 1.0
    outside = (np.array(numbers) < spec.low - 1e-5 * (spec.high - spec.low)) | (
        np.array(numbers) > spec.high + 1e-5 * (spec.high - spec.low)
    )
    assert [bool(o) for o in outside if o] == [c for c, o in zip(value.clipped, outside, strict=True) if o]


def test_T2_clips_of_a_person_are_counted_by_axis():
    spec, counter = ActionSpec(), ClipCounter()
    counter.add(spec.from_wire([0.05, 0.0, 0.0], 0.5))
    counter.add(spec.from_wire([0.01, 0.0, -0.03], 1.2))
    counter.add(spec.from_wire([0.01, 0.0, 0.0], 0.5))
    counter.add(spec.to_wire([0.1, 0.0, 0.0, 0.0]))
    assert counter.total == 4
    assert counter.clipped == {'x': 1, 'y': 0, 'z': 1, 'gripper': 1}
    assert counter.fraction['x'] == 0.25
    assert ClipCounter().fraction == dict.fromkeys('xyz', 0.0) | {'gripper': 0.0}


def test_T8_a_limited_command_is_exactly_what_the_network_can_say():
    spec = ActionSpec()
    limited = spec.limit(EeDeltaValue(np.array([0.05, -0.001, -0.5]), 1.3))
    np.testing.assert_allclose(limited.translation, [0.02, -0.001, -0.02])
    assert limited.opening == 1.0
    assert limited.clipped == (True, False, True, True)
    assert not any(spec.from_wire(limited.translation, limited.opening).clipped)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('entry', range(4))
def test_A14_a_number_that_is_not_finite_is_refused_both_ways(bad, entry):
    numbers = np.zeros(4)
    numbers[entry] = bad
    with pytest.raises(ActionError, match='finite'):
        ActionSpec().to_wire(numbers)
    with pytest.raises(ActionError, match='finite'):
        ActionSpec().from_wire(numbers[:3], numbers[3])


@pytest.mark.parametrize('shape', [(3,), (5,), (1, 4), (4, 1), ()])
def test_an_action_of_another_shape_is_refused(shape):
    with pytest.raises(ActionError):
        ActionSpec().to_wire(np.zeros(shape))


@pytest.mark.parametrize(
    ('convention', 'closed', 'middle', 'opened'),
    [
        (GripperConvention.SIGNED, -1, 0, 1),
        (GripperConvention.OPENING, 0, 0.5, 1),
        (GripperConvention.PERCENT, 0, 50, 100),
    ],
)
def test_A6_T4_every_convention_names_the_documented_joint_angles(convention, closed, middle, opened):
    spec = ActionSpec(gripper=convention)
    angles = [gripper_opening_to_rad(spec.to_wire([0, 0, 0, v]).opening) for v in (closed, middle, opened)]
    np.testing.assert_allclose(angles, [-0.174533, 0.785398, 1.745329], atol=1e-6)
    np.testing.assert_allclose([convention.to_rad(v) for v in (closed, middle, opened)], angles)
    assert angles[0] == GRIPPER_CLOSED_RAD
    assert angles[2] == GRIPPER_OPEN_RAD


@given(st.sampled_from(CONTINUOUS), st.sampled_from(CONTINUOUS), st.floats(0, 1))
def test_A6_one_opening_means_the_same_in_every_convention(one, two, opening):
    value = ActionSpec(gripper=one).to_wire([0, 0, 0, one.from_opening(opening)])
    again = ActionSpec(gripper=two).from_wire(value.translation, value.opening)
    assert two.to_opening(again.values[3]) == pytest.approx(opening, abs=1e-9)


@given(st.floats(0, 1), st.sampled_from(list(DiscreteGripper)))
def test_A6_discrete_choices_close_stay_and_open_and_come_back(present, choice):
    spec = ActionSpec(gripper=GripperConvention.DISCRETE)
    value = spec.to_wire([0, 0, 0, choice], present_opening=present)
    assert value.opening == {0: 0.0, 1: present, 2: 1.0}[choice]
    moved = abs(value.opening - present) > 0.02
    back = spec.from_wire(value.translation, value.opening, present_opening=present)
    assert back.values[3] == (choice if moved else DiscreteGripper.STAY)


@pytest.mark.parametrize('value', [0.5, -1.0, 3.0, 1.0001])
def test_A6_a_value_between_the_discrete_choices_is_refused(value):
    with pytest.raises(ActionError, match=r'0 \(close\)'):
        ActionSpec(gripper=GripperConvention.DISCRETE).to_wire([0, 0, 0, value], present_opening=0.5)


def test_A6_stay_without_the_present_opening_is_refused():
    spec = ActionSpec(gripper=GripperConvention.DISCRETE)
    with pytest.raises(ActionError, match='present opening'):
        spec.to_wire([0, 0, 0, 1])
    with pytest.raises(ActionError, match='present opening'):
        spec.from_wire([0, 0, 0], 0.5)
    with pytest.raises(ActionError, match='DISCRETE'):
        GripperConvention.DISCRETE.to_rad(0.0)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_F9_nothing_is_rotated_between_network_and_base_frame(direction):
    spec = ActionSpec()
    assert spec.frame_id == 'base_link'
    translation = spec.to_wire([*direction, 0.0]).translation
    np.testing.assert_allclose(translation, 0.02 * np.array(direction), atol=1e-15)


def test_F9_another_frame_is_another_spec():
    assert ActionSpec().diff(ActionSpec(frame_id='gripper_frame_link'), ('policy', 'arm')) == [
        'frame_id: "base_link" policy, "gripper_frame_link" arm'
    ]
    with pytest.raises(ActionError):
        ActionSpec(frame_id='')


@pytest.mark.parametrize('scale', [0.0, -0.02, (0.02, 0.02, 0.0), np.nan, (0.02, 0.02), 'far', True])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ActionError):
        ActionSpec(translation_scale_m=scale)


def test_the_content_of_a_message_cannot_be_changed_afterwards():
    translation = np.array([0.01, 0.0, 0.0])
    value = EeDeltaValue(translation, 0.5)
    translation[0] = 1.0
    assert value.translation[0] == 0.01
    with pytest.raises(ValueError, match='read-only'):
        value.translation[0] = 1.0


@given(specs)
@settings(max_examples=30)
def test_every_action_spec_survives_json(spec):
    assert ActionSpec.from_json(spec.to_json()) == spec
    assert ActionSpec.from_json(spec.to_json()).hash == spec.hash
