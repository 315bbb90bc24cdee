# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest

pytest.importorskip('rclpy')

from so101_bringup.doctor import measure


def test_camera_images_arrive_with_the_shipped_profile(ros):
    assert Path(os.environ['FASTRTPS_DEFAULT_PROFILES_FILE']).name == 'fastdds.xml'
    delivery = measure(frames=300)
    assert delivery.arrived >= 0.99 * delivery.sent
