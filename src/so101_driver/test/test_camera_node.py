# SPDX-License-Identifier: Apache-2.0
"""The real node in a process of its own, on a real HTTP stream whose frames carry their number."""

import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from so101_contract.image import message_to_rgb
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import stamp_to_ns
from so101_testing.mjpeg_server import decode_counter, MjpegServer


class Viewer:
    """What the node publishes."""

    def __init__(self):
        self.node = rclpy.create_node('test_viewer')
        self.images, self.compressed, self.infos, self.statuses = [], [], [], []
        for kind, name, profile, store in (
            (Image, topics.IMAGE, qos.IMAGE, self.images),
            (CompressedImage, topics.IMAGE_COMPRESSED, qos.IMAGE, self.compressed),
            (CameraInfo, topics.CAMERA_INFO, qos.IMAGE, self.infos),
        ):
            self.node.create_subscription(kind, name, store.append, profile)
        self.node.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_status, qos.DIAGNOSTICS)

    def _on_status(self, message):
        self.statuses += [
            (time.monotonic(), status) for status in message.status if status.name == 'so101: camera'
        ]

    def spin_until(self, condition, timeout=200.0):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f'waited too long; last status: {self.statuses[-1:]}'
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def wait_for_status(self, word):
        began = len(self.statuses)
        self.spin_until(lambda: any(status.message.startswith(word) for _, status in self.statuses[began:]))
        return next(when for when, status in self.statuses[began:] if status.message.startswith(word))


@pytest.fixture(scope='module')
def stream():
    with MjpegServer(fps=30.0) as server:
        yield server


@pytest.fixture(scope='module')
def viewer(start, stream):
    rclpy.init()
    start('so101_driver', 'camera_node', '--ros-args', '-p', f"source:='{stream.url}'", '-p', 'fps:=30.0')
    viewer = Viewer()
    viewer.spin_until(lambda: len(viewer.images) > 3)
    yield viewer
    viewer.node.destroy_node()
    rclpy.try_shutdown()


def number_of(message):
    rgb = message_to_rgb(message.height, message.width, message.encoding, message.step, bytes(message.data))
    return decode_counter(np.ascontiguousarray(rgb[..., ::-1]))


def test_frames_arrive_whole_in_order_and_fresh(viewer):
    viewer.images.clear()
    viewer.spin_until(lambda: len(viewer.images) >= 30)
    numbers = [number_of(message) for message in viewer.images]
    assert numbers == sorted(set(numbers))
    age = viewer.node.get_clock().now().nanoseconds - stamp_to_ns(viewer.images[-1].header.stamp)
    assert 0 <= age < 2e9
    assert viewer.images[-1].header.frame_id == 'gripper_cam_optical_frame'


def test_camera_info_and_jpeg_go_with_the_frames(viewer):
    viewer.spin_until(lambda: viewer.infos and viewer.compressed)
    info = viewer.infos[-1]
    assert (info.width, info.height) == (640, 480)
    assert info.k[0] > 0
    assert bytes(viewer.compressed[-1].data[:2]) == b'\xff\xd8'


def test_P12_a_frozen_stream_is_reported_and_then_seen_to_be_well_again(viewer, stream):
    viewer.wait_for_status('ok')
    stream.freeze()
    frozen = time.monotonic()
    reported = viewer.wait_for_status('stalled')
    stream.resume()
    assert reported - frozen < 5.0
    viewer.wait_for_status('ok')


def test_P12_a_lost_stream_is_reported_and_opened_again(viewer, stream):
    viewer.wait_for_status('ok')
    stream.refuse()
    stream.disconnect()
    viewer.wait_for_status('disconnected')
    assert viewer.statuses[-1][1].level == DiagnosticStatus.ERROR
    stream.resume()
    viewer.wait_for_status('ok')
    viewer.images.clear()
    viewer.spin_until(lambda: viewer.images)


def test_a_wrong_calibration_file_stops_the_node_with_a_sentence(start, tmp_path):
    import subprocess

    path = tmp_path / 'camera.yaml'
    path.write_text('image_width: 640\n')
    node = start(
        'so101_driver',
        'camera_node',
        *('--ros-args', '-r', '__ns:=/elsewhere'),
        *('-p', f"camera_info:='{path}'"),
        stderr=subprocess.PIPE,
        text=True,
    )
    _, error = node.communicate(timeout=300.0)
    assert node.returncode == 1
    assert str(path) in error
    assert 'Traceback' not in error
