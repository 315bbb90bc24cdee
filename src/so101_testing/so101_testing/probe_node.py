# SPDX-License-Identifier: Apache-2.0
"""A node for checks: remembers what the arm and the twin say, and sends commands at a steady rate."""

from collections.abc import Callable, Sequence
import contextlib
from dataclasses import dataclass
import threading
import time
from typing import Any, Self

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus, EeDelta
from so101_interfaces.msg import TaskReport as TaskReportMessage
from std_srvs.srv import SetBool, Trigger

from so101_contract.action import EeDeltaValue
from so101_contract.joints import JOINT_NAMES
from so101_contract.messages import action_message
from so101_contract.session import Source
from so101_contract.task_report import TaskReport, to_record
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions, joint_state, stamp_to_ns
from so101_sim.errors import SimulationError
from so101_sim.scene.servo import FloatArray

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class JointSample:
    """One joint_states message: when the joints were read, on the monotonic clock [s], and positions (6,) [rad]."""

    time_s: float
    position: FloatArray


class ProbeNode(Node):
    """Remembers messages; read its lists from any thread."""

    def __init__(self, context: Context) -> None:
        super().__init__('probe_node', context=context)
        self.joints: list[JointSample] = []
        self.reports: list[TaskReport] = []
        self.statuses: list[Any] = []
        self.real_time_factors: list[float] = []
        self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, qos.STATE_PUBLISHER)
        self.create_subscription(TaskReportMessage, topics.SIM_TASK, self._on_task, qos.STATE_PUBLISHER)
        self.create_subscription(ArmStatus, topics.ARM_STATUS, self.statuses.append, qos.LATCHED)
        self.create_subscription(DiagnosticArray, topics.DIAGNOSTICS, self._on_diagnostics, qos.DIAGNOSTICS)
        self._joint_command = self.create_publisher(JointState, topics.JOINT_COMMAND, qos.COMMAND)
        self._ee_delta = self.create_publisher(EeDelta, topics.EE_DELTA_CMD, qos.COMMAND)

    def send_joints(self, goal: FloatArray) -> None:
        """Send joint goals (6,) [rad]."""
        self._joint_command.publish(joint_state(JOINT_NAMES, goal.tolist(), self.get_clock().now().to_msg()))

    def send_action(self, action: EeDeltaValue, index: int) -> None:
        """Send an action of a human."""
        now_ns = self.get_clock().now().nanoseconds
        self._ee_delta.publish(action_message(action, Source.TELEOP, now_ns, index=index))

    def _on_joints(self, message: JointState) -> None:
        if len(message.name) < len(JOINT_NAMES):  # a servo is mute
            return
        age_s = (self.get_clock().now().nanoseconds - stamp_to_ns(message.header.stamp)) * 1e-9
        self.joints.append(JointSample(time.monotonic() - age_s, joint_positions(message, JOINT_NAMES)))

    def _on_task(self, message: TaskReportMessage) -> None:
        self.reports.append(to_record(message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for value in status.values:
                if value.key == 'real_time_factor':
                    self.real_time_factors.append(float(value.value))


class Probe:
    """A `ProbeNode` that spins in a thread while it is entered."""

    def __enter__(self) -> Self:
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = ProbeNode(self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join(TIMEOUT_S)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def wait_until(self, condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait for something to become true.

        Raises:
            SimulationError: it did not in time.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise SimulationError(f'expected {what} within {timeout_s:.0f} s, it did not happen')
            time.sleep(0.01)

    def call(self, kind: type, name: str, request: object) -> Any:
        """Call a service and return its answer."""
        client = self.node.create_client(kind, name)
        self.wait_until(client.service_is_ready, f'the service {name}')
        future = client.call_async(request)
        self.wait_until(future.done, f'an answer of {name}')
        self.node.destroy_client(client)
        return future.result()

    def set_bool(self, name: str, value: bool) -> Any:
        """Call a service of type SetBool."""
        return self.call(SetBool, name, SetBool.Request(data=value))

    def trigger(self, name: str) -> Any:
        """Call a service of type Trigger."""
        return self.call(Trigger, name, Trigger.Request())

    @property
    def position(self) -> FloatArray:
        """Newest joint positions (6,) [rad]."""
        return self.node.joints[-1].position

    def hold(self, goal: FloatArray, duration_s: float, rate_hz: float = 50.0) -> list[JointSample]:
        """Send joint goals for some time and return what the joints did from the first one on."""
        first = len(self.node.joints)
        for _ in steadily(rate_hz, duration_s):
            self.node.send_joints(goal)
        return self.node.joints[first:]

    def act(self, actions: Sequence[EeDeltaValue], rate_hz: float = 10.0) -> tuple[float, list[JointSample]]:
        """Send actions at a steady rate; return when the first was sent [s], and what the joints did."""
        first, start = len(self.node.joints), 0.0
        pending = iter(enumerate(actions))
        for now in steadily(rate_hz, (len(actions) + 1) / rate_hz):
            start = start or now
            index, action = next(pending, (len(actions), EeDeltaValue(np.zeros(3), actions[-1].opening)))
            self.node.send_action(action, index)
        return start, self.node.joints[first:]

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()


def steadily(rate_hz: float, duration_s: float) -> Any:
    """Yield monotonic times [s] at a steady rate for some time."""
    start = time.monotonic()
    for number in range(round(duration_s * rate_hz)):
        due = start + number / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
        yield due


def resampled(samples: Sequence[JointSample], times: FloatArray) -> FloatArray:
    """Return joint positions (n, 6) at some times (n,) [s], linear between samples."""
    known = np.array([sample.time_s for sample in samples])
    positions = np.array([sample.position for sample in samples])
    return np.stack([np.interp(times, known, column) for column in positions.T], axis=1)
