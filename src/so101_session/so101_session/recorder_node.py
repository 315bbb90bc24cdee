# SPDX-License-Identifier: Apache-2.0
"""Records the graph into a rosbag2: messages are taken as bytes and written by another thread."""

from collections.abc import Mapping, Sequence
from datetime import datetime
import itertools
import os
from pathlib import Path
import shutil
import sys
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from so101_bags.storage import BagError
from so101_bags.write import BagWriter, Extras
from so101_contract.action import ActionSpec
from so101_contract.errors import ContractError
from so101_contract.presets import get_observation
from so101_interfaces_py import topics
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node
from so101_session.graph_listener import GraphListener
from so101_session.parameter_snapshot import ParameterSnapshot
from so101_session.recorder.sink import Item, NewMessage, Note, Sink
from so101_session.recorder_config import LATCHED, RecorderConfig

CONFIG = (RecorderConfig,)

LOOK_PERIOD_S = 0.5
REPORT_PERIOD_S = 30.0
CLOSE_TIMEOUT_S = 4.0
# What came before the bag could begin, so that its first step has the stack of images that it names.
PRE_ROLL_S = 2.0


class RecorderNode(Node):
    """A listener collects bytes; one timer hands them to the writer and has the listener look for new topics."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('recorder_node', **node_options)
        self._config = load_config(self, RecorderConfig)
        self._expected = self._config.expected(self.get_namespace())
        self._facts = self._contract()
        self._batch: list[Item] = []
        self._listener = GraphListener(self, self._expected, self._put)
        self._sink: Sink | None = None
        self._folder: Path | None = None
        self._started = self._reported = time.monotonic()
        self._next_look = 0.0
        self._lost, self._said = 0, False
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
        custom = {key: value for key, value in self._facts.items() if key.endswith('hash')}
        writer = BagWriter(
            self._folder,
            compression=self._config.compression,
            split_bytes=round(self._config.split_mb * 1e6),
            extras=Extras({'so101': self._facts}, _yaml_files(self._config.config), custom),
            distro=os.environ.get('ROS_DISTRO', 'jazzy'),
        )
        self._sink = Sink(
            writer,
            facts=self._facts,
            split_episodes=self._config.split_episodes,
            min_free_mb=self._config.min_free_mb,
        )
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
        present = next(
            parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists()
        )
        free_mb = shutil.disk_usage(present).free / 1e6
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
        observation = get_observation(
            config.observation, tcp=config.tcp or None, camera_preset=config.camera_preset or None
        )
        action = ActionSpec()
        return {
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


def _yaml_files(folder: str) -> dict[str, bytes]:
    if not folder:
        return {}
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise BagError(f'expected a folder with *.yaml at {path}, found none; correct the parameter config')
    return {file.name: file.read_bytes() for file in sorted(path.glob('*.yaml'))}


def run(args: Sequence[str] | None = None) -> int:
    """Run the node to its end and return the exit code."""
    # Its callbacks take the stamps of the messages, which the events executor does not hand over.
    errors = BagError, ContractError, ParameterError
    return run_node(RecorderNode, errors, args, lambda node: SingleThreadedExecutor(context=node.context))


def main(args: Sequence[str] | None = None) -> None:
    """Run the node."""
    sys.exit(run(args))


if __name__ == '__main__':
    main()
