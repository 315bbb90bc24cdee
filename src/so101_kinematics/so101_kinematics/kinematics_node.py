# SPDX-License-Identifier: Apache-2.0
"""Kinematics as a ROS node: actions of the hand in, joint commands out at 50 Hz; FK and IK for everybody."""

from collections.abc import Callable
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
import numpy as np
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus, EeDelta
from so101_interfaces.srv import ComputeFk, ComputeIk
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from so101_contract.joints import ARM_JOINTS, JOINT_NAMES
from so101_contract.messages import ExecutedAction
from so101_description.errors import DescriptionError
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions, joint_state, pose_message, stamp_to_ns
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import load_configs, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode
from so101_interfaces_py.voices import Voices
from so101_kinematics.config import KinematicsConfig, NodeConfig
from so101_kinematics.ee_controller import Command, EeController, Hold, read_action
from so101_kinematics.errors import KinematicsError
from so101_kinematics.fk import Array, ForwardKinematics
from so101_kinematics.ik import IkResult, InverseKinematics
from so101_kinematics.visualization import make_markers, PlacePublisher, TfPublisher

MODES = {ComputeIk.Request.POSITION, ComputeIk.Request.POSITION_PITCH, ComputeIk.Request.POSE}
# What a request can get wrong; each says so in a sentence.
REQUEST_ERRORS = (KinematicsError, DescriptionError, KeyError, ValueError)
CONFIG = (KinematicsConfig, NodeConfig)
# States of the arm in which something is commanded; in any other one the arm is let go.
FOLLOWING = (ArmStatus.ENABLED, ArmStatus.HOLD)
# An arm that was silent for so long, or a node that stood still for so long, begins again from what is measured: an arm
# that was let go in the meantime would otherwise be led back to an old goal as soon as its motors are on [s].
LOST_S = 0.25
# For so long after a stop no displacement counts: who decides on them may not have heard of it yet [s].
DEAF_S = 0.25


