# SPDX-License-Identifier: Apache-2.0
"""A buffer on disk: what assemblers put out, as an append-only log with a header that says what it means.

    BUFFER/buffer.json       observation spec, action spec, and the parts in order
    BUFFER/<part>/NNNNNN.seg log of one source: a bag, or one life of the learner

Loading a buffer is reading the log from the beginning. Every file can be read by itself: a writer repeats the
frames that it needs at the beginning of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import hashlib
import logging
import os
from pathlib import Path
import re
import struct
from typing import ClassVar

from hilserl_learner.data.packing import (
    Entry,
    pack_base,
    pack_frame,
    pack_report,
    pack_transition,
    Said,
    TCP,
    TRANSITION_LAYOUT,
    unpack_base,
    unpack_frame,
    unpack_report,
    unpack_transition,
)
from hilserl_learner.data.segments import (
    peek,
    Position,
    RawRecord,
    SEGMENT_BYTES,
    SegmentReader,
    SegmentWriter,
)
from hilserl_learner.errors import SegmentError
from so101_contract.action import ActionSpec
from so101_contract.observation import Frame
from so101_contract.observation_spec import ObservationSpec
from so101_contract.record import Record
from so101_contract.task.spec import TaskSpec
from so101_contract.transition import EpisodeReport, Transition
from so101_interfaces_py.files import read_file

__all__ = [
    'HEADER',
    'BufferHeader',
    'BufferWriter',
    'Entry',
    'Part',
    'PartReader',
    'count_transitions',
    'part_digest',
    'read_buffer',
    'read_header',
    'read_part',
    'write_header',
    'write_whole',
]

HEADER = 'buffer.json'

FRAME, TRANSITION, REPORT, BASE = 1, 2, 3, 4
JOINT_TRANSITION = 16
"""Kinds of records; a transition whose action moves n joints is of the kind `JOINT_TRANSITION` + n."""

BAD_CONTENT = (struct.error, ValueError, TypeError, LookupError, AssertionError, RecursionError)
"""What taking a payload apart raises where it is none."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Part(Record):
    """One source of a buffer.

    Attributes:
        name: its directory.
        source_sha256: hash of the bag that it was made of; empty for a live one.
        key: hash of the bag and of everything that decides how it was converted; empty for a live one.
    """

    KIND: ClassVar[str] = 'hilserl_learner/part/1'
    ERROR = SegmentError

    name: str
    source_sha256: str = ''
    key: str = ''

    def __post_init__(self) -> None:
        """Keep it in the buffer's folder."""
        super().__post_init__()
        if not re.fullmatch(r'(?!\.{1,2}$)[\w. -]{1,100}', self.name):
            raise SegmentError(
                f'expected the name of a folder in the buffer, got {self.name!r:.80}; do not use this buffer'
            )


@dataclass(frozen=True, kw_only=True)
class BufferHeader(Record):
    """What the transitions of a buffer mean.

    Attributes:
        observation: what they were assembled with.
        action: what a network's action means where they are used.
        parts: in the order in which they are read.
        task: what was to be done; None where nobody said, as in buffers that are older than task files.
    """

    KIND: ClassVar[str] = 'hilserl_learner/buffer/1'
    ERROR = SegmentError
    OPTIONAL = frozenset({'task'})

    observation: ObservationSpec
    action: ActionSpec
    parts: tuple[Part, ...] = ()
    task: TaskSpec | None = None


