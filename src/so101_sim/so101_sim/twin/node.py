# SPDX-License-Identifier: Apache-2.0
"""The twin as a ROS node, with its parameters.

It serves a simulated arm behind a serial port, and publishes its cameras and what is really the case.
"""

from dataclasses import dataclass, replace
import functools
from pathlib import Path
import sys
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image
from so101_interfaces.msg import TaskReport as TaskReportMessage
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from so101_contract.joints import BASE_FRAME
from so101_contract.task.files import get_task
from so101_contract.task.spec import DEFAULT_TASK
from so101_contract.task_report import from_record, TaskReport
from so101_description.cameras import FRONT_VIEW, OPTICAL_IN_CAMERA
from so101_driver.calibration.files import save
from so101_driver.camera.config import Lens
from so101_driver.emulator.arm import virtual_calibration
from so101_driver.emulator.control import ControlServer
from so101_driver.emulator.faults import FaultRates
from so101_driver.emulator.line import PATIENCE_S, port_in_use
from so101_driver.messages import info_message
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import array_to_image, ns_to_stamp
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import check_bounds, load_config, param, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode
from so101_kinematics.visualization import LinkTransform, transform_message
from so101_sim.errors import SimulationError
from so101_sim.render import UInt8Array
from so101_sim.scene.presets import get_scene_preset, NAMES, Preset
from so101_sim.scene.scene import front_pose
from so101_sim.scene.servo import get_servo, SERVOS
from so101_sim.twin.twin import CameraThread, OnFrame, SIMULATED_CAMERAS, Twin

FROM_PRESET = 'preset'
DIAGNOSTICS_PERIOD_S = 1.0
SWITCH_INTERVAL_S = 0.0005
CLOCK_PERIOD_S = 0.02
POLL_S = 0.05

SLOW = 0.97
"""A real-time factor below this is worth a warning."""


@dataclass(frozen=True, kw_only=True)
class TwinConfig:
    """Which scene, where its arm appears, and what is published."""

    link: str = param('/tmp/so101-virtual-arm', doc='Path under which the arm appears as a serial port.')
    calibration: str = param(
        '',
        doc='File to write the calibration of the arm to, for arm_node; empty: the link with .json behind it.',
    )
    control: str = param(
        '', doc='Path of a socket for every fault of the servo bus, one JSON object a line; empty: none.'
    )
    task: str = param(DEFAULT_TASK, doc='What is to be done: name or file of a task.')
    preset: str = param(
        'easy', doc=f'How hard it is, and how far from the nominal scene: {", ".join(NAMES)}.'
    )
    drawn_cameras: tuple[str, ...] = param(
        ('',), doc='Cameras to draw, of wrist and front; empty: those of the task.'
    )
    servo: str = param(
        FROM_PRESET, doc="The arm's servos; preset: those of the preset.", choices=(FROM_PRESET, *SERVOS)
    )
    seed: int = param(0, doc='Of where the cube is put.', lo=0, hi=2**31 - 1)
    camera_width: int = param(320, doc='Width of a picture.', unit='px', lo=16, hi=1920)
    camera_height: int = param(240, doc='Height of a picture.', unit='px', lo=16, hi=1080)
    camera_rate_hz: float = param(
        20.0, doc='Frames per second of each camera; 0 switches them off.', unit='Hz', lo=0.0, hi=60.0
    )
    camera_drop_share: float = param(
        0.0,
        doc='Share of the pictures that get lost on the way, although their camera_info arrives.',
        lo=0.0,
        hi=1.0,
    )
    camera_frame_id: str = param(
        'gripper_cam_optical_frame', doc='frame_id of the wrist images: z forward, y down.'
    )
    frame_prefix: str = param(
        '', doc='Put before every frame that is published, so that two arms share a tree.'
    )
    truth_rate_hz: float = param(30.0, doc='Rate of sim/task.', unit='Hz', lo=1.0, hi=100.0)
    bad_packet_share: float = param(
        0.05, doc='Share of bad answers while sim/bad_packets is on.', lo=0.0, hi=1.0
    )

    def __post_init__(self) -> None:
        """Check each value, and that the task exists at that difficulty."""
        check_bounds(self)
        try:
            get_scene_preset(self.preset, self.task)
        except ValueError as error:
            raise ParameterError(str(error)) from error
        unknown = sorted(set(self.cameras) - set(SIMULATED_CAMERAS))
        if unknown:
            raise ParameterError(
                f'expected cameras out of wrist and front, which the simulation has, got {unknown}; give the others a '
                f'device: cameras:=NAME=DEVICE'
            )

    @property
    def cameras(self) -> tuple[str, ...]:
        """What the topics of the cameras begin with that are drawn."""
        given = [name for name in self.drawn_cameras if name]
        return tuple(camera.topic for camera in get_task(self.task).with_cameras(given).cameras)

    @property
    def calibration_path(self) -> str:
        """Where the calibration is written."""
        return self.calibration or f'{self.link}.json'


