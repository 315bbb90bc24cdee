# SPDX-License-Identifier: Apache-2.0
"""Records the graph into a rosbag2: messages are taken as bytes and written by another thread.

`GraphListener` subscribes to topics as their publishers offer them; `ParameterSnapshot` asks every node for its
parameters, once, so that a bag tells how it came about.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
import functools
import importlib
import itertools
import json
import os
from pathlib import Path
import shutil
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_srvs.srv import SetBool

from so101_bags.metadata import Definition, definition_of, OfferedQos
from so101_bags.storage import BagError
from so101_bags.write import BagWriter, Extras
from so101_contract.action import ActionSpec
from so101_contract.errors import ContractError
from so101_contract.task.files import observed, told_task
from so101_interfaces_py import qos, topics
from so101_interfaces_py.endings import leave
from so101_interfaces_py.node import Node
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode
from so101_session.recorder.config import existing, LATCHED, RecorderConfig, yaml_files
from so101_session.recorder.sink import Item, NewMessage, NewTopic, Note, Sink

Tell = Callable[[str, Mapping[str, str]], None]


class ParameterSnapshot:
    """Answers come when they come; nothing waits for them."""

    def __init__(self, node: Node, namespaces: Iterable[str], tell: Tell) -> None:
        """Prepare.

        Args:
            node: whose executor carries the requests.
            namespaces: in which to ask, each with a slash in front.
            tell: called with the name of a node and its parameters as JSON values.
        """
        self._node, self._namespaces, self._tell = node, set(namespaces), tell
        self._asked: dict[str, Any] = {}

    def begin_again(self) -> None:
        """Ask all of them again, for another bag."""
        self._asked.clear()

    def look(self) -> None:
        """Ask the nodes that were not asked yet."""
        for name, namespace in self._node.get_node_names_and_namespaces():
            if namespace not in self._namespaces or name.startswith('_'):
                continue
            full = f'{namespace.rstrip("/")}/{name}'
            if full not in self._asked:
                self._asked[full] = self._node.create_client(ListParameters, f'{full}/list_parameters')
            client = self._asked[full]
            if client is not None and client.service_is_ready():
                self._asked[full] = None
                self._list(full, client)

    def _list(self, full: str, client: Any) -> None:
        def listed(future: Any) -> None:
            self._node.destroy_client(client)
            answer = future.result()
            if answer is not None and answer.result.names:
                self._get(full, list(answer.result.names))

        client.call_async(ListParameters.Request()).add_done_callback(listed)

    def _get(self, full: str, names: list[str]) -> None:
        client = self._node.create_client(GetParameters, f'{full}/get_parameters')

        def got(future: Any) -> None:
            self._node.destroy_client(client)
            answer = future.result()
            if answer is not None:
                values = map(parameter_value_to_python, answer.values)
                self._tell(full, {name: _text(value) for name, value in zip(names, values, strict=False)})

        client.call_async(GetParameters.Request(names=names)).add_done_callback(got)


def _text(value: Any) -> str:
    # Arrays come as array.array, byte arrays as bytes.
    return json.dumps(
        value, default=lambda array: [str(item) if isinstance(item, bytes) else item for item in array]
    )


# Deep enough that half a second of a busy machine loses nothing.
DEPTH = 200
IMAGE_DEPTH = 30
_LOSSY = ('image_raw', 'camera_info')


class GraphListener:
    """One raw subscription per topic, renewed where the offer changes."""

    def __init__(self, node: Node, wanted: Mapping[str, str], put: Callable[[Item], None]) -> None:
        """Prepare.

        Args:
            node: whose executor calls back.
            wanted: absolute names, each with its type, or empty where only the graph tells it.
            put: takes each message; before the first one of a topic, what is known about the topic.
        """
        self._node, self._wanted, self._put = node, wanted, put
        self._subscriptions: dict[str, tuple[Any, bool, bool]] = {}
        self._left_out: set[str] = set()
        self.heard: set[str] = set()
        """Topics of which a message has come."""

    def __len__(self) -> int:
        return len(self._subscriptions)

    def begin_again(self) -> None:
        """Subscribe anew, for another bag: what is latched comes again, and each topic is told about again."""
        for subscription, *_ in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self.heard.clear()
        self.look()

    def look(self) -> None:
        """Subscribe to what has appeared; again where the offer changed."""
        graph = dict(self._node.get_topic_names_and_types())
        for topic, known_type in self._wanted.items():
            msgtype = known_type or (graph[topic][0] if topic in graph else '')
            if not msgtype or topic in self._left_out:
                continue
            publishers = self._node.get_publishers_info_by_topic(topic) if topic in graph else []
            latched = _all(publishers, DurabilityPolicy.TRANSIENT_LOCAL, topic.endswith(LATCHED))
            reliable = _all(publishers, ReliabilityPolicy.RELIABLE, not topic.endswith(_LOSSY))
            present = self._subscriptions.get(topic)
            if present is None or present[1:] != (reliable, latched):
                self._subscribe(topic, msgtype, reliable, latched)

    def _subscribe(self, topic: str, msgtype: str, reliable: bool, latched: bool) -> None:
        try:
            definition = definition_of(msgtype)
            package, _, name = msgtype.split('/')
            message_class = getattr(importlib.import_module(f'{package}.msg'), name)
        except (BagError, ImportError, AttributeError, ValueError) as error:
            self._left_out.add(topic)
            self._node.get_logger().warning(f'{topic} is left out: {error}')
            return
        old = self._subscriptions.pop(topic, None)
        if old is not None:
            self._node.destroy_subscription(old[0])
        profile = QoSProfile(
            depth=IMAGE_DEPTH if msgtype.endswith('Image') else DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        store = functools.partial(self._store, topic, definition)
        subscription = self._node.create_subscription(message_class, topic, store, profile, raw=True)
        self._subscriptions[topic] = (subscription, reliable, latched)

    def _store(self, topic: str, definition: Definition, data: bytes, info: dict[str, int]) -> None:
        if topic not in self.heard:
            self.heard.add(topic)
            offered = [_offered(publisher) for publisher in self._node.get_publishers_info_by_topic(topic)]
            self._put(NewTopic(topic, definition, offered, topic.endswith(LATCHED)))
        received = info['received_timestamp'] or self._node.get_clock().now().nanoseconds
        self._put(NewMessage(topic, received, info['source_timestamp'] or received, data))


def _all(publishers: Sequence[Any], policy: Any, otherwise: bool) -> bool:
    """Whether every publisher offers a policy: what a single one lacks must not be asked for."""
    reliability = isinstance(policy, ReliabilityPolicy)
    offered = [p.qos_profile.reliability if reliability else p.qos_profile.durability for p in publishers]
    return all(one == policy for one in offered) if offered else otherwise


def _offered(publisher: Any) -> OfferedQos:
    profile = publisher.qos_profile
    return OfferedQos(
        'reliable' if profile.reliability == ReliabilityPolicy.RELIABLE else 'best_effort',
        'transient_local' if profile.durability == DurabilityPolicy.TRANSIENT_LOCAL else 'volatile',
    )


CONFIG = (RecorderConfig,)

LOOK_PERIOD_S = 0.5
REPORT_PERIOD_S = 30.0
CLOSE_TIMEOUT_S = 4.0
STATUS_PERIOD_S = 1.0
RETRY_S = 5.0
"""After this time it is tried again to begin a bag where one could not be written [s]."""
# What came before the bag could begin, so that its first step has the stack of images that it names.
PRE_ROLL_S = 2.0


class RecorderNode(SoleNode):
    """A listener collects bytes; one timer hands them to the writer and has the listener look for new topics."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('recorder_node', **node_options)
        self._config = load_config(self, RecorderConfig)
        self._expected = self._config.expected(self.get_namespace())
        self._metadata = self._contract()
        self._batch: list[Item] = []
        self._listener = GraphListener(self, self._expected, self._put)
        self._sink: Sink | None = None
        self._folder: Path | None = None
        self._started = self._reported = time.monotonic()
        self._next_look = 0.0
        self._lost, self._said = 0, False
        self._trouble, self._retry_s, self._told_s = '', 0.0, 0.0
        self._status = self.create_publisher(DiagnosticStatus, topics.RECORDER_STATUS, qos.LATCHED)
        self._pause = self.create_client(SetBool, topics.PAUSE_SERVICE)
        self._must_pause = False
        self._namespaces = self._config.arm_namespaces(self.get_namespace())
        self._snapshot = ParameterSnapshot(self, self._namespaces, self._on_parameters)
        self._look()
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(self._config.flush_s / 2, self._tick, clock=clock)

    def close(self) -> None:
        """Write what waits and close the bag; works after the ROS context is gone."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        sink.submit(self._batch)
        self._batch = []
        done = sink.close(CLOSE_TIMEOUT_S)
        account = sink.account
        ending = 'closed' if account.error is None else 'ended early'
        if not done:
            ending = 'not closed in time: run bag-fix on it'
        sys.stderr.write(
            f'recorder_node: {self._folder}: {account.messages} messages, {account.bytes / 1e6:.1f} MB, '
            f'{account.episodes} episodes, {ending}\n'
        )

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_PERIOD_S
            self._look()
        try:
            self._record(now)
        except BagError as error:
            if not self._config.pauses_session:
                raise
            self._stop(error, now)
        if self._must_pause and self._pause.service_is_ready():
            self._must_pause = False
            self._pause.call_async(SetBool.Request(data=True))
        if now - self._told_s >= STATUS_PERIOD_S:
            self._told_s = now
            self._status.publish(self._status_message())

    def _record(self, now: float) -> None:
        """Hand over what came, or begin a bag."""
        if self._trouble and now < self._retry_s:
            self._forget_old()
            return
        if self._sink is None:
            self._begin(now)
            return
        batch, self._batch = self._batch, []
        self._sink.submit(batch)
        account = self._sink.account
        if account.error is not None:
            raise account.error
        if not self._sink.running:
            raise BagError(
                f'expected to write to {self._folder}, but the writer has failed; run bag-fix on it'
            )
        if account.lost > self._lost:
            self._lost = account.lost
            self.get_logger().error(
                f'{account.lost} messages are lost: the disk of {self._folder} is too slow; use a faster one'
            )
        if now - self._reported > REPORT_PERIOD_S:
            self._reported = now
            self.get_logger().info(
                f'{account.messages} messages, {account.bytes / 1e6:.0f} MB, {account.episodes} episodes'
            )

    def _stop(self, error: BagError, now: float) -> None:
        """Record no more until it can be done again; have the session hold still until somebody lets it go on."""
        if str(error) != self._trouble:
            self.get_logger().error(f'nothing is recorded, and the session is paused: {error}')
        self._must_pause = (
            self._must_pause or not self._trouble
        )  # once: a human may go on without a recording
        self._trouble, self._retry_s, self._started = str(error), now + RETRY_S, now
        self.close()
        self._snapshot.begin_again()
        self._listener.begin_again()

    def _status_message(self) -> DiagnosticStatus:
        """Say whether it records, where, and how much disk is left."""
        where = (
            self._folder if self._sink is not None and self._folder else Path(self._config.out).expanduser()
        )
        free_gb = shutil.disk_usage(existing(where)).free / 1e9
        left, level = f'{free_gb:.1f} GB are left on the disk.', DiagnosticStatus.OK
        values = {
            'folder': str(where),
            'free_gb': f'{free_gb:.3f}',
            'recording': str(self._sink is not None).lower(),
        }
        if self._trouble:
            level, said = DiagnosticStatus.ERROR, f'Nothing is recorded: {self._trouble}.'
        elif self._sink is None:
            level, said = DiagnosticStatus.WARN, f'Waits for the arm before it records into {where}. {left}'
        else:
            account = self._sink.account
            said = f'Records into {where}: {account.episodes} episodes, {account.bytes / 1e6:.0f} MB. {left}'
        pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
        return DiagnosticStatus(name='recorder', level=level, message=said, values=pairs)

    def _begin(self, now: float) -> None:
        """Create the bag as soon as everything is there that gives the actions their meaning."""
        missing = self._missing_inputs()
        if missing:
            if not self._said:
                self.get_logger().info(f'waiting for {", ".join(missing)}')
            self._said = True
            self._forget_old()
            if 0 < self._config.wait_s < now - self._started:
                raise BagError(
                    f'expected messages on {", ".join(missing)} before recording, got none in '
                    f'{self._config.wait_s:.0f} s; start the arm and kinematics_node, or set require_kinematics '
                    f'to false'
                )
            return
        self._folder = self._new_folder()
        self._require_space(self._folder.parent)
        custom = {key: value for key, value in self._metadata.items() if key.endswith('hash')}
        writer = BagWriter(
            self._folder,
            compression=self._config.compression,
            split_bytes=round(self._config.split_mb * 1e6),
            extras=Extras({'so101': self._metadata}, yaml_files(self._config.config), custom),
            distro=os.environ.get('ROS_DISTRO', 'jazzy'),
        )
        self._sink = Sink(
            writer,
            metadata=self._metadata,
            split_episodes=self._config.split_episodes,
            min_free_mb=self._config.min_free_mb,
        )
        self._trouble, self._lost = '', 0
        self.get_logger().info(f'recording {len(self._listener)} topics to {self._folder}')

    def _new_folder(self) -> Path:
        out = Path(self._config.out).expanduser()
        if self._config.name:
            return out / self._config.name
        name = f'so101_{datetime.now():%Y%m%d_%H%M%S}'
        numbered = (out / f'{name}{"" if i == 1 else f"_{i}"}' for i in itertools.count(1))
        return next(folder for folder in numbered if not folder.exists())

    def _require_space(self, folder: Path) -> None:
        """Refuse to begin on a disk that would end the recording at once."""
        free_mb = shutil.disk_usage(existing(folder)).free / 1e6
        if free_mb < self._config.min_free_mb:
            raise BagError(
                f'expected at least {self._config.min_free_mb:.0f} MB free for {folder}, got {free_mb:.0f} MB; '
                f'free the disk or record elsewhere'
            )

    def _forget_old(self) -> None:
        """While waiting, keep what a recording that begins now needs: what is latched, and the last moments."""
        oldest = self.get_clock().now().nanoseconds - round(PRE_ROLL_S * 1e9)
        self._batch = [
            item
            for item in self._batch
            if not isinstance(item, NewMessage) or item.log_ns > oldest or item.topic.endswith(LATCHED)
        ]

    def _missing_inputs(self) -> list[str]:
        if not self._config.require_kinematics:
            return []
        prefixes = [namespace.rstrip('/') for namespace in self._namespaces]
        needed = [
            f'{prefix}/{name}' for prefix in prefixes for name in (topics.JOINT_STATES, topics.TCP_POSE)
        ]
        return [topic for topic in needed if not self._is_there(topic)]

    def _is_there(self, topic: str) -> bool:
        # What is not recorded has to be published at least.
        return topic in self._listener.heard if topic in self._expected else self.count_publishers(topic) > 0

    def _contract(self) -> dict[str, str]:
        config = self._config
        task = told_task(config.task, config.cameras)
        observation = observed(
            task,
            config.observation,
            tcp=config.tcp or None,
            camera_preset=config.camera_preset or None,
            cameras=config.cameras,
        )
        action = ActionSpec()
        said = {} if task is None else {'task': task.meaning.to_json(None), 'task_hash': task.hash}
        return {
            **said,
            'observation': observation.canonical(),
            'observation_hash': observation.hash,
            'action': action.canonical(),
            'action_hash': action.hash,
        }

    def _look(self) -> None:
        self._snapshot.look()
        self._listener.look()

    def _put(self, item: Item) -> None:
        self._batch.append(item)

    def _on_parameters(self, name: str, values: Mapping[str, str]) -> None:
        self._put(Note(f'parameters {name}', values))


def run(args: Sequence[str] | None = None) -> int:
    """Run the node to its end and return the exit code."""
    # Its callbacks take the stamps of the messages, which the events executor does not hand over.
    errors = BagError, ContractError, ParameterError
    return run_node(RecorderNode, errors, args, lambda node: SingleThreadedExecutor(context=node.context))


def main(args: Sequence[str] | None = None) -> None:
    """Run the node."""
    leave(run(args))


if __name__ == '__main__':
    main()
