# SPDX-License-Identifier: Apache-2.0
"""Plays a bag as `ros2 bag play` does, which no wheel has: the stored bytes, in their rhythm, with their QoS.

Like that of rosbag2 (its player of Jazzy), the node is called `rosbag2_player`, publishes what was recorded without
reading it, and offers on each topic what was offered when it was recorded.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from so101_bags.storage import open_bags, read_metadata

NAME = 'rosbag2_player'
DEPTH = 100
_POLL_S = 0.02


class BagPlayer:
    """Publishes one bag; `play` returns at its end.

    Args:
        bag: its folder.
        rate: how many times faster than it was recorded.
        context: of rclpy; the default one if None.
    """

    def __init__(self, bag: Path, *, rate: float = 1.0, context: Any = None) -> None:
        self._bag, self._rate = bag, rate
        self._node = Node(NAME, context=context)
        profiles = _offered(bag)
        with open_bags(bag) as raw:
            self._publishers = {
                name: self._node.create_publisher(_type(info.msgtype), name, profiles[name])
                for name, info in raw.topics.items()
            }

    def wait_for(self, subscriptions: Mapping[str, int], timeout_s: float) -> bool:
        """Wait until so many listen on each of these topics; return whether they do."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if all(self._publishers[name].get_subscription_count() >= n for name, n in subscriptions.items()):
                return True
            time.sleep(_POLL_S)
        return False

    def play(self) -> dict[str, int]:
        """Publish everything, and return how many messages went to each topic."""
        sent = dict.fromkeys(self._publishers, 0)
        with open_bags(self._bag) as raw:
            first_ns: int | None = None
            begun = time.monotonic()
            for message in raw.messages(list(self._publishers)):
                first_ns = message.log_ns if first_ns is None else first_ns
                due = begun + (message.log_ns - first_ns) / 1e9 / self._rate
                time.sleep(max(0.0, due - time.monotonic()))
                self._publishers[message.topic].publish(bytes(message.data))
                sent[message.topic] += 1
        return sent

    def close(self) -> None:
        """Take the node away."""
        self._node.destroy_node()


def _type(name: str) -> Any:
    package, _, message = name.partition('/msg/')
    return getattr(import_module(f'{package}.msg'), message)


def _offered(bag: Path) -> dict[str, QoSProfile]:
    """Return the QoS of each topic as the bag has it."""
    information = read_metadata(bag)
    topics = (entry['topic_metadata'] for entry in information['topics_with_message_count'])
    return {topic['name']: _profile(topic['offered_qos_profiles']) for topic in topics}


def _profile(offered: list[Mapping[str, Any]]) -> QoSProfile:
    reliable = all(one['reliability'] == 'reliable' for one in offered)
    latched = bool(offered) and all(one['durability'] == 'transient_local' for one in offered)
    return QoSProfile(
        depth=DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
