# SPDX-License-Identifier: Apache-2.0
"""A program for tests: plays arm, camera and session on a real graph, or watches them as a policy does.

python session_feeder.py feed SECONDS DROP   publishes; DROP is the share of camera frames that are lost
python session_feeder.py watch               publishes the hash of each observation on policy/observed
"""

import json
import sys
import time

from geometry_msgs.msg import PoseStamped, Vector3
import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, Step
from std_msgs.msg import String

from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler
from so101_contract.image import message_to_rgb
from so101_contract.joints import JOINT_NAMES
from so101_contract.messages import ImageSample, JointSample, StepRecord
from so101_contract.observation import observation_digest
from so101_contract.observation_spec import get_observation
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import array_to_image, stamp_to_ns
from so101_kinematics.fk import state_function

SPEC = get_observation('compact')
STEPS = 15


class Feeder(Node):
    """Publishes joint states at 100 Hz, images at 20 Hz, steps at 10 Hz, in episodes of 1.5 s."""

    def __init__(self, drop):
        super().__init__('feeder')
        self._rng, self._drop, self._tick_number = np.random.default_rng(1), drop, 0
        self._joints = self.create_publisher(JointState, topics.JOINT_STATES, qos.STATE_PUBLISHER)
        self._pose = self.create_publisher(PoseStamped, topics.TCP_POSE, qos.STATE_PUBLISHER)
        self._image = self.create_publisher(Image, topics.IMAGE, qos.IMAGE)
        self._step = self.create_publisher(Step, topics.STEP, qos.EVENT)
        self._event = self.create_publisher(EpisodeEvent, topics.EPISODE_EVENT, qos.EVENT)
        self._delta = self.create_publisher(EeDelta, topics.EE_DELTA_CMD, qos.COMMAND)
        self._status = self.create_publisher(ArmStatus, topics.ARM_STATUS, qos.LATCHED)
        self._status.publish(ArmStatus(reason='all is well', calibration_id='cal-7'))
        self._episode = self._index = 0
        self._joint_stamp = self._image_stamp = self._last_joint = self._last_image = None
        self.create_timer(0.01, self._tick)

    def _tick(self):
        number, self._tick_number = self._tick_number, self._tick_number + 1
        # What a step names is what came before it by a while: nodes know only what has reached them.
        self._joint_stamp, self._image_stamp = self._last_joint, self._last_image
        if number % 10 == 0 and self._image_stamp is not None:
            self._do_step()
        stamp = self.get_clock().now().to_msg()
        joints = JointState(
            name=list(JOINT_NAMES), position=[0.1 * np.sin(number / 50)] * 6, velocity=[0.0] * 6
        )
        joints.header.stamp, joints.header.frame_id = stamp, str(number)
        self._joints.publish(joints)
        self._last_joint = stamp
        if number % 2 == 0:
            self._pose.publish(PoseStamped(header=joints.header))
        if number % 5 == 0 and self._rng.random() >= self._drop:
            pixels = self._rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            self._image.publish(array_to_image(pixels, 'rgb8', stamp, 'cam'))
            self._last_image = stamp

    def _do_step(self):
        now = self.get_clock().now().to_msg()
        if self._index == 0:
            self._episode += 1
            self._say(EpisodeEvent.START, now)
        last = self._index == STEPS - 1
        step = Step(
            episode=self._episode, index=self._index, joint_stamp=self._joint_stamp, reward=float(last)
        )
        step.header.stamp, step.image_stamps, step.terminated = now, [self._image_stamp], last
        self._step.publish(step)
        if last:
            self._say(EpisodeEvent.SUCCESS, now)
            self._index = 0
            return
        move = Vector3(x=self._rng.uniform(-0.01, 0.01), y=0.003, z=-0.002)
        delta = EeDelta(episode=self._episode, index=self._index, translation=move, gripper=0.5, source=1)
        delta.header.stamp = now
        self._delta.publish(delta)
        self._index += 1

    def _say(self, kind, now):
        event = EpisodeEvent(episode=self._episode, index=self._index, kind=kind, calibration_id='cal-7')
        event.header.stamp, event.observation_hash, event.action_hash = now, SPEC.hash, ActionSpec().hash
        self._event.publish(event)


class Watcher(Node):
    """Rebuilds each observation from live messages, as a policy does, and publishes its hash."""

    def __init__(self):
        super().__init__('watcher')
        self._assembler = Assembler(SPEC, state_function(SPEC))
        self._waiting = {}
        self._observed = self.create_publisher(String, 'policy/observed', qos.EVENT)
        self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, 50)
        self.create_subscription(Image, topics.IMAGE, self._on_image, qos.IMAGE)
        self.create_subscription(Step, topics.STEP, self._on_step, qos.EVENT)

    def _on_joints(self, m):
        self._push(JointSample.from_message(stamp_to_ns(m.header.stamp), m.name, m.position, m.velocity))

    def _on_image(self, m):
        pixels = message_to_rgb(m.height, m.width, m.encoding, m.step, memoryview(m.data))
        self._push(ImageSample.from_raw(SPEC.cameras[0], stamp_to_ns(m.header.stamp), pixels))

    def _on_step(self, m):
        images = tuple(map(stamp_to_ns, m.image_stamps))
        step = StepRecord(m.episode, m.index, stamp_to_ns(m.header.stamp), stamp_to_ns(m.joint_stamp), images)
        self._waiting[step.episode, step.index] = step
        self._push(step)

    def _push(self, record):
        self._assembler.push(record)
        for key in [key for key in self._waiting if self._assembler.ready(*key)]:
            del self._waiting[key]
            digest = observation_digest(self._assembler.observation(*key))
            content = {'episode': key[0], 'index': key[1], 'sha256': digest}
            self._observed.publish(String(data=json.dumps(content)))


def main():
    """Run one of the two until interrupted, or for some seconds."""
    rclpy.init()
    node = Feeder(float(sys.argv[3])) if sys.argv[1] == 'feed' else Watcher()
    until = time.monotonic() + (float(sys.argv[2]) if len(sys.argv) > 2 else 1e9)
    print('ready', flush=True)
    try:
        while rclpy.ok() and time.monotonic() < until:
            rclpy.spin_once(node, timeout_sec=0.1)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass


if __name__ == '__main__':
    main()
