# SPDX-License-Identifier: Apache-2.0
"""The answers of several servos to one request, found in the bytes that come."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from so101_driver.bus.protocol import Frame, frame_at, HEADER, OVERHEAD

_HIGHEST_ERROR = 0x7F  # bit 7 of the error byte is never set


@dataclass
class Answers:
    """What came after one request.

    Attributes:
        good: servo id -> (error byte, payload).
        late: whole answers to some other request.
        damaged: estimated number of answers whose bytes are broken.
        broken: servos whose answer came broken, as far as its first bytes say so; none of theirs can come
        late.
    """

    good: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    late: int = 0
    damaged: int = 0
    broken: set[int] = field(default_factory=set)


class AnswerCollector:
    """Takes the bytes after one request in pieces, resynchronises on noise, and says when enough has come.

    Args:
        ids: the servos that were asked, in this order.
        size: number of bytes that were asked for.
        known_ids: all servos whose answers can turn up; those that were asked by default.
    """

    def __init__(self, ids: Sequence[int], size: int, known_ids: Collection[int] | None = None) -> None:
        self._ids = ids
        self._known_ids = ids if known_ids is None else known_ids
        self._size = size
        self._step = size + OVERHEAD
        self._total = self._step * len(ids)
        self._last_header = HEADER + bytes((ids[-1], size + 2))
        self._buffer = bytearray()
        self._answers: Answers | None = None

    def feed(self, data: bytes) -> bool:
        """Take bytes; True when no further answer is due.

        Servos answer in the order in which they were asked, so the answer of the last one is the end, whether
        or not the others came.
        """
        self._buffer += data
        if len(self._buffer) < self._step:
            return False
        if len(self._buffer) == self._total:
            self._answers = self._all_in_place()
            if self._answers is not None:
                return True
        start = self._buffer.rfind(self._last_header)
        if start < 0 or len(self._buffer) - start < self._step:
            return False
        return self._ids[-1] in self._sort().good

    @property
    def enough_bytes(self) -> bool:
        """Whether as many bytes came as all answers have, or the last answer has begun.

        After that only the rest of a begun answer can follow, so that a short wait is enough.
        """
        return len(self._buffer) >= self._total or self._last_header in self._buffer

    def result(self) -> Answers:
        """What came so far, sorted."""
        return self._answers if self._answers is not None else self._sort()

    def _all_in_place(self) -> Answers | None:
        """The usual case: every answer, whole, in order, and nothing else; None in any other case."""
        buffer, step, good = self._buffer, self._step, {}
        start = 0
        for servo_id in self._ids:
            end = start + step
            if (
                buffer[start] != 0xFF
                or buffer[start + 1] != 0xFF
                or buffer[start + 2] != servo_id
                or buffer[start + 3] != self._size + 2
                or buffer[start + 4] > _HIGHEST_ERROR
                or sum(buffer[start + 2 : end]) & 0xFF != 0xFF
            ):
                return None
            good[servo_id] = (buffer[start + 4], bytes(buffer[start + 5 : end - 1]))
            start = end
        return Answers(good)

    def _sort(self) -> Answers:
        answers = Answers()
        position = 0
        for start, frame in self._candidates():
            self._sort_rest(answers, self._buffer[position:start])
            if frame.servo_id in answers.good:
                answers.late += 1  # answers come in the order of the requests: the last one is the fresh one
            answers.good[frame.servo_id] = (frame.code, frame.payload)
            position = start + self._step
        self._sort_rest(answers, self._buffer[position:])
        return answers

    def _candidates(self) -> list[tuple[int, Frame]]:
        """Every place at which an answer of the right servo, size and checksum lies, and nothing else."""
        found = []
        start = self._buffer.find(HEADER)
        while start >= 0:
            frame = frame_at(self._buffer, start)
            if isinstance(frame, Frame) and self._fits(frame) and not self._swallowed_another(start):
                found.append((start, frame))
                start += self._step - 1
            start = self._buffer.find(HEADER, start + 1)
        return found

    def _fits(self, frame: Frame) -> bool:
        return (
            frame.servo_id in self._ids and len(frame.payload) == self._size and frame.code <= _HIGHEST_ERROR
        )

    def _swallowed_another(self, start: int) -> bool:
        """Whether another answer begins before this one ends.

        An answer that lost bytes takes the first ones of the next for its own, and in one of 256 cases its
        checksum fits all the same.
        """
        end = start + self._step
        inside = self._buffer.find(HEADER, start + 2, end + 1)
        while inside >= 0:
            if inside + 2 < len(self._buffer) and self._buffer[inside + 2] in self._known_ids:
                return True
            inside = self._buffer.find(HEADER, inside + 1, end + 1)
        return False

    def _sort_rest(self, answers: Answers, rest: bytes | bytearray) -> None:
        """Count what lies between good answers: whole frames are late, other bytes are damaged answers."""
        position = broken = 0
        while position < len(rest):
            headed = rest.startswith(HEADER, position)
            frame = frame_at(rest, position) if headed else None
            if isinstance(frame, Frame):
                answers.late += 1
                position += len(frame.payload) + OVERHEAD
            else:
                if headed and rest[position + 3 : position + 4] == bytes((self._size + 2,)):
                    answers.broken.add(rest[position + 2])
                broken += 1
                position += 1
        answers.damaged += -(-broken // self._step)
