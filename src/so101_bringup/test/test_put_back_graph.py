# SPDX-License-Identifier: Apache-2.0
"""Reset without a hand on the running graph, and what a session costs a human: live, and counted again from its events.

Twin, driver, kinematics, session and the scripted operator are processes; the operator demonstrates, so each episode
ends in a success, and the arm puts the cube back.
"""

import time

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from so101_interfaces.msg import ArmStatus, EpisodeEvent, SessionStatus, TaskReport
from std_srvs.srv import SetBool, Trigger

from so101_contract.human_time import HumanTime
from so101_contract.messages import event_record
from so101_contract.session import HUMAN_KINDS
from so101_contract.task.files import get_task
from so101_contract.task_report import to_record
from so101_interfaces_py import qos, topics
from so101_testing.graph import Graph

LIMIT_S = 200.0
PATIENT = {
    'time_limit_steps': 3000,
    'camera_timeout_s': 10.0,
    'joint_timeout_s': 5.0,
    'stall_steps': 1000,
    'teleop_timeout_s': 5.0,
}


class Desk:
    """Hears what the session says, and has the buttons of the page."""

    def __init__(self, processes):
        self.processes = processes
        self.node = rclpy.create_node('test_put_back')
        self.events, self.statuses, self.truths, self.arms = [], [], [], []
        listen = self.node.create_subscription
        listen(EpisodeEvent, topics.EPISODE_EVENT, lambda m: self.events.append(event_record(m)), qos.EVENT)
        listen(SessionStatus, topics.SESSION_STATUS, self.statuses.append, qos.LATCHED)
        listen(TaskReport, topics.SIM_TASK, self.truths.append, qos.STATE_SUBSCRIBER)
        listen(ArmStatus, topics.ARM_STATUS, self.arms.append, qos.LATCHED)

    def until(self, condition, what):
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert self.processes.running('session'), 'the session has ended'
            assert time.monotonic() < end, f'not in time: {what}; {self.sentence}; {self.kinds()[-12:]}'
            rclpy.spin_once(self.node, timeout_sec=0.02)
            del self.truths[:-1]

    @property
    def sentence(self):
        return self.statuses[-1].sentence if self.statuses else ''

    def kinds(self):
        return [event.kind.name for event in self.events]

    def count(self, kind):
        return self.kinds().count(kind)

    def call(self, kind, name, request):
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, f'the service {name}')
        future = client.call_async(request)
        self.until(future.done, f'an answer of {name}')
        return future.result()

    def carried(self):
        """Wait until the arm carries the cube on its way back; an episode that was cut short is made again."""

        def carries():
            truth = to_record(self.truths[-1]).state.truth if self.truths else None
            return 'puts the object back' in self.sentence and truth is not None and truth.held

        self.until(carries, 'the arm carries the cube back')

    def asked(self, before):
        self.until(lambda: self.count('NEED_RESET') > before, 'a human is asked')
        self.until(
            lambda: self.sentence and 'waiting for Start' in self.reason('NEED_RESET'), 'it says what to do'
        )

    def reason(self, kind):
        return next(event.reason for event in reversed(self.events) if event.kind.name == kind)


@pytest.fixture(scope='module')
def desk(request):
    task = request.param
    rclpy.init()
    parameters = {
        'arm': {'reading_timeout_s': 10.0, 'command_timeout_s': 5.0},
        'kinematics': {'joint_timeout_s': 1.0, 'command_timeout_s': 2.0},
        'twin': {'task': task, 'camera_width': 64, 'camera_height': 48, 'camera_rate_hz': 10.0},
        'session': {
            'task': task, 'reward_source': 'sim', 'simulated': True, 'autostart': True, 'put_back': True, **PATIENT,
        },
        'operator': {'task': task, 'mode': 'demonstrate', 'noise': 0.0, 'aim_error_m': 0.0},
    }  # fmt: skip
    try:
        with Graph('arm', 'kinematics', 'session', 'operator', parameters=parameters) as processes:
            made = Desk(processes)
            yield made
            made.node.destroy_node()
    finally:
        rclpy.try_shutdown()


