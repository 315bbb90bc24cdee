# SPDX-License-Identifier: Apache-2.0
"""Frames, transitions and reports of episodes as the bytes of a record, and back. Numbers are little endian."""

from collections.abc import Mapping
from dataclasses import dataclass
import json
import struct
from typing import TypeAlias

import numpy as np

from hilserl_learner.errors import SegmentError
from so101_contract.episodes import Outcome, Source
from so101_contract.messages import ExecutedAction
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import EpisodeReport, Frame, Output, Reason, Transition

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
