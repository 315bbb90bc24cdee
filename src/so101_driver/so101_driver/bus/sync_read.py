# SPDX-License-Identifier: Apache-2.0
"""Reads of several servos in one transaction: one register on request, or the whole state cycle by cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
import time

from so101_driver.bus import protocol
from so101_driver.bus.answers import AnswerCollector, Answers
from so101_driver.bus.config import BusConfig
from so101_driver.bus.counters import BusCounters
from so101_driver.bus.cyclic import AnswerTimer, decode_state
from so101_driver.bus.port import ArmPort
from so101_driver.bus.readings import BusReading, ServoReading
from so101_driver.bus.registers import Reg
from so101_driver.bus.transactions import LateAnswers
from so101_driver.bus.windows import Window, WindowChooser, WINDOWS

_GRACE_S = 0.0015  # a begun answer is whole or broken after this
_PROBES = 3
_SILENT_AFTER = 5  # cycles without an answer after which a servo is no longer asked twice


class GroupTransactions:
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


class StateReader:
    """Reads the state of all servos cycle by cycle and keeps the last good one of each.

    Args:
        group: the sync reads.
        ids: the servos, in the order of the joints.
        config: times and retries.
    """

    def __init__(self, group: GroupTransactions, ids: Sequence[int], config: BusConfig) -> None:
        self._group = group
        self._ids = tuple(ids)
        self._config = config
        self._chooser = WindowChooser(WINDOWS, config.late_window_s)
        self._states = {servo_id: ServoReading(servo_id) for servo_id in self._ids}
        self._stamps_s = dict.fromkeys(self._ids, -float('inf'))
        self._misses = dict.fromkeys(self._ids, 0)

    def probe_windows(self) -> None:
        """Find out which blocks the servos let be read, for telling late answers apart."""
        readable = tuple(filter(self._can_read, WINDOWS))
        self._chooser = WindowChooser(readable or WINDOWS[:1], self._config.late_window_s)

    def _can_read(self, window: Window) -> bool:
        patience_s = self._config.single_timeout_s
        return any(
            len(self._group.ask(window, self._ids, patience_s=patience_s).good) == len(self._ids)
            for _ in range(_PROBES)
        )

    def cycle(self) -> BusReading:
        """One cycle; see `ServoBus.cycle_read`."""
        begin = time.monotonic()
        fresh: dict[int, ServoReading] = {}
        # A mute servo goes first: the answer of the last one then ends the wait for it.
        pending = tuple(sorted(self._ids, key=self._talks))
        for attempt in range(1 + self._config.retries):
            self._group.counters.retried += attempt > 0
            taken = self._attempt(pending)
            fresh.update(taken)
            pending = tuple(filter(self._talks, (servo_id for servo_id in pending if servo_id not in taken)))
            if not pending or time.monotonic() - begin > self._config.budget_s:
                break
        return self._reading(begin, fresh)

    def _attempt(self, ids: tuple[int, ...]) -> dict[int, ServoReading]:
        """Ask once, and only those servos from which no earlier answer of the same size can still come."""
        chooser, begin = self._chooser, time.monotonic()
        window = chooser.choose(filter(self._talks, ids), begin)
        asked = tuple(servo_id for servo_id in ids if not chooser.is_due(window, servo_id, begin))
        if not asked:
            return {}
        try:
            answers = self._group.ask(window, asked)
        except BaseException:  # an interrupt leaves answers on the way
            for servo_id in asked:
                chooser.missed(window, servo_id, time.monotonic())
            raise
        now = time.monotonic()
        for servo_id in asked:
            if servo_id in answers.good:
                self._stamps_s[servo_id] = now
            elif servo_id not in answers.broken:
                chooser.missed(window, servo_id, now)
        return {
            servo_id: decode_state(servo_id, error, payload, window)
            for servo_id, (error, payload) in answers.good.items()
        }

    def _talks(self, servo_id: int) -> bool:
        return self._misses[servo_id] < _SILENT_AFTER

    def _reading(self, begin: float, fresh: Mapping[int, ServoReading]) -> BusReading:
        end = time.monotonic()
        for servo_id in self._ids:
            if servo_id in fresh:
                self._states[servo_id] = fresh[servo_id]
                self._misses[servo_id] = 0
            else:
                age_s = end - self._stamps_s[servo_id]
                self._states[servo_id] = replace(self._states[servo_id], ok=False, age_s=age_s)
                self._misses[servo_id] += 1
        counters = self._group.counters
        counters.cycles += 1
        counters.full_cycles += len(fresh) == len(self._ids)
        return BusReading(begin, end - begin, tuple(self._states[servo_id] for servo_id in self._ids))
