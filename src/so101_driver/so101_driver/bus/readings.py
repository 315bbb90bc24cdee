# SPDX-License-Identifier: Apache-2.0
"""What the bus knows of the arm: the last good state of each servo, read anew in every cycle of the control loop.

A sync read is one request to several servos for the same block of registers. An answer does not say which request it
answers, so a late one could pass as the answer to a later request. But an answer carries its size, and the state of a
servo can be asked for as part of blocks (`Window`) of different sizes. After a miss another size is asked for; where
none is left, the servo is not asked until its answer is overdue for good. Only an answer of a servo that was asked, of
exactly the size that was asked for, counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
import math
import struct
import time
from typing import Final

from so101_driver.bus import protocol
from so101_driver.bus.answers import AnswerCollector, Answers
from so101_driver.bus.config import BusConfig, BusCounters
from so101_driver.bus.port import ArmPort
from so101_driver.bus.registers import (
    CURRENT_UNIT_A,
    decode_sign_magnitude,
    LOAD_FULL_SCALE,
    NO_FAULT,
    Reg,
    ServoError,
    VOLTAGE_UNIT_V,
    wrap_ticks,
)
from so101_driver.bus.single import AnswerTimer, LateAnswers

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
        self.now = port.now
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


_PROBES = 3
_SILENT_AFTER = 5  # cycles without an answer after which a servo is no longer asked twice
# position, velocity, load, voltage, temperature, REG WRITE flag, status, moving, target, current
_STATE = struct.Struct('<HHHBBBBBHH')


@dataclass(frozen=True, slots=True)
class ServoReading:
    """Last good state of one servo.

    Attributes:
        servo_id: id on the bus.
        ok: whether this state came in the present cycle; False means that it is `age_s` old.
        age_s: time since this state was measured [s]; infinity where none ever came.
        position_ticks: position as the servo says it, signed [ticks]; outside 0..4095 in multi-turn only.
        velocity_ticks_s: speed [ticks/s].
        load: duty of the motor -1..1, positive with positive speed. Not a torque.
        voltage_v: supply voltage [V].
        temperature_c: temperature [degC].
        current_a: motor current [A].
        status: faults in register 65.
        error: faults in the error byte of the answer.
        moving: whether the servo says that it moves.
    """

    servo_id: int
    ok: bool = False
    age_s: float = math.inf
    position_ticks: int = 0
    velocity_ticks_s: int = 0
    load: float = 0.0
    voltage_v: float = 0.0
    temperature_c: float = 0.0
    current_a: float = 0.0
    status: ServoError = NO_FAULT
    error: ServoError = NO_FAULT
    moving: bool = False

    @property
    def faults(self) -> ServoError:
        """Every fault that the servo reports, in the error byte or in register 65."""
        return self.status | self.error

    @property
    def wrapped_ticks(self) -> int:
        """Position on one turn, 0..4095, the same angle as `position_ticks`."""
        return wrap_ticks(self.position_ticks)

    @property
    def known(self) -> bool:
        """Whether a state ever came."""
        return math.isfinite(self.age_s)


@dataclass(frozen=True, slots=True)
class BusReading:
    """State of all servos after one cycle.

    Attributes:
        stamp_s: time of the arm (`ServoBus.now`) at which the cycle began [s].
        duration_s: how long the cycle took, retries included [s].
        servos: one entry per expected servo, in the order of the bus's ids.
    """

    stamp_s: float
    duration_s: float
    servos: tuple[ServoReading, ...]

    @property
    def ok(self) -> bool:
        """Whether every servo answered in this cycle."""
        return all(servo.ok for servo in self.servos)

    @property
    def missing(self) -> tuple[int, ...]:
        """Ids of the servos that did not answer in this cycle."""
        return tuple(servo.servo_id for servo in self.servos if not servo.ok)

    def servo(self, servo_id: int) -> ServoReading:
        """Reading of one servo.

        Raises:
            KeyError: the bus does not expect this id.
        """
        for servo in self.servos:
            if servo.servo_id == servo_id:
                return servo
        raise KeyError(f'Servo {servo_id} is not among the expected ids {[s.servo_id for s in self.servos]}.')


class StateReader:
    """Reads the state of all servos cycle by cycle and keeps the last good one of each.

    Args:
        sync: the sync reads.
        ids: the servos, in the order of the joints.
        config: times and retries.
    """

    def __init__(self, sync: SyncReads, ids: Sequence[int], config: BusConfig) -> None:
        self._sync = sync
        self.now = sync.now
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
            len(self._sync.ask(window, self._ids, patience_s=patience_s).good) == len(self._ids)
            for _ in range(_PROBES)
        )

    def cycle(self) -> BusReading:
        """State and faults of all servos, in one transaction where nothing is lost.

        Servos whose answer is missing are asked again, `config.retries` times within `config.budget_s`. What
        is missing then keeps its last good state, with `ok` False and its age.

        Raises:
            PortError: the port is closed or gone; call `ServoBus.reconnect` until it returns True.
        """
        begin = self.now()
        fresh: dict[int, ServoReading] = {}
        # A mute servo goes first: the answer of the last one then ends the wait for it.
        pending = tuple(sorted(self._ids, key=self._talks))
        for attempt in range(1 + self._config.retries):
            self._sync.counters.retried += attempt > 0
            taken = self._attempt(pending)
            fresh.update(taken)
            pending = tuple(filter(self._talks, (servo_id for servo_id in pending if servo_id not in taken)))
            if not pending or self.now() - begin > self._config.budget_s:
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
            answers = self._sync.ask(window, asked)
        except BaseException:  # an interrupt leaves answers on the way
            for servo_id in asked:
                chooser.missed(window, servo_id, time.monotonic())
            raise
        for servo_id in asked:
            if servo_id in answers.good:
                self._stamps_s[servo_id] = self.now()
            elif servo_id not in answers.broken:
                chooser.missed(window, servo_id, time.monotonic())
        return {
            servo_id: decode_state(servo_id, error, payload, window)
            for servo_id, (error, payload) in answers.good.items()
        }

    def _talks(self, servo_id: int) -> bool:
        return self._misses[servo_id] < _SILENT_AFTER

    def _reading(self, begin: float, fresh: Mapping[int, ServoReading]) -> BusReading:
        end = self.now()
        for servo_id in self._ids:
            if servo_id in fresh:
                self._states[servo_id] = fresh[servo_id]
                self._misses[servo_id] = 0
            else:
                age_s = end - self._stamps_s[servo_id]
                self._states[servo_id] = replace(self._states[servo_id], ok=False, age_s=age_s)
                self._misses[servo_id] += 1
        counters = self._sync.counters
        counters.cycles += 1
        counters.full_cycles += len(fresh) == len(self._ids)
        return BusReading(begin, end - begin, tuple(self._states[servo_id] for servo_id in self._ids))


def decode_state(servo_id: int, error: int, payload: bytes, window: Window) -> ServoReading:
    """State of a servo from the answer that has just come.

    Args:
        servo_id: the servo.
        error: error byte of the answer.
        payload: registers of `window`.
        window: the block that was asked for.
    """
    position, velocity, load, voltage, temperature, _, status, moving, _, current = _STATE.unpack_from(
        payload, window.state_offset
    )
    return ServoReading(
        servo_id=servo_id,
        ok=True,
        age_s=0.0,
        position_ticks=decode_sign_magnitude(position, 15),
        velocity_ticks_s=decode_sign_magnitude(velocity, 15),
        load=decode_sign_magnitude(load, 10) / LOAD_FULL_SCALE,
        voltage_v=voltage * VOLTAGE_UNIT_V,
        temperature_c=float(temperature),
        current_a=decode_sign_magnitude(current, 15) * CURRENT_UNIT_A,
        status=ServoError(status) if status else NO_FAULT,
        error=ServoError(error) if error else NO_FAULT,
        moving=bool(moving),
    )
