# SPDX-License-Identifier: Apache-2.0
"""Sync reads: one request to several servos for the same block of registers, and their answers.

An answer does not say which request it answers, so a late one could pass as the answer to a later request. But an
answer carries its size, and the state of a servo can be asked for as part of blocks (`Window`) of different sizes.
After a miss another size is asked for; where none is left, the servo is not asked until its answer is overdue for
good. Only an answer of a servo that was asked, of exactly the size that was asked for, counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
import time
from typing import Final

from so101_driver.bus import protocol
from so101_driver.bus.port import ArmPort, BusConfig, BusCounters, LateAnswers
from so101_driver.bus.protocol import Frame, frame_at, HEADER, OVERHEAD
from so101_driver.bus.registers import Reg

STATE_START: Final = Reg.PRESENT_POSITION.address
STATE_END: Final = Reg.PRESENT_CURRENT.end


@dataclass(frozen=True)
class Window:
    """A block of registers.

    Attributes:
        start: address of the first register.
        size: number of bytes.
    """

    start: int
    size: int

    @property
    def state_offset(self) -> int:
        """Where the state begins in a block that includes it."""
        return STATE_START - self.start


def _windows() -> tuple[Window, ...]:
    """Blocks that include the whole state, begin and end at documented registers, and differ in size."""
    starts = (
        Reg.PRESENT_POSITION,
        Reg.LOCK,
        Reg.TORQUE_LIMIT,
        Reg.GOAL_VELOCITY,
        Reg.GOAL_TIME,
        Reg.GOAL_POSITION,
        Reg.ACCELERATION,
        Reg.TORQUE_ENABLE,
    )
    by_size: dict[int, Window] = {}
    for end in (STATE_END, Reg.GOAL_POSITION_2.end):
        for start in starts:
            window = Window(start.address, end - start.address)
            by_size.setdefault(window.size, window)
    return tuple(by_size[size] for size in sorted(by_size))


WINDOWS: Final = _windows()  # the smallest, and so fastest, first


class WindowChooser:
    """Remembers which answers are still due and chooses blocks accordingly.

    Args:
        windows: blocks that the servos let be read, preferred ones first.
        late_window_s: how late an answer can come [s].
    """

    def __init__(self, windows: Sequence[Window], late_window_s: float) -> None:
        self._windows = tuple(windows)
        self._late_window_s = late_window_s
        self._missed_s: dict[tuple[Window, int], float] = {}
        self._last_miss_s = -float('inf')

    def missed(self, window: Window, servo_id: int, now: float) -> None:
        """An answer to a request for this block did not come."""
        self._missed_s[window, servo_id] = now
        self._last_miss_s = now

    def is_due(self, window: Window, servo_id: int, now: float) -> bool:
        """Whether an answer of this size to an earlier request can still come."""
        return now - self._missed_s.get((window, servo_id), -float('inf')) < self._late_window_s

    def choose(self, ids: Iterable[int], now: float) -> Window:
        """The first block for which the fewest of these servos still owe an answer."""
        if now - self._last_miss_s >= self._late_window_s:
            return self._windows[0]
        wanted = tuple(ids)
        return min(
            self._windows,
            key=lambda window: sum(self.is_due(window, servo_id, now) for servo_id in wanted),
        )


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


class AnswerTimer:
    """How long to wait for answers, learnt from how long they usually take.

    A fixed time-out is either too short for a slow USB adapter or wastes a control period on every lost
    packet. This is the estimate of TCP: the mean of what an answer takes beyond its time on the wire, and
    four times its deviation.

    Args:
        floor_s: shortest wait beyond the time on the wire [s].
        ceiling_s: longest wait beyond the time on the wire [s].
    """

    _GAIN = 0.125
    _DEVIATION_GAIN = 0.25
    _PATIENCE = 3  # unfinished answers in a row after which the line counts as having become slower

    def __init__(self, floor_s: float, ceiling_s: float) -> None:
        self._ceiling_s = ceiling_s
        self._floor_s = floor_s
        self._mean_s = ceiling_s
        self._deviation_s = 0.0
        self._learnt = False
        self._unfinished = 0

    def timeout_s(self, wire_s: float) -> float:
        """Time to wait for answers that need `wire_s` on the wire [s]."""
        margin = max(self._floor_s, self._mean_s + 4.0 * self._deviation_s)
        margin *= 2.0 ** max(0, min(10, self._unfinished - self._PATIENCE))
        return wire_s + min(margin, self._ceiling_s)

    def finished(self, extra_s: float) -> None:
        """The last answer came, `extra_s` later than the time of all on the wire [s]."""
        self._unfinished = 0
        if not self._learnt:
            self._learnt = True
            self._mean_s, self._deviation_s = extra_s, extra_s / 2.0
            return
        self._deviation_s += self._DEVIATION_GAIN * (abs(extra_s - self._mean_s) - self._deviation_s)
        self._mean_s += self._GAIN * (extra_s - self._mean_s)

    def unfinished(self) -> None:
        """The last answer did not come."""
        self._unfinished += 1


_GRACE_S = 0.0015  # a begun answer is whole or broken after this


class SyncReads:
    """Sync reads.

    Args:
        port: the open port.
        ids: all servos on it.
        counters: where to count.
        late: whose answers are still due.
        config: times and retries.
    """

    def __init__(
        self,
        port: ArmPort,
        ids: Sequence[int],
        *,
        counters: BusCounters,
        late: LateAnswers,
        config: BusConfig,
    ) -> None:
        self.counters = counters
        self._known_ids = frozenset(ids)
        self._port = port
        self._late = late
        self._config = config
        self._timer = AnswerTimer(config.min_timeout_s, config.timeout_s)
        self._requests: dict[tuple[Window, tuple[int, ...]], bytes] = {}

    def read_register(
        self, register: Reg, ids: tuple[int, ...], *, retries: int | None = None
    ) -> dict[int, int]:
        """Servo id -> decoded value, without the servos that do not answer after all retries."""
        pending, values = ids, dict[int, int]()
        for attempt in range(1 + (self._config.single_retries if retries is None else retries)):
            if not pending:
                break
            self.counters.retried += attempt > 0
            self._late.wait_out(self._port, pending)
            window = Window(register.address, register.size)
            answers = self.ask(window, pending, patience_s=self._config.single_timeout_s)
            values.update({servo_id: register.decode(data) for servo_id, (_, data) in answers.good.items()})
            pending = tuple(servo_id for servo_id in pending if servo_id not in values)
            for servo_id in pending:
                self._late.missed(servo_id)
        return {servo_id: values[servo_id] for servo_id in ids if servo_id in values}

    def ask(self, window: Window, ids: tuple[int, ...], *, patience_s: float = 0.0) -> Answers:
        """One sync read, sent once, and what came of it.

        Args:
            window: the registers.
            ids: the servos.
            patience_s: wait at least this long beyond the time on the wire [s].

        Raises:
            PortError: the port is closed or gone.
        """
        port, timer = self._port, self._timer
        request = self._requests.get((window, ids))
        if request is None:
            request = self._requests[window, ids] = protocol.sync_read(window.start, window.size, ids)
        answer_bytes = len(ids) * (window.size + protocol.OVERHEAD)
        wire_s = protocol.wire_time_s(len(request) + answer_bytes, port.baudrate)
        collector = AnswerCollector(ids, window.size, self._known_ids)
        port.discard_input()
        begin = time.monotonic()
        port.send(request)
        self.counters.sent += 1
        deadline = begin + max(timer.timeout_s(wire_s), wire_s + patience_s)
        ended = False
        while not ended and (data := port.receive(deadline)):
            ended = collector.feed(data)
            if not ended and collector.enough_bytes:
                deadline = min(deadline, time.monotonic() + _GRACE_S)
        answers = collector.result()
        if ended:
            timer.finished(time.monotonic() - begin - wire_s)
        else:
            timer.unfinished()
        self._count(answers, len(ids))
        return answers

    def _count(self, answers: Answers, due: int) -> None:
        missing = due - len(answers.good)
        damaged = min(missing, answers.damaged)
        self.counters.received += len(answers.good)
        self.counters.late += answers.late
        self.counters.corrupt += damaged
        self.counters.lost += missing - damaged
