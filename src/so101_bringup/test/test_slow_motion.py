# SPDX-License-Identifier: Apache-2.0
"""A twin that gets no processor for seconds, in the middle of an episode: all of it waits, and nothing is lost."""

from contextlib import contextmanager
import os
import signal
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from so101_interfaces.msg import ArmStatus, EpisodeEvent, SessionStatus

from so101_interfaces_py import qos, topics
from so101_testing.console_rig import ConsoleRig

PATIENCE_S = 600.0
FREEZES = 2
FROZEN_S = 2.6
"""Longer than the bus waits for an answer, than a reading may be old, and than the control clock may stall."""
ENDS = (EpisodeEvent.SUCCESS, EpisodeEvent.TIME_LIMIT, EpisodeEvent.ABORT)


class Watch:
    """What arm and session say."""

    def __init__(self):
        rclpy.init()
        self.node = rclpy.create_node('graph_client')
        self.session, self.faults, self.events = None, [], []
        self.node.create_subscription(ArmStatus, topics.ARM_STATUS, self.on_arm, qos.LATCHED_EVERY)
        self.node.create_subscription(SessionStatus, topics.SESSION_STATUS, self.on_session, qos.LATCHED)
        self.node.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, self.on_event, qos.EVENT)

    def on_arm(self, message):
        if message.state == ArmStatus.FAULT:
            self.faults.append(message.reason)

    def on_session(self, message):
        self.session = message

    def on_event(self, message):
        self.events.append(message)

    def until(self, condition):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, (self.session, self.faults)
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def look(self, duration_s):
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            rclpy.spin_once(self.node, timeout_sec=0.05)

    @property
    def runs(self):
        return self.session is not None and self.session.state == SessionStatus.RUNNING

    def ended(self, episode):
        return [m.kind for m in self.events if m.episode == episode and m.kind in ENDS]

    def close(self):
        self.node.destroy_node()
        rclpy.try_shutdown()


@contextmanager
def frozen(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope='module')
def graph():
    parameters = {'operator': {'mode': 'demonstrate', 'speed': 0.3}}
    with ConsoleRig('arm', 'kinematics', 'operator', parameters=parameters) as rig:
        rig.add('session', simulated=True, reward_source='sim', joint_timeout_s=0.8)
        watch = Watch()
        yield rig, watch
        watch.close()


def frozen_episode(rig, watch):
    """Freeze the twin during an episode; return how that ended, and how far it went on meanwhile."""
    watch.until(lambda: watch.runs and watch.session.index > 2)
    episode, went_on = watch.session.episode, []
    for _ in range(FREEZES):
        with frozen(rig.pid('twin')):
            watch.look(FROZEN_S / 2)  # it goes on for a moment, until the clock has run out
            before = watch.session.index
            watch.look(FROZEN_S / 2)
            went_on.append(watch.session.index - before)
        index = watch.session.index
        watch.until(lambda index=index: watch.session.index > index + 3 or not watch.runs)
    watch.until(lambda: watch.ended(episode))
    return watch.ended(episode)[0], went_on


def test_an_episode_outlives_a_twin_that_stands_still_and_no_step_is_made_meanwhile(graph):
    rig, watch = graph
    for _ in range(10):
        how, went_on = frozen_episode(rig, watch)
        if how != EpisodeEvent.ABORT:  # a machine that freezes other nodes too may cut one short
            break
    assert how != EpisodeEvent.ABORT, [m.reason for m in watch.events]
    assert went_on == [0] * FREEZES
    assert not watch.faults
