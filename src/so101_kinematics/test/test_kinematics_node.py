# SPDX-License-Identifier: Apache-2.0
"""The real node in a process of its own; the test plays an arm that goes where it is told."""

import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus, EeDelta
from so101_interfaces.srv import ComputeFk, ComputeIk
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from so101_contract.joints import ARM_JOINTS, JOINT_NAMES
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions, joint_state
from so101_kinematics.fk import ForwardKinematics

START = np.array([0.0, -0.4, 0.6, 0.8, 0.0, 0.5])
FK = ForwardKinematics()


class Arm:
    """An arm without inertia at 100 Hz, and whatever the node publishes."""

    def __init__(self):
        self.node = rclpy.create_node('test_arm', namespace='left')
        self.q = START.copy()
        self.obeys = self.speaks = True
        self.commands = []
        self.poses = []
        self.latest = {}
        self.states = self.node.create_publisher(JointState, topics.JOINT_STATES, qos.STATE_PUBLISHER)
        self.deltas = self.node.create_publisher(EeDelta, topics.EE_DELTA_CMD, qos.COMMAND)
        self.status = self.node.create_publisher(ArmStatus, topics.ARM_STATUS, qos.LATCHED)
        self.node.create_subscription(JointState, topics.JOINT_COMMAND, self._on_command, qos.COMMAND)
        self.node.create_subscription(PoseStamped, topics.TCP_POSE, self.poses.append, qos.STATE_SUBSCRIBER)
        for kind, name, profile in (
            (MarkerArray, topics.MARKERS, qos.MARKERS),
            (String, topics.ROBOT_DESCRIPTION, qos.LATCHED),
            (TFMessage, topics.TF, qos.TF),
            (TFMessage, topics.TF_STATIC, qos.LATCHED),
        ):
            keep = lambda message, name=name: self.latest.__setitem__(name, message)
            self.node.create_subscription(kind, name, keep, profile)
        self.node.create_timer(0.01, self._publish)

    def _publish(self):
        if self.speaks:
            self.states.publish(joint_state(JOINT_NAMES, self.q, self.node.get_clock().now().to_msg()))

    def _on_command(self, message):
        self.commands.append(joint_positions(message, JOINT_NAMES))
        if self.obeys:
            self.q = self.commands[-1].copy()

    def delta(self, xyz, gripper=0.5, frame='base_link', age_s=0.0, source=EeDelta.SOURCE_TELEOP):
        message = EeDelta(gripper=gripper, source=source)
        message.header.frame_id = frame
        message.header.stamp = (self.node.get_clock().now() - rclpy.duration.Duration(seconds=age_s)).to_msg()
        message.translation.x, message.translation.y, message.translation.z = map(float, xyz)
        self.deltas.publish(message)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.01)

    def spin_until(self, condition, timeout=200.0):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, 'waited too long'
            rclpy.spin_once(self.node, timeout_sec=0.01)

    def call(self, kind, name, request):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(200.0)
        future = client.call_async(request)
        self.spin_until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def tcp(self):
        return FK.pose(self.q).position

    def rest(self):
        """Wait until the node has forgotten the last action, and begin again from the start pose."""
        self.spin(0.4)
        self.obeys, self.q = False, START.copy()
        self.spin(0.2)
        self.call(Trigger, topics.RESEED_SERVICE, Trigger.Request())
        self.spin(0.1)
        self.obeys = True
        self.commands.clear()

    def act_until(self, act, done):
        """Act from the start pose; again from there, where a busy machine made an action stale on the way."""
        for _ in range(20):
            self.rest()
            act()
            end = time.monotonic() + 2.0
            while time.monotonic() < end and not done():
                rclpy.spin_once(self.node, timeout_sec=0.01)
            if done():
                return
        pytest.fail('the actions had no effect in twenty attempts')

    def say_until(self, xyz, done):
        """Send an action, again and again, until it has an effect."""
        end = time.monotonic() + 200.0
        while not done():
            assert time.monotonic() < end, 'waited too long'
            self.delta(xyz)
            self.spin(0.1)


@pytest.fixture(scope='module')
def arm(start):
    rclpy.init()
    start('so101_kinematics', 'kinematics_node', '--ros-args', '-r', '__ns:=/left')
    arm = Arm()
    arm.spin_until(lambda: arm.poses and arm.deltas.get_subscription_count())
    yield arm
    arm.node.destroy_node()
    rclpy.try_shutdown()


