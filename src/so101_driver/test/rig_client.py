# SPDX-License-Identifier: Apache-2.0
"""A client of an arm_node: keeps what it publishes, streams commands, calls its services."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from dataclasses import dataclass
import threading
import time
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus
from std_srvs.srv import SetBool, Trigger

from so101_contract.joints import JOINT_NAMES
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions, joint_state, ns_to_stamp, stamp_to_ns

Vector = npt.NDArray[np.float64]
COMMAND_RATE_HZ = 50.0
STATE_NAMES = {
    ArmStatus.DISABLED: 'disabled',
    ArmStatus.ENABLED: 'enabled',
    ArmStatus.HOLD: 'hold',
    ArmStatus.E_STOP: 'e_stop',
    ArmStatus.FAULT: 'fault',
}
# Everything counts here, unlike in a control loop.
_ALL = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
_ALL_LATCHED = QoSProfile(
    depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


@dataclass(frozen=True)
class Joints:
    """One joint_states message.

    Attributes:
        received_s: When it came [s, monotonic].
        stamp_s: Its stamp, on the same clock [s].
        stamp_ns: Its stamp as it came [ns].
        position: (6,) [rad].
        velocity: (6,) [rad/s].
    """

    received_s: float
    stamp_s: float
    stamp_ns: int
    position: Vector
    velocity: Vector


@dataclass(frozen=True)
class Status:
    """One arm/status message.

    Attributes:
        received_s: When it came [s, monotonic].
        state: Name of the state.
        message: The whole message.
    """

    received_s: float
    state: str
    message: Any


class ArmClient:
    """Everything that a user of the arm sees of it, from a thread of its own.

    Args:
        namespace: Namespace of the arm_node.
        name: What the client is called.

    Attributes:
        joints: Every whole joint_states since the last `forget`.
        partial: The newest one that lacks a joint.
        statuses: Every arm/status since then.
        sent_s: When each command since then was sent [s, monotonic].
    """

    def __init__(self, namespace: str = '', name: str = 'arm_client') -> None:
        self.joints: list[Joints] = []
        self.partial: JointState | None = None
        self.statuses: list[Status] = []
        self.sent_s: list[float] = []
        self._news = threading.Condition()
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        node = rclpy.create_node(name, namespace=namespace, context=self._context)
        self._node = node
        self._commands = node.create_publisher(JointState, topics.JOINT_COMMAND, qos.COMMAND)
        node.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, _ALL)
        node.create_subscription(ArmStatus, topics.ARM_STATUS, self._on_status, _ALL_LATCHED)
        self._switches = {
            name: node.create_client(SetBool, name)
            for name in (topics.ARM_ENABLE_SERVICE, topics.ARM_E_STOP_SERVICE)
        }
        self._triggers = {
            name: node.create_client(Trigger, name)
            for name in (topics.ARM_CLEAR_FAULT_SERVICE, topics.ARM_PARK_SERVICE)
        }
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        """End the thread and the ROS context."""
        self._context.try_shutdown()
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(2.0)
        self._node.destroy_node()  # else others would see it for as long as this process lives

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what comes --------------------------------------------------------------------------------------

    def _on_joints(self, message: JointState) -> None:
        now = time.monotonic()
        if len(message.name) < len(JOINT_NAMES):  # a servo is mute
            self.partial = message
            return
        stamp_ns = stamp_to_ns(message.header.stamp)
        stamp_s = stamp_ns / 1e9 - (time.time() - now)
        positions = joint_positions(message, JOINT_NAMES)
        with self._news:
            self.joints.append(Joints(now, stamp_s, stamp_ns, positions, np.array(message.velocity)))
            self._news.notify_all()

    def _on_status(self, message: ArmStatus) -> None:
        with self._news:
            self.statuses.append(Status(time.monotonic(), STATE_NAMES[message.state], message))
            self._news.notify_all()

    def wait(self, condition: Callable[[], Any], what: str, deadline_s: float = 100.0) -> Any:
        """Return what a condition on messages gives as soon as it is true, at the latest by a deadline."""
        with self._news:
            value = self._news.wait_for(condition, deadline_s)
        if not value:
            seen = ' '.join(dict.fromkeys(status.state for status in self.statuses))
            raise TimeoutError(f'Not within {deadline_s:g} s: {what} (states seen: {seen or "none"}).')
        return value

    def forget(self) -> None:
        """Forget everything that came and was sent."""
        self.joints, self.statuses, self.sent_s = [], [], []

    @property
    def state(self) -> str:
        """Name of the newest state, or empty before the first."""
        return self.statuses[-1].state if self.statuses else ''

    @property
    def reason(self) -> str:
        """Newest reason that the node gave for its state, or empty."""
        return self.statuses[-1].message.reason if self.statuses else ''

    @property
    def status(self) -> Any:
        """The newest arm/status, waiting for the first."""
        return self.wait(lambda: self.statuses and self.statuses[-1], 'arm/status').message

    def joints_after(self, time_s: float, deadline_s: float = 100.0) -> Joints:
        """Wait for joints that were read after a time [s, monotonic]."""

        def newest() -> Joints | None:
            return next((sample for sample in self.joints[-1:] if sample.stamp_s > time_s), None)

        found: Joints = self.wait(newest, 'joint_states', deadline_s)
        return found

    def fresh(self, deadline_s: float = 300.0) -> Joints:
        """Wait for joints that are read from now on."""
        return self.joints_after(time.monotonic(), deadline_s)

    def wait_for_state(self, *names: str, after_s: float = 0.0, deadline_s: float = 100.0) -> Status:
        """Wait for a status with one of these states that comes after a time [s, monotonic]."""

        def found() -> Status | None:
            return next((s for s in self.statuses if s.received_s > after_s and s.state in names), None)

        status: Status = self.wait(found, f'state {" or ".join(names)}', deadline_s)
        return status

    # ---- what goes ---------------------------------------------------------------------------------------

    def command(
        self,
        positions: Sequence[float] | Vector,
        names: Sequence[str] = JOINT_NAMES,
        *,
        age_s: float | None = 0.0,
    ) -> None:
        """Send one joint command.

        Args:
            positions: One for each name [rad].
            names: Joints.
            age_s: Age of its stamp [s]; None sends it without a stamp.
        """
        stamp = None if age_s is None else ns_to_stamp(time.time_ns() - round(age_s * 1e9))
        if len(names) == len(positions):
            message = joint_state(names, [float(value) for value in positions], stamp)
        else:
            message = JointState(name=list(names), position=[float(value) for value in positions])
            message.header.stamp = stamp or message.header.stamp
        self.sent_s.append(time.monotonic())
        self._commands.publish(message)

    @contextlib.contextmanager
    def streaming(
        self, target: Callable[[float], Vector], rate_hz: float = COMMAND_RATE_HZ
    ) -> Iterator[None]:
        """Context in which commands are streamed.

        Args:
            target: Joint positions (6,) [rad] at a time since the begin of the stream [s].
            rate_hz: Commands per second.
        """
        done = threading.Event()
        begin = time.monotonic()

        def stream() -> None:
            number = 0
            while not done.wait(max(0.0, begin + number / rate_hz - time.monotonic())):
                number = max(number + 1, round((time.monotonic() - begin) * rate_hz))
                self.command(target(time.monotonic() - begin))

        thread = threading.Thread(target=stream, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def enable(self, on: bool = True) -> Any:
        """Call arm/enable; return the response."""
        return self._call(self._switches[topics.ARM_ENABLE_SERVICE], SetBool.Request(data=on))

    def e_stop(self, stop: bool = True) -> Any:
        """Call arm/e_stop; return the response."""
        return self._call(self._switches[topics.ARM_E_STOP_SERVICE], SetBool.Request(data=stop))

    def stop_and_clear(self) -> None:
        """Call arm/e_stop twice, without waiting for the first answer."""
        client = self._switches[topics.ARM_E_STOP_SERVICE]
        asked = [client.call_async(SetBool.Request(data=stop)) for stop in (True, False)]
        self.wait(lambda: all(future.done() for future in asked), 'both answers of arm/e_stop')

    def clear_fault(self) -> Any:
        """Call arm/clear_fault; return the response."""
        return self._call(self._triggers[topics.ARM_CLEAR_FAULT_SERVICE], Trigger.Request())

    def park(self) -> Any:
        """Call arm/park; return the response."""
        return self._call(self._triggers[topics.ARM_PARK_SERVICE], Trigger.Request())

    def _call(self, client: Any, request: Any, deadline_s: float = 100.0) -> Any:
        if not client.wait_for_service(deadline_s):
            raise TimeoutError(f'{client.srv_name} is not there after {deadline_s:g} s.')
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(deadline_s):
            raise TimeoutError(f'{client.srv_name} did not answer within {deadline_s:g} s.')
        return future.result()
