# SPDX-License-Identifier: Apache-2.0
"""The arm as a ROS node: 100 times a second it reads the joints, lets the safety gate decide, and writes."""

from dataclasses import replace
from pathlib import Path
import signal
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus
from std_srvs.srv import SetBool, Trigger

from so101_contract.messages import joint_message, JointSample
from so101_driver.arm import Arm, ArmMismatchError, ArmState, DriverConfig
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError
from so101_driver.calibration.files import find_calibration
from so101_driver.gate.config import GateConfig
from so101_driver.gate.gate import SafetyGate
from so101_driver.gate.types import Reply
from so101_driver.messages import diagnostics_message, LoopTiming, status_message
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import ns_to_stamp, stamp_to_ns
from so101_interfaces_py.endings import ignore_endings, leave, tell
from so101_interfaces_py.params import load_configs, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode
from so101_interfaces_py.voices import Voices

CONFIG = (DriverConfig, GateConfig)
DIAGNOSTICS_PERIOD_S = 1.0
# A second SIGINT or SIGTERM ends parking at once; one that follows the first this closely is the same Ctrl-C [s].
SECOND_SIGNAL_S = 0.3
CONNECT_RETRY_S = 0.1


class ArmNode(SoleNode):
    """Owner of the servo bus. Callbacks store, the tick acts."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('arm_node', **node_options)
        self._config, gate_config = load_configs(self, DriverConfig, GateConfig)
        calibration = self._find_calibration()
        self._gate = SafetyGate(gate_config, tuple(joint.id for joint in calibration.joints.values()))
        bus = ServoBus(self._config.port, ids=tuple(joint.id for joint in calibration.joints.values()))
        self._arm = Arm(bus, calibration, self._gate, bus.now)
        self._now = bus.now
        self._connect()
        self._frame_id = self._config.frame_prefix + self._config.frame_id
        self._timing = LoopTiming(1.0 / self._config.rate_hz)
        self._state: ArmState | None = None
        self._said: tuple[object, ...] = ()
        self._next_status = self._next_diagnostics = self._command_time = float('-inf')
        self._wants_enable = self._config.enable_at_start

        self._joint_states = self.create_publisher(JointState, topics.JOINT_STATES, qos.STATE_PUBLISHER)
        self._status = self.create_publisher(ArmStatus, topics.ARM_STATUS, qos.LATCHED_RECENT)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, qos.DIAGNOSTICS)
        self._voices = voices = Voices(self)
        commanded = voices.only(topics.JOINT_COMMAND, self._on_command)
        self.create_subscription(JointState, topics.JOINT_COMMAND, commanded, qos.COMMAND)
        enable = voices.calls(topics.ARM_ENABLE_SERVICE, self._on_enable)
        self.create_service(SetBool, topics.ARM_ENABLE_SERVICE, enable)
        # Whoever calls may stop the arm.
        e_stop = voices.calls(topics.ARM_E_STOP_SERVICE, self._on_e_stop, lambda request: request.data)
        self.create_service(SetBool, topics.ARM_E_STOP_SERVICE, e_stop)
        clear = voices.calls(topics.ARM_CLEAR_FAULT_SERVICE, self._on_clear_fault)
        self.create_service(Trigger, topics.ARM_CLEAR_FAULT_SERVICE, clear)
        park = voices.calls(topics.ARM_PARK_SERVICE, self._on_park)
        self.create_service(Trigger, topics.ARM_PARK_SERVICE, park)
        # The steady clock: a step of the system's time must not stall the arm.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0 / self._config.rate_hz, self._tick, clock=clock)
        name = f'{self._config.port}, calibration {calibration.calibration_id}'
        self.get_logger().info(f'arm on {name}, {self._config.rate_hz:.0f} Hz')

    def close(self) -> None:
        """Park and release as the exit policy says, then close the port. Needs no ROS; safe to call twice."""
        if not self._arm.bus.is_open:
            return
        began = time.monotonic()
        deadline = began + self._config.exit_timeout_s

        def end_at_once(*_: Any) -> None:
            if time.monotonic() - began > SECOND_SIGNAL_S:
                raise KeyboardInterrupt

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end_at_once)
        try:
            self._gate.request_exit(self._now())
            while self._gate.parking and time.monotonic() < deadline:
                self._arm.cycle()
                time.sleep(1.0 / self._config.rate_hz)
        except KeyboardInterrupt:
            pass
        finally:
            self._arm.close()
            ignore_endings()  # nothing is left to be interrupted
        how = 'released on the way to the rest pose' if self._gate.parking else self._gate.reason
        tell(f'arm_node: {how}; {self._config.port} is closed')

    # --- the tick ---

    def _tick(self) -> None:
        now = time.monotonic()
        self._timing.tick(now)
        state = self._arm.cycle()
        self._state = state
        if self._wants_enable and state.complete:
            self._wants_enable = False
            self._report(self._gate.request_enable(self._now()))
        stamp_ns = self.get_clock().now().nanoseconds - round((self._now() - state.reading.stamp_s) * 1e9)
        # Before the joints: who sees them again after a loss must know already that the arm was lost.
        if now >= self._next_status or self._news(state) != self._said:
            self._publish_status(now, state, stamp_ns)
        if state.complete or state.mute:
            sample = JointSample(stamp_ns, state.reading.position_rad, state.velocity_rad_s)
            self._joint_states.publish(joint_message(sample, self._frame_id, without=state.mute))

    def _news(self, state: ArmState) -> tuple[object, ...]:
        """Return what is published as soon as it changes."""
        output = state.output
        return output.state, output.reason, output.torque, self._arm.bus.counters.reconnects

    def _publish_status(self, now: float, state: ArmState, stamp_ns: int) -> None:
        self._said = self._news(state)
        self._next_status = now + 1.0 / self._config.status_rate_hz
        stamp, loop, counters = ns_to_stamp(stamp_ns), self._timing.regularity(), self._arm.bus.counters
        age = self._now() - self._command_time
        message = status_message(
            state,
            stamp,
            calibration_id=self._arm.calibration.calibration_id,
            command_age=age if age < float('inf') else float('nan'),
            bus=counters,
            gate=self._gate.counters,
            loop=loop,
        )
        message.reason = '; '.join(filter(None, (message.reason, self._voices.trouble)))
        self._status.publish(message)
        if now >= self._next_diagnostics:
            self._next_diagnostics = now + DIAGNOSTICS_PERIOD_S
            port = self._config.port
            self._diagnostics.publish(diagnostics_message(state, stamp, port=port, bus=counters, loop=loop))

    # --- requests ---

    def _on_command(self, message: JointState) -> None:
        now = self._now()
        stamp_ns = stamp_to_ns(message.header.stamp)
        # Without a stamp, its arrival counts: `ros2 topic pub` sets none.
        age = (self.get_clock().now().nanoseconds - stamp_ns) / 1e9 if stamp_ns else 0.0
        reply = self._gate.command(now, age, message.name, message.position)
        if reply.accepted:
            self._command_time = now
        else:
            self.get_logger().warning(reply.sentence, throttle_duration_sec=1.0)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        now = self._now()
        return self._answer(
            self._gate.request_enable(now) if request.data else self._gate.request_disable(now), response
        )

    def _on_e_stop(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        now = self._now()
        return self._answer(
            self._gate.request_e_stop(now) if request.data else self._gate.clear_e_stop(now), response
        )

    def _on_clear_fault(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(self._gate.clear_fault(self._now()), response)

    def _on_park(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(self._gate.request_park(self._now()), response)

    def _answer(self, reply: Reply, response: Any) -> Any:
        self._report(reply)
        if self._state is not None and reply.accepted:
            # At once: a stop that is cleared before the next cycle must not go unheard.
            output = replace(self._state.output, state=self._gate.state, reason=self._gate.reason)
            now_ns = self.get_clock().now().nanoseconds
            self._publish_status(time.monotonic(), replace(self._state, output=output), now_ns)
        response.success, response.message = reply.accepted, reply.sentence
        return response

    def _report(self, reply: Reply) -> None:
        if not reply.accepted:
            self.get_logger().warning(reply.sentence)

    # --- starting ---

    def _find_calibration(self) -> ArmCalibration:
        """Find the calibration; wait for it while there is no port: a virtual arm brings both along."""
        deadline = time.monotonic() + self._config.connect_timeout_s
        waiting = False
        while True:
            try:
                return find_calibration(self._config.calibration)
            except CalibrationError:
                if Path(self._config.port).exists() or time.monotonic() > deadline:
                    raise
                if not waiting:
                    self.get_logger().info(f'waiting for {self._config.port}')
                waiting = True
            time.sleep(CONNECT_RETRY_S)

    def _connect(self) -> None:
        """Connect to the arm; wait for one whose port or power is not there yet, or that hardly answers."""
        deadline = time.monotonic() + self._config.connect_timeout_s
        waiting = False
        while True:
            try:
                self._arm.connect()
                return
            except BusError as error:
                if time.monotonic() > deadline:
                    raise
                if not waiting:
                    self.get_logger().info(f'waiting for the arm: {error}')
                waiting = True
            time.sleep(CONNECT_RETRY_S)


def main() -> None:
    """Run the node."""
    leave(run_node(ArmNode, (BusError, CalibrationError, ArmMismatchError, ParameterError), urgent=True))


if __name__ == '__main__':
    main()
