# SPDX-License-Identifier: Apache-2.0
"""The wrist camera as a ROS node: each frame with the time of its grabbing, and the stream's health."""

from dataclasses import dataclass
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from so101_description.cameras import CAMERA_PRESETS
from so101_driver.camera.camera import Camera, CameraReport, CameraStatus
from so101_driver.camera.config import CameraConfig, LensError
from so101_driver.camera.source import Frame
from so101_driver.messages import camera_diagnostics, compressed_message, info_message, lens_of
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import array_to_image, ns_to_stamp
from so101_interfaces_py.params import check_bounds, load_configs, param, ParameterError
from so101_interfaces_py.spin import run_node

# The newest frame is looked for this often [s]: what a frame waits at most beyond its grabbing.
LOOK_PERIOD_S = 0.005
REPORT_PERIOD_S = 0.1
DIAGNOSTICS_PERIOD_S = 1.0


@dataclass(frozen=True, kw_only=True)
class CameraNodeConfig:
    """What the node publishes beside the frames."""

    frame_id: str = param('gripper_cam_optical_frame', doc='frame_id of the images: z forward, y down.')
    preset: str = param(
        'nexus', doc='Camera whose field of view camera_info tells.', choices=tuple(CAMERA_PRESETS)
    )
    camera_info: str = param('', doc='Calibration file (YAML of camera_calibration); empty: from the preset.')

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)


CONFIG = (CameraConfig, CameraNodeConfig)


class CameraNode(Node):
    """Publishes what the camera's own thread has read; it never waits for the camera."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('camera_node', **node_options)
        self._camera_config, self._config = load_configs(self, CameraConfig, CameraNodeConfig)
        self._info: CameraInfo | None = None
        self._published = -1
        self._report: CameraReport | None = None
        self._next_report = self._next_diagnostics = float('-inf')
        self._images = self.create_publisher(Image, topics.IMAGE, qos.IMAGE)
        self._compressed = self.create_publisher(CompressedImage, topics.IMAGE_COMPRESSED, qos.IMAGE)
        self._infos = self.create_publisher(CameraInfo, topics.CAMERA_INFO, qos.IMAGE)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, qos.DIAGNOSTICS)
        self._camera = Camera(self._camera_config)
        if self._camera_config.width and self._camera_config.height:
            self._info = self._make_info(self._camera_config.width, self._camera_config.height)
        self._camera.start()
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(LOOK_PERIOD_S, self._tick, clock=clock)
        self.get_logger().info(f'camera {self._camera_config.source}')

    def close(self) -> None:
        """Let the camera go."""
        self._camera.close()

    def _tick(self) -> None:
        frame = self._camera.latest()
        if frame is not None and frame.index > self._published:
            self._published = frame.index
            self._publish(frame)
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_PERIOD_S
            self._watch(now)

    def _publish(self, frame: Frame) -> None:
        # The monotonic age, not the system clock of the grab: that one may have been set since.
        age_ns = round(frame.age_s(time.monotonic()) * 1e9)
        stamp = ns_to_stamp(self.get_clock().now().nanoseconds - age_ns)
        if self._images.get_subscription_count():
            self._images.publish(array_to_image(frame.rgb(), 'rgb8', stamp, self._config.frame_id))
        if self._compressed.get_subscription_count():
            self._compressed.publish(compressed_message(frame, stamp, self._config.frame_id))
        width, height = frame.size
        if self._info is None or (self._info.width, self._info.height) != (width, height):
            self._info = self._make_info(width, height)
        self._info.header.stamp = stamp
        self._infos.publish(self._info)

    def _watch(self, now: float) -> None:
        report = self._camera.report()
        changed = self._report is None or report.status != self._report.status
        if changed:
            self._say(report)
        if changed or now >= self._next_diagnostics:
            self._next_diagnostics = now + DIAGNOSTICS_PERIOD_S
            stamp = self.get_clock().now().to_msg()
            self._diagnostics.publish(camera_diagnostics(report, self._camera_config.source, stamp))
        self._report = report

    def _say(self, report: CameraReport) -> None:
        sentence = f'{report.status}: {report.sentence}'
        # Two call sites: rclpy ties a severity to the line that logs.
        if report.status in (CameraStatus.OK, CameraStatus.STARTING):
            self.get_logger().info(sentence)
        else:
            self.get_logger().warning(sentence)

    def _make_info(self, width: int, height: int) -> CameraInfo:
        lens = lens_of(self._config.camera_info, self._config.preset, width, height)
        return info_message(lens, self._config.frame_id)


def main() -> None:
    """Run the node."""
    sys.exit(run_node(CameraNode, (LensError, ParameterError)))


if __name__ == '__main__':
    main()