class KinematicsNode(SoleNode):
    """Turns ee_delta_cmd into joint_command. Callbacks store, the tick acts."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('kinematics_node', **node_options)
        self._config, self._node_config = load_configs(self, KinematicsConfig, NodeConfig)
        self._controller = EeController(self._config)
        self._joints: JointState | None = None
        self._positions: Array | None = None
        self._joints_s = float('-inf')
        self._action: ExecutedAction | Hold | None = None
        self._last_translation: Array | None = None
        self._following = True
        self._cycles = self._reconnects = 0
        self._ticked_s, self._deaf_s = float('inf'), float('-inf')
        self._tf: TfPublisher | None = None
        config = self._node_config
        self._base_frame = config.frame_prefix + self._config.base_frame
        if config.publish_tf:
            self._tf = TfPublisher(self, self._config.tcp, config.camera, config.frame_prefix)
        if config.world_frame:
            self._place = PlacePublisher(self, config.world_frame, self._base_frame, config.place)

        self._joint_command = self.create_publisher(JointState, topics.JOINT_COMMAND, qos.COMMAND)
        self._tcp_pose = self.create_publisher(PoseStamped, topics.TCP_POSE, qos.STATE_PUBLISHER)
        self._markers = self.create_publisher(MarkerArray, topics.MARKERS, qos.MARKERS)
        voices = Voices(self)
        measured = voices.only(topics.JOINT_STATES, self._on_joints)
        self.create_subscription(JointState, topics.JOINT_STATES, measured, qos.STATE_SUBSCRIBER)
        acts = voices.only(topics.EE_DELTA_CMD, self._on_delta)
        self.create_subscription(EeDelta, topics.EE_DELTA_CMD, acts, qos.COMMAND)
        status = voices.only(topics.ARM_STATUS, self._on_status)
        self.create_subscription(ArmStatus, topics.ARM_STATUS, status, qos.LATCHED_EVERY)
        services = KinematicsServices(self._config.tcp, self._base_frame, lambda: present_arm(self._joints))
        self.create_service(ComputeFk, topics.FK_SERVICE, services.compute_fk)
        self.create_service(ComputeIk, topics.IK_SERVICE, services.compute_ik)
        self.create_service(Trigger, topics.RESEED_SERVICE, self._on_reseed)
        self.create_service(Trigger, topics.HOLD_SERVICE, self._on_hold)
        # The steady clock: a step of the system's time must not stall the arm.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0 / self._config.rate_hz, self._tick, clock=clock)
        self._next_markers = float('-inf')
        self.get_logger().info(
            f'TCP {self._config.tcp}, profile {self._config.profile}, {self._config.rate_hz:.0f} Hz'
        )

    # --- callbacks ---

    def _on_joints(self, message: JointState) -> None:
        self._positions = joint_positions(message, JOINT_NAMES)
        self._joints = message
        self._joints_s = self._monotonic(message.header.stamp)

    def _on_delta(self, message: EeDelta) -> None:
        if time.monotonic() < self._deaf_s:
            return
        stamp_ns = round(self._monotonic(message.header.stamp) * 1e9)
        self._action = read_action(message, self._config.base_frame, stamp_ns)

    def _on_status(self, message: ArmStatus) -> None:
        self._following = message.state in FOLLOWING
        again = message.cycles < self._cycles or message.reconnects != self._reconnects
        self._cycles, self._reconnects = message.cycles, message.reconnects
        if again or not self._following:
            self._let_go()  # at once: the next tick may find it on again
            self._deaf_s = time.monotonic() + DEAF_S

    def _on_reseed(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._positions is not None
        if self._positions is None:
            response.message = 'no joint_states have arrived; is arm_node running?'
        else:
            self._action = None  # one that has come and has not begun yet does not begin
            self._controller.reseed(self._positions)
        return response

    def _on_hold(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._action = None
        self._controller.stop()
        response.success = True
        return response

    # --- the tick ---

    def _tick(self) -> None:
        now_s = time.monotonic()
        stood_still, self._ticked_s = now_s - self._ticked_s > LOST_S, now_s
        if not self._following or stood_still or now_s - self._joints_s > LOST_S:
            self._let_go()
        action, self._action = self._action, None
        command = self._controller.update(now_s, self._positions, self._joints_s, action)
        stamp = self.get_clock().now().to_msg()
        if command.q_goal is not None:
            self._joint_command.publish(joint_state(JOINT_NAMES, command.q_goal.tolist(), stamp))
        if action is not None and command.reason is not None:
            self.get_logger().warning(f'holding: {command.reason}', throttle_duration_sec=1.0)
        if isinstance(action, ExecutedAction):
            self._last_translation = action.translation
        self._publish_measured()
        if now_s >= self._next_markers:
            self._next_markers = now_s + 1.0 / self._node_config.marker_rate_hz
            self._publish_markers(command)

    def _let_go(self) -> None:
        """Begin again from where the arm is found: nothing holds it, or not this node."""
        self._controller.release()
        self._action = None

    def _publish_measured(self) -> None:
        if self._joints is None or self._positions is None or not np.isfinite(self._positions).all():
            return
        pose = self._controller.fk.pose(self._positions)
        message = PoseStamped(pose=pose_message(pose.position, pose.quat_xyzw))
        message.header.stamp = self._joints.header.stamp
        message.header.frame_id = self._base_frame
        self._tcp_pose.publish(message)
        if self._tf is not None:
            self._tf.publish(self._joints.header.stamp, dict(zip(JOINT_NAMES, self._positions, strict=True)))

    def _publish_markers(self, command: Command) -> None:
        if self._markers.get_subscription_count() == 0:
            return
        self._markers.publish(
            make_markers(
                self.get_clock().now().to_msg(),
                self._base_frame,
                workspace=self._config.workspace,
                setpoint=command.setpoint,
                translation=None if command.held else self._last_translation,
                text=str(command.reason) if command.reason else '',
            )
        )

    def _monotonic(self, stamp: Any) -> float:
        """Turn a stamp into the monotonic time at which it was made [s]."""
        age_s = (self.get_clock().now().nanoseconds - stamp_to_ns(stamp)) / 1e9
        return time.monotonic() - age_s


class KinematicsServices:
    """Answers requests; one solver is kept for each TCP that is asked for.

    Args:
        tcp: TCP of requests that name none.
        base_frame: Frame of every pose.
        present: Returns the arm's present joints (5,) [rad], or None.
    """

    def __init__(self, tcp: str, base_frame: str, present: Callable[[], Array | None]) -> None:
        self._tcp = tcp
        self._base_frame = base_frame
        self._present = present
        self._solvers: dict[str, InverseKinematics] = {}

    def compute_fk(self, request: ComputeFk.Request, response: ComputeFk.Response) -> ComputeFk.Response:
        """Pose of the TCP for a joint vector."""
        try:
            q = joint_positions(request.joints, ARM_JOINTS)
            pose = self._solver(request.tcp).fk.pose(q)
        except REQUEST_ERRORS as error:
            response.success, response.message = False, _sentence(error)
            return response
        response.success = True
        response.pose.header.frame_id = self._base_frame
        response.pose.pose = pose_message(pose.position, pose.quat_xyzw)
        return response

    def compute_ik(self, request: ComputeIk.Request, response: ComputeIk.Response) -> ComputeIk.Response:
        """Joint vector for a pose of the TCP; the closest one where there is none."""
        try:
            result = self._solve(request)
        except REQUEST_ERRORS as error:
            response.success, response.message = False, _sentence(error)
            response.position_error = response.orientation_error = float('nan')
            return response
        response.success = result.success
        response.joints = joint_state(ARM_JOINTS, result.q.tolist())
        response.position_error = result.position_error
        response.orientation_error = max(result.pitch_error, result.orientation_error)
        if not result.success:
            response.message = (
                f'the target is out of reach: the closest pose is {1e3 * result.position_error:.1f} mm and '
                f'{np.degrees(response.orientation_error):.1f} degrees away.'
            )
        return response

    def _solve(self, request: ComputeIk.Request) -> IkResult:
        if request.mode not in MODES:
            raise ValueError(f'mode {request.mode} is not one of {sorted(MODES)}; see ComputeIk.')
        seed = joint_positions(request.seed, ARM_JOINTS) if request.seed.name else self._present()
        if seed is None:
            raise ValueError('the request has no seed and no joint_states have arrived; give a seed.')
        point, turn = request.target.position, request.target.orientation
        position = np.array([point.x, point.y, point.z])
        solver = self._solver(request.tcp)
        if request.mode == ComputeIk.Request.POSITION_PITCH:
            return solver.solve(position, seed, pitch=request.pitch, locked=request.locked)
        if request.mode == ComputeIk.Request.POSE:
            rotation = _rotation(np.array([turn.w, turn.x, turn.y, turn.z]))
            return solver.solve(position, seed, rotation=rotation, locked=request.locked)
        return solver.solve(position, seed, locked=request.locked)

    def _solver(self, tcp: str) -> InverseKinematics:
        name = tcp or self._tcp
        if name not in self._solvers:
            self._solvers[name] = InverseKinematics(ForwardKinematics(name))
        return self._solvers[name]


def present_arm(message: JointState | None) -> Array | None:
    """Arm joints (5,) [rad] of a message, or None where there is no usable one."""
    if message is None:
        return None
    try:
        return joint_positions(message, ARM_JOINTS)
    except (KeyError, ValueError):
        return None


def _rotation(quat_wxyz: Array) -> Array:
    from so101_contract.orientation import unit_quat_to_matrix

    norm = float(np.linalg.norm(quat_wxyz))
    if not np.isfinite(norm) or abs(norm - 1.0) > 1e-3:
        raise ValueError(f'expected a unit quaternion, got one of length {norm:.3g}; normalise it.')
    return unit_quat_to_matrix((quat_wxyz / norm).tolist())


def _sentence(error: Exception) -> str:
    # str() of a KeyError is the repr of its message.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def main() -> None:
    """Run the node."""
    leave(run_node(KinematicsNode, (KinematicsError, ParameterError), urgent=True))


if __name__ == '__main__':
    main()
