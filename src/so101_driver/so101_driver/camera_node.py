# SPDX-License-Identifier: Apache-2.0
"""The cameras as a ROS node: each frame with the time of its grabbing, and the health of each stream."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from so101_contract.observation_spec import camera_word
from so101_description.cameras import CAMERA_PRESETS, FRONT_VIEW
from so101_driver.camera.camera import Camera, CameraReport, CameraStatus
from so101_driver.camera.config import CameraConfig, Lens, LensError
from so101_driver.camera.source import Frame
from so101_driver.messages import camera_diagnostics, compressed_message, info_message, lens_of
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import array_to_image, ns_to_stamp
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import check_bounds, load_configs, param, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode

# The newest frame is looked for this often [s]: what a frame waits at most beyond its grabbing.
LOOK_PERIOD_S = 0.005
REPORT_PERIOD_S = 0.1
DIAGNOSTICS_PERIOD_S = 1.0


@dataclass(frozen=True, kw_only=True)
class CameraNodeConfig:
    """What the node publishes beside the frames."""

    frame_id: str = param('gripper_cam_optical_frame', doc='frame_id of the wrist images: z forward, y down.')
    frame_prefix: str = param(
        '', doc='Put before every frame that is published, so that two arms share a tree.'
    )
    preset: str = param(
        'nexus', doc='Wrist camera whose field of view camera_info tells.', choices=tuple(CAMERA_PRESETS)
    )
    camera_info: str = param('', doc='Calibration file (YAML of camera_calibration); empty: from the preset.')

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)


CONFIG = (CameraConfig, CameraNodeConfig)


class Stream:
    """One camera: what its own thread has read, and the topics that it goes to."""

    def __init__(
        self, node: SoleNode, name: str, camera: CameraConfig, frame_id: str, lens: Callable[[int, int], Lens]
    ) -> None:
        """Begin to read.

        Args:
            node: publishes.
            name: what the topics begin with.
            camera: the source and what is expected of it.
            frame_id: of the messages.
            lens: of pictures of a width and a height [px].
        """
        self.camera = Camera(camera)
        self._node, self._name, self._frame_id, self._lens = node, name, frame_id, lens
        self._info: CameraInfo | None = None
        self._published = -1
        self._report: CameraReport | None = None
        self._next_diagnostics = float('-inf')
        self._images = node.create_publisher(Image, f'{name}/image_raw', qos.IMAGE)
        self._compressed = node.create_publisher(CompressedImage, f'{name}/image_raw/compressed', qos.IMAGE)
        self._infos = node.create_publisher(CameraInfo, f'{name}/camera_info', qos.IMAGE)
        if camera.width and camera.height:
            self._info = self._make_info(camera.width, camera.height)
        self.camera.start()

    def tick(self) -> None:
        """Publish the newest frame, where there is a newer one."""
        frame = self.camera.latest()
        if frame is not None and frame.index > self._published:
            self._published = frame.index
            self._publish(frame)

    def _publish(self, frame: Frame) -> None:
        # The monotonic age, not the system clock of the grab: that one may have been set since.
        age_ns = round(frame.age_s(time.monotonic()) * 1e9)
        stamp = ns_to_stamp(self._node.get_clock().now().nanoseconds - age_ns)
        if self._images.get_subscription_count():
            self._images.publish(array_to_image(frame.rgb(), 'rgb8', stamp, self._frame_id))
        if self._compressed.get_subscription_count():
            self._compressed.publish(compressed_message(frame, stamp, self._frame_id))
        width, height = frame.size
        if self._info is None or (self._info.width, self._info.height) != (width, height):
            self._info = self._make_info(width, height)
        self._info.header.stamp = stamp
        self._infos.publish(self._info)

    def watch(self, now: float) -> DiagnosticArray | None:
        """Say how the stream does, and return its diagnostics where they are due."""
        report = self.camera.report()
        changed = self._report is None or report.status != self._report.status
        self._report = report
        if changed:
            self._say(report)
        if not changed and now < self._next_diagnostics:
            return None
        self._next_diagnostics = now + DIAGNOSTICS_PERIOD_S
        stamp = self._node.get_clock().now().to_msg()
        word = 'camera' if self._name == topics.WRIST_CAMERA else f'camera {camera_word(self._name)}'
        return camera_diagnostics(report, self.camera.config.source, stamp, word)

    def _say(self, report: CameraReport) -> None:
        sentence = f'{report.status}: {report.sentence}'
        # Two call sites: rclpy ties a severity to the line that logs.
        if report.status in (CameraStatus.OK, CameraStatus.STARTING):
            self._node.get_logger().info(sentence)
        else:
            self._node.get_logger().warning(sentence)

    def _make_info(self, width: int, height: int) -> CameraInfo:
        return info_message(self._lens(width, height), self._frame_id)


class CameraNode(SoleNode):
    """Publishes what the cameras' own threads have read; it never waits for a camera."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('camera_node', **node_options)
        camera, config = load_configs(self, CameraConfig, CameraNodeConfig)
        self._next_report = float('-inf')
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, qos.DIAGNOSTICS)
        self._streams = [
            self._stream(name, replace(camera, source=source, sources=('',)), config)
            for name, source in camera.named_sources.items()
        ]
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(LOOK_PERIOD_S, self._tick, clock=clock)
        self.get_logger().info(f'camera {", ".join(camera.named_sources.values())}')

    def close(self) -> None:
        """Let the cameras go."""
        for stream in self._streams:
            stream.camera.close()

    def _stream(self, name: str, camera: CameraConfig, config: CameraNodeConfig) -> Stream:
        if name == topics.WRIST_CAMERA:
            return Stream(
                self,
                name,
                camera,
                config.frame_prefix + config.frame_id,
                partial(lens_of, config.camera_info, config.preset),
            )
        # Nobody has told where it stands or what it sees: a usual view, in a frame of its own.
        return Stream(
            self,
            name,
            camera,
            f'{config.frame_prefix}{name}_optical_frame',
            lambda width, height: Lens.pinhole(FRONT_VIEW.intrinsics(width, height)),
        )

    def _tick(self) -> None:
        for stream in self._streams:
            stream.tick()
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_PERIOD_S
            for stream in self._streams:
                said = stream.watch(now)
                if said is not None:
                    self._diagnostics.publish(said)


def main() -> None:
    """Run the node."""
    leave(run_node(CameraNode, (LensError, ParameterError)))


if __name__ == '__main__':
    main()
