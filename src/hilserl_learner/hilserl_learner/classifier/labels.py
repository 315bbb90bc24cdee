# SPDX-License-Identifier: Apache-2.0
"""Labels for pictures: what a human says while the arm moves, and where that is kept.

`success now` means that success can be seen from here on, until `not yet` says that it cannot any more. A human
reacts late, so what was seen shortly before a word belongs to neither side; so does how an episode ends. A late
correction of an episode labels its last pictures: those that a classifier has taken for success and were none are the
ones that it learns most from. The same steps, events and pictures come live and from a bag, and give the same labels.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
import struct
from typing import ClassVar

import numpy as np

from hilserl_learner.classifier.model import ClassifierError, Pictures
from hilserl_learner.data.segments import SegmentReader, SegmentWriter
from hilserl_learner.data.store import write_whole
from so101_contract.messages import AnyRecord, EpisodeEventRecord, ImageSample, StepRecord
from so101_contract.observation_spec import CameraSpec, ObservationSpec
from so101_contract.record import Record
from so101_contract.session import EventKind, NO_EPISODE, Outcome
from so101_interfaces_py.files import read_file

REACTION_NS = 700_000_000
"""What was seen so shortly before a word belongs to neither side: people react within 0.3 s, and press a key [ns]."""
LAST_STEPS = 2
"""Pictures at the end of an episode that a late correction labels."""
REMEMBERED = 8
"""Episodes that can be corrected late."""
WAITING = 200
"""Steps and pictures that wait for each other."""
MOST_PICTURES = 12_000
"""Labels that are trained on, the newest ones: twenty minutes, 250 MB of one camera at 84 px."""

LABELS, HEADER = 'labels', 'labels.json'
_KIND = 1
_HEAD = struct.Struct('<HI?')  # length of the episode's name, index, success


@dataclass(frozen=True, eq=False)
class Labelled:
    """The pictures of a step, and what a human says of them.

    Attributes:
        episode: which one, of whichever session.
        index: of the step.
        success: they show success.
        images: (V, 3, S, S).
    """

    episode: str
    index: int
    success: bool
    images: Pictures


@dataclass(frozen=True, eq=False)
class Seen:
    """A step whose pictures have come.

    Attributes:
        step: which one.
        images: (V, 3, S, S), in the order of the observation.
    """

    step: StepRecord
    images: Pictures


class Eyes:
    """Puts steps and the pictures that they name together, in whatever order they come."""

    def __init__(self, spec: ObservationSpec) -> None:
        self._names, size = spec.camera_names, spec.image_size
        self._shape = (3, size, size)
        self._images: dict[tuple[str, int], Pictures] = {}
        self._steps: deque[StepRecord] = deque(maxlen=WAITING)

    def push(self, record: AnyRecord) -> list[Seen]:
        """Take a record and return the steps that it completes."""
        if isinstance(record, ImageSample) and record.image.shape == self._shape:
            self._images[record.camera, record.stamp_ns] = record.image
            while len(self._images) > WAITING:
                del self._images[next(iter(self._images))]
        elif isinstance(record, StepRecord) and record.episode != NO_EPISODE:
            if len(record.image_stamps_ns) == len(self._names):
                self._steps.append(record)
        else:
            return []
        seen = [step for step in self._steps if all(key in self._images for key in self._keys(step))]
        for step in seen:
            self._steps.remove(step)
        return [Seen(step, np.stack([self._images[key] for key in self._keys(step)])) for step in seen]

    def _keys(self, step: StepRecord) -> list[tuple[str, int]]:
        return list(zip(self._names, step.image_stamps_ns, strict=True))


@dataclass
class _Watched:
    """An episode while it is labelled: what was said last, what waits, and what was seen last."""

    said: bool | None = None
    since_ns: int = 0
    ended: Outcome | None = None
    waiting: deque[Seen] = field(default_factory=lambda: deque(maxlen=WAITING))
    last: deque[Seen] = field(default_factory=lambda: deque(maxlen=LAST_STEPS))


class Labeller:
    """From what a human says in one session to labelled pictures."""

    def __init__(self, stream: str, reaction_ns: int = REACTION_NS) -> None:
        """Prepare.

        Args:
            stream: tells the episodes of this session from those of others.
            reaction_ns: how late a human may be [ns].
        """
        self._stream, self._reaction_ns = stream, reaction_ns
        self._episodes: dict[int, _Watched] = {}

    def see(self, seen: Seen) -> list[Labelled]:
        """Take what was seen at a step; return the pictures that are labelled for good by now."""
        episode = self._of(seen.step.episode)
        episode.last.append(seen)
        if episode.said is None or seen.step.stamp_ns < episode.since_ns:
            return []
        episode.waiting.append(seen)
        sure_ns = seen.step.stamp_ns - self._reaction_ns
        done = []
        while episode.waiting and episode.waiting[0].step.stamp_ns <= sure_ns:
            done.append(self._labelled(episode.waiting.popleft(), episode.said))
        return done

    def hear(self, event: EpisodeEventRecord) -> list[Labelled]:
        """Take an event; return the pictures that it labels."""
        if event.kind is EventKind.START:
            self._episodes.pop(event.episode, None)
        elif event.kind in (EventKind.SUCCESS_NOW, EventKind.NOT_YET):
            return self._say(self._of(event.episode), event)
        elif event.kind.outcome is not None and event.episode in self._episodes:
            return self._end(self._episodes[event.episode], event.kind.outcome)
        return []

    def _say(self, episode: _Watched, event: EpisodeEventRecord) -> list[Labelled]:
        success = event.kind is EventKind.SUCCESS_NOW
        if episode.said is not success:
            # What was seen while the human made up their mind belongs to neither.
            sure_ns = event.stamp_ns - self._reaction_ns
            before = [seen for seen in episode.waiting if seen.step.stamp_ns <= sure_ns]
            episode.waiting.clear()
            done = [] if episode.said is None else [self._labelled(seen, episode.said) for seen in before]
            episode.said, episode.since_ns = success, event.stamp_ns
            return done
        return []

    def _end(self, episode: _Watched, outcome: Outcome) -> list[Labelled]:
        corrected = episode.ended is not None and episode.ended is not outcome
        was, episode.ended = episode.ended, outcome
        episode.waiting.clear()
        if not corrected or Outcome.SUCCESS not in (was, outcome):
            return []
        return [self._labelled(seen, outcome is Outcome.SUCCESS) for seen in episode.last]

    def _labelled(self, seen: Seen, success: bool) -> Labelled:
        step = seen.step
        return Labelled(f'{self._stream}/{step.episode}', step.index, success, seen.images)

    def _of(self, number: int) -> _Watched:
        if number not in self._episodes:
            self._episodes[number] = _Watched()
            while len(self._episodes) > REMEMBERED:
                del self._episodes[next(iter(self._episodes))]
        return self._episodes[number]


@dataclass(frozen=True, kw_only=True)
class LabelsHeader(Record):
    """What labels are of.

    Attributes:
        cameras: whose pictures, with size and crop.
        task: name of what is to be done; None where nobody says.
    """

    KIND: ClassVar[str] = 'hilserl_learner/labels/1'
    ERROR = ClassifierError
    OPTIONAL = frozenset({'task'})

    cameras: tuple[CameraSpec, ...]
    task: str | None = None


class LabelStore:
    """Labelled pictures on disk, which a killed writer cannot damage; one writer at a time."""

    def __init__(self, directory: Path, header: LabelsHeader) -> None:
        """Open or begin a store.

        Raises:
            ClassifierError: what is there is of other cameras, or of another task.
        """
        path = directory / HEADER
        if path.exists():
            lines = read_labels_header(directory).diff(header, ('labels there', 'here'))
            if lines:
                raise ClassifierError(
                    f'expected labels in {directory} of the same pictures and task, got the differences below; name '
                    f'another folder with classifier:=\n  ' + '\n  '.join(lines)
                )
        else:
            write_whole(path, header.to_json().encode())
        self._log = SegmentWriter(directory)

    def append(self, labelled: Labelled) -> None:
        """Write a label; once this returns, killing the process does not lose it."""
        if self._log.full:
            self._log.roll()
        name = labelled.episode.encode()
        head = _HEAD.pack(len(name), labelled.index, labelled.success)
        self._log.append(_KIND, b''.join((head, name, np.ascontiguousarray(labelled.images).tobytes())))

    def close(self) -> None:
        """Bring everything to the disk and close."""
        self._log.close()


def read_labels_header(directory: Path) -> LabelsHeader:
    """Return what the labels of a folder are of.

    Raises:
        ClassifierError: there are none, or their header is damaged.
    """
    try:
        return LabelsHeader.from_json(read_file(directory / HEADER))
    except OSError as error:
        raise ClassifierError(
            f'expected labels in {directory}, got "{error.strerror}"; press success now and not yet while driving'
        ) from error


def read_labels(directory: Path) -> Iterator[Labelled]:
    """Yield the labels of a folder, in the order in which they were given.

    Raises:
        ClassifierError: there are none, or they are of other pictures than their header says.
    """
    cameras = read_labels_header(directory).cameras
    sizes = {camera.size for camera in cameras}
    shape = (len(cameras), 3, max(sizes, default=0), max(sizes, default=0))
    pixels = int(np.prod(shape))
    if len(sizes) != 1 or not 0 < pixels < 2**26:
        raise ClassifierError(f'expected cameras of one size in {directory}, got {sorted(sizes)}; begin anew')
    for record in SegmentReader(directory).poll():
        if record.kind != _KIND or len(record.payload) < _HEAD.size:
            continue
        length, index, success = _HEAD.unpack_from(record.payload)
        if len(record.payload) != _HEAD.size + length + pixels:
            raise ClassifierError(
                f'expected labels of {shape} pixels in {directory}, got {len(record.payload)} bytes; they are not of '
                f'this program, leave them out'
            )
        name = record.payload[_HEAD.size : _HEAD.size + length].decode(errors='replace')
        images = np.frombuffer(record.payload, np.uint8, pixels, _HEAD.size + length).reshape(shape)
        yield Labelled(name, index, success, images)


def newest(labels: Iterator[Labelled], most: int = MOST_PICTURES) -> list[Labelled]:
    """Return the newest labels; of a picture that was labelled twice what was said last."""
    held: dict[tuple[str, int], Labelled] = {}
    for labelled in labels:
        key = (labelled.episode, labelled.index)
        held.pop(key, None)
        held[key] = labelled
        if len(held) > most:
            del held[next(iter(held))]
    return list(held.values())