def test_F9_an_action_moves_the_tcp_along_the_axes_of_the_base(arm):
    before = FK.pose(START).position

    def act():
        for _ in range(10):
            arm.delta([0.0, 0.004, 0.002])
            arm.spin(0.1)

    arm.act_until(act, lambda: np.linalg.norm(arm.tcp() - before - [0.0, 0.04, 0.02]) < 2e-3)


def test_A6_the_gripper_is_an_opening_not_a_difference(arm):
    def act():
        for _ in range(8):
            arm.delta([0.0, 0.0, 0.0], gripper=1.0)
            arm.spin(0.1)

    arm.act_until(act, lambda: arm.commands and arm.commands[-1][5] > 1.7)


@pytest.mark.parametrize(
    'action',
    [{'xyz': [0.02, float('nan'), 0.0]}, {'xyz': [0.02, 0.0, 0.0], 'gripper': float('nan')},
     {'xyz': [0.02, 0.0, 0.0], 'frame': 'gripper_frame_link'}, {'xyz': [0.02, 0.0, 0.0], 'age_s': 1.0}],
    ids=['NaN', 'NaN gripper', 'wrong frame', 'stale'],
)  # fmt: skip
def test_A14_a_bad_action_moves_nothing(arm, action):
    arm.rest()
    before = arm.q.copy()
    for _ in range(5):
        arm.delta(**action)
        arm.spin(0.1)
    assert np.abs(arm.q - before).max() < 1e-6


def test_a_huge_action_is_shortened_and_the_loop_goes_on(arm):
    before = FK.pose(START).position
    arm.act_until(lambda: arm.delta([1e6, 0.0, 0.0]), lambda: np.linalg.norm(arm.tcp() - before) > 0.005)
    arm.spin(0.5)
    assert np.linalg.norm(arm.tcp() - before) < 0.06


def test_an_arm_that_does_not_follow_gets_no_commands_and_is_picked_up_where_it_is(arm):
    arm.rest()
    arm.say_until([0.0, 0.0, 0.01], lambda: arm.commands)
    arm.status.publish(ArmStatus(state=ArmStatus.E_STOP))
    arm.spin(0.3)
    arm.commands.clear()
    for _ in range(3):
        arm.delta([0.0, 0.0, 0.01])
        arm.spin(0.1)
    assert arm.commands == []
    arm.q = START + np.array([0.3, 0.1, 0.0, 0.0, 0.0, 0.0])  # somebody moved it meanwhile
    moved = arm.q.copy()
    arm.status.publish(ArmStatus(state=ArmStatus.ENABLED))
    arm.spin(0.3)
    arm.say_until([0.0, 0.0, 0.005], lambda: arm.commands)
    assert np.abs(arm.commands[0] - moved)[:5].max() < 0.05


def one_breath(arm):
    for state in (ArmStatus.E_STOP, ArmStatus.DISABLED, ArmStatus.ENABLED):
        arm.status.publish(ArmStatus(state=state, cycles=1000))


def started_again(arm):
    arm.status.publish(ArmStatus(state=ArmStatus.ENABLED, cycles=3))


def connected_again(arm):
    arm.status.publish(ArmStatus(state=ArmStatus.ENABLED, cycles=1000, reconnects=1))


def silent(arm):
    arm.speaks = False
    arm.spin(0.6)
    arm.speaks = True


@pytest.mark.parametrize('lose', [one_breath, started_again, connected_again, silent])
def test_an_arm_that_was_lost_for_a_moment_is_not_led_back_to_the_old_goal(arm, lose):
    arm.status.publish(ArmStatus(state=ArmStatus.ENABLED, cycles=1000))
    arm.rest()
    arm.say_until([0.0, 0.0, 0.01], lambda: arm.commands)
    arm.spin(0.4)  # it holds there
    lose(arm)
    arm.obeys, arm.q = (
        False,
        START + np.array([0.3, 0.1, 0.0, 0.0, 0.0, 0.0]),
    )  # it fell, or somebody moved it
    arm.spin(0.3)
    arm.commands.clear()
    arm.spin(0.5)
    assert arm.commands == []