CONFIG = (TwinConfig,)


class TwinNode(SoleNode):
    """Serves the arm, publishes pictures and ground truth, and lets faults happen."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('twin_node', **node_options)
        self._config = load_config(self, TwinConfig)
        self._preset = _preset(self._config)
        # The file first, before the scene is built: who waits for the port finds both.
        calibration = virtual_calibration()
        save(calibration, Path(self._config.calibration_path))
        self._twin = Twin(
            self._preset, link=self._config.link, calibration=calibration, seed=self._config.seed
        )
        self._twin.reset()
        self._control: ControlServer | None = None
        if self._config.control:
            self._control = ControlServer(self._twin.arm, self._config.control)

        self._truth = self.create_publisher(TaskReportMessage, topics.SIM_TASK, qos.STATE_PUBLISHER)
        self._time = self.create_publisher(ClockMessage, topics.SIM_CLOCK, qos.STATE_PUBLISHER)
        self._is_slow = False
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, qos.DIAGNOSTICS)
        self._losses = np.random.default_rng(self._config.seed)
        self.create_service(Trigger, topics.SIM_RESET_SERVICE, self._on_reset)
        self.create_service(Trigger, topics.SIM_GO_ON_SERVICE, self._on_go_on)
        self.create_service(SetBool, 'sim/unplug', self._on_unplug)
        self.create_service(SetBool, topics.SIM_POWER_SERVICE, self._on_power)
        self.create_service(SetBool, 'sim/bad_packets', self._on_bad_packets)
        freeze = functools.partial(self._on_freeze, topics.WRIST_CAMERA)
        self.create_service(SetBool, 'sim/freeze_camera', freeze)
        freeze = functools.partial(self._on_freeze, topics.FRONT_CAMERA)
        self.create_service(SetBool, 'sim/freeze_front_camera', freeze)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / self._config.truth_rate_hz, self._publish_truth, clock=clock)
        self.create_timer(1.0 / self._preset.control.rate_hz, self._judge, clock=clock)
        self.create_timer(CLOCK_PERIOD_S, self._publish_time, clock=clock)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=clock)

        self._closing = threading.Lock()
        self._camera: CameraThread | None = None
        if self._config.camera_rate_hz > 0.0:
            size = self._config.camera_width, self._config.camera_height
            views = {name: self._view(name) for name in self._config.cameras}
            self._camera = CameraThread(self._twin, *size, self._config.camera_rate_hz, views)
            self._camera.start()
        self._twin.start()
        self.get_logger().info(
            f'{self._preset.task.name} {self._preset.name}: the arm is on {self._config.link}, '
            f'its calibration in {self._config.calibration_path}'
        )

    def close(self) -> None:
        """End the camera, then the arm. Needs no ROS; safe to call twice.

        Where everything is stopped at once, a driver is still parking the arm: it is waited for, within bounds.
        """
        if not self._closing.acquire(blocking=False):
            return
        if self._camera is not None:
            self._camera.close()
        deadline = time.monotonic() + PATIENCE_S
        while port_in_use(Path(self._config.link)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if self._control is not None:
            self._control.close()
        self._twin.close()

    # --- publishing ---

    def _view(self, camera: str) -> OnFrame:
        """Return what publishes the pictures of a camera; it is called in the cameras' thread."""
        is_wrist = camera == topics.WRIST_CAMERA
        images = self.create_publisher(Image, f'{camera}/image_raw', qos.IMAGE)
        infos = self.create_publisher(CameraInfo, f'{camera}/camera_info', qos.IMAGE)
        preset = self._preset.scene.mounted_camera if is_wrist else FRONT_VIEW
        frame = self._config.camera_frame_id if is_wrist else f'{camera}_optical_frame'
        frame_id = self._config.frame_prefix + frame
        if not is_wrist:
            self._place(frame_id)
        lens = Lens.pinhole(preset.intrinsics(self._config.camera_width, self._config.camera_height))
        info = info_message(lens, frame_id)

        def publish(picture: UInt8Array, monotonic_s: float) -> None:
            if not self.context.ok():
                return
            stamp = ns_to_stamp(self._stamp_ns(monotonic_s))
            lost = self._losses.random() < self._config.camera_drop_share
            if images.get_subscription_count() and not lost:
                images.publish(array_to_image(picture, 'rgb8', stamp, frame_id))
            info.header.stamp = stamp
            infos.publish(info)

        return publish

    def _place(self, frame_id: str) -> None:
        """Say where the front camera stands, as `static_transform_publisher` does for one of metal."""
        pose = front_pose() @ OPTICAL_IN_CAMERA
        base = self._config.frame_prefix + BASE_FRAME
        link = LinkTransform(base, frame_id, pose.position, pose.quat_wxyz)
        self._places = self.create_publisher(TFMessage, topics.TF_STATIC, qos.LATCHED)
        stamp = self.get_clock().now().to_msg()
        self._places.publish(TFMessage(transforms=[transform_message(stamp, link)]))

    def _judge(self) -> None:
        self._twin.judge()

    def _publish_truth(self) -> None:
        truth = self._twin.truth()
        state = replace(self._twin.task_state, truth=truth)
        stamp_ns = self.get_clock().now().nanoseconds
        preset = self._preset
        report = TaskReport(
            stamp_ns, preset.task.name, preset.name, state, preset.max_steps, preset.start.arm
        )
        message = from_record(report, TaskReportMessage())
        message.header.frame_id = self._config.frame_prefix + message.header.frame_id
        self._truth.publish(message)

    def _publish_time(self) -> None:
        stamp = ns_to_stamp(round(self._twin.dynamics.simulated_s * 1e9))
        self._time.publish(ClockMessage(clock=stamp))

    def _publish_diagnostics(self) -> None:
        rate = self._twin.dynamics.real_time_factor
        frames = 0.0 if self._camera is None else self._camera.rate_hz
        level, message = DiagnosticStatus.OK, 'keeps up with real time'
        if rate < SLOW:
            level = DiagnosticStatus.WARN
            message = f'slow motion: it runs at {rate:.2f} of real time, and the session with it; end other programs'
        if (rate < SLOW) != self._is_slow:
            self._is_slow = rate < SLOW
            self.get_logger().info(message)
        if self._camera is not None and self._camera.error:
            level, message = DiagnosticStatus.ERROR, self._camera.error
        status = DiagnosticStatus(
            name='so101: twin', hardware_id=self._config.link, level=level, message=message
        )
        status.values = [
            KeyValue(key='real_time_factor', value=f'{rate:.4f}'),
            KeyValue(key='frame rate [Hz]', value=f'{frames:.1f}'),
        ]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    # --- services ---

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        x, y, _z = self._twin.reset().cube_position
        response.success = True
        response.message = f'the cube is at x {x:.3f}, y {y:.3f} m'
        return response

    def _on_go_on(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        x, y, _z = self._twin.go_on().cube_position
        response.success = True
        response.message = f'the cube stays at x {x:.3f}, y {y:.3f} m'
        return response

    def _on_unplug(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data:
            self._twin.arm.unplug()
        else:
            self._twin.arm.replug()
        return _done(response, 'the cable is out' if request.data else 'the cable is in')

    def _on_power(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._twin.arm.power(request.data)
        return _done(response, 'the servos have power' if request.data else 'the servos are without power')

    def _on_bad_packets(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        share = self._config.bad_packet_share if request.data else 0.0
        self._twin.arm.faults.set_rates(FaultRates.bad_packets(share))
        return _done(response, f'{share:.0%} of the answers are bad')

    def _on_freeze(
        self, camera: str, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        if self._camera is None or camera not in self._config.cameras:
            response.success, response.message = False, 'there is no such camera; set camera_rate_hz'
            return response
        (self._camera.frozen.add if request.data else self._camera.frozen.discard)(camera)
        return _done(response, 'the camera hangs' if request.data else 'the camera runs')

    # --- helpers ---

    def _stamp_ns(self, monotonic_s: float) -> int:
        """Turn a monotonic time into the clock of the graph [ns]."""
        return int(self.get_clock().now().nanoseconds - (time.monotonic() - monotonic_s) * 1e9)


def _preset(config: TwinConfig) -> Preset:
    preset = get_scene_preset(config.preset, config.task)
    if config.servo == FROM_PRESET:
        return preset
    return replace(preset, scene=replace(preset.scene, servo=get_servo(config.servo)))


def _done(response: SetBool.Response, message: str) -> SetBool.Response:
    response.success, response.message = True, message
    return response


def main() -> None:
    """Run the node."""
    # The bus answers within a millisecond; by default another thread may keep it waiting for five.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    leave(run_node(TwinNode, (SimulationError, ParameterError)))


if __name__ == '__main__':
    main()
