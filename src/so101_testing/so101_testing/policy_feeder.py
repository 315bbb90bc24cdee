# SPDX-License-Identifier: Apache-2.0
"""A stand-in for arm, camera, session and learner: asks a policy node for actions and keeps the answers, for checks."""

from collections.abc import Callable
import contextlib
import threading
import time
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import EeDelta, EpisodeEvent, LearnerStatus, PolicyStatus, PolicyWeights, Step
from std_msgs.msg import String

from drqv2_policy_node.acting import Observed
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import pack
from drqv2_policy_node.weights import to_messages
from so101_contract.assembly import Assembler
from so101_contract.joints import JOINT_NAMES, VelocityEstimator
from so101_contract.messages import image_sample, joint_sample, step_record
from so101_contract.observation import Limits, Observation
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import array_to_image, joint_state
from so101_kinematics.fk import state_function

JOINT_RATE_HZ = 100.0
PICTURES = 8
ARM = np.array([0.0, -0.4, 0.6, 0.8, 0.0, 0.5])
TIMEOUT_S = 60.0
LIMITS = Limits(joints=100_000, images=20_000, steps=20_000, episodes=64)

Key = tuple[int, int]


class Feeder:
    """Sends joint readings at 100 Hz, pictures, and steps; enter it to start. Its dicts may be read at any time.

    Attributes:
        answers: actions by episode and index.
        answered_s: when they came, on the monotonic clock [s].
        sent_s: when the steps were sent.
        observed: what the node says that it saw, by episode and index.
        statuses: what it says of itself.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        *,
        namespace: str = '',
        rate_hz: float = 10.0,
        image_rate_hz: float = 20.0,
        image_size: tuple[int, int] = (640, 480),
        seed: int = 0,
    ) -> None:
        """Prepare.

        Args:
            spec: what an observation consists of.
            namespace: of every topic.
            rate_hz: steps per second.
            image_rate_hz: pictures per second of each camera.
            image_size: width and height of them [px].
            seed: of the made-up pictures and joint readings.
        """
        self.answers: dict[Key, EeDelta] = {}
        self.answered_s: dict[Key, float] = {}
        self.sent_s: dict[Key, float] = {}
        self.observed: dict[Key, Observed] = {}
        self.statuses: list[PolicyStatus] = []
        self._stamps_ns: dict[Key, int] = {}
        self._spec, self._namespace = spec, namespace
        self._rates = rate_hz, image_rate_hz
        self._rng = np.random.default_rng(seed)
        width, height = image_size
        self._pictures = self._rng.integers(0, 256, (PICTURES, height, width, 3), dtype=np.uint8)
        self._assembler = Assembler(spec, state_function(spec), limits=LIMITS)
        self._lock = threading.Lock()
        self._velocity = VelocityEstimator()
        self._joint_stamp: Any = None
        self._image_stamps: dict[str, Any] = {}
        self._frames = 0
        self._episode, self._left, self._index = 0, 0, 0
        self.lose_images = False
        """Steps name pictures that are not sent."""

    def __enter__(self) -> Self:
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = Node('feeder', context=self._context, namespace=self._namespace)
        node, steps_hz, images_hz = self.node, *self._rates
        self._joints = node.create_publisher(JointState, topics.JOINT_STATES, qos.STATE_PUBLISHER)
        self._images = {
            name: node.create_publisher(Image, f'{name}/image_raw', qos.IMAGE)
            for name in self._spec.camera_names
        }
        self._steps = node.create_publisher(Step, topics.STEP, qos.EVENT)
        self._events = node.create_publisher(EpisodeEvent, topics.EPISODE_EVENT, qos.EVENT)
        self._weights = node.create_publisher(PolicyWeights, topics.WEIGHTS, qos.WEIGHTS)
        self._learner = node.create_publisher(LearnerStatus, topics.LEARNER_STATUS, qos.LATCHED)
        node.create_subscription(EeDelta, topics.POLICY_EE_DELTA, self._on_answer, qos.COMMAND)
        node.create_subscription(String, topics.POLICY_OBSERVED, self._on_observed, qos.EVENT)
        node.create_subscription(PolicyStatus, topics.POLICY_STATUS, self.statuses.append, qos.LATCHED)
        node.create_timer(1.0 / JOINT_RATE_HZ, self._send_joints)
        node.create_timer(1.0 / images_hz, self._send_images)
        node.create_timer(1.0 / steps_hz, self._send_step)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        rclpy.try_shutdown(context=self._context)
        self._thread.join(TIMEOUT_S)

    # --- what a check asks for ---

    def begin_episode(self, steps: int, *, observation_hash: str = '', action_hash: str = '') -> int:
        """Send an episode of so many steps; return its number."""
        episode = self._episode + 1
        event = EpisodeEvent(
            episode=episode,
            kind=EpisodeEvent.START,
            observation_hash=observation_hash,
            action_hash=action_hash,
        )
        event.header.stamp = self._now()
        self._events.publish(event)
        self._episode, self._index, self._left = episode, 0, steps
        return episode

    def send_policy(self, policy: Policy, version: int, *, step: int = 0, damage: bool = False) -> None:
        """Publish weights as the learner does; `damage` flips a bit on the way."""
        messages = to_messages(*pack(policy), version, step, stamp=self._now())
        if damage:
            messages[-1].data[-1] ^= 1
        for message in messages:
            self._weights.publish(message)

    def send_env_steps(self, env_steps: int) -> None:
        """Publish the learner's count of actions."""
        self._learner.publish(LearnerStatus(env_steps=env_steps))

    def wait_until(self, condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait for something.

        Raises:
            TimeoutError: it did not happen in time.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f'expected {what} within {timeout_s:.0f} s; last status: {self.statuses[-1:]}'
                )
            time.sleep(0.005)

    def wait_for_node(self) -> None:
        """Wait until the node listens to everything that is sent."""
        publishers = [self._joints, self._steps, *self._images.values()]
        self.wait_until(
            lambda: self.statuses and all(p.get_subscription_count() for p in publishers), 'a policy node'
        )

    def finish_episode(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until every step of the episode was sent, and the last one had time to be answered."""
        self.wait_until(lambda: self._left == 0, 'the end of the episode', timeout_s)
        time.sleep(2.0 / self._rates[0])

    def observation(self, key: Key) -> Observation:
        """Return the observation of a step, put together from what was sent."""
        with self._lock:
            return self._assembler.observation(*key)

    def stamp_ns(self, key: Key) -> int:
        """Return the stamp of a step [ns]."""
        return self._stamps_ns[key]

    # --- inside ---

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()
        self.node.destroy_node()

    def _now(self) -> Any:
        return self.node.get_clock().now().to_msg()

    def _push(self, record: Any) -> None:
        with self._lock:
            self._assembler.push(record)

    def _send_joints(self) -> None:
        wobble: npt.NDArray[np.float64] = self._rng.uniform(-0.02, 0.02, 6)
        message = joint_state(JOINT_NAMES, (ARM + wobble).tolist(), self._now())
        message.velocity = self._rng.uniform(-0.5, 0.5, 6).tolist()
        self._joints.publish(message)
        self._joint_stamp = message.header.stamp
        self._push(joint_sample(message, self._velocity))

    def _send_images(self) -> None:
        for camera in self._spec.cameras:
            self._frames += 1
            message = array_to_image(
                self._pictures[self._frames % PICTURES], 'rgb8', self._now(), camera.name
            )
            if not self.lose_images:
                self._images[camera.name].publish(message)
            self._image_stamps[camera.name] = message.header.stamp
            self._push(image_sample(message, camera))

    def _send_step(self) -> None:
        if not self._left or self._joint_stamp is None or len(self._image_stamps) < len(self._spec.cameras):
            return
        message = Step(episode=self._episode, index=self._index, joint_stamp=self._joint_stamp)
        message.image_stamps = [self._image_stamps[name] for name in self._spec.camera_names]
        message.header.stamp = self._now()
        self.sent_s[self._episode, self._index] = time.monotonic()
        self._steps.publish(message)
        record = step_record(message)
        self._stamps_ns[record.episode, record.index] = record.stamp_ns
        self._push(record)
        self._index, self._left = self._index + 1, self._left - 1

    def _on_answer(self, message: EeDelta) -> None:
        key = int(message.episode), int(message.index)
        self.answered_s[key] = time.monotonic()
        self.answers[key] = message

    def _on_observed(self, message: String) -> None:
        observed = Observed.from_json(message.data)
        self.observed[observed.episode, observed.index] = observed