def test_the_measured_pose_is_that_of_the_readings(arm):
    arm.rest()
    arm.poses.clear()
    arm.spin_until(lambda: len(arm.poses) > 3)
    point = arm.poses[-1].pose.position
    assert np.linalg.norm(FK.pose(START).position - [point.x, point.y, point.z]) < 1e-6
    assert arm.poses[-1].header.frame_id == 'base_link'


def test_fk_and_ik_agree_between_processes(arm):
    random = np.random.default_rng(0)
    for _ in range(20):
        q = START[:5] + random.uniform(-0.3, 0.3, 5)
        answer = arm.call(
            ComputeFk, topics.FK_SERVICE, ComputeFk.Request(joints=joint_state(ARM_JOINTS[::-1], q[::-1]))
        )
        assert answer.success
        request = ComputeIk.Request(
            mode=ComputeIk.Request.POSITION, target=answer.pose.pose, seed=joint_state(ARM_JOINTS, START[:5])
        )
        found = arm.call(ComputeIk, topics.IK_SERVICE, request)
        assert found.success
        reached = FK.pose(joint_positions(found.joints, ARM_JOINTS)).position
        point = answer.pose.pose.position
        assert np.linalg.norm(reached - [point.x, point.y, point.z]) <= 5e-4


def test_ik_starts_from_the_present_pose_when_no_seed_is_given(arm):
    arm.rest()
    request = ComputeIk.Request(mode=ComputeIk.Request.POSITION)
    point = request.target.position
    point.x, point.y, point.z = map(float, FK.pose(START).position)
    found = arm.call(ComputeIk, topics.IK_SERVICE, request)
    assert np.abs(joint_positions(found.joints, ARM_JOINTS) - START[:5]).max() < 0.02


def test_an_unreachable_target_gets_the_residual_and_the_closest_pose(arm):
    request = ComputeIk.Request(mode=ComputeIk.Request.POSITION, seed=joint_state(ARM_JOINTS, START[:5]))
    request.target.position.x = 2.0
    found = arm.call(ComputeIk, topics.IK_SERVICE, request)
    assert not found.success
    assert 1.4 < found.position_error < 1.7
    assert 'out of reach' in found.message


@pytest.mark.parametrize(
    ('change', 'word'),
    [({'mode': 9}, 'mode'), ({'tcp': 'nowhere'}, 'nowhere'), ({'locked': ['elbow']}, 'elbow'),
     ({'seed': joint_state(['shoulder_pan'], [0.0])}, 'shoulder_lift')],
    ids=['mode', 'tcp', 'locked', 'seed'],
)  # fmt: skip
def test_a_bad_request_is_answered_with_what_is_wrong(arm, change, word):
    request = ComputeIk.Request(seed=joint_state(ARM_JOINTS, START[:5]))
    for name, value in change.items():
        setattr(request, name, value)
    answer = arm.call(ComputeIk, topics.IK_SERVICE, request)
    assert not answer.success
    assert word in answer.message


def test_F8_the_tcp_of_a_request_may_differ_from_the_nodes(arm):
    zeros = joint_state(ARM_JOINTS, np.zeros(5))
    answer = arm.call(ComputeFk, topics.FK_SERVICE, ComputeFk.Request(joints=zeros, tcp='pick101'))
    point = answer.pose.pose.position
    assert np.allclose([point.x, point.y, point.z], [0.39136, -0.00018, 0.23437], atol=1e-5)


def test_links_and_description_are_published_where_no_robot_state_publisher_does(arm):
    arm.spin_until(lambda: topics.TF in arm.latest and topics.ROBOT_DESCRIPTION in arm.latest)
    assert '<robot' in arm.latest[topics.ROBOT_DESCRIPTION].data
    moving = {transform.child_frame_id for transform in arm.latest[topics.TF].transforms}
    assert 'gripper_link' in moving
    fixed = {transform.child_frame_id for transform in arm.latest[topics.TF_STATIC].transforms}
    assert {'gripper_frame_link', 'gripper_cam_optical_frame'} <= fixed


def test_rviz_gets_setpoint_and_workspace(arm):
    arm.rest()
    arm.say_until([0.0, 0.0, 0.01], lambda: len(arm.latest.get(topics.MARKERS, MarkerArray()).markers) == 4)
