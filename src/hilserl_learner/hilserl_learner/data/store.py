# SPDX-License-Identifier: Apache-2.0
"""A buffer on disk: what assemblers put out, as an append-only log with a header that says what it means.

    BUFFER/buffer.json       observation spec, action spec, and the parts in order
    BUFFER/<part>/NNNNNN.seg log of one source: a bag, or one life of the learner

Loading a buffer is reading the log from the beginning. Every file can be read by itself: a writer repeats the
frames that it needs at the beginning of each.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import hashlib
import json
import os
from pathlib import Path
import struct
from typing import ClassVar, TypeAlias

import numpy as np

from hilserl_learner.data.segments import Position, SEGMENT_BYTES, SegmentReader, SegmentWriter
from hilserl_learner.errors import SegmentError
from so101_contract.action import ActionSpec
from so101_contract.messages import ExecutedAction
from so101_contract.observation import Frame
from so101_contract.observation_spec import ObservationSpec
from so101_contract.record import Record
from so101_contract.session import Outcome, Source
from so101_contract.transition import EpisodeReport, Output, Reason, Transition

Frames: TypeAlias = Mapping[tuple[str, int, int, int], Frame]
"""Frames by stream, episode, index and stamp."""

_FRAME = struct.Struct('<IIq')  # episode, index, stamp
_TRANSITION = struct.Struct(
    '<IIddddBdBBI'
)  # episode, index, x, y, z, opening, source, reward, flags, revision
_KEY = struct.Struct('<Iq')  # index and stamp of a frame of the same episode


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that an assembler put out, and whose it was.

    Attributes:
        stream: which arm, bag or session, so that equal episode numbers do not meet.
        output: a transition, or the report of an episode.
    """

    stream: str
    output: Output


def _pack_text(text: str) -> bytes:
    data = text.encode()
    return struct.pack('<H', len(data)) + data


def _unpack_text(payload: bytes) -> tuple[str, int]:
    (length,) = struct.unpack_from('<H', payload)
    return payload[2 : 2 + length].decode(), 2 + length


def pack_frame(stream: str, frame: Frame) -> bytes:
    """Return the payload of a frame."""
    parts = [_pack_text(stream), _FRAME.pack(frame.episode, frame.index, frame.stamp_ns)]
    parts.append(np.ascontiguousarray(frame.state, dtype='<f4').tobytes())
    parts += [np.ascontiguousarray(image).tobytes() for image in frame.images.values()]
    return b''.join(parts)


def unpack_frame(payload: bytes, spec: ObservationSpec) -> tuple[str, Frame]:
    """Return the stream and the frame of a payload.

    Raises:
        SegmentError: it has another size than the spec says.
    """
    stream, at = _unpack_text(payload)
    episode, index, stamp_ns = _FRAME.unpack_from(payload, at)
    at += _FRAME.size
    pixels = 3 * spec.image_size**2
    if len(payload) - at != 4 * spec.state_size + len(spec.cameras) * pixels:
        raise SegmentError(
            f'expected a frame of {spec.state_size} state entries and {len(spec.cameras)} images of '
            f'{spec.image_size} px, got {len(payload) - at} bytes; the header belongs to another buffer'
        )
    state = np.frombuffer(payload, '<f4', spec.state_size, at)
    at += state.nbytes
    images = {}
    for camera in spec.camera_names:
        image = np.frombuffer(payload, np.uint8, pixels, at)
        images[camera] = image.reshape(3, spec.image_size, spec.image_size)
        at += pixels
    return stream, Frame(episode, index, stamp_ns, state, images)


def pack_transition(stream: str, transition: Transition) -> bytes:
    """Return the payload of a transition, which names its frames."""
    action = transition.action
    values = _TRANSITION.pack(
        transition.episode,
        transition.index,
        *map(float, action.translation),
        action.opening,
        action.source,
        transition.reward,
        transition.terminated,
        transition.truncated,
        transition.revision,
    )
    keys = [_KEY.pack(f.index, f.stamp_ns) for f in (*transition.frames, transition.next_frame)]
    return b''.join((_pack_text(stream), values, *keys))


