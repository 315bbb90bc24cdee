# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from so101_description.cameras import CAMERA_PRESETS, Intrinsics
from so101_driver.camera.config import Lens, LensError

FILE = """
image_width: 640
image_height: 480
camera_name: wrist
camera_matrix: {rows: 3, cols: 3, data: [500.0, 0, 320.0, 0, 510.0, 240.0, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.001, 0.002, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [480.0, 0, 321.0, 0, 0, 490.0, 241.0, 0, 0, 0, 1, 0]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'wrist.yaml'
    path.write_text(FILE)
    return path


def test_a_calibration_of_ros_is_read(path):
    lens = Lens.from_yaml(path)
    assert (lens.width, lens.height, lens.model) == (640, 480, 'plumb_bob')
    assert lens.d == (0.1, -0.2, 0.001, 0.002, 0.0)
    assert lens.k[:6] == (500.0, 0.0, 320.0, 0.0, 510.0, 240.0)
    assert len(lens.p) == 12


@pytest.mark.parametrize('name', sorted(CAMERA_PRESETS))
def test_a_preset_makes_a_pinhole_without_distortion(name):
    intrinsics = CAMERA_PRESETS[name].intrinsics(320, 240)
    lens = Lens.pinhole(intrinsics)
    np.testing.assert_allclose(np.reshape(lens.k, (3, 3)), intrinsics.matrix())
    np.testing.assert_allclose(np.reshape(lens.p, (3, 4))[:, :3], intrinsics.matrix())
    assert set(lens.d) == {0.0}


def test_scaling_keeps_the_view():
    big = Lens.pinhole(Intrinsics(640, 480, 500.0, 510.0, 319.5, 239.5))
    small = big.scaled(160, 120)
    ray = np.array([0.3, -0.2, 1.0])
    u, v, _ = np.reshape(big.k, (3, 3)) @ ray
    us, vs, _ = np.reshape(small.k, (3, 3)) @ ray
    assert (us + 0.5) / 160 == pytest.approx((u + 0.5) / 640)
    assert (vs + 0.5) / 120 == pytest.approx((v + 0.5) / 480)
    assert big.scaled(640, 480) == big


def test_scaling_to_another_aspect_ratio_is_refused(path):
    with pytest.raises(LensError, match='aspect ratio'):
        Lens.from_yaml(path).scaled(640, 360)


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('image_width: 640', 'image_width: 0', '0x480'),
        ('plumb_bob', 'fisheye_of_mine', 'fisheye_of_mine'),
        ('0.1, -0.2,', '0.1,', '5 numbers in d, got 4'),
        ('camera_matrix', 'camera_m', 'camera_matrix'),
        ('640', '[]', 'no camera calibration'),
        (FILE, '{', 'no camera calibration'),
        (FILE, '', 'no camera calibration'),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_with_its_name(path, old, new, words):
    path.write_text(FILE.replace(old, new))
    with pytest.raises(LensError, match=words) as caught:
        Lens.from_yaml(path)
    assert 'wrist.yaml' in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LensError, match=r'none\.yaml'):
        Lens.from_yaml(tmp_path / 'none.yaml')
