# SPDX-License-Identifier: Apache-2.0
"""Subscribes to topics of a graph as their publishers offer them, and hands over every message as bytes."""

from collections.abc import Callable, Mapping, Sequence
import functools
import importlib
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from so101_bags.metadata import Definition, definition_of, OfferedQos
from so101_bags.storage import BagError
from so101_session.recorder.sink import Item, NewMessage, NewTopic
from so101_session.recorder_config import LATCHED

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
