# SPDX-License-Identifier: Apache-2.0
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.errors import ContractError, ObservationError, SpecMismatchError
from so101_contract.joints import GRIPPER_OPEN_RAD, limits_arrays
from so101_contract.observation import (
    build_state,
    canonical_images,
    canonical_state,
    check_state,
    stack_window,
    state_builder,
)
from so101_contract.observation_spec import (
    BLOCK_SIZES,
    CameraSpec,
    Crop,
    DEFAULT_STATE,
    Normalization,
    NormalizationMode,
    ObservationSpec,
    robobase_spec,
    StateBlock,
)
from so101_contract.orientation import matrix_to_quat

from .rotations import euler_to_matrix

POSE = np.array([0.1, -0.2, 0.3, 0.4, -0.5, 0.6])
SPEED = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
PLACE = np.array([0.25, -0.05, 0.12])
TURN = euler_to_matrix([0.1, 0.2, 0.3])


def spec_of(*names, **fields):
    return ObservationSpec(state=tuple(StateBlock.named(name) for name in names), **fields)


def state(spec, joint_pos=POSE, **given):
    values = {'joint_vel': SPEED, 'tcp_pos': PLACE, 'tcp_rotation': TURN} | given
    return build_state(spec, joint_pos=joint_pos, **values)


def test_the_default_state_is_18_entries_in_robobase_order_and_not_scaled():
    vector = state(ObservationSpec())
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(
        vector, np.concatenate([POSE, SPEED, PLACE, [0.1, 0.2, 0.3]]).astype(np.float32)
    )


def test_F17_a_continuous_block_can_take_the_place_of_euler_angles():
    rot6d = spec_of('joint_pos', 'joint_vel', 'tcp_pos', 'tcp_rot6d')
    quat = spec_of('joint_pos', 'joint_vel', 'tcp_pos', 'tcp_quat')
    assert (rot6d.state_size, quat.state_size) == (21, 19)
    np.testing.assert_allclose(state(rot6d)[15:], TURN[:, :2].T.ravel(), rtol=1e-6)
    assert abs(state(quat)[15:] @ matrix_to_quat(TURN)) == pytest.approx(1.0)


def test_a_quaternion_and_a_matrix_give_the_same_state():
    quat = state(ObservationSpec(), tcp_rotation=-matrix_to_quat(TURN))
    np.testing.assert_allclose(quat, state(ObservationSpec()), atol=1e-7)


def test_blocks_come_in_the_order_of_the_spec():
    spec = spec_of('gripper_opening', 'tcp_pos', 'joint_pos')
    opening = (0.6 + 0.1745329776) / (GRIPPER_OPEN_RAD + 0.1745329776)
    np.testing.assert_allclose(state(spec), [opening, *PLACE, *POSE], rtol=1e-6)
    assert spec.slice_of('tcp_pos') == slice(1, 4)
    with pytest.raises(ObservationError, match='tcp_quat'):
        spec.slice_of('tcp_quat')


@given(st.integers(0, 5), st.floats(3.2, 180.0), st.sampled_from([-1, 1]))
def test_F1_degrees_fed_as_radians_are_refused_by_joint(joint, degrees, sign):
    pose = POSE.copy()
    pose[joint] = sign * degrees
    with pytest.raises(ObservationError, match='convert degrees'):
        state(ObservationSpec(), pose)


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
@settings(max_examples=30)
def test_F1_every_pose_within_the_limits_is_accepted(shares):
    low, high = limits_arrays()
    pose = low + np.array(shares) * (high - low)
    np.testing.assert_array_equal(state(ObservationSpec(), pose)[:6], pose.astype(np.float32))


def test_F1_a_real_stop_may_lie_a_little_beyond_the_model():
    rest = np.array([-0.0591, -1.8415, 1.7135, 0.7210, -0.1097, 0.0])
    state(ObservationSpec(), rest)
    with pytest.raises(ObservationError, match='shoulder_lift'):
        state(ObservationSpec(), rest, joint_margin=0.05)


def test_F5_the_gripper_entry_is_its_joint_position():
    with pytest.raises(ObservationError, match='gripper'):
        state(ObservationSpec(), [*POSE[:5], -1.0])
    assert state(ObservationSpec(), [*POSE[:5], 1.5])[5] == 1.5


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('joint_vel', None),
        ('joint_vel', np.zeros(5)),
        ('joint_vel', [0, 0, 0, 0, 0, np.nan]),
        ('tcp_pos', None),
        ('tcp_pos', [250.0, 0.0, 100.0]),
        ('tcp_rotation', None),
        ('tcp_rotation', 2 * np.eye(3)),
        ('joint_pos', np.full(6, np.nan)),
        ('joint_pos', np.zeros(12)),
    ],
)
def test_an_input_that_is_missing_or_wrong_is_refused(name, value):
    with pytest.raises(ContractError):
        state(ObservationSpec(), **{name: value})


