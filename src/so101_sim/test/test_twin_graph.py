# SPDX-License-Identifier: Apache-2.0
"""The twin, the real arm_node and kinematics_node, and the scripted operator, each a process of its own."""

import signal
import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from sensor_msgs.msg import CameraInfo, Image
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, Step, TaskReport
from so101_interfaces.srv import EndEpisode
from std_srvs.srv import SetBool, Trigger

from so101_contract.task_report import to_record
from so101_interfaces_py import qos, topics
from so101_testing.graph import Graph


class Listener:
    """What the graph says, and the services of the arm."""

    def __init__(self, graph):
        self.graph = graph
        self.operator = graph.start(
            'operator', mode='demonstrate', topic=topics.EE_DELTA_CMD, episodes=2, seed=1
        )
        self.node = rclpy.create_node('test_twin')
        self.statuses, self.truths, self.images, self.infos = [], [], [], []
        self.node.create_subscription(ArmStatus, topics.ARM_STATUS, self.statuses.append, qos.LATCHED)
        self.node.create_subscription(TaskReport, topics.SIM_TASK, self.truths.append, qos.STATE_SUBSCRIBER)
        self.node.create_subscription(Image, topics.IMAGE, self.images.append, qos.IMAGE)
        self.node.create_subscription(CameraInfo, topics.CAMERA_INFO, self.infos.append, qos.IMAGE)

    def spin_until(self, condition, timeout=600.0):
        end = time.monotonic() + timeout
        while not condition():
            assert all(self.graph.running(name) for name in ('twin', 'arm', 'kinematics'))
            assert time.monotonic() < end, 'not in time; see the output of the nodes'
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def spin_for(self, duration):
        end = time.monotonic() + duration
        self.spin_until(lambda: time.monotonic() >= end)

    def call(self, kind, name, request):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(200.0)
        future = client.call_async(request)
        self.spin_until(future.done)
        return future.result()


@pytest.fixture(scope='module')
def graph():
    rclpy.init()
    with Graph('arm', 'kinematics') as processes:
        listener = Listener(processes)
        yield listener
        listener.node.destroy_node()
    rclpy.try_shutdown()


def test_the_operator_lifts_the_cube_with_the_driver_that_moves_metal(graph):
    graph.spin_until(lambda: graph.operator.poll() is not None, 90.0)
    assert graph.operator.returncode == 0
    assert len({report.resets for report in graph.truths if report.success}) == 2


def test_ground_truth_is_published(graph):
    graph.spin_until(lambda: graph.truths)
    assert np.isfinite(to_record(graph.truths[-1]).state.truth.cube_position).all()


def test_the_scene_can_be_reset(graph):
    assert graph.call(Trigger, 'sim/reset', Trigger.Request()).success


def test_the_wrist_camera_streams_until_it_hangs(graph):
    graph.spin_until(lambda: graph.images and graph.infos)
    image, info = graph.images[-1], graph.infos[-1]
    assert (image.width, image.height, image.encoding) == (info.width, info.height, 'rgb8')
    assert image.header.frame_id == 'gripper_cam_optical_frame'
    assert info.k[0] > 0.0
    assert np.frombuffer(image.data, np.uint8).std() > 10.0
    assert graph.call(SetBool, 'sim/freeze_camera', SetBool.Request(data=True)).success
    graph.spin_for(0.2)
    graph.images.clear()
    graph.spin_for(0.4)
    assert not graph.images
    assert graph.call(SetBool, 'sim/freeze_camera', SetBool.Request(data=False)).success
    graph.spin_until(lambda: graph.images)


class Session:
    """Plays the session: one episode of steps, and what the operator makes of them."""

    def __init__(self, listener):
        node = listener.node
        self.asked, self.answers, self.labels = [], [], []
        self.events = node.create_publisher(EpisodeEvent, topics.EPISODE_EVENT, qos.EVENT)
        self.steps = node.create_publisher(Step, topics.STEP, qos.EVENT)
        node.create_subscription(EeDelta, topics.TELEOP_EE_DELTA, self.answers.append, qos.COMMAND)
        node.create_service(SetBool, topics.INTERVENE_SERVICE, self._on_intervene)
        node.create_service(EndEpisode, topics.END_EPISODE_SERVICE, self._on_label)

    def _on_label(self, request, response):
        self.labels.append((request.outcome, request.episode))
        response.success = True
        return response

    def _on_intervene(self, request, response):
        self.asked.append(request.data)
        response.success = True
        return response


def test_an_operator_answers_the_steps_of_a_session_and_tells_it_so(graph):
    operator = graph.graph.start('operator', patience_s=0.3, labels='all', wrong_label_share=1.0)
    session = Session(graph)
    graph.spin_until(
        lambda: session.steps.get_subscription_count() and session.events.get_subscription_count()
    )
    session.events.publish(EpisodeEvent(episode=5, kind=EpisodeEvent.START))
    for index in range(600):  # it needs the ground truth too, and its patience
        session.steps.publish(Step(episode=5, index=index))
        graph.spin_for(0.1)
        assert graph.graph.running('operator')
        if session.asked and len(session.answers) > 5:
            break
    assert session.asked == [True]
    assert {answer.episode for answer in session.answers} == {5}
    indices = [answer.index for answer in session.answers]
    assert indices == list(range(indices[0], indices[0] + len(indices)))
    assert {answer.source for answer in session.answers} == {EeDelta.SOURCE_TELEOP}
    session.events.publish(EpisodeEvent(episode=5, kind=EpisodeEvent.TIME_LIMIT))
    graph.spin_until(lambda: session.asked == [True, False] and session.labels)
    assert session.labels == [(EndEpisode.Request.SUCCESS, 5)]  # which it was not: all its labels are wrong
    operator.send_signal(signal.SIGINT)
    assert operator.wait(150.0) == 0


def test_the_driver_notices_a_pulled_cable_and_comes_back(graph):
    assert graph.call(SetBool, 'sim/unplug', SetBool.Request(data=True)).success
    graph.spin_until(lambda: graph.statuses[-1].state in (ArmStatus.HOLD, ArmStatus.FAULT))
    assert graph.call(SetBool, 'sim/unplug', SetBool.Request(data=False)).success
    before = graph.statuses[-1].reconnects
    graph.spin_until(
        lambda: graph.statuses[-1].reconnects > before or max(graph.statuses[-1].reading_age) < 0.05
    )


def test_a_stopped_arm_falls_as_physics_says(graph):
    assert graph.call(SetBool, topics.ARM_E_STOP_SERVICE, SetBool.Request(data=True)).success
    graph.spin_until(
        lambda: graph.statuses[-1].state == ArmStatus.E_STOP and not any(graph.statuses[-1].torque)
    )


def test_when_all_are_stopped_at_once_the_twin_waits_for_the_driver_to_park(graph):
    assert graph.call(SetBool, topics.ARM_E_STOP_SERVICE, SetBool.Request(data=False)).success
    enable = SetBool.Request(data=True)  # refused where a busy machine has no fresh reading at that moment
    graph.spin_until(lambda: graph.call(SetBool, topics.ARM_ENABLE_SERVICE, enable).success)
    graph.spin_until(lambda: graph.statuses[-1].state in (ArmStatus.ENABLED, ArmStatus.HOLD))
    ended = graph.graph.stop_all_at_once()
    assert set(ended.values()) == {0}
    assert list(ended).index('arm') < list(ended).index('twin')
