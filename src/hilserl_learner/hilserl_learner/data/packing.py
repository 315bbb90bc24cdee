# SPDX-License-Identifier: Apache-2.0
"""The records of a buffer as bytes: frames, transitions, what a base policy said, and reports."""

from collections.abc import Mapping
from dataclasses import dataclass
import json
import struct
from typing import TypeAlias

import numpy as np

from hilserl_learner.errors import SegmentError
from so101_contract.base import BaseAction
from so101_contract.messages import ExecutedAction
from so101_contract.observation import Frame
from so101_contract.observation_spec import ObservationSpec
from so101_contract.session import Outcome, Source
from so101_contract.transition import EpisodeReport, Output, Reason, Transition

Frames: TypeAlias = Mapping[tuple[str, int, int, int], Frame]
"""Frames by stream, episode, index and stamp."""

Said: TypeAlias = tuple[tuple[str, int, int], BaseAction]
"""What a base policy said, after stream, episode and index of the step."""

_FRAME = struct.Struct('<IIq')  # episode, index, stamp
_KEY = struct.Struct('<Iq')  # index and stamp of a frame of the same episode
_BASE = struct.Struct('<II4dB')  # episode, index, x, y, z, opening, whether it acts


def _transition(entries: int) -> struct.Struct:
    """Return the layout of a transition: episode, index, action, opening, source, reward, flags, revision."""
    return struct.Struct(f'<II{entries + 1}dBdBBI')


TCP = 3  # entries of an action that moves the TCP
TRANSITION_LAYOUT = _transition(TCP)


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
    values = _transition(len(action.translation)).pack(
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


def unpack_transition(
    payload: bytes, frames: Frames, said: Said | None = None, entries: int = TCP
) -> Entry | None:
    """Return a transition whose frames are known; None where one of them is lost.

    Args:
        payload: what `pack_transition` gave.
        frames: those that are known.
        said: what a base policy said; it goes with the transition where it is about this step.
        entries: of an action, the gripper left out.
    """
    stream, at = _unpack_text(payload)
    layout = _transition(entries)
    values = layout.unpack_from(payload, at)
    episode, index, *translation, opening, source, reward, terminated, truncated, revision = values
    keys = _KEY.iter_unpack(payload[at + layout.size :])
    found = [frames.get((stream, episode, number, stamp)) for number, stamp in keys]
    whole = tuple(frame for frame in found if frame is not None)
    if len(whole) != len(found):
        return None
    base = said[1] if said is not None and said[0] == (stream, episode, index) else None
    action = ExecutedAction(episode, index, np.array(translation), opening, Source(source), base=base)
    ends = bool(terminated), bool(truncated)
    return Entry(stream, Transition(whole[:-1], whole[-1], action, reward, *ends, revision))


def pack_base(stream: str, transition: Transition) -> bytes:
    """Return the payload of what the base policy said at a transition; the log has it in front of the transition."""
    base = transition.action.base
    assert base is not None
    said = *map(float, base.translation), base.opening, base.acts
    return _pack_text(stream) + _BASE.pack(transition.episode, transition.index, *said)


def unpack_base(payload: bytes) -> Said:
    """Return stream, episode and index of the step that it belongs to, and what the base policy said."""
    stream, at = _unpack_text(payload)
    episode, index, x, y, z, opening, acts = _BASE.unpack_from(payload, at)
    return (stream, episode, index), BaseAction(np.array((x, y, z)), opening, bool(acts))


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
    if report.revision:
        content['revision'] = report.revision
    return _pack_text(stream) + json.dumps(content, sort_keys=True).encode()


def unpack_report(payload: bytes) -> Entry:
    """Return the report of a payload."""
    stream, at = _unpack_text(payload)
    content = json.loads(payload[at:])
    outcome = content.pop('outcome')
    dropped = {Reason[name]: count for name, count in content.pop('dropped').items()}
    report = EpisodeReport(outcome=None if outcome is None else Outcome(outcome), dropped=dropped, **content)
    return Entry(stream, report)