def test_inputs_that_the_spec_does_not_need_may_be_left_out():
    vector = build_state(spec_of('joint_pos'), joint_pos=POSE)
    np.testing.assert_array_equal(vector, POSE.astype(np.float32))


def test_L4_a_privileged_block_needs_its_value_and_cannot_be_deployed():
    spec = robobase_spec(privileged=True)
    assert spec.state_size == 21
    assert spec.privileged == ('cube_pos',)
    assert state(spec, extras={'cube_pos': [0.3, 0.0, 0.015]})[-1] == np.float32(0.015)
    with pytest.raises(ObservationError, match='cube_pos'):
        state(spec)
    with pytest.raises(ObservationError, match='privileged'):
        spec.require_deployable()
    with pytest.raises(ObservationError, match='privileged'):
        state_builder(spec, lambda q: (PLACE, TURN))
    robobase_spec().require_deployable()


def test_a_privileged_block_cannot_be_passed_off_as_measured():
    with pytest.raises(ObservationError, match='privileged'):
        StateBlock('cube_pos', 3)
    with pytest.raises(ObservationError, match='privileged'):
        StateBlock('joint_pos', 6, privileged=True)


def test_blocks_of_ones_own_need_a_value_of_their_own():
    spec = ObservationSpec(state=(StateBlock.named('joint_pos'), StateBlock('force', 2)))
    assert state(spec, extras={'force': [1.0, 2.0]}).shape == (8,)
    with pytest.raises(ObservationError, match='force'):
        state_builder(spec, lambda q: (PLACE, TURN))


def test_the_state_builder_feeds_kinematics_with_the_joints_of_the_sample():
    def tcp_pose(position):
        return position[:3] / 10, euler_to_matrix(position[3:])

    build = state_builder(ObservationSpec(), tcp_pose)
    np.testing.assert_allclose(build(POSE, SPEED), [*POSE, *SPEED, *POSE[:3] / 10, *POSE[3:]], rtol=1e-6)


@pytest.mark.parametrize('width', [6, 12, 21])
def test_F11_a_state_of_another_width_is_refused_with_both_shapes(width):
    spec = ObservationSpec()
    check_state(spec, np.zeros((5, 3, 18)))
    check_state(spec, np.zeros((5, 18)), stacked=False)
    with pytest.raises(ObservationError, match=rf'3, 18\).*{width}\)'):
        check_state(spec, np.zeros((5, 3, width)))
    with pytest.raises(ObservationError, match=rf'18\).*{width}'):
        check_state(spec, np.zeros(width), stacked=False)


@given(st.integers(1, 6), st.integers(1, 12))
def test_the_first_frame_of_an_episode_is_repeated(stack, count):
    frames = list(range(count))
    expected = [max(count - stack + i, 0) for i in range(stack)]
    assert list(stack_window(frames, stack)) == expected


def test_an_empty_stack_is_refused():
    with pytest.raises(ObservationError, match='reset'):
        stack_window([], 3)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_L5_folded_and_unfolded_images_are_the_same_observation(stack, batch, size, seed):
    spec = ObservationSpec(frame_stack=stack, cameras=(CameraSpec('cam', size),))
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (batch, stack, 3, size, size), dtype=np.uint8)
    folded = np.concatenate([images[:, i] for i in range(stack)], axis=1)
    for given_ in (images, folded):
        np.testing.assert_array_equal(canonical_images(given_, spec, batched=True), images)
        np.testing.assert_array_equal(canonical_images(given_[0], spec, batched=False), images[0])


@pytest.mark.parametrize(
    'shape',
    [
        (3, 3, 84),
        (9, 84, 84, 3),
        (2, 3, 84, 84),
        (3, 1, 84, 84),
        (27, 84, 84),
        (3, 3, 84, 96),
        (2, 3, 3, 84, 84),
    ],
)
def test_L5_images_of_any_other_shape_are_refused(shape):
    with pytest.raises(ObservationError, match='folded'):
        canonical_images(np.zeros(shape, np.uint8), ObservationSpec(), batched=False)


def test_L5_images_are_never_floats():
    spec = ObservationSpec()
    with pytest.raises(ObservationError, match='uint8'):
        canonical_images(np.zeros((3, 3, 84, 84), np.float32), spec, batched=False)


