# SPDX-License-Identifier: Apache-2.0
"""A made-up session as a process: arm, camera and session in one, without any physics.

Prints one line per step: episode, index, and 1 where a human acts.
"""

import argparse
import sys
import time

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import EeDelta, EpisodeEvent, Step

from so101_contract.action import ActionSpec
from so101_contract.joints import JOINT_NAMES
from so101_contract.observation_spec import get_observation
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import array_to_image, ns_to_stamp


class FakeSession(Node):
    """Publishes what a session would."""

    def __init__(self, size, namespace):
        super().__init__('fake_session', namespace=namespace)
        self.joints = self.create_publisher(JointState, topics.JOINT_STATES, qos.STATE_PUBLISHER)
        self.images = self.create_publisher(Image, topics.IMAGE, qos.IMAGE)
        self.steps = self.create_publisher(Step, topics.STEP, qos.EVENT)
        self.events = self.create_publisher(EpisodeEvent, topics.EPISODE_EVENT, qos.EVENT)
        self.commands = self.create_publisher(EeDelta, topics.EE_DELTA_CMD, qos.COMMAND)
        self.size = size
        self.rng = np.random.default_rng(0)

    def measure(self):
        stamp = time.time_ns()
        state = JointState(
            name=list(JOINT_NAMES), position=[0.1, -0.6, 0.7, 0.9, 0.0, 0.4], velocity=[0.0] * 6
        )
        state.position[0] = float(self.rng.uniform(-0.2, 0.2))
        state.header.stamp = ns_to_stamp(stamp)
        self.joints.publish(state)
        picture = self.rng.integers(0, 256, (*self.size, 3), dtype=np.uint8)
        self.images.publish(array_to_image(picture, 'rgb8', ns_to_stamp(stamp), 'camera'))
        return stamp

    def event(self, episode, index, kind):
        message = EpisodeEvent(episode=episode, index=index, kind=kind)
        message.header.stamp = ns_to_stamp(time.time_ns())
        if kind == EpisodeEvent.START:
            message.observation_hash, message.action_hash = get_observation('compact').hash, ActionSpec().hash
        self.events.publish(message)

    def episode(self, number, length, period_s):
        self.event(number, 0, EpisodeEvent.START)
        for index in range(length + 1):
            begin = time.monotonic()
            seen = self.measure()
            last = index == length
            step = Step(episode=number, index=index, reward=float(last), terminated=last)
            step.header.stamp = ns_to_stamp(time.time_ns())
            step.joint_stamp, step.image_stamps = ns_to_stamp(seen), [ns_to_stamp(seen)]
            self.steps.publish(step)
            if not last:
                teleop = index % 4 == 0
                action = EeDelta(episode=number, index=index, gripper=0.5, source=1 + teleop)
                action.header.stamp = step.header.stamp
                action.translation.x = float(self.rng.uniform(-0.02, 0.02))
                self.commands.publish(action)
                print(number, index, int(teleop), flush=True)
            time.sleep(max(0.0, period_s - (time.monotonic() - begin)))
        self.event(number, length, EpisodeEvent.SUCCESS)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--episodes', type=int, default=10**6)
    parser.add_argument('--first', type=int, default=1)
    parser.add_argument('--length', type=int, default=10)
    parser.add_argument('--rate', type=float, default=10.0)
    parser.add_argument('--size', type=int, nargs=2, default=(48, 64))
    parser.add_argument('--namespace', default='')
    options = parser.parse_args()
    rclpy.init()
    node = FakeSession(options.size, options.namespace)
    deadline = time.monotonic() + 30.0
    while node.steps.get_subscription_count() < 1 or node.images.get_subscription_count() < 1:
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.05)
    time.sleep(1.0)  # the other topics are matched a little later
    for number in range(options.first, options.first + options.episodes):
        node.episode(number, options.length, 1.0 / options.rate)
    time.sleep(1.0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