def write_header(directory: Path, header: BufferHeader) -> None:
    """Write the header of a buffer; it appears whole or not at all."""
    write_whole(directory / HEADER, (header.to_json() + '\n').encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, bring it to the disk, and put it in place.

    Raises:
        SegmentError: the disk is full or gone; what was there before is still there.
    """
    aside = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise SegmentError(
            f'expected to write {path}, got "{error.strerror}"; free space there or choose another directory'
        ) from error


def read_header(directory: Path) -> BufferHeader:
    """Return the header of a buffer.

    Raises:
        SegmentError: there is none, or it is damaged.
    """
    try:
        text = read_file(directory / HEADER)
    except OSError as error:
        raise SegmentError(
            f'expected a buffer with a {HEADER} in {directory}, got none; name the directory that ingest wrote'
        ) from error
    return BufferHeader.from_json(text)


class BufferWriter:
    """Appends what assemblers put out to one part of a buffer."""

    def __init__(
        self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES, sync_each: bool = False
    ) -> None:
        """Begin to write.

        Args:
            directory: of the part.
            segment_bytes: when a new file begins [B].
            sync_each: wait for the disk after every record, else only when `sync` is called.
        """
        self._log = SegmentWriter(directory, segment_bytes=segment_bytes)
        self._sync_each = sync_each
        self._written: dict[tuple[str, int], set[tuple[int, int]]] = {}
        self.transitions = 0

    def append(self, entry: Entry) -> None:
        """Write an entry; once this returns, killing the process does not lose it.

        Raises:
            SegmentError: the disk is full or gone; a reader will not see a part of the entry.
        """
        stream, output = entry.stream, entry.output
        if self._log.full:
            self._log.roll()
            self._written.clear()  # the new file repeats the frames that it needs
        if isinstance(output, Transition):
            known = self._written.setdefault((stream, output.episode), set())
            for frame in (*output.frames, output.next_frame):
                if (frame.index, frame.stamp_ns) not in known:
                    self._log.append(FRAME, pack_frame(stream, frame))
                    known.add((frame.index, frame.stamp_ns))
            if output.action.base is not None:  # a record of its own: readers of before go past it
                self._log.append(BASE, pack_base(stream, output))
            entries = len(output.action.translation)
            kind = TRANSITION if entries == TCP else JOINT_TRANSITION + entries
            self._log.append(kind, pack_transition(stream, output))
            self.transitions += 1
        else:
            self._log.append(REPORT, pack_report(stream, output))
            self._written.pop((stream, output.episode), None)
        if self._sync_each:
            self.sync()

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        self._log.sync()

    def close(self) -> None:
        """Bring everything to the disk and close; safe to call twice."""
        self._log.close()


class PartReader:
    """Reads the entries of one part, also while they are being written."""

    def __init__(self, directory: Path, spec: ObservationSpec, start: Position | None = None) -> None:
        self._log = SegmentReader(directory, start)
        self._spec = spec
        self._frames: dict[tuple[str, int, int, int], Frame] = {}
        self._segment = -1
        self._base: Said | None = None
        self.incomplete = 0
        """Transitions that were skipped since one of their frames is lost."""

    @property
    def position(self) -> Position:
        """Up to where the log was read."""
        return self._log.position

    @property
    def damaged(self) -> list[str]:
        """One sentence per file in which something was skipped, or that is missing."""
        return self._log.damaged

    def finish(self) -> None:
        """Say what is lost, where nobody writes any more."""
        self._log.finish()
        if self.incomplete:
            told = f'{self._log.directory} has {self.incomplete} transitions whose frames are lost.'
            _log.warning('%s', told)
            self.damaged.append(told)

    def poll(self) -> Iterator[Entry]:
        """Yield the entries that came since the last call.

        Raises:
            SegmentError: what a record says makes no sense, although its checksum is right.
        """
        for record in self._log.poll():
            try:
                entry = self._entry(record)
            except SegmentError:
                raise
            except BAD_CONTENT as error:
                raise SegmentError(
                    f'expected the records of a buffer in {self._log.directory}, got one that says something else '
                    f'({type(error).__name__}: {error}); it was not written by this program, leave that part out'
                ) from error
            if entry is not None:
                yield entry

    def _entry(self, record: RawRecord) -> Entry | None:
        if record.segment != self._segment:
            self._segment = record.segment
            self._frames.clear()
        if record.kind == FRAME:
            stream, frame = unpack_frame(record.payload, self._spec)
            self._frames[stream, frame.episode, frame.index, frame.stamp_ns] = frame
        elif record.kind == TRANSITION or record.kind > JOINT_TRANSITION:
            base, self._base = self._base, None
            entries = TCP if record.kind == TRANSITION else record.kind - JOINT_TRANSITION
            entry = unpack_transition(record.payload, self._frames, base, entries)
            self.incomplete += entry is None
            return entry
        elif record.kind == BASE:
            self._base = unpack_base(record.payload)
        elif record.kind == REPORT:
            entry = unpack_report(record.payload)
            assert isinstance(entry.output, EpisodeReport)
            gone = (entry.stream, entry.output.episode)
            self._frames = {key: frame for key, frame in self._frames.items() if key[:2] != gone}
            return entry
        return None


def read_buffer(directory: Path) -> Iterator[Entry]:
    """Yield every entry of a buffer, part by part; the streams of different bags are made different."""
    header = read_header(directory)
    for part in header.parts:
        for entry in read_part(directory / part.name, header.observation):
            yield Entry(f'{part.name} {entry.stream}'.strip(), entry.output) if part.key else entry


def read_part(directory: Path, spec: ObservationSpec) -> Iterator[Entry]:
    """Yield every entry of a part that nobody writes any more, then say what of it is lost."""
    if not directory.is_dir():
        _log.warning('%s is not there: either nothing was ever written to it, or it is lost.', directory)
    reader = PartReader(directory, spec)
    yield from reader.poll()
    reader.finish()


def count_transitions(directory: Path) -> int:
    """Return how many transitions a part holds, from the heads of its records alone; a late label adds none."""
    bodies = peek(directory, TRANSITION, most=4096)
    values = (TRANSITION_LAYOUT.unpack_from(body, 2 + int.from_bytes(body[:2], 'little')) for body in bodies)
    return sum(revision == 0 for *_, revision in values)


def part_digest(directory: Path) -> str:
    """Return a hash over the files of a part."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(path.name.encode() + b'\0' + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