LIFT, PLACE = (pytest.mark.parametrize('desk', [task], indirect=True) for task in ('lift', 'place'))


def lies_in_its_spread(desk, task):
    truth = to_record(desk.truths[-1]).state.truth
    where = get_task(task).put_back
    off = np.abs(np.subtract(truth.cube_position[:2], where.xy))
    return bool((off < np.array(where.spread_m) + 0.02).all()) and not truth.in_tray


@LIFT
def test_after_a_success_the_arm_puts_the_cube_back_and_the_next_episode_begins(desk):
    desk.until(lambda: desk.count('PUT_BACK') >= 1, 'the cube is put back')
    resets = desk.truths[-1].resets
    assert lies_in_its_spread(desk, 'lift')
    desk.until(lambda: desk.kinds()[-1] in ('START', 'INTERVENTION_START'), 'the next episode')
    assert desk.truths[-1].resets >= resets
    kinds = desk.kinds()
    done = kinds.index('PUT_BACK')
    assert 'RESET_START' in kinds[:done]
    assert kinds[done + 1] == 'RESET_DONE'
    episodes = [event.episode for event in desk.events if event.kind.name == 'START']
    assert len(episodes) >= 2


@LIFT
def test_an_object_that_is_lost_on_the_way_is_asked_for(desk):
    before = desk.count('NEED_RESET')
    desk.carried()
    assert desk.call(
        Trigger, topics.SIM_RESET_SERVICE, Trigger.Request()
    ).success  # it is not in the hand any more
    desk.asked(before)
    assert get_task('lift').human in desk.reason('NEED_RESET')


@LIFT
def test_a_human_who_takes_over_on_the_way_is_asked_for_the_rest_and_the_arm_holds(desk):
    before = desk.count('NEED_RESET')
    desk.carried()
    assert desk.call(SetBool, topics.INTERVENE_SERVICE, SetBool.Request(data=True)).success
    desk.asked(before)
    assert 'took over' in desk.reason('NEED_RESET')


@LIFT
def test_a_stop_on_the_way_leaves_the_arm_where_it_is_until_a_human_has_seen_to_it(desk):
    before = desk.count('NEED_RESET')
    desk.carried()
    assert desk.call(SetBool, topics.ARM_E_STOP_SERVICE, SetBool.Request(data=True)).success
    desk.until(lambda: desk.arms[-1].state == ArmStatus.E_STOP, 'the stop')
    desk.until(lambda: desk.statuses[-1].state == SessionStatus.WAITING, 'the session waits')
    put_back = desk.count('PUT_BACK')
    assert desk.call(SetBool, topics.ARM_E_STOP_SERVICE, SetBool.Request(data=False)).success
    assert desk.call(SetBool, topics.ARM_ENABLE_SERVICE, SetBool.Request(data=True)).success
    desk.asked(before)
    assert desk.count('PUT_BACK') == put_back


@LIFT
def test_what_it_cost_a_human_is_the_same_counted_from_the_events(desk):
    count = len(desk.statuses)
    desk.until(lambda: len(desk.statuses) > count + 1, 'another status')
    told = desk.statuses[-1]
    stamp = told.header.stamp.sec * 10**9 + told.header.stamp.nanosec
    time_ = HumanTime()
    for event in desk.events:
        if event.stamp_ns <= stamp:
            time_.event(event)
    spent = time_.spent(stamp)
    assert {kind: getattr(spent, kind) for kind in HUMAN_KINDS} == {
        kind: getattr(told, f'human_{kind}') for kind in HUMAN_KINDS
    }
    assert (time_.by_arm, time_.by_human) == (told.resets_by_arm, told.resets_by_human)
    assert spent.demonstrations > 0.0
    assert spent.resets > 0.0


@PLACE
def test_a_cube_in_the_tray_is_taken_out_again(desk):
    desk.until(lambda: desk.count('PUT_BACK') >= 1, 'the cube is put back')
    assert lies_in_its_spread(desk, 'place')
