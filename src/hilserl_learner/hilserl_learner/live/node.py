# SPDX-License-Identifier: Apache-2.0
"""The learner as a ROS node: writes down what the arms live through, and passes on what the training process gives.

Messages are assembled and stored here, in a few callbacks that never wait. Gradients are computed in a process of
their own (`live.process`), which reads the stored experience: training cannot delay a message, and killing
either of the two loses no transition that was stored.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
import functools
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Image, JointState
from so101_interfaces.msg import EeDelta, EpisodeEvent, LearnerStatus, PolicyWeights, Step
from std_srvs.srv import SetBool, Trigger

from drqv2_policy_node.weights import to_messages
from hilserl_learner.data.store import BufferHeader, BufferWriter, HEADER, Part, read_header, write_header
from hilserl_learner.errors import LearnerError, SegmentError
from hilserl_learner.live.config import LearnerConfig, node_configs
from hilserl_learner.live.feed import LiveFeed
from hilserl_learner.live.identity import begin_or_go_on, FEED_LOCK, LIVE, ONLINE
from hilserl_learner.live.process import DirectoryLock, TrainingProcess
from so101_contract.errors import ContractError
from so101_contract.task.spec import require_same_task
from so101_interfaces_py import qos, topics
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import load_configs, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode
from so101_interfaces_py.voices import Voices

CONFIG = node_configs({})
"""Of a learner that is given nothing, so with the default agent."""

configs_for = node_configs

TICK_S = 0.1
STATUS_TICKS = 10
UNKNOWN_AT_FIRST = tuple(
    name for name, kind in LearnerStatus.get_fields_and_field_types().items() if kind in ('float', 'double')
)
"""What the training process has not told yet is not a number; 0 would be taken for a measurement."""

_MESSAGES = {
    'so101_interfaces/msg/Step': (Step, qos.EVENT),
    'so101_interfaces/msg/EpisodeEvent': (EpisodeEvent, qos.EVENT),
    'so101_interfaces/msg/EeDelta': (EeDelta, qos.EVENT),  # each one is needed, not only the newest
    'sensor_msgs/msg/JointState': (JointState, qos.STATE_EVERY),
    'sensor_msgs/msg/Image': (Image, qos.IMAGE_EVERY),
}


class LearnerNode(SoleNode):
    """Stores experience, publishes weights and status. Callbacks store, the tick publishes."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('learner_node', **node_options)
        given = {name: parameter.value for name, parameter in self._parameter_overrides.items()}
        config, trainer, agent = load_configs(self, *node_configs(given))
        self._config: LearnerConfig = config
        self._lock = DirectoryLock(config.run / FEED_LOCK)
        self._beginning = begin_or_go_on(config.run, config.identity, config.origin)
        self._writer = _open_buffer(config)
        self._life = f'{time.time_ns():x}'
        self._voices = Voices(self)
        self._feeds = [self._listen_to(name) for name in config.arms]
        self._trouble = ''
        self._synced_s = time.monotonic()
        self._ticks = 0
        self._weights = self.create_publisher(PolicyWeights, topics.WEIGHTS, qos.WEIGHTS)
        self._status = self.create_publisher(LearnerStatus, topics.LEARNER_STATUS, qos.LATCHED)
        for name, word in (
            (topics.LEARNER_SAVE_SERVICE, 'save'),
            (topics.LEARNER_ROLLBACK_SERVICE, 'rollback'),
        ):
            self.create_service(Trigger, name, functools.partial(self._on_command, word))
        self.create_service(SetBool, topics.LEARNER_PAUSE_SERVICE, self._on_pause)
        self._process = TrainingProcess(
            {'learner': asdict(config), 'trainer': asdict(trainer), 'agent': asdict(agent)}
        )
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(TICK_S, self._tick, clock=clock)
        self.get_logger().warning(f'{self._beginning} ({config.run.resolve()})')

    def close(self) -> None:
        """Let the training process save and end; bring everything to the disk."""
        self._process.close()
        try:
            for feed in self._feeds:
                self._store(feed.flush)
            self._writer.close()
        finally:
            self._lock.close()

    # --- callbacks ---

    def _on_message(self, feed: LiveFeed, topic: str, data: bytes) -> None:
        self._store(lambda: feed.push(topic, time.time_ns(), data))

    def _on_command(self, word: str, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._process.command(word)
        response.message = (
            f'asked to {word}; see learner/status' if response.success else 'nobody is training'
        )
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = self._process.command('pause' if request.data else 'resume')
        return response

    # --- the tick ---

    def _tick(self) -> None:
        self._process.tick()
        weights = self._process.take_weights()
        if weights is not None:
            self._send(weights.header, weights.payload)
        for answer in self._process.take_answers():
            level = self.get_logger().info if answer['ok'] else self.get_logger().error
            level(answer['text'])
        if time.monotonic() - self._synced_s >= self._config.sync_s:
            self._synced_s = time.monotonic()
            self._store(self._sync)
        self._ticks += 1
        if self._ticks % STATUS_TICKS == 0:
            self._status.publish(self._status_message())

    # --- inside ---

    def _send(self, header: Mapping[str, Any], payload: bytes) -> None:
        numbers = header['version'], header['step']
        stamp = self.get_clock().now().to_msg()
        for message in to_messages(header['manifest'], payload, *numbers, stamp=stamp, sender=self._life):
            self._weights.publish(message)

    def _listen_to(self, name: str) -> LiveFeed:
        """Subscribe to everything that an arm's transitions are made of."""
        namespace = '/'.join((self.get_namespace().rstrip('/'), name)) if name else self.get_namespace()
        config = self._config
        feed = LiveFeed(
            config.observation_spec,
            config.action_spec,
            task=config.task_spec,
            namespace=namespace,
            life=self._life,
            success_reward=config.success_reward,
            failure_reward=config.failure_reward,
        )
        for topic, kind in feed.topics.items():
            message, profile = _MESSAGES[kind]
            callback = functools.partial(self._on_message, feed, topic)
            # As bytes: they are decoded like those of a bag, and most images not at all.
            self.create_subscription(message, topic, self._voices.only(topic, callback), profile, raw=True)
        return feed

    def _store(self, source: Callable[[], Any]) -> None:
        """Write down what comes out of a source; while the disk is full, say so and lose it."""
        try:
            for entry in source() or ():
                self._writer.append(entry)
                self._trouble = ''
        except SegmentError as error:
            if self._trouble != str(error):
                self.get_logger().error(str(error))
            self._trouble = str(error)

    def _sync(self) -> None:
        self._writer.sync()

    def _status_message(self) -> LearnerStatus:
        message = LearnerStatus(**dict.fromkeys(UNKNOWN_AT_FIRST, float('nan')))
        message.header.stamp = self.get_clock().now().to_msg()
        for name, value in self._process.status.items():
            if name != 'kind':
                setattr(message, name, value)
        message.gaps = sum(feed.gaps for feed in self._feeds)
        problems = [self._process.failure, self._trouble, self._process.silence]
        problems += [feed.problem for feed in self._feeds]
        problem = next(filter(None, problems), '')
        if problem:
            message.state, message.reason = 'failed', problem
        elif not message.state:
            message.state = 'waiting'
            message.reason = 'the training process begins'
        # What it began with is said for as long as there is nothing worse to say.
        message.reason = message.reason or f'{self._beginning[:1].upper()}{self._beginning[1:]}.'
        return message


def _open_buffer(config: LearnerConfig) -> BufferWriter:
    """Open the buffer of a run for more experience.

    Raises:
        SpecMismatchError: what is there was observed otherwise, or in another task.
        SegmentError: the directory cannot be written.
    """
    directory = config.run / ONLINE
    task = config.task_spec
    header = BufferHeader(
        observation=config.observation_spec,
        action=config.action_spec,
        parts=(Part(name=LIVE),),
        task=None if task is None else task.meaning,
    )
    if (directory / HEADER).exists():
        present = read_header(directory)
        present.observation.require_same(header.observation, ('run', 'parameters'))
        require_same_task(present.task, header.task, ('run', 'parameters'))
        if present.action != header.action:
            raise LearnerError(
                f'expected the actions of the run in {directory}, got others ('
                f'{"; ".join(present.action.diff(header.action, ("run", "parameters")))}); name another directory'
            )
    else:
        write_header(directory, header)
    return BufferWriter(directory / LIVE)


def main() -> None:
    """Run the node."""
    leave(run_node(LearnerNode, (LearnerError, ContractError, ParameterError)))


if __name__ == '__main__':
    main()