def unpack_transition(payload: bytes, frames: Frames) -> Entry | None:
    """Return a transition whose frames are known; None where one of them is lost."""
    stream, at = _unpack_text(payload)
    values = _TRANSITION.unpack_from(payload, at)
    episode, index, *translation, opening, source, reward, terminated, truncated, revision = values
    keys = _KEY.iter_unpack(payload[at + _TRANSITION.size :])
    found = [frames.get((stream, episode, number, stamp)) for number, stamp in keys]
    whole = tuple(frame for frame in found if frame is not None)
    if len(whole) != len(found):
        return None
    action = ExecutedAction(episode, index, np.array(translation), opening, Source(source))
    ends = bool(terminated), bool(truncated)
    return Entry(stream, Transition(whole[:-1], whole[-1], action, reward, *ends, revision))


def pack_report(stream: str, report: EpisodeReport) -> bytes:
    """Return the payload of an episode's report."""
    content = {
        'episode': report.episode,
        'outcome': None if report.outcome is None else int(report.outcome),
        'steps': report.steps,
        'transitions': report.transitions,
        'intervened': report.intervened,
        'dropped': {reason.name: count for reason, count in report.dropped.items()},
        'discarded': report.discarded,
    }
    return _pack_text(stream) + json.dumps(content, sort_keys=True).encode()


def unpack_report(payload: bytes) -> Entry:
    """Return the report of a payload."""
    stream, at = _unpack_text(payload)
    content = json.loads(payload[at:])
    outcome = content.pop('outcome')
    dropped = {Reason[name]: count for name, count in content.pop('dropped').items()}
    report = EpisodeReport(outcome=None if outcome is None else Outcome(outcome), dropped=dropped, **content)
    return Entry(stream, report)


__all__ = [
    'HEADER',
    'BufferHeader',
    'BufferWriter',
    'Entry',
    'Part',
    'PartReader',
    'part_digest',
    'read_buffer',
    'read_header',
    'write_header',
    'write_whole',
]

HEADER = 'buffer.json'

FRAME, TRANSITION, REPORT = 1, 2, 3


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


@dataclass(frozen=True, kw_only=True)
class BufferHeader(Record):
    """What the transitions of a buffer mean.

    Attributes:
        observation: what they were assembled with.
        action: what a network's action means where they are used.
        parts: in the order in which they are read.
    """

    KIND: ClassVar[str] = 'hilserl_learner/buffer/1'
    ERROR = SegmentError

    observation: ObservationSpec
    action: ActionSpec
    parts: tuple[Part, ...] = ()


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
        text = (directory / HEADER).read_bytes()
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
            self._log.append(TRANSITION, pack_transition(stream, output))
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
        self.incomplete = 0
        """Transitions that were skipped since one of their frames is lost."""

    @property
    def position(self) -> Position:
        """Up to where the log was read."""
        return self._log.position

    @property
    def damaged(self) -> list[str]:
        """One sentence per file in which something was skipped."""
        return self._log.damaged

    def poll(self) -> Iterator[Entry]:
        """Yield the entries that came since the last call."""
        for record in self._log.poll():
            if record.segment != self._segment:
                self._segment = record.segment
                self._frames.clear()
            if record.kind == FRAME:
                stream, frame = unpack_frame(record.payload, self._spec)
                self._frames[stream, frame.episode, frame.index, frame.stamp_ns] = frame
            elif record.kind == TRANSITION:
                entry = unpack_transition(record.payload, self._frames)
                if entry is None:
                    self.incomplete += 1
                else:
                    yield entry
            elif record.kind == REPORT:
                entry = unpack_report(record.payload)
                assert isinstance(entry.output, EpisodeReport)
                gone = (entry.stream, entry.output.episode)
                self._frames = {key: frame for key, frame in self._frames.items() if key[:2] != gone}
                yield entry


def read_buffer(directory: Path) -> Iterator[Entry]:
    """Yield every entry of a buffer, part by part; the streams of different bags are made different."""
    header = read_header(directory)
    for part in header.parts:
        for entry in PartReader(directory / part.name, header.observation).poll():
            yield Entry(f'{part.name} {entry.stream}'.strip(), entry.output) if part.key else entry


def part_digest(directory: Path) -> str:
    """Return a hash over the files of a part."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(path.name.encode() + b'\0' + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