def test_L5_folded_and_unfolded_states_are_the_same_observation():
    spec = ObservationSpec()
    states = np.arange(2 * 3 * 18, dtype=np.float32).reshape(2, 3, 18)
    np.testing.assert_array_equal(canonical_state(states.reshape(2, 54), spec, batched=True), states)
    np.testing.assert_array_equal(canonical_state(states, spec, batched=True), states)
    np.testing.assert_array_equal(canonical_state(states[0].ravel(), spec, batched=False), states[0])
    for wrong in (states[0], states[:, :2], states[None]):
        with pytest.raises(ObservationError):
            canonical_state(wrong, spec, batched=True)


def test_L8_robobase_policies_get_the_raw_state():
    spec = robobase_spec()
    assert spec.normalization.mode is NormalizationMode.NONE
    assert (spec.tcp, spec.frame_stack, spec.image_size, spec.state) == ('pick101', 3, 84, DEFAULT_STATE)
    np.testing.assert_array_equal(spec.normalization.apply(POSE), POSE.astype(np.float32))


@pytest.mark.parametrize('width', [0.0, 1e-9, 1e-4, -1.0])
def test_F16_statistics_without_a_range_are_refused(width):
    low = np.zeros(18)
    high = np.ones(18)
    high[16] = width
    with pytest.raises(ObservationError, match=r'\[16\]'):
        Normalization.from_range(low, high)


def test_F16_no_entry_drowns_the_others():
    low, high = np.array([-1.9] * 6 + [0.1]), np.array([1.9] * 6 + [0.5])
    states = np.random.default_rng(1).uniform(low, high, (1000, 7))
    scaled = Normalization.from_range(low, high).apply(states)
    assert scaled.dtype == np.float32
    assert np.abs(scaled).max() <= 1.0 + 1e-6
    assert scaled.std(axis=0).min() > 0.5


def test_F16_statistics_must_fit_the_state():
    statistics = Normalization.from_range(np.zeros(17), np.ones(17))
    with pytest.raises(ObservationError, match='18'):
        ObservationSpec(normalization=statistics)
    with pytest.raises(ObservationError):
        statistics.apply(np.zeros(18))
    with pytest.raises(ObservationError):
        Normalization(offset=(0.0,), scale=(1.0,))
    with pytest.raises(ObservationError):
        Normalization(mode='affine', offset=(0.0, 1.0), scale=(1.0,))
    with pytest.raises(ObservationError):
        Normalization.from_range(np.zeros(3), np.ones(4))


@pytest.mark.parametrize(
    'fields',
    [
        {'frame_stack': 0},
        {'state': ()},
        {'state': (StateBlock.named('tcp_pos'),) * 2},
        {'cameras': (CameraSpec('a'), CameraSpec('a'))},
        {'cameras': (CameraSpec('a', 84), CameraSpec('b', 64))},
        {'image_pipeline': 'another'},
        {'frame_stack': True},
        {'frame_stack': 3.0},
        {'tcp': 5},
        {'cameras': 'gripper_cam'},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_spec_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ObservationError):
        ObservationSpec(**fields)


@pytest.mark.parametrize(
    'make',
    [
        lambda: StateBlock('joint_pos', 5),
        lambda: StateBlock('force', 0),
        lambda: StateBlock('no name', 1),
        lambda: StateBlock.named('force'),
        lambda: CameraSpec(''),
        lambda: CameraSpec('a', 0),
        lambda: Crop(-1, 0, 5, 5),
        lambda: Crop(0, 0, 5, 0),
    ],
)
def test_a_part_that_makes_no_sense_is_refused(make):
    with pytest.raises(ObservationError):
        make()


def test_a_spec_without_cameras_is_one():
    spec = ObservationSpec(cameras=())
    assert spec.image_size == 0
    assert spec.camera_names == ()


def test_every_known_block_can_be_named():
    assert all(StateBlock.named(name).size == size for name, size in BLOCK_SIZES.items())


def test_a_mismatch_is_refused_with_every_difference():
    mine, theirs = ObservationSpec(), robobase_spec(frame_stack=4)
    with pytest.raises(SpecMismatchError) as caught:
        mine.require_same(theirs, ('buffer', 'policy'))
    for line in (
        'frame_stack: 3 buffer, 4 policy',
        'tcp: "so101" buffer, "pick101" policy',
        'camera_preset: "nexus" buffer, "pick101" policy',
    ):
        assert line in str(caught.value)
    mine.require_same(ObservationSpec())
