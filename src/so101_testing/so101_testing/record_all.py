# SPDX-License-Identifier: Apache-2.0
"""Records every topic of the graph, as `ros2 bag record -a` does: `python -m so101_testing.record_all FOLDER`.

The events of services that tell of themselves (REP-2012) are topics too. Their definition is no message's, so rosbag2
stores a text that no reader of messages can use; here it is the service's. Nothing is written to metadata.yaml before
the end, and nothing of ours is asked what to record: who reads such a bag has to find everything by itself.
"""

import functools
import importlib
from pathlib import Path
import sys
from typing import Any

from mcap.writer import CompressionType, Writer
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from so101_bags.metadata import definition_of
from so101_bags.storage import BagError
from so101_interfaces_py.node import Node

LOOK_PERIOD_S = 0.2
CHUNK = 256 * 1024
DEPTH = 1000
SERVICE_TEXT = 'bool data\n---\nbool success\nstring message\n'


class Recorder(Node):
    """One raw subscription for each topic, and one file."""

    def __init__(self, folder: Path) -> None:
        super().__init__('rosbag2_recorder')
        folder.mkdir(parents=True)
        self._file = (folder / f'{folder.name}_0.mcap').open('wb', buffering=0)
        self._writer = Writer(self._file, chunk_size=CHUNK, compression=CompressionType.NONE)
        self._writer.start('ros2', 'record_all')
        self._channels: dict[str, int] = {}
        self._taken: dict[str, tuple[Any, bool, bool]] = {}
        self.create_timer(LOOK_PERIOD_S, self._look)

    def close(self) -> None:
        """End the file in order."""
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.close()

    def _look(self) -> None:
        """Subscribe as the publishers offer it; again where that has changed, since it is not known at once."""
        for topic, (kind, *_) in self.get_topic_names_and_types():
            offers = [publisher.qos_profile for publisher in self.get_publishers_info_by_topic(topic)]
            reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
            latched = all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
            before = self._taken.get(topic)
            if not offers or (before is not None and before[1:] == (reliable, latched)):
                continue
            if before is not None:
                self.destroy_subscription(before[0])
            self._taken[topic] = self._take(topic, kind, reliable, latched), reliable, latched

    def _take(self, topic: str, kind: str, reliable: bool, latched: bool) -> Any:
        package, place, name = kind.split('/')
        module = importlib.import_module(f'{package}.{place}')
        known = (
            getattr(module, name) if place == 'msg' else getattr(module, name.removesuffix('_Event')).Event
        )
        if topic not in self._channels:
            try:
                text = definition_of(kind).text if place == 'msg' else SERVICE_TEXT
            except BagError:
                text = ''
            schema = self._writer.register_schema(kind, 'ros2msg', text.encode())
            self._channels[topic] = self._writer.register_channel(topic, 'cdr', schema)
        profile = QoSProfile(
            depth=DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        write = functools.partial(self._write, self._channels[topic])
        return self.create_subscription(known, topic, write, profile, raw=True)

    def _write(self, channel: int, data: bytes, info: dict[str, Any]) -> None:
        self._writer.add_message(channel, info['received_timestamp'], data, info['source_timestamp'])


def main() -> None:
    """Record until Ctrl-C."""
    rclpy.init()
    recorder = Recorder(Path(sys.argv[1]))
    try:
        rclpy.spin(recorder)
    except KeyboardInterrupt:
        pass
    finally:
        recorder.close()


if __name__ == '__main__':
    main()
