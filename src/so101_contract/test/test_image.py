# SPDX-License-Identifier: Apache-2.0
import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.errors import ImageError
from so101_contract.image import CHANNELS, message_to_rgb, preprocess

ENCODINGS = sorted(CHANNELS)


def picture(height=480, width=640, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(rgb, encoding):
    alpha = np.full((*rgb.shape[:2], 1), 77, np.uint8)
    return {
        'rgb8': rgb,
        'bgr8': rgb[..., ::-1],
        'rgba8': np.concatenate([rgb, alpha], axis=2),
        'bgra8': np.concatenate([rgb[..., ::-1], alpha], axis=2),
        'mono8': rgb[..., 0],
    }[encoding]


def test_a_wide_image_is_cut_to_its_centre_columns():
    rgb = picture()
    expected = cv2.resize(rgb[:, 80:560].copy(), (84, 84), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    np.testing.assert_array_equal(preprocess(rgb), expected)
    outside = rgb.copy()
    outside[:, :80] = 0
    outside[:, 560:] = 255
    np.testing.assert_array_equal(preprocess(outside), expected)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 96), st.sampled_from(ENCODINGS))
@settings(max_examples=40)
def test_any_image_becomes_a_square_uint8_rgb_array(height, width, size, encoding):
    image = encoded(picture(height, width), encoding)
    result = preprocess(image, encoding, size=size)
    assert result.shape == (3, size, size)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert result.flags.owndata or result.base is not image


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.sampled_from([64, 84, 96, 128]))
@settings(max_examples=25)
def test_L7_the_value_of_a_uniform_image_survives_exactly(red, green, blue, size):
    rgb = np.empty((480, 640, 3), np.uint8)
    rgb[:] = (red, green, blue)
    result = preprocess(rgb, size=size)
    for channel, value in enumerate((red, green, blue)):
        assert np.all(result[channel] == value)


@pytest.mark.parametrize('size', [64, 84, 128])
def test_L7_pixels_survive_bit_exactly_where_nothing_is_scaled(size):
    rgb = picture(size, size)
    np.testing.assert_array_equal(preprocess(rgb, size=size), rgb.transpose(2, 0, 1))
    wide = picture(size, size + 30)
    np.testing.assert_array_equal(preprocess(wide, size=size), wide[:, 15 : size + 15].transpose(2, 0, 1))


def test_L6_values_are_not_divided_so_the_network_divides_once():
    ramp = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (480, 640, 3))
    scaled = preprocess(ramp).astype(np.float32) / 255 - 0.5
    assert scaled.min() >= -0.5
    assert scaled.max() <= 0.5
    assert np.ptp(scaled) > 0.2


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int32, np.uint16, np.int8, np.bool_])
def test_L6_an_image_that_was_scaled_already_is_refused(dtype):
    with pytest.raises(ImageError, match='uint8'):
        preprocess(picture().astype(dtype))


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_L9_P16_the_network_sees_the_same_whatever_the_encoding(encoding):
    rgb = picture()
    if encoding == 'mono8':
        rgb = np.repeat(rgb[..., :1], 3, axis=2)
    np.testing.assert_array_equal(preprocess(encoded(rgb, encoding), encoding), preprocess(rgb))


def test_L9_preprocessing_is_deterministic_and_leaves_its_input_alone():
    rgb = picture()
    before = rgb.copy()
    results = [preprocess(rgb) for _ in range(3)]
    np.testing.assert_array_equal(rgb, before)
    assert all(np.array_equal(result, results[0]) for result in results)
    results[0][:] = 0
    np.testing.assert_array_equal(rgb, before)


def test_a_configured_crop_replaces_the_centre_square():
    rgb = picture()
    result = preprocess(rgb, size=84, crop=(10, 20, 84, 84))
    np.testing.assert_array_equal(result, rgb[10:94, 20:104].transpose(2, 0, 1))
    assert preprocess(rgb, size=32, crop=(0, 0, 100, 300)).shape == (3, 32, 32)


@pytest.mark.parametrize(
    'crop',
    [(-1, 0, 10, 10), (0, -1, 10, 10), (0, 0, 0, 10), (0, 0, 481, 10), (470, 0, 11, 10), (0, 635, 9, 6)],
)
def test_a_crop_outside_the_image_is_refused(crop):
    with pytest.raises(ImageError, match='crop'):
        preprocess(picture(), crop=crop)


@pytest.mark.parametrize(
    ('shape', 'encoding'),
    [
        ((480, 640), 'rgb8'),
        ((480, 640, 4), 'rgb8'),
        ((480, 640, 3), 'rgba8'),
        ((480, 640, 3), 'mono8'),
        ((3, 84, 84), 'rgb8'),
        ((84, 84, 9), 'rgb8'),
        ((2, 84, 84, 3), 'rgb8'),
        ((0, 84, 3), 'rgb8'),
        ((84, 84, 3), 'yuv422'),
    ],
)
def test_L5_a_stack_or_an_image_of_another_layout_is_refused(shape, encoding):
    with pytest.raises(ImageError):
        preprocess(np.zeros(shape, np.uint8), encoding)


def test_a_list_is_no_image_and_zero_is_no_size():
    with pytest.raises(ImageError):
        preprocess([[0]])
    with pytest.raises(ImageError):
        preprocess(picture(), size=0)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 17),
    st.sampled_from(ENCODINGS),
    st.sampled_from([bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)]),
)
@settings(max_examples=60)
def test_padding_at_the_end_of_rows_is_skipped(height, width, padding, encoding, container):
    rgb = picture(height, width)
    rows = encoded(rgb, encoding).reshape(height, -1)
    step = rows.shape[1] + padding
    data = np.full((height, step), 201, np.uint8)
    data[:, : rows.shape[1]] = rows
    expected = np.repeat(rgb[..., :1], 3, axis=2) if encoding == 'mono8' else rgb
    pixels = message_to_rgb(height, width, encoding, step, container(data.tobytes()))
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(preprocess(pixels, size=8), preprocess(expected, size=8))


@pytest.mark.parametrize(
    ('height', 'width', 'step', 'size'),
    [(2, 2, 6, 11), (2, 2, 6, 13), (2, 2, 5, 10), (0, 2, 6, 0), (2, 0, 6, 12), (2, 2, 0, 12)],
)
def test_a_message_whose_numbers_do_not_fit_is_refused(height, width, step, size):
    with pytest.raises(ImageError, match='camera driver'):
        message_to_rgb(height, width, 'rgb8', step, bytes(size))


def test_an_encoding_that_is_not_understood_is_named():
    with pytest.raises(ImageError, match="'bayer_rggb8'"):
        message_to_rgb(2, 2, 'bayer_rggb8', 2, bytes(4))


def test_rgb_is_passed_on_without_a_copy():
    rgb = picture()
    assert np.shares_memory(message_to_rgb(480, 640, 'rgb8', 1920, rgb.reshape(-1)), rgb)
