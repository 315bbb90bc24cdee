# SPDX-License-Identifier: Apache-2.0
"""A thread of its own that writes what a recorder receives, so that a slow disk does not lose messages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
import logging
import queue
import shutil
import threading
from typing import NamedTuple

from so101_bags.messages import Decoders
from so101_bags.metadata import Definition, OfferedQos
from so101_bags.storage import BagError, DecodeError
from so101_bags.write import BagWriter
from so101_contract.errors import ContractError
from so101_contract.messages import EpisodeEventRecord
from so101_contract.session import EventKind

_log = logging.getLogger(__name__)
_MB = 1e6


class NewTopic(NamedTuple):
    """A topic whose first message follows."""

    topic: str
    definition: Definition
    qos: list[OfferedQos]
    latched: bool


class NewMessage(NamedTuple):
    """A message."""

    topic: str
    log_ns: int
    publish_ns: int
    data: bytes


class Note(NamedTuple):
    """Named pairs of strings."""

    name: str
    values: Mapping[str, str]


Item = NewTopic | NewMessage | Note


@dataclass
class Account:
    """What was written; the thread changes it, others read it."""

    messages: int = 0
    bytes: int = 0
    episodes: int = 0
    backlog: int = 0
    lost: int = 0
    error: BagError | None = None
    metadata: dict[str, str] = field(default_factory=dict)


class Sink:
    """Writes batches in order; the first error ends it, and the bag is whole up to there."""

    def __init__(
        self,
        writer: BagWriter,
        *,
        metadata: Mapping[str, str],
        split_episodes: int = 0,
        min_free_mb: float = 0.0,
        backlog_mb: float = 512.0,
    ) -> None:
        """Start the thread.

        Args:
            writer: the bag; the thread owns it from now on.
            metadata: what `so101` metadata say from the beginning; what the session says is added.
            split_episodes: begin another file after so many episodes; 0 never does.
            min_free_mb: stop while this much is free on the disk [MB].
            backlog_mb: messages that wait for the disk; what goes beyond it is dropped and counted [MB].
        """
        self.account = Account(metadata=dict(metadata))
        self._writer, self._split_episodes = writer, split_episodes
        self._min_free, self._backlog_limit = min_free_mb * _MB, backlog_mb * _MB
        self._ended_since_split = 0
        self._ended: set[int] = set()
        self._readers: dict[str, Callable[[bytes], None]] = {}
        self._unreadable: set[str] = set()
        self._batches: queue.SimpleQueue[Sequence[Item] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name='bag writer', daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it takes batches."""
        return self._thread.is_alive()

    def submit(self, batch: Sequence[Item]) -> None:
        """Hand over what came since the last call."""
        size = sum(len(item.data) for item in batch if isinstance(item, NewMessage))
        if self.account.backlog + size > self._backlog_limit:
            self.account.lost += sum(isinstance(item, NewMessage) for item in batch)
            batch = [item for item in batch if not isinstance(item, NewMessage)]
            size = 0
        self.account.backlog += size
        self._batches.put(batch)

    def close(self, timeout_s: float) -> bool:
        """Write what waits and close the bag; return whether that ended in time."""
        self._batches.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (batch := self._batches.get()) is not None:
                self._write(batch)
            self._writer.close()
        except BagError as error:
            self.account.error = error
        except OSError as error:
            self.account.error = BagError(
                f'expected to write to {self._writer.folder}, got {error}; run bag-fix on it'
            )

    def _write(self, batch: Sequence[Item]) -> None:
        for item in batch:
            if isinstance(item, NewTopic):
                self._writer.add_topic(item.topic, item.definition, item.qos, latched=item.latched)
                self._prepare(item.topic, item.definition)
            elif isinstance(item, Note):
                self._writer.note(item.name, item.values)
            else:
                self._take_notice(item)
                self._writer.write(*item)
                self.account.messages += 1
                self.account.bytes += len(item.data)
        self._writer.flush()
        self.account.backlog -= sum(len(item.data) for item in batch if isinstance(item, NewMessage))
        free = shutil.disk_usage(self._writer.folder).free
        if free < self._min_free:
            self._writer.close()
            raise BagError(
                f'expected at least {self._min_free / _MB:.0f} MB free for {self._writer.folder}, got '
                f'{free / _MB:.0f} MB; the bag is whole up to here: free the disk and record again'
            )

    def _prepare(self, topic: str, definition: Definition) -> None:
        """Prepare to read the few messages that say something about the bag itself."""
        try:
            self._readers.update(self._reader(topic, definition))
        except BagError as error:
            _log.warning('messages on %s cannot be read: %s', topic, error)

    def _reader(self, topic: str, definition: Definition) -> dict[str, Callable[[bytes], None]]:
        if topic.endswith('/session/event'):
            event = Decoders.of(definition.msgtype, definition.text).event()
            return {topic: lambda data: self._on_event(event(data))}
        if topic.endswith('/arm/status'):
            decoders = Decoders.of(definition.msgtype, definition.text)
            status = decoders.fields(definition.msgtype, ['calibration_id'])
            return {topic: lambda data: self._say(calibration_id=status(data).calibration_id)}
        return {}

    def _take_notice(self, item: NewMessage) -> None:
        if item.topic not in self._readers:
            return
        try:
            self._readers[item.topic](item.data)
        except (DecodeError, ContractError) as error:
            if item.topic in self._unreadable:
                return
            self._unreadable.add(item.topic)
            _log.warning('a message on %s cannot be read: %s', item.topic, error)

    def _on_event(self, event: EpisodeEventRecord) -> None:
        begins = event.kind in (EventKind.RESET_START, EventKind.START)
        if begins and 0 < self._split_episodes <= self._ended_since_split:
            self._ended_since_split = 0
            self._writer.split()
        if (
            event.kind.outcome is not None and event.episode not in self._ended
        ):  # a late label ends no other episode
            self._ended.add(event.episode)
            self._ended_since_split += 1
            self.account.episodes += 1
        if event.kind == EventKind.START:
            self._say(
                observation_hash=event.observation_hash,
                action_hash=event.action_hash,
                calibration_id=event.calibration_id,
            )

    def _say(self, **metadata: str) -> None:
        """Store what the session says about contract and calibration where it differs from what is stored."""
        known = self.account.metadata
        new = {key: value for key, value in metadata.items() if value and known.get(key) != value}
        if not new:
            return
        if 'observation_hash' in new and 'observation' in known:
            del known['observation']
            _log.warning(
                'expected the observation %s of the parameter, the session has %s; give both the same parameter',
                known['observation_hash'][:12],
                new['observation_hash'][:12],
            )
        known.update(new)
        self._writer.note('so101', known)
        for key, value in new.items():
            self._writer.say(key, value)
